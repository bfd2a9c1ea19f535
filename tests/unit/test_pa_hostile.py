"""Whatever the PA network says, the PA space neither fails nor believes what is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import pa_frames, wire_frames
from support.frames import ip
from support.mutations import lying, resealed, spoiled, truncated
from support.random_frames import broken
from support.random_input import repeatable
from support.switch import nic_mac, pa
from testbed.host.pa import space
from testbed.host.pa.addresses import AddressState
from testbed.host.pa.timers import TIMERS
from testbed.packets import datagram
from testbed.switch.roles import Roles
from testbed.telemetry import EventLog

OWN = {pa(1, 5001): AddressState.PREFERRED, pa(1, 5001, 6): AddressState.PREFERRED}
GROUPS = {"239.1.1.1", "ff15::7"}
AT_ONCE = msgspec.structs.replace(TIMERS["fast"], probes=0, solicitations=0)  # Preferred without a wait


class _Link:
    """In place of the packet socket: what is sent is kept."""

    def __init__(self, loop: object, roles: Roles, receive: Callable[[bytes], None]) -> None:
        (self.mac,), self.receive = roles.macs.values(), receive
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    def mac_of(self, _: bytes) -> bytes:
        return self.mac

    def is_own(self, mac: bytes) -> bool:
        return mac == self.mac

    def send_datagram(self, packet: datagram.Datagram, destination_mac: bytes, source_mac: bytes) -> bool:
        return self.send(datagram.build(packet, destination_mac, source_mac))

    def close(self) -> None:
        pass


class Space:
    """A PA space with PAs and groups in use, that is asking for host 2's PAs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.events = EventLog()
        self.neighbors: list[Any] = []
        self._made = space.PaSpace(
            loop,
            Roles.alone("nic1", nic_mac(1)),
            AT_ONCE,
            lambda address, mac: self.neighbors.append((address, mac)),
            lambda: None,
            self.events,
        )
        self._made.set_groups(GROUPS)
        self._made.set_addresses(set(OWN))
        self._made.resolve(ip(pa(2, 5001)))
        self._made.resolve(ip(pa(2, 5001, 6)))
        link = self._made._link
        assert isinstance(link, _Link)
        self._link = link
        self.close = self._made.close
        self.came_of(b"")

    def came_of(self, frame: bytes) -> tuple[list[bytes], list[Any], list[Any]]:
        """What a frame caused: frames that were sent, neighbors, events."""
        self._link.receive(frame)
        sent, neighbors = list(self._link.sent), list(self.neighbors)
        self._link.sent.clear()
        self.neighbors.clear()
        return sent, neighbors, self.events.take()

    def states(self) -> dict[str, AddressState]:
        """Of the PAs."""
        return self._made.states()

    def due(self) -> int:
        """Answers to queries that wait for their time."""
        return len(self._made._igmp._answers) + len(self._made._mld._answers)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Space]]:
    loop, all_of_them = asyncio.new_event_loop(), []
    monkeypatch.setattr(space, "TeamLink", _Link)

    def make() -> Space:
        all_of_them.append(Space(loop))
        return all_of_them[-1]

    yield make
    for each in all_of_them:
        each.close()
    loop.close()


NOTHING: tuple[list[bytes], list[Any], list[Any]] = ([], [], [])


@pytest.mark.parametrize("name", pa_frames())
def test_each_message_is_heard_whole_and_never_in_part(made: Callable[[], Space], name: str) -> None:
    heard = made()
    frame = pa_frames()[name]
    for part in truncated(frame):
        assert heard.came_of(part) == NOTHING
        assert heard.due() == 0
    assert heard.states() == OWN
    assert (heard.came_of(frame) != NOTHING) or heard.due() == 1


@pytest.mark.parametrize("name", [name for name in pa_frames() if not name.startswith("arp")])
def test_a_message_with_a_wrong_checksum_is_not_heard(made: Callable[[], Space], name: str) -> None:
    heard = made()
    frame = pa_frames()[name]
    at = 34 if frame[12] == 0x08 else 62 if frame[20] == 0 else 54  # behind a hop-by-hop header
    for changed in lying(frame):
        if changed[:at] == frame[:at]:
            assert heard.came_of(changed) == NOTHING
            assert heard.due() == 0
    assert heard.states() == OWN


@pytest.mark.parametrize("version", [4, 6])
def test_spoiled_frames(made: Callable[[], Space], version: int) -> None:
    """A lie that is well made may cost a PA (a duplicate is believed); it never costs the PA space."""
    heard = made()
    for name, frame in (pa_frames() | wire_frames(version)).items():
        for changed in spoiled(frame):
            heard.came_of(changed)
        if name in pa_frames() and not name.startswith("arp"):
            for changed in resealed(frame):
                heard.came_of(changed)
    assert heard.states().keys() == OWN.keys()


def test_any_bytes(made: Callable[[], Space]) -> None:
    frames = st.sampled_from([*pa_frames().values(), *wire_frames(4).values()])
    heard = made()

    @repeatable
    @given(st.one_of(broken(frames), st.binary(max_size=200)))
    def run(frame: bytes) -> None:
        heard.came_of(frame)

    run()
    assert heard.states().keys() == OWN.keys()
