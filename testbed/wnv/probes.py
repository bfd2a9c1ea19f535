"""Asking a VM of this host whether it still has an address: neighbor unreachability detection at its port.

ARP: a probe (RFC 5227 section 1.1), which leaves no entry in the guest's cache. ND: a unicast
solicitation (RFC 4861 section 7.3) from the default gateway or, where a subnet has none of the family,
from a link-local address of nobody's; never one from ::, which would take an address from a guest that
is still checking it (RFC 4862 section 5.4.3). The answer is for the switch and ends there.
"""

from __future__ import annotations

from testbed.packets import arp, ndp
from testbed.packets.checksum import Buffer
from testbed.switch.port import Port
from testbed.wnv.tables import Tables

# Where the subnet has no gateway in whose name to ask (chosen)
NOBODY_MAC = b"\x02\x00\x00\x00\x00\x01"
NOBODY = b"\xfe\x80" + bytes(6) + b"\x00\x00\x00\xff\xfe\x00\x00\x01"  # RFC 4291 appendix A, of that MAC


class Probes:
    """Which answers are awaited, by port and address, and whether they have come."""

    def __init__(self) -> None:
        self._awaited: dict[str, dict[bytes, bool]] = {}

    def send(self, tables: Tables, port: Port, address: bytes) -> None:
        """Ask for an address (4 or 16 bytes); the answer is awaited from now on."""
        self._awaited.setdefault(port.name, {}).setdefault(address, False)
        port.send(_frame(tables, port, address))  # a NIC that is down takes none, and is silent

    def answered(self, port: str, address: bytes) -> bool:
        """Whether the VM has been heard with the address since it was asked."""
        return self._awaited.get(port, {}).get(address, False)

    def end(self, port: str, address: bytes) -> None:
        """Await it no longer."""
        if awaited := self._awaited.get(port):
            awaited.pop(address, None)
            if not awaited:
                del self._awaited[port]

    def forget(self, port: str) -> None:
        """The port is gone, or another's."""
        self._awaited.pop(port, None)

    def heard(self, port: str, address: bytes) -> None:
        """A VM has spoken ARP or ND with one of its addresses."""
        awaited = self._awaited.get(port)
        if awaited and address in awaited:
            awaited[address] = True


def is_answer_arp(tables: Tables, vsid: int, frame: Buffer, message: arp.Arp) -> bool:
    """Whether an ARP message answers a question of the switch, so that nobody else is to get it."""
    return message.target_ip == bytes(4) and frame[:6] == _asker(tables, vsid, 4)[0]


def is_answer_nd(tables: Tables, vsid: int, frame: Buffer, message: ndp.Neighbor) -> bool:
    """The same for ND."""
    return (bytes(frame[:6]), message.destination) == _asker(tables, vsid, 16)


def _frame(tables: Tables, port: Port, address: bytes) -> bytes:
    mac, source = _asker(tables, port.vsid, len(address))
    if len(address) == 4:
        return arp.build(arp.Arp(arp.REQUEST, mac, bytes(4), bytes(6), address), port.mac)
    question = ndp.Neighbor(ndp.NEIGHBOR_SOLICITATION, source, address, address, 0, mac)
    return ndp.build(question, port.mac, mac)


def _asker(tables: Tables, vsid: int, size: int) -> tuple[bytes, bytes]:
    """MAC and address in whose name a VM is asked."""
    mac, address = tables.gateway_mac(vsid, size), tables.gateway(vsid, size)
    return (mac, address) if mac and address else (mac or NOBODY_MAC, NOBODY)
