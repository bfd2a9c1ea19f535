"""Strategies for frames: of every kind that the switch knows, as they should be or broken."""

from __future__ import annotations

from hypothesis import strategies as st

from support.frames import (
    BROADCAST,
    GRE,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    arp,
    encapsulated,
    ethernet,
    ipv4,
    ipv6,
    ports,
    solicitation,
    vnet,
)
from support.switch import PLAIN, gateway_mac, mac_of, nic_mac, pa, v4, v6

GROUP = b"\x33\x33\0\0\0\x16"
_TARGETS = ["blue2", "blue3", "blue4", "web1", "web2", "red2", "blue1"]
_PLACES = st.sampled_from([*_TARGETS, "gateway", "nowhere"])
_MACS = st.sampled_from([mac_of("blue2"), mac_of("blue4"), gateway_mac(5001), BROADCAST, GROUP, b"\2" * 6])
_PROTOCOLS = st.sampled_from([TCP, UDP, ICMP, GRE, ICMPV6, 0, 44, 255])
_PORTS = st.builds(ports, st.integers(0, 3), st.just(80))


def _address(place: str, version: int) -> str:
    if place == "gateway":
        return "10.0.0.1" if version == 4 else "fd00::1"
    if place == "nowhere":
        return "172.16.5.5" if version == 4 else "2001:db8::1"
    return v4(place) if version == 4 else v6(place)


@st.composite
def _ip_frames(draw: st.DrawFn, source: str) -> bytes:
    payload = draw(_PORTS) + bytes(draw(st.integers(0, 60)))
    place, protocol = draw(_PLACES), draw(_PROTOCOLS)
    if draw(st.booleans()):
        flags = draw(st.sampled_from([0, 0x4000, 0x2000, 0x0001]))
        return ethernet(
            draw(_MACS),
            mac_of(source),
            0x0800,
            ipv4(v4(source), _address(place, 4), protocol, payload, flags),
        )
    return ethernet(
        draw(_MACS), mac_of(source), 0x86DD, ipv6(v6(source), _address(place, 6), protocol, payload, 255)
    )


@st.composite
def _neighbor_frames(draw: st.DrawFn, source: str) -> bytes:
    place, own = draw(_PLACES), mac_of(source)
    if draw(st.booleans()):
        sender = draw(st.sampled_from([v4(source), "0.0.0.0"]))
        return arp(draw(st.integers(1, 3)), (own, sender), (bytes(6), _address(place, 4)), draw(_MACS))
    to = draw(st.sampled_from([None, mac_of("blue2"), mac_of("blue4"), gateway_mac(5001)]))
    return solicitation(_address(place, 6), draw(st.sampled_from([v6(source), "::"])), own, to)


def _other_frames(source: str) -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([0x8100, 0x88A8, 0x88CC, 0x0806, 0x0800, 0x86DD])
    return st.builds(ethernet, _MACS, st.just(mac_of(source)), kinds, st.binary(max_size=60))


def tenant_frames(source: str) -> st.SearchStrategy[bytes]:
    """What a VM may send."""
    return st.one_of(_ip_frames(source), _neighbor_frames(source), _other_frames(source))


def wire_frames(version: int = 4) -> st.SearchStrategy[bytes]:
    """What may arrive at host 1's NIC over a PA network of one family."""
    strange = "192.168.9.9" if version == 4 else "2001:db8::9:9"
    inner = tenant_frames("blue2") | st.builds(
        lambda frame, to: to + frame[6:],
        tenant_frames("blue2"),
        st.sampled_from([mac_of("blue1"), mac_of("blue4"), mac_of("web1"), mac_of("red1"), BROADCAST]),
    )
    tunnelled = st.builds(
        encapsulated,
        inner,
        st.sampled_from([5001, 5001, 5001, 5002, 6001, 7777, 0]),
        st.sampled_from([pa(2, 5001, version), pa(3, 5001, version), pa(2, 6001, version), strange]),
        st.sampled_from([pa(1, 5001, version), pa(1, 5002, version), pa(3, 5001, version)]),
        st.sampled_from([nic_mac(1), nic_mac(1), BROADCAST, nic_mac(3)]),
        st.just(nic_mac(2)),
        st.integers(0, 255),
    )
    padded = st.builds(lambda frame, size: frame + bytes(size), tunnelled, st.integers(0, 9))
    return tunnelled | padded | tenant_frames("blue2")


@st.composite
def broken(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """A frame cut short, with changed bytes in its headers, or arbitrary bytes in its place."""
    frame = bytearray(draw(frames))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, min(len(frame), 100) - 1))
        frame[position] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        del frame[draw(st.integers(0, len(frame))) :]
    return bytes(frame) + draw(st.just(b"") | st.binary(max_size=20))


def vnet_headers() -> st.SearchStrategy[bytes]:
    """Offload metadata, right or not."""
    right = [PLAIN, vnet(34, 16), vnet(76, 16), vnet(34, 16, gso_type=1, gso_size=1418, header=54)]
    return st.sampled_from(right) | st.binary(min_size=10, max_size=10)
