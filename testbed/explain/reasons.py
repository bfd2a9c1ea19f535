"""What a drop reason of a switch means for the one who looks for a cause."""

from __future__ import annotations

from testbed.explain.model import Cause, Weight
from testbed.switch.drops import Drop

# Part of normal life: what comes to where it is not for.
QUIET = frozenset({Drop.NEIGHBOR_CONSUMED, Drop.NOT_FOR_US, Drop.OTHER_MEMBER, Drop.OWN_PACKET})

MEANING: dict[str, tuple[str, str]] = {
    Drop.NO_LOOKUP_RECORD: ("missing-record", "it has no lookup record of the destination"),
    Drop.NO_CUSTOMER_ROUTE: ("missing-route", "no customer route leads to the destination"),
    Drop.NO_PROVIDER_ADDRESS: (
        "provider-address",
        "it has no provider address in use for the virtual subnet",
    ),
    Drop.NO_PROVIDER_ROUTE: ("pa-route", "no route of the PA network leads to the other host"),
    Drop.PA_UNREACHABLE: ("pa-unreachable", "the other host's provider address does not answer"),
    Drop.POLICY_MISMATCH: (
        "stale-record",
        "its policy does not know the VSID, or the sender's provider address",
    ),
    Drop.PA_NOT_LOCAL: ("stale-record", "the packet was sent to a provider address that it does not have"),
    Drop.NO_PORT: ("stale-record", "no port of the virtual subnet has the MAC of the lookup record"),
    Drop.NO_UPLINK: ("team", "no member of its team works"),
    Drop.WNV_UNBOUND: ("dropped", "its WNV filter is not bound to the NIC"),
    Drop.BAD_CHECKSUM: ("lossy-cable", "the packet was corrupted on its way"),
    Drop.TX_OVERSIZE: ("fabric-mtu", "the packet is longer than the PA network's MTU"),
    Drop.OVERSIZE: ("fabric-mtu", "the packet is longer than the PA network's MTU allows"),
}
EXTENSIONS = ("acl", "port-security")


def cause_of(host: str, stage: str, reason: str, packet: str, weight: int = Weight.PROBED) -> Cause:
    """The cause that a drop points to. ``packet``: which one, such as "the request from blue1"."""
    name, colon, rule = reason.partition(":")
    if colon and name not in tuple(Drop):
        kind = name if name in EXTENSIONS else "extension"
        where = f"{host}'s extension {name} ({rule}, stage {stage})"
        return Cause(kind, weight, f"{where} drops {packet}")
    kind, words = MEANING.get(name, ("dropped", "see the drop reasons of docs/architecture.md"))
    return Cause(kind, weight, f"{host} drops {packet} ({name}, stage {stage}): {words}")
