"""NIC teams: which NIC a packet leaves by."""
