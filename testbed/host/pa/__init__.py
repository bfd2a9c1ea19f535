"""The provider address space of a host: its PAs, their neighbors and multicast groups, on one NIC.

PAs live here and not in the kernel: ``ip addr`` on the host does not show them. :mod:`.space` is
what others use; states and duplicate detection are in :mod:`.addresses`, ARP and ND for others'
addresses in :mod:`.neighbors`, IGMP and MLD in :mod:`.groups`, ping in :mod:`.echo`, ARP and ND as
one protocol in :mod:`.wire`, the socket in :mod:`.link`.
"""
