"""The VMM's durable state: one SQLite file."""
