"""Links, addresses and NIC hardware of a lab: a function of the Plan and namespace handles.

The only user of pyroute2 beside the baseline of the bench. Nothing here knows of engines.
"""
