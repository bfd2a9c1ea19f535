"""The live view of a lab in a terminal: keys, what is chosen, how it is drawn, the loop of all that."""
