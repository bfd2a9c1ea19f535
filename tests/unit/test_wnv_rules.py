"""Records that are not encapsulated: rule Nat (IP rewrite) and rule None."""

from __future__ import annotations

import msgspec
import pytest

from support.frames import UDP, arp, encapsulated, ethernet, icmpv6, ip, ipv4, ipv6, ports, solicitation
from support.switch import (
    BLUE,
    MemorySwitch,
    gateway_mac,
    mac_of,
    nic_mac,
    policy,
    records,
    routes,
    v4,
    v6,
)
from testbed.packets import arp as arp_codec
from testbed.packets import ndp, nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord, ProviderAddress

NAT, NONE = "TranslationMethodNat", "TranslationMethodNone"
PAYLOAD = ports(1000, 2000) + b"\0\x26\0\0" + bytes(30)  # UDP without a checksum
PROTOCOL = 253  # without a checksum of its own (RFC 3692)
OUTSIDE = {"blue1": "192.168.9.5", "blue2": "192.168.9.6", "web1": "192.168.9.15", "web2": "192.168.9.16"}


def _outside(name: str, version: int) -> str:
    return OUTSIDE[name] if version == 4 else f"2001:db8::9:{OUTSIDE[name].rpartition('.')[2]}"


def _changed(each: LookupRecord, rule: str, named: tuple[str, ...]) -> LookupRecord:
    if each.vm_name not in named:
        return each
    version = 6 if ":" in each.customer_address else 4
    return msgspec.structs.replace(each, rule=rule, provider_address=_outside(each.vm_name, version))


def _policy(host: int, rule: str, named: tuple[str, ...] = tuple(OUTSIDE), **more: object) -> HostPolicy:
    """The usual network, with some VMs that are not encapsulated; each has a PA of its own."""
    own = ("blue1", "web1") if host == 1 else ("blue2", "web2")
    extra = tuple(
        ProviderAddress(_outside(name, version), {4: 16, 6: 64}[version], 5001 if "blue" in name else 5002)
        for name in own
        for version in (4, 6)
    )
    plain = policy(host)
    fields = {
        "lookup_records": tuple(_changed(each, rule, named) for each in records()),
        "provider_addresses": plain.provider_addresses + extra,
    }
    return msgspec.structs.replace(plain, **(fields | more))


def _switch(host: int, rule: str, named: tuple[str, ...] = tuple(OUTSIDE), **more: object) -> MemorySwitch:
    made = MemorySwitch(host)
    made.apply(_policy(host, rule, named, **more))
    for name, outside in OUTSIDE.items():
        where = 1 if name.endswith("1") else 2
        made.state.neighbors[ip(outside)] = nic_mac(where)
        made.state.neighbors[ip(_outside(name, 6))] = nic_mac(where)
    return made


def _v4(source: str, destination: str, to: bytes) -> bytes:
    return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), destination, PROTOCOL, PAYLOAD))


def _v6(source: str, destination: str, to: bytes) -> bytes:
    return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), destination, PROTOCOL, PAYLOAD))


FAMILIES = pytest.mark.parametrize(
    ("make", "address", "version"), [(_v4, v4, 4), (_v6, v6, 6)], ids=["v4", "v6"]
)


def _with_addresses(frame: bytes, version: int, source: str, destination: str, macs: bytes) -> bytes:
    if version == 4:
        return macs + frame[12:14] + ipv4(source, destination, PROTOCOL, PAYLOAD)
    return macs + frame[12:14] + ipv6(source, destination, PROTOCOL, PAYLOAD)


@FAMILIES
def test_nat_there_and_back(make, address, version: int) -> None:
    with _switch(1, NAT) as one, _switch(2, NAT) as two:
        frame = make("blue1", address("blue2"), mac_of("blue2"))
        for _ in range(2):  # the second would come from a flow cache
            sent = one.from_vm("blue1", frame).frame
            expected = _with_addresses(
                frame,
                version,
                _outside("blue1", version),
                _outside("blue2", version),
                nic_mac(2) + nic_mac(1),
            )
            assert sent == expected
            assert two.from_wire(sent).ports == {"blue2": [(bytes(10), frame)]}


@FAMILIES
def test_nat_to_another_subnet(make, address, version: int) -> None:
    """It arrives from the gateway of the destination's subnet."""
    with _switch(1, NAT) as one, _switch(2, NAT) as two:
        frame = make("blue1", address("web2"), gateway_mac(5001))
        sent = one.from_vm("blue1", frame).frame
        ((_, arrived),) = two.from_wire(sent).ports["web2"]
        assert arrived == mac_of("web2") + gateway_mac(5002) + frame[12:]


@FAMILIES
def test_rule_none_leaves_the_addresses(make, address, version: int) -> None:
    with _switch(1, NONE) as one, _switch(2, NONE) as two:
        frame = make("blue1", address("blue2"), mac_of("blue2"))
        sent = one.from_vm("blue1", frame).frame
        assert sent == nic_mac(2) + nic_mac(1) + frame[12:]
        assert two.from_wire(sent).ports == {"blue2": [(bytes(10), frame)]}


def test_flows_are_not_remembered() -> None:
    """Their actions change the packets' addresses, and checksums by what is in each packet."""
    with _switch(1, NAT) as switch:
        packet = ipv4(v4("blue1"), v4("blue2"), UDP, PAYLOAD)
        switch.from_vm("blue1", ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, packet))
        assert switch.cached() == 0


@FAMILIES
def test_on_one_host_nothing_is_translated(make, address, version: int) -> None:
    with _switch(1, NAT) as switch:
        frame = make("blue1", address("web1"), gateway_mac(5001))
        seen = switch.from_vm("blue1", frame)
        assert seen.ports == {"web1": [(bytes(10), mac_of("web1") + gateway_mac(5002) + frame[12:])]}


def test_the_rule_of_the_destination_decides() -> None:
    """Blue1 is Nat, blue2 is not: encapsulated. To blue2 as Nat from blue4, which has no such record: not."""
    with _switch(1, NAT, ("blue1",)) as switch:
        sent = switch.from_vm("blue1", _v4("blue1", v4("blue2"), mac_of("blue2"))).frame
        assert nvgre.parse(sent).vsid == 5001
    with _switch(1, NAT, ("blue1", "blue2")) as switch:
        frame = _v4("blue4", v4("blue2"), mac_of("blue2"))
        assert switch.from_vm("blue4", frame).dropped(Drop.NOT_TRANSLATABLE)


def test_from_another_address_than_the_records() -> None:
    with _switch(1, NAT) as switch:
        frame = ethernet(
            mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4("10.0.0.77", v4("blue2"), PROTOCOL, PAYLOAD)
        )
        assert switch.from_vm("blue1", frame).dropped(Drop.NOT_TRANSLATABLE)


def test_through_a_gateway() -> None:
    """The rewritten destination would be the gateway VM's own."""
    default = CustomerRoute(BLUE, 5002, "0.0.0.0/0", v4("web2"))
    with _switch(1, NAT, customer_routes=(*routes(), default)) as switch:
        assert switch.from_vm("blue1", _v4("blue1", "9.9.9.9", gateway_mac(5001))).dropped(
            Drop.NOT_TRANSLATABLE
        )


def test_before_the_own_address_is_preferred() -> None:
    with _switch(1, NAT) as switch:
        switch.apply(_policy(1, NAT), preferred=[])
        frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
        assert switch.from_vm("blue1", frame).dropped(Drop.NOT_TRANSLATABLE)


def test_the_next_hop_is_resolved_first() -> None:
    with _switch(1, NAT) as switch:
        del switch.state.neighbors[ip(OUTSIDE["blue2"])]
        frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
        assert switch.from_vm("blue1", frame).wire == []
        assert switch.unresolved == [ip(OUTSIDE["blue2"])]
        assert switch.neighbor(OUTSIDE["blue2"], nic_mac(2)).frame[:6] == nic_mac(2)


def test_without_a_provider_route() -> None:
    far = tuple(
        msgspec.structs.replace(each, provider_address="203.0.113.6") if each.vm_name == "blue2" else each
        for each in _policy(1, NAT).lookup_records
        if ":" not in each.customer_address
    )
    with _switch(1, NAT, lookup_records=far) as switch:
        frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
        assert switch.from_vm("blue1", frame).dropped(Drop.NO_PROVIDER_ROUTE)


# ---- ARP and ND: plain IP carries none --------------------------------------------------------


def test_unicast_arp_and_nd_are_answered_for_it() -> None:
    with _switch(1, NAT) as switch:
        own = (mac_of("blue1"), v4("blue1"))
        seen = switch.from_vm("blue1", arp(1, own, (bytes(6), v4("blue2")), mac_of("blue2")))
        assert arp_codec.parse(seen.frame).sender_mac == mac_of("blue2")
        reply = arp(2, own, (mac_of("blue2"), v4("blue2")), mac_of("blue2"))
        assert switch.from_vm("blue1", reply).dropped(Drop.NEIGHBOR_CONSUMED)
        seen = switch.from_vm(
            "blue1", solicitation(v6("blue2"), v6("blue1"), mac_of("blue1"), mac_of("blue2"))
        )
        assert ndp.parse(seen.frame).link_address == mac_of("blue2")
        body = b"\x88\0\0\0\x60\0\0\0" + ip(v6("blue1")) + b"\2\1" + mac_of("blue1")
        frame = icmpv6(v6("blue1"), v6("blue2"), body, mac_of("blue2"), mac_of("blue1"))
        assert switch.from_vm("blue1", frame).dropped(Drop.NEIGHBOR_CONSUMED)


def test_a_vm_of_this_host_answers_by_itself() -> None:
    with _switch(1, NAT, ("blue1",), lookup_records=tuple(_local_nat())) as switch:
        asked = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), v4("blue4")), mac_of("blue4"))
        assert switch.from_vm("blue1", asked).ports == {"blue4": [(bytes(10), asked)]}


def _local_nat() -> list[LookupRecord]:
    return [
        msgspec.structs.replace(each, rule=NAT)
        if each.vm_name == "blue4" and "." in each.customer_address
        else each
        for each in records()
    ]


def test_a_broadcast_makes_no_copy_for_hosts_of_such_records_alone() -> None:
    with _switch(1, NAT, ("blue1", "blue2")) as switch:
        frame = ethernet(
            b"\xff" * 6, mac_of("blue1"), 0x0800, ipv4(v4("blue1"), "255.255.255.255", UDP, PAYLOAD)
        )
        seen = switch.from_vm("blue1", frame)
        assert [nvgre.parse(each).destination_pa for _, each in seen.wire] == [ip("192.168.1.3")]


# ---- from the wire ------------------------------------------------------------------------


def _plain(source: str, destination: str) -> bytes:
    return ethernet(nic_mac(1), nic_mac(2), 0x0800, ipv4(source, destination, PROTOCOL, PAYLOAD))


def test_what_is_for_no_such_record_is_not_taken() -> None:
    with _switch(1, NAT) as switch:
        assert switch.from_wire(_plain(OUTSIDE["blue2"], "192.168.1.1")).dropped(Drop.NOT_NVGRE)
        assert switch.from_wire(_plain(OUTSIDE["blue1"], OUTSIDE["blue2"])).dropped(Drop.NOT_NVGRE)
        switch.apply(_policy(1, NAT), preferred=[])
        assert switch.from_wire(_plain(OUTSIDE["blue2"], OUTSIDE["blue1"])).dropped(Drop.NOT_NVGRE)


@pytest.mark.parametrize("source", ["192.168.9.99", "192.168.1.2"])
def test_unknown_senders_are_told(source: str) -> None:
    with _switch(1, NAT) as switch:
        assert switch.from_wire(_plain(source, OUTSIDE["blue1"])).dropped(Drop.POLICY_MISMATCH)
        (event,) = switch.state.events.take()
        assert (event.kind, event.fields["vsid"], event.fields["pa"]) == ("policy-mismatch", 5001, source)


def test_senders_of_other_networks_and_rules_are_unknown() -> None:
    """Red2 behind a Nat address is none of blue's; one of rule None is no sender to Nat."""
    mixed = [
        msgspec.structs.replace(each, rule=NAT, provider_address="192.168.9.26")
        if each.vm_name == "red2" and "." in each.customer_address
        else each
        for each in _policy(1, NAT).lookup_records
    ]
    with _switch(1, NAT, lookup_records=tuple(mixed)) as switch:
        assert switch.from_wire(_plain("192.168.9.26", OUTSIDE["blue1"])).dropped(Drop.POLICY_MISMATCH)
    mixed = [msgspec.structs.replace(each, rule=NONE) if each.vm_name == "blue2" else each for each in mixed]
    with _switch(1, NAT, lookup_records=tuple(mixed)) as switch:
        assert switch.from_wire(_plain(v4("blue2"), OUTSIDE["blue1"])).dropped(Drop.POLICY_MISMATCH)


def test_without_a_port() -> None:
    with _switch(1, NAT) as switch:
        switch.state.remove_port("blue1")
        assert switch.from_wire(_plain(OUTSIDE["blue2"], OUTSIDE["blue1"])).dropped(Drop.NO_PORT)
        assert switch.datapath.drops == {("wnv", "nic1", 5001, Drop.NO_PORT): 1}


def test_the_address_decides_not_the_mac() -> None:
    """The fabric may flood it with a group MAC: it is still for one VM."""
    with _switch(1, NAT) as switch:
        frame = b"\xff" * 6 + _plain(OUTSIDE["blue2"], OUTSIDE["blue1"])[6:]
        assert switch.from_wire(frame).ports.keys() == {"blue1"}


def test_nvgre_to_such_an_address_is_nvgre() -> None:
    with _switch(1, NAT) as switch:
        inner = _v4("blue3", v4("blue1"), mac_of("blue1"))
        arriving = encapsulated(inner, 5001, "192.168.1.3", OUTSIDE["blue1"], nic_mac(1))
        assert switch.from_wire(arriving).ports == {"blue1": [(bytes(10), inner)]}
