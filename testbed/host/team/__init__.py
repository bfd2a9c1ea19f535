"""The team of a host: which members work and what that changes, and the switch at their other end."""
