"""Extensions in the switch: what they see and where, what is denied, what is cached."""

from __future__ import annotations

import pytest

from support.extensions import Probe, broadcast, deny, from_blue2, udp
from support.frames import TCP, encapsulated, ethernet, ip, ipv4, ports, vnet
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, v4
from testbed.packets import nvgre
from testbed.switch.extensions.api import Decision, Deny, Frame, Kind, Offload, Scope

# ---- what is seen -------------------------------------------------------------------------


def test_to_another_host_ca_comes_in_and_nvgre_goes_out() -> None:
    probe = Probe("probe")
    frame = udp("blue1", "blue2")
    with MemorySwitch(extensions=[probe]) as switch:
        left = switch.from_vm("blue1", frame).frame
    assert probe.places() == [
        ("ingress", "CA", 5001, "blue1", ""),
        ("egress", "PA", 5001, "blue1", "nic1"),
    ]
    assert probe.seen[0][5] == frame
    assert probe.seen[1][5] == left  # outer header with length and checksum, to the byte
    assert len(left) == len(frame) + nvgre.OUTER_IPV4


def test_between_vms_of_a_host_and_subnets_macs_are_the_final_ones() -> None:
    probe = Probe("probe")
    with MemorySwitch(extensions=[probe]) as switch:
        seen = switch.from_vm("blue1", udp("blue1", "web1", target_mac=gateway_mac(5001)))
    assert probe.places() == [
        ("ingress", "CA", 5001, "blue1", ""),
        ("egress", "CA", 5002, "blue1", "web1"),
    ]
    assert probe.seen[1][5] == seen.frame
    assert seen.frame[:12] == mac_of("web1") + gateway_mac(5002)


def test_from_the_wire_nvgre_comes_in_and_ca_goes_out() -> None:
    probe = Probe("probe")
    frame = from_blue2()
    with MemorySwitch(extensions=[probe]) as switch:
        seen = switch.from_wire(frame + bytes(4))  # padding is no part of the packet
    assert probe.places() == [("ingress", "PA", 5001, "nic1", ""), ("egress", "CA", 5001, "nic1", "blue1")]
    assert probe.seen[0][5] == frame
    assert probe.seen[1][5] == seen.frame == frame[nvgre.OUTER_IPV4 :]


def test_below_the_switch_there_is_no_nvgre() -> None:
    probe = Probe("probe")
    frame = udp("blue1", "blue2")
    with MemorySwitch(extensions=[probe], mode="below-switch") as switch:
        switch.nic.wnv_binding = True
        assert switch.from_vm("blue1", frame).wire
        assert switch.from_wire(from_blue2()).frame == udp("blue2", "blue1")
    assert probe.places() == [
        ("ingress", "CA", 5001, "blue1", ""),
        ("egress", "CA", 5001, "blue1", "nic1"),
        ("ingress", "CA", 5001, "nic1", ""),
        ("egress", "CA", 5001, "nic1", "blue1"),
    ]
    assert [each[5] for each in probe.seen] == [frame] * 2 + [udp("blue2", "blue1")] * 2


def test_vsid_0_is_ca_space_everywhere() -> None:
    probe = Probe("probe")
    with MemorySwitch(extensions=[probe], plain_ports=["plain"]) as switch:
        mac = switch.state.ports["plain"].mac
        switch.from_vm("plain", ethernet(b"\2" * 6, mac, 0x0800, bytes(40)))
        switch.from_wire(ethernet(mac, b"\2" * 6, 0x0800, bytes(40)))
        # what a VM of VSID 0 does with GRE is its own affair
        switch.from_wire(mac + from_blue2()[6:])
    assert [place[:3] for place in probe.places()] == [("ingress", "CA", 0), ("egress", "CA", 0)] * 3


def test_a_super_packet_is_shown_as_one() -> None:
    probe = Probe("probe")
    inner = ethernet(
        mac_of("blue2"),
        mac_of("blue1"),
        0x0800,
        ipv4(v4("blue1"), v4("blue2"), TCP, ports(1, 2) + bytes(30000)),
    )
    with MemorySwitch(extensions=[probe]) as switch:
        switch.from_vm("blue1", inner, vnet(34, 16, gso_type=1, gso_size=1400, header=54))
    assert [len(each[5]) for each in probe.seen] == [len(inner), len(inner) + 42]
    assert {each[6] for each in probe.seen} == {Offload(1400, checksum_open=True)}


def test_the_order_of_kinds_and_of_the_topology() -> None:
    log: list[str] = []
    kinds: list[tuple[str, Kind]] = [
        ("f1", "filter"),
        ("w", "forwarding"),
        ("c1", "capture"),
        ("f2", "filter"),
        ("c2", "capture"),
    ]
    with MemorySwitch(extensions=[Probe(name, kind, log=log) for name, kind in kinds]) as switch:
        switch.from_vm("blue1", udp("blue1", "blue2"))
    assert [line.split()[0] for line in log] == ["c1", "c2", "f1", "f2", "w", "w", "f1", "f2", "c1", "c2"]


# ---- Deny ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["flow", "packet"])
def test_denied_at_ingress(scope: Scope) -> None:
    probe = Probe("acl", judge=deny("ingress"), scope=scope)
    with MemorySwitch(extensions=[probe]) as switch:
        for _ in range(3):
            seen = switch.from_vm("blue1", udp("blue1", "blue2"))
            assert (seen.wire, seen.ports, seen.drops) == ([], {}, {("blue1", "acl:told"): 1})
        assert set(switch.datapath.drops) == {("port-extensions", "blue1", 5001, "acl:told")}
        assert switch.cached() == (scope == "flow")
    assert len(probe.seen) == (1 if scope == "flow" else 3)


@pytest.mark.parametrize("scope", ["flow", "packet"])
def test_denied_on_its_way_in_from_the_wire(scope: Scope) -> None:
    probe = Probe("acl", judge=deny("ingress", "PA"), scope=scope)
    with MemorySwitch(extensions=[probe]) as switch:
        for _ in range(2):
            assert switch.from_wire(from_blue2()).drops == {("nic1", "acl:told"): 1}
        switch.from_wire(from_blue2(vsid=9999))
        # a VSID that nobody has here makes no counter of its own
        assert {key[2] for key in switch.datapath.drops} == {5001, 0}
        assert switch.cached() == (2 if scope == "flow" else 0)


def test_denied_at_egress_only_the_copy_goes() -> None:
    with MemorySwitch(extensions=[Probe("acl", judge=deny("egress", "CA", "blue4"))]) as switch:
        for _ in range(2):
            seen = switch.from_vm("blue1", broadcast("blue1"))
            assert (len(seen.wire), seen.ports, seen.drops) == (2, {}, {("blue1", "acl:told"): 1})
        assert switch.cached() == 1
    with MemorySwitch(extensions=[Probe("acl", judge=deny("egress", "PA"))]) as switch:
        seen = switch.from_vm("blue1", broadcast("blue1"))
        assert (seen.wire, set(seen.ports), seen.drops) == ([], {"blue4"}, {("blue1", "acl:told"): 2})
        assert set(switch.datapath.drops) == {("uplink-extensions", "blue1", 5001, "acl:told")}


@pytest.mark.parametrize("mode", ["in-switch", "below-switch"])
def test_denied_at_egress_and_nothing_is_left(mode: str) -> None:
    def judge(direction: str, frame: Frame) -> Decision:
        return Deny("told") if direction == "egress" else None

    with MemorySwitch(extensions=[Probe("acl", judge=judge)], mode=mode) as switch:  # type: ignore[arg-type]
        switch.nic.wnv_binding = True
        for frame in (udp("blue1", "blue2"), udp("blue1", "blue4")):
            seen = switch.from_vm("blue1", frame)
            assert (seen.wire, seen.ports, seen.drops) == ([], {}, {("blue1", "acl:told"): 1})
        seen = switch.from_wire(from_blue2())
        assert (seen.wire, seen.ports, seen.drops) == ([], {}, {("nic1", "acl:told"): 1})


def test_below_the_switch_a_denied_uplink_copy_is_not_encapsulated() -> None:
    probe = Probe("acl", judge=deny("egress", "CA", "nic1"))
    with MemorySwitch(extensions=[probe], mode="below-switch") as switch:
        switch.nic.wnv_binding = True
        seen = switch.from_vm("blue1", broadcast("blue1"))
        assert (seen.wire, set(seen.ports), seen.drops) == ([], {"blue4"}, {("blue1", "acl:told"): 1})


# ---- packets that wait --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "egress"),
    [("in-switch", [("egress", "PA", 5001, "blue1", "nic1")]), ("below-switch", [])],
)
def test_a_packet_that_waited_enters_once(mode: str, egress: list[object]) -> None:
    probe = Probe("probe", scope="packet")
    with MemorySwitch(extensions=[probe], mode=mode) as switch:  # type: ignore[arg-type]
        switch.nic.wnv_binding = True
        switch.neighbor(pa(2, 5001), None)
        assert switch.from_vm("blue1", udp("blue1", "blue2")).wire == []
        before = len(probe.seen)
        assert switch.neighbor(pa(2, 5001), nic_mac(2)).wire
        assert probe.places()[before:] == egress
    # in either mode once at ingress and once at egress
    assert [place[0] for place in probe.places()] == ["ingress", "egress"]


def test_of_a_waiting_broadcast_each_copy_leaves_once() -> None:
    probe = Probe("probe")
    with MemorySwitch(extensions=[probe]) as switch:
        switch.neighbor(pa(2, 5001), None)
        switch.from_vm("blue1", broadcast("blue1"))
        switch.neighbor(pa(2, 5001), nic_mac(2))
    assert [place[0] for place in probe.places()] == ["ingress", "egress", "egress", "egress"]
    outer = [nvgre.parse(each[5]).destination_pa for each in probe.seen if each[1] == "PA"]
    assert outer == [ip(pa(3, 5001)), ip(pa(2, 5001))]


# ---- scope --------------------------------------------------------------------------------


def test_scope_decides_what_is_cached() -> None:
    for scope, calls in (("flow", 2), ("packet", 6)):
        probe = Probe("probe", scope=scope)  # type: ignore[arg-type]
        with MemorySwitch(extensions=[probe]) as switch:
            for _ in range(3):
                switch.from_vm("blue1", udp("blue1", "blue2"))
        assert len(probe.seen) == calls
        probe = Probe("probe", scope=scope)  # type: ignore[arg-type]
        with MemorySwitch(extensions=[probe]) as switch:
            for _ in range(3):
                assert switch.from_wire(from_blue2()).ports
        assert len(probe.seen) == calls


def test_one_extension_of_packet_scope_is_enough_and_a_change_makes_flows_be_asked_again() -> None:
    flow, packet = Probe("flow"), Probe("packet", "capture", scope="packet")
    with MemorySwitch(extensions=[flow, packet]) as switch:
        for _ in range(2):
            switch.from_vm("blue1", udp("blue1", "blue2"))
    assert len(flow.seen) == len(packet.seen) == 4
    with MemorySwitch(extensions=[Probe("flow")]) as switch:
        probe = switch.stack.extensions[0]
        assert isinstance(probe, Probe)
        for count in (2, 4):
            switch.from_vm("blue1", udp("blue1", "blue2"))
            switch.neighbor(pa(3, 5001), nic_mac(3))
            assert len(probe.seen) == count


def test_inner_flows_of_one_tunnel_have_verdicts_of_their_own() -> None:
    def judge(direction: str, frame: Frame) -> Decision:
        denied = direction == "ingress" and bytes(frame.inner[34:36]) == b"\0\7"
        return Deny("port-7") if denied else None

    with MemorySwitch(extensions=[Probe("acl", judge=judge)]) as switch:
        for _ in range(2):
            for port in (1, 7):
                inner = udp("blue2", "blue1", port)
                frame = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
                assert bool(switch.from_wire(frame).ports) == (port != 7)


def test_an_extension_may_narrow_its_scope_packet_by_packet() -> None:
    class Careful(Probe):
        def scope_of(self, frame: Frame) -> Scope:
            return "packet" if bytes(frame.inner[34:36]) == b"\0\7" else "flow"

    probe = Careful("careful")
    with MemorySwitch(extensions=[probe]) as switch:
        for port in (7, 7, 8, 8):
            switch.from_vm("blue1", udp("blue1", "blue2", port))
    assert len(probe.seen) == 6
