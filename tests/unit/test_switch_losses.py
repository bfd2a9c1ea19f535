"""Of a packet with several copies none vanishes: each leaves, is answered, waits, or has a named drop."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.accounting import MODES, PLAIN_PORTS
from support.extensions import Probe, broadcast, deny, udp
from support.frames import BROADCAST, arp, ethernet, ip, mac
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, policy, records, v4
from testbed.packets import nvgre
from testbed.switch.drops import Drop
from testbed.switch.extensions.api import Decision, Deny, Forward, Frame
from testbed.topology.plan import HostPolicy, ProviderAddress, ProviderRoute
from testbed.topology.schema import WnvMode

GATEWAY = "192.168.1.254"


def _denying(*ports: str) -> Probe:
    def judge(direction: str, frame: Frame) -> Decision:
        return Deny("told") if direction == "egress" and frame.destination in ports else None

    return Probe("acl", judge=judge)


def _counted(switch: MemorySwitch) -> dict[tuple[str, str], int]:
    return {(stage, reason): packets for (stage, _, _, reason), packets in switch.datapath.drops.items()}


def _request(target: str) -> bytes:
    return arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), target), BROADCAST)


def _behind_gateway() -> HostPolicy:
    """The other hosts' PAs are off-link, all behind one router."""
    own = tuple(ProviderAddress(pa(1, vsid), 32, vsid) for vsid in (5001, 5002, 6001))
    return policy(provider_addresses=own, provider_routes=(ProviderRoute("0.0.0.0/0", GATEWAY),))


def test_below_the_switch_a_denied_local_copy_and_the_flooded_one() -> None:
    with MemorySwitch(extensions=[_denying("blue4")], mode="below-switch") as switch:
        for times in (1, 2):
            seen = switch.from_vm("blue1", broadcast("blue1"))
            assert not seen.wire
            assert not seen.ports
            assert _counted(switch) == {("port-extensions", "acl:told"): times, ("wnv", Drop.FLOODED): times}
        assert switch.cached() == 1


def test_below_the_switch_a_denied_local_copy_and_an_answer() -> None:
    with MemorySwitch(extensions=[_denying("blue4")], mode="below-switch") as switch:
        seen = switch.from_vm("blue1", _request(v4("blue2")))
        assert set(seen.ports) == {"blue1"}
        assert _counted(switch) == {("port-extensions", "acl:told"): 1}


def test_below_the_switch_a_local_copy_and_one_that_no_parser_takes() -> None:
    with MemorySwitch(mode="below-switch") as switch:
        seen = switch.from_vm("blue1", _request(v4("blue2"))[:30])
        assert set(seen.ports) == {"blue4"}
        assert _counted(switch) == {("wnv", Drop.MALFORMED): 1}


def test_below_the_switch_both_copies_denied() -> None:
    with MemorySwitch(extensions=[_denying("blue4", "nic1")], mode="below-switch") as switch:
        switch.from_vm("blue1", broadcast("blue1"))
        assert _counted(switch) == {("port-extensions", "acl:told"): 1, ("uplink-extensions", "acl:told"): 1}


def test_below_the_switch_the_filter_brings_no_packet_past_the_extensions() -> None:
    """Routed back to a VM of this host: the port's egress is asked as for any other packet."""
    frame = udp("blue1", "web1", target_mac=gateway_mac(5001))
    with MemorySwitch(extensions=[_denying("web1")], mode="below-switch") as switch:
        for _ in range(2):
            assert switch.from_vm("blue1", frame).drops == {("blue1", "acl:told"): 1}
    probe = Probe("probe")
    with MemorySwitch(extensions=[probe], mode="below-switch") as switch:
        seen = switch.from_vm("blue1", frame)
        assert probe.seen[-1][:5] == ("egress", "CA", 5002, "blue1", "web1")
        assert probe.seen[-1][5] == seen.ports["web1"][0][1]


def test_without_a_nic_each_copy_is_named() -> None:
    with MemorySwitch(extensions=[_denying("blue4")]) as switch:
        switch.lose_nics()
        for times in (1, 2):
            seen = switch.from_vm("blue1", broadcast("blue1"))
            assert not seen.ports
            assert _counted(switch) == {
                ("port-extensions", "acl:told"): times,
                ("team", Drop.NO_UPLINK): 2 * times,
            }


def test_without_a_nic_what_waits_goes_on_waiting() -> None:
    with MemorySwitch() as switch:
        switch.lose_nics()
        switch.neighbor(pa(2, 5001), None)
        switch.from_vm("blue1", broadcast("blue1"))
        assert switch.unresolved == [ip(pa(2, 5001))]
        assert _counted(switch) == {("team", Drop.NO_UPLINK): 1}
        switch.neighbor(pa(2, 5001), nic_mac(2))
        assert _counted(switch) == {("team", Drop.NO_UPLINK): 2}


@pytest.mark.parametrize("local", [True, False])
def test_each_copy_without_a_provider_route_is_named(local: bool) -> None:
    own = tuple(ProviderAddress(pa(1, vsid), 32, vsid) for vsid in (5001, 5002, 6001))
    with MemorySwitch() as switch:
        switch.apply(policy(provider_addresses=own))
        if not local:
            switch.state.remove_port("blue4")
        for times in (1, 2):
            seen = switch.from_vm("blue1", broadcast("blue1"))
            assert set(seen.ports) == ({"blue4"} if local else set())
            assert _counted(switch) == {("wnv", Drop.NO_PROVIDER_ROUTE): 2 * times}


def test_several_copies_wait_for_one_next_hop() -> None:
    with MemorySwitch() as switch:
        switch.apply(_behind_gateway())
        assert set(switch.from_vm("blue1", broadcast("blue1")).ports) == {"blue4"}
        assert switch.unresolved == [ip(GATEWAY)]
        sent = switch.neighbor(GATEWAY, mac("02:00:00:00:00:99")).wire
        assert [nvgre.parse(frame).destination_pa for _, frame in sent] == [ip(pa(2, 5001)), ip(pa(3, 5001))]
        assert not switch.datapath.drops
        switch.neighbor(GATEWAY, None)
        switch.from_vm("blue1", broadcast("blue1"))
        assert switch.neighbor(GATEWAY, None).dropped(Drop.PA_UNREACHABLE, 2)
        switch.from_vm("blue1", broadcast("blue1"))
        switch.state.remove_port("blue1")
        assert switch.neighbor(GATEWAY, None).dropped(Drop.PORT_REMOVED, 2)


def test_more_copies_than_may_wait() -> None:
    with MemorySwitch() as switch:
        switch.apply(_behind_gateway())
        for port in range(64):
            switch.from_vm("blue1", udp("blue1", "blue2", port))
        seen = switch.from_vm("blue1", broadcast("blue1"))
        assert seen.drops == {("blue1", Drop.PA_UNREACHABLE): 2}


@pytest.mark.parametrize("mode", MODES)
def test_what_one_extension_forwards_and_the_next_denies_is_lost_once(mode: WnvMode) -> None:
    forward = Probe("forward", "forwarding", judge=lambda *_: Forward(("plain2", "nic1")))
    denying = Probe("acl", "forwarding", judge=deny("ingress"))
    with MemorySwitch(extensions=[forward, denying], plain_ports=PLAIN_PORTS, mode=mode) as switch:
        for active in ("nic1", ""):
            (switch.find_nics if active else switch.lose_nics)()
            source = switch.state.ports["plain1"].mac
            seen = switch.from_vm("plain1", ethernet(b"\2" * 6, source, 0x88B5, bytes(40)))
            assert (seen.wire, seen.ports, seen.drops) == ([], {}, {("plain1", "acl:told"): 1})


def test_what_is_denied_on_its_way_in_reaches_no_port() -> None:
    """Below the switch the filter finds the port of a packet with the rule Nat before extensions see it."""
    outside = {"blue1": "192.168.9.5", "blue2": "192.168.9.6"}

    def changed(record: Any) -> Any:
        if record.vm_name not in outside or ":" in record.customer_address:
            return record
        return msgspec.structs.replace(
            record, rule="TranslationMethodNat", provider_address=outside[record.vm_name]
        )

    wanted = policy(lookup_records=tuple(map(changed, records())))
    own = ProviderAddress(outside["blue1"], 16, 5001)
    wanted = msgspec.structs.replace(wanted, provider_addresses=(*wanted.provider_addresses, own))
    frame = udp("blue2", "blue1")
    frame = nic_mac(1) + frame[6:26] + ip(outside["blue2"]) + ip(outside["blue1"]) + frame[34:]
    for probe, reached in ((Probe("acl", judge=deny("ingress")), set()), (Probe("acl"), {"blue1"})):
        with MemorySwitch(extensions=[probe], mode="below-switch") as switch:
            switch.apply(wanted)
            seen = switch.from_wire(frame)
            assert set(seen.ports) == reached
            assert seen.drops == ({} if reached else {("nic1", "acl:told"): 1})
