"""The switch extensions that ship with the testbed, made like any user's own."""
