"""The command line. Each verb imports what it needs when it runs: start-up time is measured."""
