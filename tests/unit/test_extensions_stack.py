"""Extensions in the switch: redirected packets, crashes, and what control asks."""

from __future__ import annotations

import pytest

from support.extensions import Judge, Probe, broadcast, deny, from_blue2, udp
from support.frames import BROADCAST, ethernet
from support.switch import MemorySwitch, mac_of
from testbed.errors import BadInput, LabError
from testbed.switch.drops import Drop
from testbed.switch.extensions import stack as stack_module
from testbed.switch.extensions.api import Decision, Deny, Forward, Frame, Kind

# ---- Forward ------------------------------------------------------------------------------


def _plain(switch: MemorySwitch, to: bytes) -> bytes:
    return ethernet(to, switch.state.ports["one"].mac, 0x88B5, bytes(46))


@pytest.mark.parametrize(
    ("destinations", "wire", "arrived"),
    [
        (("two",), False, {"two"}),
        (("two", "three", "nic1"), True, {"two", "three"}),
        (("nic1",), True, set()),
        (("two", "one"), False, {"two"}),
    ],
)
def test_forward_sets_the_destinations_of_vsid_0(
    destinations: tuple[str, ...], wire: bool, arrived: set[str]
) -> None:
    probe = Probe("router", "forwarding", lambda now, _: Forward(destinations) if now == "ingress" else None)
    with MemorySwitch(extensions=[probe], plain_ports=["one", "two", "three"]) as switch:
        for to in (BROADCAST, b"\2" * 6, switch.state.ports["three"].mac):
            seen = switch.from_vm("one", _plain(switch, to))
            assert (bool(seen.wire), set(seen.ports)) == (wire, arrived)
        assert switch.state.events.take() == []
        seen = switch.from_wire(ethernet(BROADCAST, b"\2" * 6, 0x88B5, bytes(46)))
        assert set(seen.ports) == set(destinations) - {"nic1"}


def test_forward_to_nothing_that_is_there() -> None:
    probe = Probe("router", "forwarding", lambda *_: Forward(("blue1", "nowhere")))
    with MemorySwitch(extensions=[probe], plain_ports=["one", "two"]) as switch:
        assert switch.from_vm("one", _plain(switch, BROADCAST)).drops == {("one", "router:no-destination"): 1}
        (event,) = switch.state.events.take()
    assert event.kind == "extension-error"
    assert "'blue1', which is no NIC and no port with VSID 0" in event.fields["error"]


@pytest.mark.parametrize("kind", ["forwarding", "filter"])
def test_forward_is_not_obeyed_for_what_hnv_forwards(kind: Kind) -> None:
    probe = Probe("router", kind, lambda now, _: Forward(()) if now == "ingress" else None)
    with MemorySwitch(extensions=[probe]) as switch:
        assert switch.from_vm("blue1", udp("blue1", "blue2")).wire
        assert switch.from_wire(from_blue2()).ports
        (event,) = switch.state.events.take()
    assert (event.kind, event.object) == ("extension-error", "router")
    assert "not obeyed" in event.fields["error"]


def test_a_forwarding_extension_can_drop_nvgre() -> None:
    with MemorySwitch(extensions=[Probe("router", "forwarding", deny("ingress", "PA"))]) as switch:
        assert switch.from_wire(from_blue2()).drops == {("nic1", "router:told"): 1}


def test_a_capture_extension_decides_nothing() -> None:
    probe = Probe("camera", "capture", lambda *_: Deny("no"))
    with MemorySwitch(extensions=[probe]) as switch:
        for _ in range(3):
            assert switch.from_vm("blue1", udp("blue1", "blue2")).wire
        (event,) = switch.state.events.take()
    assert (event.kind, event.object) == ("extension-error", "camera")


# ---- containment --------------------------------------------------------------------------


def _crash(direction: str, _: Frame) -> Decision:
    if direction == "ingress":
        raise ZeroDivisionError("of my own making")
    return None


@pytest.mark.parametrize("judge", [_crash, lambda *_: "let it pass", lambda *_: exit(3)])
def test_a_crash_costs_its_packet_only(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(stack_module, "monotonic", lambda: clock[0])
    probe, later = Probe("mine", judge=judge), Probe("later")
    with MemorySwitch(extensions=[probe, later]) as switch:
        for _ in range(5):
            seen = switch.from_vm("blue1", udp("blue1", "blue2"))
            assert seen.dropped(Drop.EXTENSION_CRASHED)
        assert switch.cached() == 0
        (event,) = switch.state.events.take()  # one a second
        assert (event.kind, event.object, event.fields["suppressed"]) == ("extension-error", "mine", 0)
        clock[0] += 1.0
        switch.from_vm("blue1", udp("blue1", "blue2"))
        (event,) = switch.state.events.take()
        assert event.fields["suppressed"] == 4
        if judge is _crash:
            assert event.fields["error"].startswith("ZeroDivisionError: of my own making (")
        probe.judge = lambda *_: None
        assert switch.from_vm("blue1", udp("blue1", "blue2")).wire  # the switch goes on
    assert len(later.seen) == 2


def test_a_crash_at_egress_costs_one_copy() -> None:
    def judge(direction: str, frame: Frame) -> Decision:
        if frame.destination == "blue4":
            raise KeyError(frame.destination)
        return None

    with MemorySwitch(extensions=[Probe("mine", judge=judge)]) as switch:
        seen = switch.from_vm("blue1", broadcast("blue1"))
        assert (len(seen.wire), seen.ports) == (2, {})
        assert seen.drops == {("blue1", Drop.EXTENSION_CRASHED): 1}
        assert switch.cached() == 0


def test_a_frame_cannot_be_written() -> None:
    def judge(direction: str, frame: Frame) -> Decision:
        frame.inner[0] = 0
        return None

    with MemorySwitch(extensions=[Probe("mine", judge=judge)]) as switch:
        assert switch.from_vm("blue1", udp("blue1", "blue2")).dropped(Drop.EXTENSION_CRASHED)
        assert "cannot modify read-only memory" in switch.state.events.take()[0].fields["error"]


def test_ports_counters_and_queries() -> None:
    class Broken(Probe):
        def counters(self) -> dict[str, int]:
            raise RuntimeError("no numbers")

        def attach_port(self, port: object) -> None:
            raise RuntimeError("no ports")

    good, bad = Probe("good"), Broken("bad")
    with MemorySwitch(extensions=[bad, good]) as switch:
        assert (good.ports["blue1"].mac, good.ports["blue1"].vsid) == (mac_of("blue1"), 5001)
        switch.stack.detach_port("blue1")
        assert "blue1" not in good.ports
        assert switch.stack.counters() == {"bad": {}, "good": {}}
        assert switch.stack.query("good") == {}
        with pytest.raises(LabError, match="extension bad crashed: RuntimeError: no numbers"):
            switch.stack.query("bad")
        with pytest.raises(BadInput, match="no extension other on this host; it has: bad, good"):
            switch.stack.query("other")
