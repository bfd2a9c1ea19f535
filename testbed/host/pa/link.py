"""Control's packet sockets on a team's NICs. A filter in the kernel keeps the NICs' load away from them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from testbed.packets import datagram, ethernet
from testbed.socketfilter import (
    ANCILLARY,
    JUMP_EQUAL,
    JUMP_SET,
    LD_BYTE,
    LD_HALF,
    LD_WORD,
    RETURN,
    Instruction,
    open_at,
)
from testbed.switch.roles import Roles

_LARGEST = 1 << 16
_BATCH = 64  # frames per turn of the loop, so that a flood of pings does not stop the rest
_VLAN_TAG_PRESENT = ANCILLARY + 48  # SKF_AD_VLAN_TAG_PRESENT: the tag is not in the frame


def frame_filter(macs: Sequence[bytes]) -> list[Instruction]:
    """Accepts untagged ARP, ICMP, IGMP, ICMPv6 and IPv6 hop-by-hop for one of ``macs`` or a group address."""
    unicast: list[Instruction] = []
    for position, mac in enumerate(macs):
        behind = 4 * (len(macs) - position) - 4  # the accepting instruction lies behind all of them
        unicast += [
            (LD_WORD, 0, 0, 0),
            (JUMP_EQUAL, 0, 2, int.from_bytes(mac[:4], "big")),
            (LD_HALF, 0, 0, 4),
            (JUMP_EQUAL, behind + 1, 0, int.from_bytes(mac[4:], "big")),
        ]
    return [
        (LD_WORD, 0, 0, _VLAN_TAG_PRESENT),
        (JUMP_EQUAL, 1, 0, 0),
        (RETURN, 0, 0, 0),
        (LD_HALF, 0, 0, 12),
        (JUMP_EQUAL, 9, 0, ethernet.TYPE_ARP),
        (JUMP_EQUAL, 0, 3, ethernet.TYPE_IPV4),
        (LD_BYTE, 0, 0, 23),
        (JUMP_EQUAL, 6, 0, datagram.ICMP),
        (JUMP_EQUAL, 5, 4, datagram.IGMP),
        (JUMP_EQUAL, 0, 3, ethernet.TYPE_IPV6),
        (LD_BYTE, 0, 0, 20),
        (JUMP_EQUAL, 2, 0, datagram.ICMPV6),
        (JUMP_EQUAL, 1, 0, datagram.HOP_BY_HOP),
        (RETURN, 0, 0, 0),
        (LD_BYTE, 0, 0, 0),  # the destination: all jumps of accepted protocols lead here
        (JUMP_SET, len(unicast) + 1, 0, 1),
        *unicast,
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, _LARGEST),
    ]


class Link:
    """Sends and receives whole frames on a NIC. ``receive`` gets each frame that the filter accepts.

    macs: the host's own; a frame from one of them is not passed on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nic: str,
        macs: Sequence[bytes],
        receive: Callable[[bytes], None],
    ) -> None:
        self._macs = macs
        self._loop, self._pass_on = loop, receive
        self._socket = open_at(nic, frame_filter(macs))
        loop.add_reader(self._socket, self._receive)

    def send(self, frame: bytes) -> bool:
        """Whether the frame has left; it does not while the NIC is down."""
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Leave the NIC."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                frame = self._socket.recv(_LARGEST)
            except OSError:
                return
            if frame[6:12] not in self._macs:  # a frame of our own that came back around proves nothing
                self._pass_on(frame)
            if self._socket.fileno() < 0:
                return  # closed by what the frame caused


class TeamLink:
    """The NICs of a team as one link: a frame leaves through whoever speaks for its source MAC."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, roles: Roles, receive: Callable[[bytes], None]
    ) -> None:
        self._roles, self._pass_on = roles, receive
        self._owners = {mac: name for name, mac in roles.macs.items()}
        self._links: dict[str, Link] = {}
        self._listening: Counter[str] = Counter()
        try:
            for name in roles.macs:
                heard = functools.partial(self._receive, name)
                self._links[name] = Link(loop, name, list(self._owners), heard)
        except BaseException:
            self.close()
            raise

    @property
    def mac(self) -> bytes:
        """The MAC of what the host says for itself and for no PA: of the primary."""
        return self._roles.macs[self._roles.homes[0]]

    def mac_of(self, address: bytes) -> bytes:
        """The MAC of a PA."""
        return self._roles.home_mac(address)

    def is_own(self, mac: bytes) -> bool:
        """Whether it is a member's MAC."""
        return mac in self._owners

    def use(self, roles: Roles) -> None:
        """Members have failed, or work again."""
        self._roles = roles

    def send(self, frame: bytes) -> bool:
        """Whether the frame has left; it does not while no NIC is up."""
        speaker = self._roles.carrier(self._owners.get(frame[6:12], ""))
        return speaker is not None and self._links[speaker].send(frame)

    def send_datagram(self, packet: datagram.Datagram, destination_mac: bytes, source_mac: bytes) -> bool:
        """Send a datagram from one of the team's MACs; as :meth:`send`."""
        return self.send(datagram.build(packet, destination_mac, source_mac))

    def send_through(self, member: str, packet: datagram.Datagram, destination_mac: bytes) -> bool:
        """Send a datagram through one member under its own MAC, whoever speaks for that; as :meth:`send`."""
        return self._links[member].send(datagram.build(packet, destination_mac, self._roles.macs[member]))

    @contextlib.contextmanager
    def listening(self, member: str) -> Iterator[None]:
        """Take what comes to a member for its own MAC, whoever speaks for it now."""
        self._listening[member] += 1
        try:
            yield
        finally:
            self._listening[member] -= 1

    def close(self) -> None:
        """Leave all NICs."""
        for link in self._links.values():
            link.close()

    def _receive(self, member: str, frame: bytes) -> None:
        roles, destination = self._roles, frame[:6]
        if destination[0] & 1:
            takes = roles.hears_groups(member)
        else:
            takes = roles.takes(member, destination)
            takes = takes or (self._listening[member] > 0 and destination == roles.macs[member])
        if takes:
            self._pass_on(frame)
