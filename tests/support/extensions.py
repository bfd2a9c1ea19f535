"""An extension for tests, and the packets it is shown."""

from __future__ import annotations

from collections.abc import Callable

from support.frames import BROADCAST, UDP, encapsulated, ethernet, ipv4, ports
from support.switch import mac_of, nic_mac, pa, v4
from testbed.switch.extensions.api import Decision, Deny, Extension, Frame, Kind, Offload, Scope
from testbed.telemetry import EventLog

Judge = Callable[[str, Frame], object]


class Probe(Extension):
    """Notes what it is shown, and decides as it is told."""

    def __init__(
        self,
        name: str,
        kind: Kind = "filter",
        judge: Judge = lambda *_: None,
        scope: Scope = "flow",
        log: list[str] | None = None,
    ) -> None:
        super().__init__(name, self.Settings(), EventLog())
        self.kind = kind  # type: ignore[misc]
        self.scope = scope
        self.judge = judge
        self.log = log if log is not None else []
        self.seen: list[tuple[str, str, int, str, str, bytes, Offload]] = []

    def ingress(self, frame: Frame) -> Decision:
        return self._see("ingress", frame)

    def egress(self, frame: Frame) -> Decision:
        return self._see("egress", frame)

    def _see(self, direction: str, frame: Frame) -> Decision:
        assert frame.inner.readonly
        assert frame.native_forwarding == (frame.space == "PA")
        self.log.append(f"{self.name} {direction} {frame.space}")
        self.seen.append(
            (
                direction,
                frame.space,
                frame.vsid,
                frame.source,
                frame.destination,
                frame.data(),
                frame.offload,
            )
        )
        return self.judge(direction, frame)  # type: ignore[return-value]

    def places(self) -> list[tuple[str, str, int, str, str]]:
        return [each[:5] for each in self.seen]


def udp(name: str, to: str, port: int = 1, target_mac: bytes | None = None) -> bytes:
    """A packet between two VMs."""
    packet = ipv4(v4(name), v4(to), UDP, ports(port, 2) + bytes(40))
    return ethernet(target_mac or mac_of(to), mac_of(name), 0x0800, packet)


def broadcast(name: str) -> bytes:
    """To all of the subnet."""
    return ethernet(
        BROADCAST, mac_of(name), 0x0800, ipv4(v4(name), "255.255.255.255", UDP, ports(1, 2) + bytes(9))
    )


def from_blue2(to: str = "blue1", vsid: int = 5001) -> bytes:
    """As another host would send it."""
    return encapsulated(udp("blue2", to), vsid, pa(2, 5001), pa(1, 5001), nic_mac(1))


def deny(direction: str, space: str = "CA", destination: str = "") -> Judge:
    """Denies here and nowhere else."""

    def judge(now: str, frame: Frame) -> Decision:
        there = not destination or frame.destination == destination
        return Deny("told") if (now, frame.space) == (direction, space) and there else None

    return judge
