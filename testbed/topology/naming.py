"""Names and numbers derived from what they belong to, so that adding something changes nothing else."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable

from testbed.topology.schema import Network

# By the PA's family: outer IP header 20 or 40, GRE 8, inner Ethernet header 14.
NVGRE_OVERHEAD = {4: 42, 6: 62}
VM_MTU = 1500
MIN_IPV6_MTU = 1280

_MAC_PREFIX = "00:15:5d"  # Hyper-V's own
_RDID_NAMESPACE = uuid.UUID("0d3c1f0e-7a51-5c0b-9a53-6b1f6f6e7637")
_MAX_INTERFACE_NAME = 15


def vm_mtu(pa_mtu: int, pa_version: int, vsid: int, *, legacy: bool = False) -> int:
    """Bytes of IP packet for a VM's adapter. With jumbo frames below, the VM keeps 1500.

    A legacy adapter keeps it always: HNV reduces the MTU of synthetic adapters only.
    """
    if vsid == 0:
        return pa_mtu
    return VM_MTU if legacy else min(VM_MTU, pa_mtu - NVGRE_OVERHEAD[pa_version])


def canonical_mac(mac: str) -> str:
    """Lower case, colons."""
    return mac.lower().replace("-", ":")


def canonical_rdid(guid: str) -> str:
    """Lower case, in braces."""
    return "{" + guid.strip("{}").lower() + "}"


def network_rdid(topology: str, network: Network) -> str:
    """The network's own RDID, or one made from its name and the topology's."""
    if network.rdid is not None:
        return canonical_rdid(network.rdid)
    return canonical_rdid(str(uuid.uuid5(_RDID_NAMESPACE, f"{topology}/{network.name}")))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def assign_macs(identities: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A MAC address for each identity, made from the identity alone; ``taken`` are never used.

    In the rare case that two identities give the same address, the later one in alphabetical order
    gets another.
    """
    used = set(taken)
    macs = {}
    for identity in sorted(identities):
        attempt = 0
        while True:
            tail = _digest(f"{identity}#{attempt}" if attempt else identity)
            mac = f"{_MAC_PREFIX}:{tail[0:2]}:{tail[2:4]}:{tail[4:6]}"
            if mac not in used:
                break
            attempt += 1
        used.add(mac)
        macs[identity] = mac
    return macs


class InterfaceNames:
    """Kernel names of the interfaces of one network namespace: at most 15 characters, each once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._used = {"lo", "all", "default", *taken}

    def take(self, wanted: str, ending: str = "") -> str:
        """``wanted + ending`` when it fits and is free, else shortened in the middle with a hash."""
        name, attempt = wanted + ending, 0
        while len(name) > _MAX_INTERFACE_NAME or name in self._used:
            middle = "-" + _digest(f"{wanted}#{attempt}")[:5]
            name = wanted[: _MAX_INTERFACE_NAME - len(middle) - len(ending)].rstrip("-") + middle + ending
            attempt += 1
        self._used.add(name)
        return name
