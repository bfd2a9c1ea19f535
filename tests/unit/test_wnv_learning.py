"""testbed.wnv.learning: which packets say that a VM uses an address, and which don't."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from support import dhcp
from support.frames import BROADCAST, UDP, arp, encapsulated, ethernet, icmpv6, ip, ipv4, mac, solicitation
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, policy, records, v4, v6
from testbed.packets import arp as arp_codec
from testbed.packets import ndp
from testbed.switch.drops import Drop
from testbed.topology.plan import LookupRecord
from testbed.wnv import exchanges

BLUE1, BLUE4 = mac_of("blue1"), mac_of("blue4")
NEW, NEW_V6 = "10.0.0.77", "fd00::77"
ALL_NODES_MAC = b"\x33\x33\0\0\0\1"
XID, XID_V6 = b"\1\2\3\4", b"\1\2\3"
SERVER = mac_of("blue2"), v4("blue2")


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def claims(switch: MemorySwitch) -> list[tuple[str, str, str]]:
    """Port, address and how of what was noticed since last asked."""
    found = [(claim.port.name, str(ipaddress.ip_address(claim.ca)), claim.how) for claim in switch.claims]
    switch.claims.clear()
    return found


def request(sender: str, target: str = "10.0.0.9", own: bytes = BLUE1, to: bytes = BROADCAST) -> bytes:
    return arp(1, (own, sender), (bytes(6), target), to)


def advertisement(
    address: str, own: bytes = BLUE1, to: bytes = ALL_NODES_MAC, destination: str = "ff02::1"
) -> bytes:
    body = b"\x88\0\0\0\x20\0\0\0" + ip(address) + b"\2\1" + own
    return icmpv6(address, destination, body, to, own)


# ---- ARP and ND ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        request(NEW),
        request(NEW, NEW),  # gratuitous
        request(NEW, v4("blue2"), to=mac_of("blue2")),
        arp(2, (BLUE1, NEW), (BLUE1, NEW), BROADCAST),
        arp(2, (BLUE1, NEW), (mac_of("blue2"), v4("blue2")), mac_of("blue2")),
    ],
)
def test_the_sender_of_arp_uses_its_address(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", frame)
    assert claims(switch) == [("blue1", NEW, "arp")]


@pytest.mark.parametrize(
    "frame",
    [
        solicitation(v6("blue2"), NEW_V6, BLUE1),
        solicitation(v6("blue2"), NEW_V6, BLUE1, mac_of("blue2")),
        advertisement(NEW_V6),
        advertisement(NEW_V6, to=mac_of("blue2"), destination=v6("blue2")),
    ],
)
def test_so_do_who_solicits_and_who_advertises(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", frame)
    assert claims(switch) == [("blue1", NEW_V6, "nd")]


FOREIGN = mac("00:15:5d:77:77:77")
NO_CLAIM = {
    "ARP probe": request("0.0.0.0", NEW),
    "duplicate detection": solicitation(NEW_V6, "::", BLUE1),
    "its own": request(v4("blue1")),
    "its own IPv6": advertisement(v6("blue1")),
    "link-local": request("169.254.1.1"),
    "link-local IPv6": advertisement("fe80::77"),
    "multicast": request("224.0.0.1"),
    "broadcast": request("255.255.255.255"),
    "loopback": request("127.0.0.1"),
    "this network": request("0.1.2.3"),
    "loopback IPv6": advertisement("::1"),
    "another sender": ethernet(BROADCAST, BLUE1, 0x0806, request(NEW, own=FOREIGN)[14:]),
    "another source": ethernet(BROADCAST, FOREIGN, 0x0806, request(NEW)[14:]),
    "another source IPv6": advertisement(NEW_V6)[:6] + FOREIGN + advertisement(NEW_V6)[12:],
    "another advertised": icmpv6(
        NEW_V6, "ff02::1", b"\x88\0\0\0\x20\0\0\0" + ip(NEW_V6) + b"\2\1" + FOREIGN, ALL_NODES_MAC, BLUE1
    ),
    "hop limit": icmpv6(
        NEW_V6, "ff02::1", b"\x88\0\0\0\x20\0\0\0" + ip(NEW_V6), ALL_NODES_MAC, BLUE1, hops=64
    ),
    "IP": ethernet(mac_of("blue2"), BLUE1, 0x0800, ipv4(NEW, v4("blue2"), UDP, dhcp.udp(1, 2, b""))),
}


@pytest.mark.parametrize("frame", NO_CLAIM.values(), ids=NO_CLAIM.keys())
def test_what_says_nothing(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", frame)
    assert claims(switch) == []


def test_an_address_of_another_vm_is_news(switch: MemorySwitch) -> None:
    switch.from_vm("blue1", request(v4("blue2"), v4("blue2")))
    assert claims(switch) == [("blue1", v4("blue2"), "arp")]


def test_outside_virtual_subnets_nothing_is_learned() -> None:
    with MemorySwitch(plain_ports=["plain"]) as switch:
        own = switch.state.ports["plain"].mac
        switch.from_vm("plain", request(NEW, own=own))
        assert claims(switch) == []


def test_nor_below_the_switch() -> None:
    with MemorySwitch(mode="below-switch") as switch:
        switch.from_vm("blue1", request(NEW))
        assert claims(switch) == []


def test_what_waits_for_a_neighbor_is_seen_once(switch: MemorySwitch) -> None:
    del switch.state.neighbors[ip(pa(2, 5001))]
    switch.from_vm("blue1", arp(1, (BLUE1, NEW), (bytes(6), v4("blue2")), mac_of("blue2")))
    assert claims(switch) == [("blue1", NEW, "arp")]
    switch.neighbor(pa(2, 5001), nic_mac(2))
    assert claims(switch) == []


# ---- VMs without an address ---------------------------------------------------------------


def test_the_first_packet_of_a_vm_whose_address_nobody_knows(switch: MemorySwitch) -> None:
    near = mac("00:15:5d:00:0e:02")
    learner = LookupRecord("0.0.0.0", 5001, near.hex(":"), pa(1, 5001), type="L2Only")
    switch.add_port("near", near, 5001)
    switch.apply(policy(lookup_records=(*records(), learner)))
    frame = ethernet(mac_of("blue2"), near, 0x0800, ipv4(NEW, v4("blue2"), UDP, dhcp.udp(1, 2, b"data")))
    for _ in range(2):  # the second takes the cached path, where nobody looks
        assert switch.from_vm("near", frame).wire
    assert claims(switch) == [("near", NEW, "packet")]
    known = LookupRecord(NEW, 5001, near.hex(":"), pa(1, 5001), type="Dynamic")
    switch.apply(policy(lookup_records=(*records(), learner, known)))
    switch.from_vm("near", frame)
    assert claims(switch) == []


# ---- DHCP ---------------------------------------------------------------------------------


def arriving(frame: bytes) -> bytes:
    return encapsulated(frame, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1), nic_mac(2))


def ack(client: bytes = BLUE1, xid: bytes = XID, address: str = NEW, kind: int = dhcp.ACK) -> bytes:
    return dhcp.told(dhcp.v4(kind, client, xid, address), SERVER, client)


def reply(*options: bytes, xid: bytes = XID_V6, kind: int = dhcp.REPLY) -> bytes:
    message = dhcp.v6(kind, xid, *options or (dhcp.lease((NEW_V6, 60)),))
    return dhcp.told_v6(message, (mac_of("blue2"), "fe80::2"), BLUE1)


def test_an_answer_from_another_host_is_seen_though_its_flow_is_cached(switch: MemorySwitch) -> None:
    for _ in range(2):
        assert switch.from_wire(arriving(ack())).ports
    assert switch.cached() == 1
    assert claims(switch) == []
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    assert switch.datapath.inspects
    assert switch.from_wire(arriving(ack())).ports.keys() == {"blue1"}
    assert claims(switch) == [("blue1", NEW, "dhcp")]
    assert not switch.datapath.inspects
    switch.from_wire(arriving(ack()))
    assert claims(switch) == []  # it was the answer to nothing


def test_an_answer_in_ipv6(switch: MemorySwitch) -> None:
    for kind in (dhcp.SOLICIT, dhcp.REQUEST_V6, dhcp.RENEW, dhcp.REBIND):
        switch.from_vm("blue1", dhcp.asked_v6(BLUE1, XID_V6, kind))
        switch.from_wire(arriving(reply(kind=dhcp.ADVERTISE)))
        assert claims(switch) == []
        switch.from_wire(arriving(reply()))
        assert claims(switch) == [("blue1", NEW_V6, "dhcp")]
        assert not switch.datapath.inspects


def test_each_question_is_seen(switch: MemorySwitch) -> None:
    for number in range(3):
        xid = bytes((number, 0, 0, 0))
        switch.from_vm("blue1", dhcp.asked(BLUE1, xid))
        switch.from_wire(arriving(ack(xid=xid)))
        assert claims(switch) == [("blue1", NEW, "dhcp")]


def test_server_and_client_on_one_host(switch: MemorySwitch) -> None:
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    for _ in range(2):
        frame = dhcp.told(dhcp.v4(dhcp.OFFER, BLUE1, XID, NEW), (BLUE4, v4("blue4")), BLUE1, v4("blue1"))
        assert switch.from_vm("blue4", frame).ports
    assert claims(switch) == []
    answer = dhcp.told(dhcp.v4(dhcp.ACK, BLUE1, XID, NEW), (BLUE4, v4("blue4")), BLUE1, v4("blue1"))
    assert switch.from_vm("blue4", answer).ports.keys() == {"blue1"}
    assert claims(switch) == [("blue1", NEW, "dhcp")]


def test_a_broadcast_answer_gives_its_client_alone_an_address(switch: MemorySwitch) -> None:
    for client in (BLUE1, BLUE4):
        switch.from_vm("blue1" if client == BLUE1 else "blue4", dhcp.asked(client, XID))
    message = dhcp.v4(dhcp.ACK, BLUE4, XID, NEW)
    assert switch.from_wire(arriving(dhcp.told(message, SERVER, BROADCAST))).ports.keys() == {
        "blue1",
        "blue4",
    }
    assert claims(switch) == [("blue4", NEW, "dhcp")]
    assert switch.datapath.inspects  # the other one still waits


@pytest.mark.parametrize(
    "frame",
    [
        ack(client=FOREIGN)[:6].replace(FOREIGN, BLUE1) + ack(client=FOREIGN)[6:],
        ack(xid=b"\4\3\2\1"),
        ack(kind=dhcp.OFFER),
        ack(kind=dhcp.REQUEST),
        dhcp.told(dhcp.v4(dhcp.ACK, BLUE1, XID, NEW), SERVER, BLUE1, port=67),
        ack()[:-1],
        reply(),
    ],
)
def test_what_is_no_answer(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    assert switch.from_wire(arriving(frame)).ports
    assert claims(switch) == []
    assert switch.datapath.inspects


@pytest.mark.parametrize("frame", [ack(kind=dhcp.NAK), ack(address="0.0.0.0")])
def test_a_refusal_ends_the_exchange(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    switch.from_wire(arriving(frame))
    assert claims(switch) == []
    assert not switch.datapath.inspects


@pytest.mark.parametrize(
    "frame",
    [
        dhcp.asked(BLUE1, XID, dhcp.RELEASE),
        dhcp.asked(BLUE1, XID, dhcp.INFORM),
        dhcp.asked(FOREIGN, XID, source=BLUE1),
        dhcp.asked(BLUE1, XID, source=FOREIGN),
        dhcp.asked(BLUE1, XID)[:-1],
        dhcp.asked_v6(BLUE1, XID_V6, dhcp.RELEASE_V6),
        dhcp.asked_v6(BLUE1, XID_V6, dhcp.CONFIRM),
    ],
)
def test_what_is_no_question(switch: MemorySwitch, frame: bytes) -> None:
    switch.from_vm("blue1", frame)
    assert not switch.datapath.inspects


def test_an_exchange_without_an_answer_ends(switch: MemorySwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(exchanges, "monotonic", lambda: now[0])
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    now[0] += exchanges.SECONDS - 0.1
    switch.learning.exchanges.expire()
    assert switch.datapath.inspects
    now[0] += 0.1
    switch.learning.exchanges.expire()
    assert not switch.datapath.inspects
    switch.from_wire(arriving(ack()))
    assert claims(switch) == []


def test_a_port_that_goes_takes_its_exchange_with_it(switch: MemorySwitch) -> None:
    switch.from_vm("blue1", dhcp.asked(BLUE1, XID))
    switch.learning.forget("blue1")
    assert not switch.datapath.inspects


# ---- probes -------------------------------------------------------------------------------


def probe(switch: MemorySwitch, address: str, name: str = "blue1") -> bytes:
    port = switch.state.ports[name]
    seen = switch.caused(lambda: switch.learning.probes.send(switch.wnv.tables, port, ip(address)))
    assert seen.ports.keys() == {name}
    return seen.frame


def answered(switch: MemorySwitch, address: str) -> bool:
    return switch.learning.probes.answered("blue1", ip(address))


def test_an_arp_probe_and_its_answer_which_ends_in_the_switch(switch: MemorySwitch) -> None:
    frame = probe(switch, v4("blue1"))
    assert frame == arp(1, (gateway_mac(5001), "0.0.0.0"), (bytes(6), v4("blue1")), BLUE1)
    assert arp_codec.parse(frame).is_probe
    assert not answered(switch, v4("blue1"))
    answer = arp(2, (BLUE1, v4("blue1")), (gateway_mac(5001), "0.0.0.0"), gateway_mac(5001))
    assert switch.from_vm("blue1", answer).dropped(Drop.NEIGHBOR_CONSUMED)
    assert answered(switch, v4("blue1"))


def test_a_solicitation_and_its_answer(switch: MemorySwitch) -> None:
    asked = ndp.parse(probe(switch, v6("blue1")))
    assert (asked.source, asked.destination, asked.target) == (
        ip("fd00::1"),
        ip(v6("blue1")),
        ip(v6("blue1")),
    )
    assert asked.link_address == gateway_mac(5001)
    answer = advertisement(v6("blue1"), to=gateway_mac(5001), destination="fd00::1")
    assert switch.from_vm("blue1", answer).dropped(Drop.NEIGHBOR_CONSUMED)
    assert answered(switch, v6("blue1"))


def test_in_a_subnet_without_a_gateway_nobody_asks(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=tuple(each for each in records() if each.vm_name)))
    frame = probe(switch, v6("blue1"))
    asked = ndp.parse(frame)
    assert asked.source[:2] == b"\xfe\x80"  # never ::, which would take an address that is being checked
    answer = icmpv6(
        v6("blue1"),
        "fe80::ff:fe00:1",
        b"\x88\0\0\0\x60\0\0\0" + ip(v6("blue1")) + b"\2\1" + BLUE1,
        frame[6:12],
        BLUE1,
    )
    assert ip("fe80::ff:fe00:1") == asked.source
    assert switch.from_vm("blue1", answer).dropped(Drop.NEIGHBOR_CONSUMED)
    assert answered(switch, v6("blue1"))
    frame = probe(switch, v4("blue1"))
    answer = arp(2, (BLUE1, v4("blue1")), (frame[6:12], "0.0.0.0"), frame[6:12])
    assert switch.from_vm("blue1", answer).dropped(Drop.NEIGHBOR_CONSUMED)


def test_any_sign_of_the_address_is_an_answer_and_other_addresses_are_none(switch: MemorySwitch) -> None:
    probe(switch, v4("blue1"))
    switch.from_vm("blue1", request(NEW))
    switch.from_vm("blue4", request(v4("blue1"), own=BLUE4))  # another VM's
    assert not answered(switch, v4("blue1"))
    switch.from_vm("blue1", request(v4("blue1")))
    assert answered(switch, v4("blue1"))
    switch.learning.probes.end("blue1", ip(v4("blue1")))
    assert not answered(switch, v4("blue1"))


def test_an_answer_to_another_vms_probe_goes_there(switch: MemorySwitch) -> None:
    learner = LookupRecord("0.0.0.0", 5001, BLUE4.hex(":"), pa(1, 5001), type="L2Only")
    switch.apply(policy(lookup_records=(*records(), learner)))
    answer = arp(2, (BLUE1, v4("blue1")), (BLUE4, "0.0.0.0"), BLUE4)
    assert switch.from_vm("blue1", answer).ports.keys() == {"blue4"}
