"""The VMM's HTTP API, version 1. Handlers run in the event loop, one at a time: each is one transaction."""
