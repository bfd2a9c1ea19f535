"""The team stage: which NIC a packet leaves through, and under which MAC (hnv.md section 10).

| mode | ARP and ND | source MAC |
|---|---|---|
| SwitchIndependent, address hash | primary | other members: their own; primary: the original |
| SwitchIndependent, HyperVPort | the home, as everything | the original |
| SwitchIndependent, Dynamic | the home | other members: their own; the home: the original |
| Static, Lacp | any | the original |

The original is the MAC of a VM of VSID 0, and of encapsulated packets that of their PA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from testbed.packets import ethernet, ndp
from testbed.packets.malformed import MalformedFrame
from testbed.switch.buffer import Action
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import TEAM, leaves
from testbed.switch.roles import Roles
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink
from testbed.teaming.flowlets import BUCKETS, Bucket, Flowlets, balanced
from testbed.teaming.hashing import flow_hash

Make = Callable[[Uplink, bytes], Action]
_ND = (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT)


class _Through:
    """Through one NIC."""

    __slots__ = ("mac", "uplink")

    def __init__(self, uplink: Uplink, mac: bytes) -> None:
        self.uplink, self.mac = uplink, mac

    def through(self, make: Make) -> Action:
        """The one action."""
        return make(self.uplink, self.mac)

    def chosen(self) -> _Through:
        """Itself."""
        return self


class _InTurns:
    """Through whichever NIC the flow's bucket has."""

    __slots__ = ("_bucket", "_flowlets", "_mac_of")

    def __init__(self, flowlets: Flowlets, bucket: Bucket, mac_of: Callable[[Uplink], bytes]) -> None:
        self._flowlets, self._bucket, self._mac_of = flowlets, bucket, mac_of

    def through(self, make: Make) -> Action:
        """An action that chooses one for each packet."""
        return balanced(self._flowlets, self._bucket, lambda uplink: make(uplink, self._mac_of(uplink)))

    def chosen(self) -> _Through:
        """Through the NIC that the flow's next packet would take now."""
        uplink = self._flowlets.preview(self._bucket)
        return _Through(uplink, self._mac_of(uplink))

    def why(self, uplink: Uplink) -> str:
        """Why that is ``uplink``."""
        if self._bucket.uplink is uplink:
            return "the member of the flow's bucket"
        return "the least loaded member now"


class _Home(NamedTuple):
    """A sender's home, who speaks for it now, and the MAC that the fabric knows it by (b"": the frame's)."""

    name: str
    uplink: Uplink | None
    mac: bytes

    def is_original(self, member: str, roles: Roles) -> bool:
        """Whether what would leave through a member keeps its MAC."""
        return roles.plan.has_partner or member == self.name

    def mac_through(self, uplink: Uplink, roles: Roles) -> bytes:
        """The MAC under which a frame leaves through a NIC."""
        return self.mac if roles.plan.has_partner or uplink is self.uplink else uplink.mac

    def through(self, uplink: Uplink | None, roles: Roles) -> _Through:
        """Through just this NIC."""
        assert uplink is not None
        return _Through(uplink, self.mac_through(uplink, roles))


class TeamStage:
    """Gives packets their way out. ``flowlets``: where Dynamic keeps its flows."""

    name = TEAM

    def __init__(self, state: SwitchState, flowlets: Flowlets | None = None) -> None:
        self._state = state
        self._flowlets = flowlets or Flowlets()

    def outbound(self, packet: Packet) -> Verdict:
        """Give the packet its egress, if it leaves the host at all; without one, copies are ``no-uplink``."""
        if leaves(packet):
            packet.egress = self._egress(packet)
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """What the NIC has accepted is the team's."""
        return None

    def describe(self, packet: Packet) -> dict[str, Any]:
        """How the egress of a packet was found, as plain data; nothing is changed."""
        roles, egress = self._state.roles, packet.egress
        found: dict[str, Any] = {"mode": roles.plan.mode, "algorithm": roles.plan.algorithm}
        if not isinstance(egress, _Through | _InTurns):
            return {**found, "member": None}
        chosen, home = egress.chosen(), roles.home(_address_of(packet))
        found |= {"member": chosen.uplink.name, "home": home}
        if (speaker := roles.carrier(home)) != home:
            found["home_spoken_for_by"] = speaker
        if isinstance(egress, _InTurns):
            found["bucket"] = flow_hash(packet.frame, roles.plan.algorithm) % BUCKETS
            found["why"] = egress.why(chosen.uplink)
        elif len(roles.active) < 2:
            found["why"] = "the only member that works"
        elif roles.plan.algorithm == "HyperVPort":
            found["why"] = "the member of the sender's address"
        elif _is_neighbor_discovery(packet):
            found["why"] = "ARP and ND go through the home"
        else:
            found["hash"] = flow_hash(packet.frame, roles.plan.algorithm)
            found["why"] = "the member of the flow's hash"
        found["source_mac"] = ethernet.format_mac(chosen.mac or packet.frame[6:12])
        found["mac_of"] = _owner(chosen.mac, roles)
        return found

    def _egress(self, packet: Packet) -> _Through | _InTurns | None:
        state, roles = self._state, self._state.roles
        active = [state.uplinks[name] for name in roles.active]
        if packet.vsid and any(uplink.wnv_binding for uplink in active):
            active = [uplink for uplink in active if uplink.wnv_binding]  # 2012: the filter is on these
        if not active:
            return None
        original = _address_of(packet)
        home = _Home(roles.home(original), state.speaker(original), _mac_of(roles, packet, original))
        algorithm, several = roles.plan.algorithm, len(active) > 1
        if algorithm == "HyperVPort" and roles.plan.has_partner:
            return home.through(active[int.from_bytes(original, "big") % len(active)], roles)
        if home.uplink in active and (algorithm == "HyperVPort" or _is_neighbor_discovery(packet)):
            return home.through(home.uplink, roles)
        hashed = flow_hash(packet.frame, algorithm)
        if algorithm == "Dynamic" and several and len(active) == len(roles.active):
            return _InTurns(
                self._flowlets, self._flowlets.bucket(hashed), lambda uplink: home.mac_through(uplink, roles)
            )
        return self._hashed(hashed, home, active)

    def _hashed(self, hashed: int, home: _Home, active: list[Uplink]) -> _Through:
        """By an address hash over all members; for one that fails its traffic takes another one's way.

        A failed home's goes on under its MAC, and only that does.
        """
        roles = self._state.roles
        member = roles.homes[hashed % len(roles.homes)]
        uplink = self._state.uplinks.get(member)
        if roles.plan.has_partner or uplink not in active:
            if member == home.name and home.uplink in active and not roles.plan.has_partner:
                return _Through(home.uplink, home.mac)
            uplink = active[hashed % len(active)]
        assert uplink is not None
        return _Through(uplink, home.mac if home.is_original(member, roles) else uplink.mac)


def _owner(mac: bytes, roles: Roles) -> str:
    """Whose MAC a frame gets."""
    return next((name for name, own in roles.macs.items() if own == mac), "the sender")


def _address_of(packet: Packet) -> bytes:
    """What the fabric knows the sender by: a PA, or the MAC of a VM of VSID 0."""
    if packet.tunnels:
        return packet.tunnels[0].source_pa
    if packet.translation is not None:
        return packet.translation.source
    return bytes(packet.frame[6:12])


def _mac_of(roles: Roles, packet: Packet, original: bytes) -> bytes:
    return roles.home_mac(original) if packet.tunnels or packet.translation else b""


def _is_neighbor_discovery(packet: Packet) -> bool:
    if packet.tunnels or packet.translation:
        return False
    try:
        kind = ethernet.ethertype(packet.frame)
        return kind == ethernet.TYPE_ARP or (
            kind == ethernet.TYPE_IPV6 and ndp.icmpv6_type(packet.frame) in _ND
        )
    except MalformedFrame:
        return False
