"""The shipped port-security extension: what a VM may claim to be."""

from __future__ import annotations

from typing import Any

import pytest

from support.frames import BROADCAST, ICMP, ICMPV6, UDP, arp, ethernet, icmpv6, ipv4, ipv6, mac, ports
from support.frames import solicitation as solicit
from support.switch import MemorySwitch, mac_of, v4
from testbed.errors import BadInput
from testbed.extensions import port_security
from testbed.switch.extensions.api import Deny, Extension, Frame, SwitchPort
from testbed.switch.extensions.load import load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan

MAC, OTHER = mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02")
PORT = "vm:eth0"


def loaded(**settings: Any) -> Extension:
    (extension,) = load([ExtensionPlan("port-security", settings)], EventLog())
    extension.attach_port(SwitchPort(PORT, MAC, 5001))
    return extension


def sent(extension: Extension, frame: bytes, port: str = PORT) -> str:
    """Why a frame of the VM is denied, or ""."""
    shown = Frame("CA", b"", memoryview(frame), 5001, port)
    decision = extension.ingress(shown)
    assert extension.egress(shown) is None
    return decision.reason if isinstance(decision, Deny) else ""


def v4_frame(protocol: int, payload: bytes, fragment: int = 0, source: str = "10.0.0.5") -> bytes:
    return ethernet(OTHER, MAC, 0x0800, ipv4(source, "10.0.0.6", protocol, payload, fragment))


def v6_frame(next_header: int, payload: bytes, source: str = "fd00::5") -> bytes:
    return ethernet(OTHER, MAC, 0x86DD, ipv6(source, "fd00::6", next_header, payload))


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return ports(source, destination) + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\0\0\7" + frame[12:]


# ---- MAC ----------------------------------------------------------------------------------


def test_mac_spoofing() -> None:
    good = ethernet(OTHER, MAC, 0x0800, ipv4("10.0.0.5", "10.0.0.6", UDP, udp(1, 2, b"")))
    bad = good[:6] + OTHER + good[12:]
    lies = ethernet(
        BROADCAST, MAC, 0x0806, arp(1, (OTHER, "10.0.0.6"), (bytes(6), "10.0.0.7"), BROADCAST)[14:]
    )
    says = arp(1, (MAC, "10.0.0.5"), (bytes(6), "10.0.0.7"), BROADCAST)
    strict, lax = loaded(), loaded(ports=[{"name": PORT, "mac_spoofing": True}])
    assert [sent(strict, each) for each in (good, bad, says, lies, tagged(lies))] == [
        "",
        "mac-spoofing",
        "",
        "mac-spoofing",
        "mac-spoofing",
    ]
    assert [sent(lax, each) for each in (good, bad, says, lies)] == [""] * 4
    assert sent(strict, bad, "another:eth0") == sent(strict, bad, "nic1") == ""
    strict.detach_port(PORT)
    assert sent(strict, bad) == ""


# ---- DHCP guard ---------------------------------------------------------------------------

CLIENT, SERVER = b"\x01\x01\x06\0", b"\x02\x01\x06\0"  # BOOTREQUEST, BOOTREPLY
DHCP = {
    "discover": (v4_frame(UDP, udp(68, 67, CLIENT)), False),
    "relayed request": (v4_frame(UDP, udp(67, 67, CLIENT)), False),
    "offer": (v4_frame(UDP, udp(67, 68, SERVER)), True),
    "offer to a relay": (v4_frame(UDP, udp(67, 67, SERVER)), True),
    "offer from any port": (v4_frame(UDP, udp(999, 68, SERVER)), True),
    "offer, tagged": (tagged(v4_frame(UDP, udp(67, 68, SERVER))), True),
    "offer whose type is in a later fragment": (v4_frame(UDP, udp(67, 68, b""), 0x2000), True),
    "another service": (v4_frame(UDP, udp(99, 98, SERVER)), False),
    "solicit": (v6_frame(UDP, udp(546, 547, b"\x01")), False),
    "advertise": (v6_frame(UDP, udp(547, 546, b"\x02")), True),
    "reply": (v6_frame(UDP, udp(547, 546, b"\x07")), True),
    "reconfigure": (v6_frame(UDP, udp(547, 546, b"\x0a")), True),
    "reply behind an extension header": (
        v6_frame(60, bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + udp(547, 546, b"\x07")),
        True,
    ),
}


@pytest.mark.parametrize(("frame", "server"), DHCP.values(), ids=DHCP)
def test_dhcp_guard(frame: bytes, server: bool) -> None:
    assert sent(loaded(), frame) == ("dhcp-guard" if server else "")
    assert sent(loaded(dhcp_guard=False), frame) == ""


# ---- router guard -------------------------------------------------------------------------


def _icmpv6(kind: int) -> bytes:
    return icmpv6("fe80::1", "ff02::1", bytes([kind, 0, 0, 0]) + bytes(12), b"\x33\x33\0\0\0\1", MAC)


def _behind(*headers: bytes, payload: bytes) -> bytes:
    return v6_frame(headers[0][0], b"".join(header[1:] for header in headers) + payload, "fe80::1")


ROUTER = {
    "solicitation": (_icmpv6(133), False),
    "advertisement": (_icmpv6(134), True),
    "redirect": (_icmpv6(137), True),
    "advertisement, tagged": (tagged(_icmpv6(134)), True),
    "behind hop-by-hop": (_behind(b"\0" + bytes([58, 0, 1, 4, 0, 0, 0, 0]), payload=b"\x86\0\0\0"), True),
    "first fragment": (_behind(b"\x2c" + bytes([58, 0, 0, 1, 0, 0, 0, 1]), payload=b"\x86\0\0\0"), True),
    # RFC 7113 section 2: the type lies behind the end of the first fragment
    "hidden by fragments": (
        _behind(b"\x2c" + bytes([60, 0, 0, 1, 0, 0, 0, 1]), payload=bytes([58, 1, 1, 4])),
        True,
    ),
    "later fragment": (_behind(b"\x2c" + bytes([58, 0, 0, 8, 0, 0, 0, 1]), payload=b"\x86\0\0\0"), False),
    "ICMP redirect": (v4_frame(ICMP, bytes([5, 1]) + bytes(6)), True),
    "ICMP router advertisement": (v4_frame(ICMP, bytes([9, 0]) + bytes(6)), True),
    "ICMP echo": (v4_frame(ICMP, bytes([8, 0]) + bytes(6)), False),
}


@pytest.mark.parametrize(("frame", "router"), ROUTER.values(), ids=ROUTER)
def test_router_guard(frame: bytes, router: bool) -> None:
    assert sent(loaded(), frame) == ("router-guard" if router else "")
    assert sent(loaded(ports=[{"name": PORT, "router_guard": False}]), frame) == ""


# ---- dynamic addresses --------------------------------------------------------------------


def test_dynamic_address_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(port_security, "monotonic", lambda: now[0])
    guard = loaded(dynamic_address_limit=2, ports=[{"name": PORT, "addresses": ["10.0.0.100"]}])
    assert guard.scope == "packet"

    def says(address: str) -> str:
        return sent(guard, v4_frame(UDP, udp(1, 2, b""), source=address))

    assert says("10.0.0.5") == says("10.0.0.100") == says("0.0.0.0") == ""
    assert sent(guard, solicit("fd00::5", "::", MAC)) == ""  # DAD claims nothing yet
    assert sent(guard, arp(1, (MAC, "10.0.0.6"), (bytes(6), "10.0.0.7"), BROADCAST)) == ""
    assert says("10.0.0.7") == "address-limit"
    assert sent(guard, arp(1, (MAC, "10.0.0.8"), (bytes(6), "10.0.0.7"), BROADCAST)) == "address-limit"
    assert sent(guard, v6_frame(UDP, udp(1, 2, b""))) == "address-limit"
    advertised = icmpv6("fe80::1", "fd00::9", b"\x88\0\0\0\x20\0\0\0" + bytes(15) + b"\7", OTHER, MAC)
    assert sent(guard, advertised) == "address-limit"
    assert says("10.0.0.6") == ""
    assert guard.counters() == {"dynamic_addresses": 2}
    now[0] = 599.0
    assert says("10.0.0.5") == ""
    now[0] = 600.0
    assert says("10.0.0.7") == ""  # in place of .6
    assert says("10.0.0.6") == "address-limit"
    now[0] = 1199.0
    assert says("10.0.0.6") == ""  # in place of .5
    guard.detach_port(PORT)
    guard.attach_port(SwitchPort(PORT, MAC, 5001))
    assert says("10.0.0.20") == says("10.0.0.21") == ""


def test_link_local_addresses_do_not_count() -> None:
    guard = loaded(ports=[{"name": PORT, "dynamic_address_limit": 0}])
    assert sent(guard, v6_frame(ICMPV6, bytes([128, 0]) + bytes(6), "fe80::5")) == ""
    assert sent(guard, v6_frame(ICMPV6, bytes([128, 0]) + bytes(6))) == "address-limit"


def test_an_address_that_is_none() -> None:
    with pytest.raises(BadInput, match="is no IP address; write it without a prefix length"):
        loaded(ports=[{"name": PORT, "addresses": ["10.0.0.0/24"]}])


# ---- in a switch --------------------------------------------------------------------------


def test_flows_are_cached_but_dhcp_is_looked_at() -> None:
    (guard,) = load([ExtensionPlan("port-security")], EventLog())
    with MemorySwitch(extensions=[guard]) as switch:

        def send(source: bytes, payload: bytes) -> dict[tuple[str, str], int]:
            packet = ipv4(v4("blue1"), v4("blue2"), UDP, payload)
            return switch.from_vm("blue1", ethernet(mac_of("blue2"), source, 0x0800, packet)).drops

        assert send(mac_of("blue1"), udp(1, 2, b"")) == {}
        assert switch.cached() == 1
        for _ in range(2):
            assert send(mac_of("red1"), udp(1, 2, b"")) == {("blue1", "port-security:mac-spoofing"): 1}
            assert send(mac_of("blue1"), udp(67, 67, CLIENT)) == {}
            assert send(mac_of("blue1"), udp(67, 67, SERVER)) == {("blue1", "port-security:dhcp-guard"): 1}
        assert switch.cached() == 2


def test_no_bytes_raise() -> None:
    guard = loaded(dynamic_address_limit=1)
    for frame in [each for each, _ in (*DHCP.values(), *ROUTER.values())]:
        for cut in range(14, len(frame)):
            sent(guard, frame[:cut])
            guard.scope_of(Frame("CA", b"", memoryview(frame[:cut]), 5001, PORT))
