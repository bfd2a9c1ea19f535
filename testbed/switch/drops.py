"""Every reason for which the switch does not pass a packet on.

Extensions have reasons of their own, "NAME:REASON" (see :class:`testbed.switch.packet.Denied`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

# packets by stage, port or NIC, VSID (0: not virtualised, or not known yet) and reason
DropCounts: TypeAlias = "dict[tuple[str, str, int, str], int]"


class Drop(StrEnum):
    """Named reasons; the value is what counters show."""

    # port
    MALFORMED = "malformed"  # truncated, or a length lies
    INNER_TAGGED = "inner-tagged"  # 802.1Q tag inside NVGRE (RFC 7637 section 3.3)
    PORT_REFUSED = "port-refused"  # the VM's NIC took no more (down, or its queue is full)
    PORT_REMOVED = "port-removed"  # it went while its packet waited for a PA neighbor
    # WNV filter, from a VM
    NOT_IP = "not-ip"  # HNV carries IP and ARP only
    NO_CUSTOMER_ROUTE = "no-customer-route"
    NO_LOOKUP_RECORD = "no-lookup-record"
    GATEWAY_ADDRESS = "gateway-address"  # the default gateway's CA answers ARP/ND only
    NO_PROVIDER_ADDRESS = "no-provider-address"  # the VSID has no preferred PA on this host
    NO_PROVIDER_ROUTE = "no-provider-route"
    PA_UNREACHABLE = "pa-unreachable"  # the PA next hop does not answer ARP
    NEIGHBOR_CONSUMED = "neighbor-consumed"  # ARP/ND that ends in the filter: probes, announcements
    OVERSIZE = "oversize"  # longer than the CA MTU: the VM is told so (ICMP)
    NOT_TRANSLATABLE = "not-translatable"  # to a record of rule Nat or None, from none of that rule
    ROUTER_BLOCKED = "router-blocked"  # router advertisements and redirects of a VM
    # WNV filter below the switch (2012)
    WNV_UNBOUND = "wnv-unbound"  # the filter is not bound to the NIC
    FLOODED = "flooded"  # broadcast and multicast end at the filter
    UNKNOWN_MAC = "unknown-mac"  # the destination MAC is neither a record's nor the gateway's
    # extensions
    EXTENSION_CRASHED = "extension-crashed"
    # WNV filter, from the wire
    NOT_NVGRE = "not-nvgre"  # no port takes frames outside virtual subnets
    PA_NOT_LOCAL = "pa-not-local"
    OWN_PACKET = "own-packet"  # what this host sent to a group came back through another NIC
    POLICY_MISMATCH = "policy-mismatch"  # unknown VSID, or a PA that no record of the network names
    NO_PORT = "no-port"  # no port of that VSID has the destination MAC
    # NIC
    BAD_CHECKSUM = "bad-checksum"  # of a received frame, where the NIC verifies it
    OTHER_MEMBER = "other-member"  # it came to several NICs of the team, of which another one takes it
    NOT_FOR_US = "not-for-us"  # the fabric flooded a frame for another host
    RX_OVERRUN = "rx-overrun"  # the kernel dropped before the switch could read
    TX_REFUSED = "tx-refused"  # the NIC took no more
    TX_OVERSIZE = "tx-oversize"  # longer than the PA network's MTU and not segmentable
    NO_UPLINK = "no-uplink"  # the team has no NIC


def count(drops: DropCounts, stage: str, name: str, vsid: int, reason: str, packets: int = 1) -> None:
    """One more packet dropped, or several."""
    key = (stage, name, vsid, reason)
    drops[key] = drops.get(key, 0) + packets
