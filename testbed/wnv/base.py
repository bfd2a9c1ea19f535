"""What the WNV filter is in both of its places: tables, forwarding, and the next hop for the curious."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod

from testbed.errors import BadInput
from testbed.packets.ethernet import format_mac
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import WNV
from testbed.switch.state import SwitchState
from testbed.wnv.forwarding import Forwarding, find_next_hop
from testbed.wnv.objects import is_group
from testbed.wnv.tables import Tables

_REMEDY = {
    Drop.NO_CUSTOMER_ROUTE: "add a customer route of the VSID's routing domain",
    Drop.NO_LOOKUP_RECORD: "add a lookup record of it, or of the route's next hop",
}


class Filter(ABC):
    """Base of the filters. Whoever changes its ``tables`` makes the switch forget its cached flows."""

    name = WNV

    def __init__(self, state: SwitchState, *, flow_entropy: bool = True) -> None:
        self._state = state
        self._forwarding = Forwarding(state, flow_entropy=flow_entropy)

    @abstractmethod
    def outbound(self, packet: Packet) -> Verdict:
        """A VM's packet, or the copy of it that goes to the uplink."""

    @abstractmethod
    def inbound(self, packet: Packet) -> Verdict:
        """A frame from the wire."""

    def delivered(self, packet: Packet) -> None:  # noqa: B027  most filters don't care
        """A packet from a VM or from the wire reaches its ports."""

    @property
    def tables(self) -> Tables:
        """The policy."""
        return self._forwarding.tables

    @tables.setter
    def tables(self, tables: Tables) -> None:
        """Another policy, as a whole."""
        self._forwarding.tables = tables

    def select_next_hop(self, source_ca: str | None, destination_ca: str, vsid: int) -> dict[str, str | int]:
        """Where a packet of the VSID to a CA goes next (Select-NetVirtualizationNextHop).

        The fields are those of its result; what is not known is "". Raises BadInput when the packet
        would go nowhere.
        """
        source = None if source_ca is None else _packed("source_ca", source_ca)
        destination = _packed("destination_ca", destination_ca)
        found = find_next_hop(self.tables, vsid, destination)
        if isinstance(found, Drop):
            raise BadInput(
                f"select-next-hop: {destination_ca} from VSID {vsid}: {found}: {_REMEDY.get(found, '')}"
            )
        sender = None if source is None else self.tables.records.get((vsid, source))
        return {
            "source_customer_address": "" if source is None else _text(source),
            "destination_customer_address": _text(destination),
            "source_virtual_subnet_id": vsid,
            "next_hop_address": _text(found.address),
            "source_mac_address": "" if sender is None else format_mac(sender.mac),
            "next_hop_mac_address": format_mac(found.record.mac),
        }


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _packed(name: str, text: str) -> bytes:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        message = f"select-next-hop: {name} {text!r} is no IP address: write it like 10.0.0.5 or fd00::5"
        raise BadInput(message) from None
    if is_group(address):
        raise BadInput(f"select-next-hop: {name} {text} is a group, which has no next hop: give one VM's CA")
    return address.packed
