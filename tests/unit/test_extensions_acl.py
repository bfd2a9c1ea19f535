"""The shipped acl extension: rules, connections, bounds; in a switch and packet by packet."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from support.frames import ICMP, ICMPV6, TCP, UDP, arp, encapsulated, ethernet, ipv4, ipv6, mac, ports
from support.frames import solicitation as solicit
from support.switch import MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.errors import BadInput
from testbed.extensions import headers as ip
from testbed.switch.extensions.api import Extension, Frame, SwitchPort
from testbed.switch.extensions.load import load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan

SYN, ACK, FIN, RST, SYN_ACK = 2, 16, 17, 4, 18
HERE, THERE = "10.0.0.5", "10.0.0.6"


def loaded(**settings: Any) -> Extension:
    (extension,) = load([ExtensionPlan("acl", settings)], EventLog())
    return extension


def tcp(flags: int, source: int, destination: int) -> bytes:
    return ports(source, destination) + bytes(8) + bytes([0x50, flags]) + bytes(6)


def echo(kind: int, identifier: int) -> bytes:
    return bytes([kind, 0, 0, 0]) + identifier.to_bytes(2, "big") + bytes(10)


class Bench:
    """An acl in front of one VM, HERE at port "vm:eth0"."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.acl = loaded(**settings)
        self.acl._connections._clock = lambda: self.now  # type: ignore[attr-defined]
        self.acl.attach_port(SwitchPort("vm:eth0", mac("02:00:00:00:00:01"), 5001))

    def out(self, packet: bytes, kind: int = 0x0800, vsid: int = 5001) -> bool:
        """Whether a packet of the VM passes."""
        frame = memoryview(ethernet(bytes(6), bytes(6), kind, packet))
        return self.acl.ingress(Frame("CA", b"", frame, vsid, "vm:eth0")) is None

    def into(self, packet: bytes, kind: int = 0x0800, vsid: int = 5001) -> bool:
        """Whether a packet for the VM passes."""
        frame = memoryview(ethernet(bytes(6), bytes(6), kind, packet))
        return self.acl.egress(Frame("CA", b"", frame, vsid, "nic1", "vm:eth0")) is None

    def out4(self, protocol: int, payload: bytes, to: str = THERE, fragment: int = 0) -> bool:
        return self.out(ipv4(HERE, to, protocol, payload, fragment))

    def into4(self, protocol: int, payload: bytes, of: str = THERE, fragment: int = 0) -> bool:
        return self.into(ipv4(of, HERE, protocol, payload, fragment))


# ---- rules --------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides() -> None:
    bench = Bench(
        rules=[
            {"action": "allow", "remote": ["10.0.0.6", "fd00::/64"], "name": "friends"},
            {"action": "deny", "remote": ["10.0.0.0/24"]},
        ],
    )
    assert bench.out4(UDP, ports(1, 2))
    assert not bench.out4(UDP, ports(1, 2), "10.0.0.7")
    assert bench.out4(UDP, ports(1, 2), "10.0.1.7")
    assert bench.acl.counters() == {"friends": 1, "rule-1": 1}
    assert bench.acl.scope == "flow"


DENY: list[tuple[dict[str, Any], bool, bool]] = [
    # rule, whether it holds for HERE:1000 -> THERE:80 (TCP), and for the way back
    ({}, True, True),
    ({"direction": "from-vm"}, True, False),
    ({"direction": "to-vm"}, False, True),
    ({"local": ["10.0.0.5/32"], "remote": ["10.0.0.6"]}, True, True),
    ({"local": ["10.0.0.6"]}, False, False),
    ({"remote": ["::/0"]}, False, False),
    ({"protocol": "tcp"}, True, True),
    ({"protocol": 6}, True, True),
    ({"protocol": "udp"}, False, False),
    ({"protocol": "tcp", "local_ports": ["900-1000"]}, True, True),
    ({"protocol": "tcp", "local_ports": ["1001-2000", 80]}, False, False),
    ({"protocol": "tcp", "remote_ports": [80]}, True, True),
    ({"vsids": [5001]}, True, True),
    ({"vsids": [5002]}, False, False),
    ({"ports": ["vm:eth0"]}, True, True),
    ({"ports": ["vm:eth1"]}, False, False),
    ({"space": "PA"}, False, False),
]


@pytest.mark.parametrize(("rule", "out", "back"), DENY, ids=range(len(DENY)))
def test_what_a_rule_asks_for(rule: dict[str, Any], out: bool, back: bool) -> None:
    bench = Bench(rules=[{"action": "deny", **rule}])
    assert bench.out4(TCP, tcp(ACK, 1000, 80)) != out
    assert bench.into4(TCP, tcp(ACK, 80, 1000)) != back


def test_rules_with_ports_pass_over_what_has_none() -> None:
    bench = Bench(rules=[{"action": "deny", "protocol": "udp", "remote_ports": ["0-65535"]}])
    assert not bench.out4(UDP, ports(1, 2))
    assert not bench.out4(UDP, ports(1, 2), fragment=0x2000)  # the first fragment has them
    assert bench.out4(UDP, ports(1, 2), fragment=0x0001)
    assert bench.out4(UDP, b"\0\1")  # truncated
    assert bench.out4(TCP, ports(1, 2))


def test_only_what_ports_tell_holds_for_a_flow() -> None:
    acl = loaded(rules=[{"action": "deny", "protocol": "udp", "remote_ports": [9]}])

    def scope(packet: bytes) -> str:
        return acl.scope_of(
            Frame("CA", b"", memoryview(ethernet(bytes(6), bytes(6), 0x0800, packet)), 1, "a")
        )

    assert scope(ipv4(HERE, THERE, UDP, ports(1, 2))) == "flow"
    assert scope(ipv4(HERE, THERE, UDP, ports(1, 2), 0x2000)) == "packet"
    assert scope(ipv4(HERE, THERE, UDP, ports(1, 2), 1)) == "packet"
    assert scope(ipv4(HERE, THERE, ICMP, echo(8, 1))) == "packet"


def test_arp_and_neighbor_discovery_pass_in_any_case() -> None:
    bench = Bench(default="deny")
    assert not bench.out4(UDP, ports(1, 2))
    request = arp(1, (mac("02:00:00:00:00:01"), HERE), (bytes(6), THERE), b"\xff" * 6)
    assert bench.out(request[14:], 0x0806)
    assert bench.out(solicit("fd00::6", "fd00::5", mac("02:00:00:00:00:01"))[14:], 0x86DD)
    assert not bench.out(ipv6("fd00::5", "fd00::6", ICMPV6, echo(128, 1)), 0x86DD)
    # hidden behind an extension header, and in a later fragment that only looks like it
    hop_by_hop = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    assert not bench.out(ipv6("fd00::5", "fd00::6", 0, hop_by_hop + ports(1, 2)), 0x86DD)
    later = bytes([ICMPV6, 0, 0, 8, 0, 0, 0, 0])
    assert not bench.out(ipv6("fd00::5", "fd00::6", 44, later + b"\x87\0\0\0"), 0x86DD)


def test_a_tagged_packet_is_no_way_around() -> None:
    bench = Bench(default="deny")
    assert not bench.out(b"\0\7\x08\x00" + ipv4(HERE, THERE, UDP, ports(1, 2)), 0x8100)


def test_in_a_switch_on_both_sides() -> None:
    rules = [
        {"action": "deny", "name": "no-out", "direction": "from-vm", "ports": ["blue1"]},
        {
            "action": "deny",
            "name": "no-in",
            "direction": "to-vm",
            "ports": ["blue4"],
            "remote": [v4("blue2")],
        },
        {
            "action": "deny",
            "name": "no-host3",
            "space": "PA",
            "direction": "to-wire",
            "remote": [pa(3, 5001)],
        },
        {"action": "deny", "name": "no-5002", "space": "PA", "direction": "from-wire", "vsids": [5002]},
    ]

    def udp(name: str, to: str) -> bytes:
        return ethernet(
            mac_of(to), mac_of(name), 0x0800, ipv4(v4(name), v4(to), UDP, ports(1, 2) + bytes(20))
        )

    def wire(name: str, to: str, vsid: int) -> bytes:
        return encapsulated(udp(name, to), vsid, pa(2, vsid), pa(1, vsid), nic_mac(1))

    with MemorySwitch(extensions=[loaded(rules=rules)]) as switch:
        for _ in range(2):
            assert switch.from_vm("blue1", udp("blue1", "blue2")).drops == {("blue1", "acl:no-out"): 1}
            assert switch.from_vm("blue4", udp("blue4", "blue2")).wire
            assert switch.from_vm("blue4", udp("blue4", "blue3")).drops == {("blue4", "acl:no-host3"): 1}
            assert switch.from_wire(wire("blue2", "blue4", 5001)).drops == {("nic1", "acl:no-in"): 1}
            assert switch.from_wire(wire("blue2", "blue1", 5001)).ports
            assert switch.from_wire(wire("web2", "web1", 5002)).drops == {("nic1", "acl:no-5002"): 1}
        assert switch.cached() == 6


# ---- stateful rules -----------------------------------------------------------------------

OUT_ONLY = {"rules": [{"action": "allow", "direction": "from-vm", "stateful": True}], "default": "deny"}


@pytest.fixture
def bench() -> Bench:
    made = Bench(**OUT_ONLY)
    assert made.acl.scope == "packet"
    return made


def test_udp_answers_pass_until_idle(bench: Bench) -> None:
    assert not bench.into4(UDP, ports(53, 1000))
    assert bench.out4(UDP, ports(1000, 53))
    for _ in range(5):
        bench.now += 59
        assert bench.into4(UDP, ports(53, 1000))
    assert not bench.into4(UDP, ports(54, 1000))
    assert not bench.into4(UDP, ports(53, 1000), "10.0.0.7")
    bench.now += 60
    assert not bench.into4(UDP, ports(53, 1000))
    assert bench.acl.counters()["connections"] == 0


def test_tcp_from_syn_to_fin(bench: Bench) -> None:
    # without a SYN a packet passes by the rule, and opens nothing
    assert bench.out4(TCP, tcp(ACK, 1000, 80))
    assert not bench.into4(TCP, tcp(ACK, 80, 1000))
    assert not bench.into4(TCP, tcp(SYN, 80, 1000))
    assert bench.out4(TCP, tcp(SYN, 1000, 80))
    assert bench.into4(TCP, tcp(SYN_ACK, 80, 1000))
    assert bench.out4(TCP, tcp(ACK, 1000, 80))
    bench.now += 3599
    assert bench.into4(TCP, tcp(ACK, 80, 1000))
    assert not bench.into4(TCP, tcp(SYN, 80, 1000))  # a connection of the other side's own
    assert bench.into4(TCP, tcp(FIN, 80, 1000))
    bench.now += 100
    assert bench.into4(TCP, tcp(ACK, 80, 1000))  # half closed
    assert bench.out4(TCP, tcp(FIN, 1000, 80))
    assert bench.into4(TCP, tcp(ACK, 80, 1000))
    bench.now += 9
    assert bench.into4(TCP, tcp(ACK, 80, 1000))  # keeps nothing alive
    bench.now += 1
    assert not bench.into4(TCP, tcp(ACK, 80, 1000))


def test_tcp_reset_and_unanswered(bench: Bench) -> None:
    assert bench.out4(TCP, tcp(SYN, 1000, 80))
    bench.now += 29
    assert bench.into4(TCP, tcp(RST | ACK, 80, 1000))
    bench.now += 10
    assert not bench.into4(TCP, tcp(ACK, 80, 1000))
    assert bench.out4(TCP, tcp(SYN, 1000, 81))
    for _ in range(3):
        bench.now += 10
        assert bench.out4(TCP, tcp(ACK, 1000, 81))
    assert not bench.into4(TCP, tcp(SYN_ACK, 81, 1000))
    assert bench.out4(TCP, tcp(SYN, 1000, 81))  # again, on the same ports
    assert bench.into4(TCP, tcp(SYN_ACK, 81, 1000))


@pytest.mark.parametrize(("request_type", "reply_type", "v"), [(8, 0, 4), (128, 129, 6)])
def test_echo(bench: Bench, request_type: int, reply_type: int, v: int) -> None:
    def packet(source: str, destination: str, kind: int, identifier: int) -> tuple[bytes, int]:
        if v == 4:
            return ipv4(source, destination, ICMP, echo(kind, identifier)), 0x0800
        return ipv6(source, destination, ICMPV6, echo(kind, identifier)), 0x86DD

    here, there = (HERE, THERE) if v == 4 else ("fd00::5", "fd00::6")
    assert not bench.into(*packet(there, here, reply_type, 7))
    assert bench.out(*packet(here, there, reply_type, 7))  # allowed by the rule; opens nothing
    assert not bench.into(*packet(there, here, request_type, 7))
    assert bench.out(*packet(here, there, request_type, 7))
    assert bench.into(*packet(there, here, reply_type, 7))
    assert not bench.into(*packet(there, here, reply_type, 8))
    assert not bench.into(*packet(there, here, request_type, 7))


def test_icmp_errors_about_a_connection_pass(bench: Bench) -> None:
    def error(port: int, of: str = "192.0.2.1") -> bool:
        quoted = ipv4(HERE, THERE, TCP, tcp(ACK, port, 80)[:8])
        return bench.into4(ICMP, b"\3\4\0\0\0\0\5\0" + quoted, of)

    assert not error(1000)
    bench.out4(TCP, tcp(SYN, 1000, 80))
    assert error(1000)
    assert not error(1001)
    quoted = ipv6("fd00::5", "fd00::6", UDP, ports(1000, 53) + bytes(4))
    too_big = ipv6("fd00::1", "fd00::5", ICMPV6, b"\2\0\0\0\0\0\5\0" + quoted)
    assert not bench.into(too_big, 0x86DD)
    bench.out(ipv6("fd00::5", "fd00::6", UDP, ports(1000, 53) + bytes(4)), 0x86DD)
    assert bench.into(too_big, 0x86DD)
    # of an echo that was sent
    bench.out4(ICMP, echo(8, 7))
    assert bench.into4(ICMP, bytes([3, 1]) + bytes(6) + ipv4(HERE, THERE, ICMP, echo(8, 7)), "192.0.2.1")
    assert not bench.into4(ICMP, bytes([3, 1]) + bytes(6) + ipv4(HERE, THERE, ICMP, echo(8, 9)), "192.0.2.1")


def test_icmp_errors_of_the_vm_about_what_it_was_sent() -> None:
    rule = {"action": "allow", "direction": "to-vm", "stateful": True}
    bench = Bench(rules=[rule], default="deny")
    error = bytes([3, 3]) + bytes(6) + ipv4(THERE, HERE, UDP, ports(1000, 53) + bytes(4))
    assert not bench.out4(ICMP, error)
    assert bench.into4(UDP, ports(1000, 53))
    assert bench.out4(ICMP, error)
    assert bench.into4(ICMP, echo(8, 7))
    assert bench.out4(ICMP, bytes([3, 2]) + bytes(6) + ipv4(THERE, HERE, ICMP, echo(8, 7)))


def test_each_port_has_connections_of_its_own() -> None:
    with MemorySwitch(extensions=[loaded(**OUT_ONLY)]) as switch:

        def udp(name: str, to: str, source: int, destination: int) -> bytes:
            packet = ipv4(v4(name), v4(to), UDP, ports(source, destination) + bytes(20))
            return ethernet(mac_of(to), mac_of(name), 0x0800, packet)

        # between two VMs of this host: out of the first by its rule, into the second by none
        assert switch.from_vm("blue1", udp("blue1", "blue4", 7, 8)).drops == {("blue1", "acl:default"): 1}
        assert switch.from_vm("blue1", udp("blue1", "blue2", 7, 8)).wire
        answer = udp("blue2", "blue1", 8, 7)
        for _ in range(2):
            assert switch.from_wire(
                encapsulated(answer, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
            ).ports == {"blue1": [(bytes(10), answer)]}
        assert switch.cached() == 0


def test_the_table_is_bounded() -> None:
    bench = Bench(**OUT_ONLY, connections=3)
    for port in (1, 2, 3):
        assert bench.out4(UDP, ports(port, 53))
    assert not bench.out4(UDP, ports(4, 53))
    assert bench.out4(UDP, ports(3, 53))
    bench.now += 59
    assert bench.into4(UDP, ports(53, 1))
    assert not bench.out4(UDP, ports(4, 53))
    bench.now += 2
    assert bench.out4(UDP, ports(4, 53))
    assert bench.acl.counters()["connections"] == 2


def test_pas() -> None:
    rule = {"action": "allow", "space": "PA", "direction": "to-wire", "stateful": True}
    acl = loaded(rules=[rule], pa_default="deny")

    def udp(name: str, to: str) -> bytes:
        return ethernet(
            mac_of(to), mac_of(name), 0x0800, ipv4(v4(name), v4(to), UDP, ports(1, 2) + bytes(20))
        )

    with MemorySwitch(extensions=[acl]) as switch:
        answer = encapsulated(udp("blue2", "blue1"), 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
        assert switch.from_wire(answer).drops == {("nic1", "acl:default"): 1}
        assert switch.from_vm("blue1", udp("blue1", "blue2")).wire
        assert switch.from_wire(answer).ports
        other = encapsulated(udp("blue3", "blue1"), 5001, pa(3, 5001), pa(1, 5001), nic_mac(1))
        assert switch.from_wire(other).drops == {("nic1", "acl:default"): 1}


# ---- settings, hostile bytes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"direction": "to-wire"}, 'a CA rule has no direction "to-wire"; use both, from-vm, to-vm'),
        ({"space": "PA", "direction": "to-vm"}, 'a PA rule has no direction "to-vm"; use'),
        ({"space": "PA", "protocol": "tcp"}, "a PA rule sees NVGRE alone"),
        ({"local_ports": [80]}, "add protocol: tcp or udp"),
        ({"protocol": "tcp", "local_ports": ["9-8"]}, '"9-8" is no range of ports'),
        ({"protocol": "tcp", "local_ports": ["1-70000"]}, '"1-70000" is no range of ports'),
        ({"action": "deny", "stateful": True}, "leave stateful out of a deny rule"),
        ({"local": ["10.0.0.300"]}, "write a prefix such as 10.0.0.0/24 or an address"),
        ({"name": "Bad Name"}, "rules[0].name"),
    ],
)
def test_settings_that_mean_nothing(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        loaded(rules=[{"action": "allow", **rule}])
    assert message in str(caught.value)


def test_settings_survive_the_way_to_the_host() -> None:
    plan = ExtensionPlan("acl", {"rules": [{"action": "deny", "local": ["10.0.0.0/8"]}]})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=ExtensionPlan) == plan


def test_no_bytes_raise(bench: Bench) -> None:
    dice = random.Random(5)
    good = [
        ipv4(HERE, THERE, TCP, tcp(SYN, 1, 2)),
        ipv4(HERE, THERE, ICMP, b"\3\4\0\0\0\0\5\0" + ipv4(THERE, HERE, TCP, tcp(SYN, 1, 2))),
        ipv6(
            v6("blue1"),
            v6("blue2"),
            0,
            bytes([44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0]) + tcp(2, 1, 2),
        ),
        ipv6(
            v6("blue1"),
            v6("blue2"),
            ICMPV6,
            b"\2\0\0\0\0\0\5\0" + ipv6(v6("blue2"), v6("blue1"), UDP, bytes(8)),
        ),
    ]
    for packet in good:
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        for cut in range(len(packet)):
            bench.out(packet[:cut], kind)
            bench.into(packet[:cut], kind)
        for _ in range(300):
            broken = bytearray(packet)
            for _ in range(dice.randint(1, 6)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            bench.out(bytes(broken), kind)
            bench.into(bytes(broken), kind)
            found = ip.parse(ethernet(bytes(6), bytes(6), kind, bytes(broken)))
            if found:
                start, end = ip.payload(ethernet(bytes(6), bytes(6), kind, bytes(broken)), found)
                assert start <= end <= 14 + len(broken)
