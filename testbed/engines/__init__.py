"""Engines: where the nodes of a lab live."""
