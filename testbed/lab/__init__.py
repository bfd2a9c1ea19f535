"""Labs: build, find, change, inspect and end them."""
