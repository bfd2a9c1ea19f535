"""What the tests share: the command line as a subprocess, and what a test may not leave behind."""
