"""A trace across hosts: the frames it makes, whom it asks, how it ends. The hosts are switches in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from scapy.layers.dhcp import DHCP
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS
from scapy.layers.l2 import ARP, Ether

from support.frames import ip, mac
from support.memory_lab import MemoryLab
from support.switch import VMS, gateway_mac, mac_of, nic_mac, pa, policy, v4, v6
from testbed.cli.main import cli
from testbed.cli.trace_text import lines
from testbed.errors import BadInput
from testbed.lab import trace as tracer
from testbed.lab import trace_frames
from testbed.lab.trace import Asked, Start
from testbed.lab.trace_frames import Ends, Kind
from testbed.nic.classifier import Steering
from testbed.nic.offloads import Offloads
from testbed.topology.plan import LookupRecord, ProviderAddress, VmPlan, VnicPlan

OWN, OTHER = mac("00:15:5d:00:00:01"), mac("00:15:5d:00:00:02")
ENDS = {
    4: Ends(OWN, OTHER, ip("10.0.0.5"), ip("10.0.0.6")),
    6: Ends(OWN, OTHER, ip("fd00::5"), ip("fd00::6")),
}


@pytest.fixture
def lab() -> Iterator[MemoryLab]:
    made = MemoryLab()
    yield made
    made.close()


# ---- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_frames_are_right_by_another_reader(version: int, protocol: str) -> None:
    for size in (0, 200, 1000):
        frame = trace_frames.packet(ENDS[version], Kind(protocol, 80, 1234, size))
        read = Ether(frame)
        assert (read.src, read.dst) == (OWN.hex(":"), OTHER.hex(":"))
        again = Ether(frame)
        for layer in (IP, TCP, UDP, ICMPv6EchoRequest):
            for field in ("chksum", "cksum"):
                if layer in again and field in [each.name for each in layer.fields_desc]:
                    delattr(again[layer], field)
        assert bytes(again) == frame  # all checksums as scapy makes them
        if protocol != "icmp":
            layer = TCP if protocol == "tcp" else UDP
            assert (read[layer].sport, read[layer].dport) == (1234, 80)
        if size:
            assert len(frame) == 14 + size


def test_questions_and_discoveries_are_right_by_another_reader() -> None:
    asked = Ether(trace_frames.question(ENDS[4]))
    assert (asked.dst, asked[ARP].op, asked[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", 1, "10.0.0.6")
    solicited = Ether(trace_frames.question(ENDS[6]))
    assert (solicited.dst, solicited[ICMPv6ND_NS].tgt) == ("33:33:ff:00:00:06", "fd00::6")
    discover = Ether(trace_frames.discover(OWN))
    assert discover[DHCP].options[0] == ("message-type", 1)
    assert (discover[IP].src, discover[UDP].sport, discover[UDP].dport) == ("0.0.0.0", 68, 67)


@pytest.mark.parametrize("size", [27, 65536])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(BadInput, match="28 to 65535"):
        trace_frames.packet(ENDS[4], Kind(size=size))


@pytest.mark.parametrize(("text", "said"), [("zz", "two hexadecimal digits"), ("0011", "14 to 65549")])
def test_what_is_no_frame_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        trace_frames.of_hex(text)


def test_frames_as_tcpdump_writes_them() -> None:
    assert trace_frames.of_hex("ffff ffff:ffff 0015\n5d000001 0806") == b"\xff" * 6 + OWN + b"\x08\x06"


def test_a_long_segment_is_a_super_packet() -> None:
    frame = trace_frames.packet(ENDS[4], Kind("tcp", 80, 1, 4000))
    assert trace_frames.super_packet(frame, 4000) == bytes(10)
    flags, kind, *_ = trace_frames.super_packet(frame, 1458)
    assert (flags, kind) == (1, 1)


def test_segments_are_followed_as_one(lab: MemoryLab) -> None:
    lab.hosts["host1"].nic.offloads = Offloads().changed({"nvgre": False})
    ends = Ends(mac_of("blue1"), mac_of("blue2"), ip(v4("blue1")), ip(v4("blue2")))
    frame = trace_frames.packet(ends, Kind("tcp", 80, 1, 4000))
    start = tracer.started_at(lab, "blue1")  # type: ignore[arg-type]
    asked = Asked(frame, trace_frames.super_packet(frame, 1458))
    found = tracer.trace(lab, start, asked)  # type: ignore[arg-type]
    assert found["outcome"] == "delivered to blue2 (blue2) on host2"
    assert [copy["to"] for copy in found["hops"][0]["copies"]] == ["wire"] * 3
    assert len(found["hops"]) == 2


# ---- across hosts -------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["blue2", "blue3", "web2"])
def test_delivered_on_another_host(lab: MemoryLab, other: str) -> None:
    where, vsid, _ = VMS[other]
    found = lab.ping("blue1", other, gateway_mac(5001) if vsid != 5001 else None)
    assert found["outcome"] == f"delivered to {other} ({other}) on host{where}"
    assert found["arrives"]
    assert lab.asked == ["host1", f"host{where}"]
    out, there = found["hops"]
    assert [each["stage"] for each in out["stages"]] == ["port", "wnv", "team", "nic"]
    assert [each["stage"] for each in there["stages"]] == ["nic", "team", "wnv", "port"]
    assert there["stages"][0]["details"]["outer"]["destination_pa"] == pa(where, vsid)
    (copy,) = there["copies"]
    assert bytes.fromhex(copy["frame"])[:6] == mac_of(other)


def test_delivered_on_the_same_host(lab: MemoryLab) -> None:
    found = lab.ping("blue1", "blue4")
    assert found["outcome"] == "delivered to blue4 (blue4) on host1"
    assert lab.asked == ["host1"]


def test_a_flood_reaches_every_host(lab: MemoryLab) -> None:
    found = lab.trace("blue1", trace_frames.discover(mac_of("blue1")))
    assert (
        found["outcome"]
        == "delivered to blue4 (blue4) on host1, blue2 (blue2) on host2, blue3 (blue3) on host3"
    )


def test_a_group_is_brought_to_its_members_only(lab: MemoryLab) -> None:
    group = LookupRecord("255.255.255.255", 5001, "01:00:5e:01:01:01", "239.1.1.1")
    for number, switch in enumerate(lab.hosts.values(), start=1):
        new = policy(number)
        switch.apply(policy(number, lookup_records=(*new.lookup_records, group)))
    lab.hosts["host3"].state.remove_port("blue3")
    found = lab.trace("blue1", trace_frames.discover(mac_of("blue1")))
    assert [hop["host"] for hop in found["hops"]] == ["host1", "host2"]


def test_answered_by_the_switch(lab: MemoryLab) -> None:
    ends = Ends(mac_of("blue1"), b"", ip(v6("blue1")), ip(v6("blue2")))
    found = lab.trace("blue1", trace_frames.question(ends))
    mac_text = mac_of("blue2").hex(":")
    assert found["outcome"] == f"answered by the switch of host1 for {v6('blue2')} with {mac_text}"
    assert found["arrives"]


def test_dropped_here_and_there(lab: MemoryLab) -> None:
    def outcome(found: dict[str, Any]) -> str:
        assert not found["arrives"]
        text: str = found["outcome"]
        return text

    ends = Ends(mac_of("blue1"), OTHER, ip(v4("blue1")), ip("10.0.0.99"))
    nobody = lab.trace("blue1", trace_frames.packet(ends, Kind()))
    assert outcome(nobody) == "dropped: no-lookup-record at wnv on host1"
    long = lab.ping("blue1", "blue2", size=1480)
    assert outcome(long) == "dropped: oversize at wnv on host1, and the sender is told"
    lab.hosts["host2"].apply(policy(2, lookup_records=()))
    assert outcome(lab.ping("blue1", "blue2")) == "dropped: policy-mismatch at wnv on host2"
    lab.hosts["host2"].apply(policy(2))
    lab.hosts["host2"].state.remove_port("blue2")
    assert outcome(lab.ping("blue1", "blue2")) == "dropped: no-port at port on host2"
    lab.hosts["host1"].lose_nics()
    assert outcome(lab.ping("blue1", "blue2")) == "dropped: no-uplink at team on host1"
    lab.hosts["host1"].find_nics()
    lab.down.add("host2")
    assert outcome(lab.ping("blue1", "blue2")) == "dropped: host-down at nic on host2"


def test_what_waits_goes_on_if_anybody_has_the_next_hop(lab: MemoryLab) -> None:
    neighbors = lab.hosts["host1"].state.neighbors
    del neighbors[ip(pa(2, 5001))]
    found = lab.ping("blue1", "blue2")
    assert found["arrives"]
    assert found["outcome"] == f"delivered to blue2 (blue2) on host2, once {pa(2, 5001)} is resolved"
    assert ip(pa(2, 5001)) not in neighbors
    assert lab.hosts["host1"].state.neighbors is neighbors
    lab.hosts["host2"].apply(policy(2), preferred=[])
    found = lab.ping("blue1", "blue2")
    assert found["outcome"] == f"waits on host1 until {pa(2, 5001)} is resolved"
    assert not found["arrives"]


def test_the_fabric_brings_it_where_the_mac_is(lab: MemoryLab) -> None:
    """A neighbor that is out of date: the host with the MAC drops it, whoever has the PA."""
    lab.hosts["host1"].state.neighbors[ip(pa(2, 5001))] = nic_mac(3)
    assert lab.ping("blue1", "blue2")["outcome"] == "dropped: pa-not-local at wnv on host3"


def test_the_queue_is_that_of_the_registers(lab: MemoryLab) -> None:
    lab.steering = Steering(rss=True, nvgre_rss=True, table=(0, 3))
    ends = Ends(mac_of("blue1"), mac_of("blue2"), ip(v4("blue1")), ip(v4("blue2")))
    queues = set()
    for port in range(1, 30):
        found = lab.trace("blue1", trace_frames.packet(ends, Kind("tcp", port)))
        queues.add(found["hops"][1]["stages"][0]["details"]["queue"])
    assert queues == {0, 3}


def test_of_an_unknown_adapter_or_port(lab: MemoryLab) -> None:
    for name, said in (("nobody", "no VM 'nobody'"), ("blue1:eth7", "one of blue1:eth0")):
        with pytest.raises(BadInput, match=said):
            tracer.started_at(lab, name)  # type: ignore[arg-type]
    start = tracer.started_at(lab, "blue1")  # type: ignore[arg-type]
    lab.hosts["host1"].state.remove_port("blue1")
    with pytest.raises(BadInput, match="no port 'blue1' on this host"):
        tracer.trace(lab, Start(*start), Asked(bytes(60)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of --to IP, --frame HEX, --dhcp and --arp IP"),
        (["--to", "10.0.0.6", "--dhcp"], "one of --to IP"),
        (["--dhcp", "--size", "100"], "--size goes with --to, not with --dhcp"),
        (["--to", "10.0.0.6", "--port", "80"], "--port needs --protocol tcp or udp"),
    ],
)
def test_what_can_not_be_asked(words: list[str], said: str) -> None:
    done = CliRunner().invoke(cli, ["trace", "lab", "--from", "blue1", *words], standalone_mode=False)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


OUTSIDE = {"blue1": "192.168.9.5", "blue2": "192.168.9.6"}


@pytest.mark.parametrize("rule", ["TranslationMethodNat", "TranslationMethodNone"])
def test_what_is_not_encapsulated_arrives(lab: MemoryLab, rule: str) -> None:
    for number, switch in enumerate(lab.hosts.values(), start=1):
        plain = policy(number)
        changed = tuple(
            msgspec.structs.replace(each, rule=rule, provider_address=OUTSIDE[each.vm_name])
            if each.vm_name in OUTSIDE and ":" not in each.customer_address
            else each
            for each in plain.lookup_records
        )
        own = tuple(
            ProviderAddress(address, 16, 5001) for name, address in OUTSIDE.items() if VMS[name][0] == number
        )
        addresses = plain.provider_addresses + own
        switch.apply(policy(number, lookup_records=changed, provider_addresses=addresses))
        switch.state.neighbors[ip(OUTSIDE["blue2"])] = nic_mac(2)
    found = lab.ping("blue1", "blue2")
    assert found["outcome"] == "delivered to blue2 (blue2) on host2"
    out, there = found["hops"]
    wire = next(copy for copy in out["copies"] if copy["to"] == "wire")
    assert wire["outer"] is None
    nat = rule.endswith("Nat")
    ends = ("192.168.9.5", "192.168.9.6") if nat else (v4("blue1"), v4("blue2"))
    read = Ether(bytes.fromhex(wire["frame"]))[IP]
    assert (read.src, read.dst) == ends
    wnv = next(stage for stage in there["stages"] if stage["stage"] == "wnv")
    assert wnv["details"]["translation"] == {"source": v4("blue1"), "destination": v4("blue2")}


def test_outside_virtual_subnets(lab: MemoryLab) -> None:
    plain = {1: mac("00:15:5d:aa:00:01"), 2: mac("00:15:5d:aa:00:02")}
    for number, address in plain.items():
        lab.hosts[f"host{number}"].add_port(f"plain{number}", address, 0)
    vms = tuple(
        VmPlan(
            f"plain{number}", f"host{number}", (VnicPlan("eth0", f"plain{number}", 0, each.hex(":"), 1500),)
        )
        for number, each in plain.items()
    )
    lab.add(vms)
    ends = Ends(plain[1], plain[2], ip("192.0.2.1"), ip("192.0.2.2"))
    found = lab.trace("plain1", trace_frames.packet(ends, Kind()))
    assert found["outcome"] == "delivered to plain2 (plain2) on host2"
    asked = lab.trace("plain1", trace_frames.question(ends))
    assert asked["outcome"] == "delivered to plain2 (plain2) on host2"
    assert lab.asked[-2:] == ["host2", "host3"]
    nobody = lab.trace("plain1", trace_frames.packet(ends._replace(destination_mac=OTHER), Kind()))
    assert nobody["outcome"] == "dropped: not-for-us at nic on host2"
    too_long = lab.trace("plain1", trace_frames.packet(ends, Kind(size=1600)))
    assert too_long["outcome"] == "dropped: tx-oversize at nic on host1"


def test_a_frame_with_a_wrong_checksum_is_refused_by_a_nic_that_verifies(lab: MemoryLab) -> None:
    lab.hosts["host2"].nic.offloads = Offloads()
    ends = Ends(mac_of("blue1"), mac_of("blue2"), ip(v4("blue1")), ip(v4("blue2")))
    frame = trace_frames.packet(ends, Kind("udp"))
    assert lab.trace("blue1", frame)["arrives"]
    found = lab.trace("blue1", frame[:40] + b"\x12\x34" + frame[42:])
    assert found["outcome"] == "dropped: bad-checksum at nic on host2"
    assert found["hops"][1]["stages"][-1]["way"] == "in"


def test_a_trace_in_words(lab: MemoryLab) -> None:
    told = [*lines(lab.ping("blue1", "web2", gateway_mac(5001)))]
    assert told[:3] == [
        "42 bytes from blue1",
        "host1, outbound, blue1",
        "  port (out): pass: from blue1, VSID 5001",
    ]
    assert told[3].startswith(
        "  wnv (out): pass: to 10.0.1.6; route 10.0.1.0/24 on-link, metric 255, of VSID 5002"
    )
    record = f"record 10.0.1.6: {mac_of('web2').hex(':')} at {pa(2, 5002)}, VSID 5002, Encap"
    assert f"{record}; NVGRE {pa(1, 5001)} > {pa(2, 5002)}, VSID 5002" in told[3]
    assert told[-1] == "delivered to web2 (web2) on host2"
    assert "  -> to port web2, queue 0" in told


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "waits: 192.168.1.3 is to be resolved first"),
        (1480, "waits: 192.168.1.3 is to be resolved first"),
    ],
)
def test_waiting_in_words(lab: MemoryLab, size: int, said: str) -> None:
    del lab.hosts["host1"].state.neighbors[ip(pa(3, 5001))]
    lab.hosts["host3"].apply(policy(3), preferred=[])
    told = [*lines(lab.ping("blue1", "blue3", size=size))]
    assert told[-2] == f"  -> {said}"
    assert told[-1] == "waits on host1 until 192.168.1.3 is resolved"
    assert "next hop 192.168.1.3 (unresolved): would wait" in told[3]


def test_losses_in_words(lab: MemoryLab) -> None:
    told = [*lines(lab.ping("blue1", "blue2", size=1480))]
    assert told[5] == "  wnv (out): drop, oversize: IP length 1522, the cable takes 1500; the sender is told"
    lab.hosts["host1"].lose_nics()
    told = [*lines(lab.ping("blue1", "blue2"))]
    assert "  team (out): drop, no-uplink" in told
