"""Measurements kept in a file, with the environment in which they were made."""
