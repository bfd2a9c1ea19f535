"""One frame of every kind that a switch may meet, by name: what a VM sends, and what a cable brings.

Built without the product's codecs (but for the outer NVGRE header's template). The VMs and their
addresses are those of :mod:`support.switch`; what a VM sends is from "blue1" unless told.
"""

from __future__ import annotations

import itertools
import struct

from support import dhcp as dhcp_frames
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
    icmpv6,
    ip,
    ipv4,
    ipv6,
    naive_checksum,
    ports,
    solicitation,
)
from support.switch import gateway_mac, mac_of, nic_mac, pa, v4, v6

IGMP = 2
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
GROUP_MAC, GROUP_MAC_V6 = b"\x01\0\x5e\0\0\xfb", b"\x33\x33\0\0\0\x16"
UDP_HEADER = ports(5000, 80) + b"\0\x20\0\0" + bytes(24)
TCP_HEADER = ports(5000, 80) + bytes(8) + b"\x50\x10" + bytes(30)
_XID = b"\1\2\3\4"
_GRE = b"\x20\0\x65\x58" + (7777 << 8).to_bytes(4, "big")


def _ip4(source: str, to: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    return ethernet(mac_of(to), mac_of(source), 0x0800, ipv4(v4(source), v4(to), protocol, payload, fragment))


def _ip6(source: str, to: str, following: int, payload: bytes) -> bytes:
    return ethernet(mac_of(to), mac_of(source), 0x86DD, ipv6(v6(source), v6(to), following, payload))


def options(following: int, size: int = 8) -> bytes:
    """An IPv6 extension header of ``size`` bytes, filled with a PadN option."""
    return bytes((following, size // 8 - 1, 1, size - 4)) + bytes(size - 4)


def chain(kinds: list[int], last: int, payload: bytes, repeat: int = 1) -> tuple[int, bytes]:
    """Extension headers one behind the other, ``repeat`` times: the first's number, and the bytes."""
    order = kinds * repeat + [last]
    data = b""
    for kind, following in itertools.pairwise(order):
        data += struct.pack("!BBHI", following, 0, 0, 9) if kind == FRAGMENT else options(following)
    return order[0], data + payload


def _icmp(kind: int, body: bytes = bytes(28)) -> bytes:
    message = bytes((kind, 0, 0, 0)) + body
    return message[:2] + naive_checksum(message).to_bytes(2, "big") + message[4:]


def _with_ip_options(frame: bytes) -> bytes:
    """The same IPv4 packet with four no-operations: IHL 6."""
    total = struct.unpack_from("!H", frame, 16)[0] + 4
    header = b"\x46" + frame[15:16] + total.to_bytes(2, "big") + frame[18:24] + b"\0\0" + frame[26:34]
    header += b"\1\1\1\1"
    header = header[:10] + naive_checksum(header).to_bytes(2, "big") + header[12:]
    return frame[:14] + header + frame[34:]


def _tagged(frame: bytes, *tags: int) -> bytes:
    return frame[:12] + b"".join(struct.pack("!HH", kind, 5) for kind in tags) + frame[12:]


def _neighbors(source: str) -> dict[str, bytes]:
    own = mac_of(source)
    return {
        "arp request": arp(1, (own, v4(source)), (bytes(6), v4("blue3")), BROADCAST),
        "arp probe": arp(1, (own, "0.0.0.0"), (bytes(6), v4("blue3")), BROADCAST),
        "arp unicast": arp(1, (own, v4(source)), (bytes(6), v4("blue3")), mac_of("blue3")),
        "arp reply": arp(2, (own, v4(source)), (mac_of("blue3"), v4("blue3")), mac_of("blue3")),
        "arp announcement": arp(1, (own, v4(source)), (own, v4(source)), BROADCAST),
        "ns": solicitation(v6("blue3"), v6(source), own),
        "ns probe": solicitation(v6("blue3"), "::", own),
        "ns unicast": solicitation(v6("blue3"), v6(source), own, mac_of("blue3")),
        "na": icmpv6(
            v6(source),
            v6("blue3"),
            b"\x88\0\0\0\x60\0\0\0" + ip(v6(source)) + b"\2\1" + own,
            mac_of("blue3"),
            own,
        ),
        "rs": icmpv6(v6(source), "ff02::2", b"\x85" + bytes(7), GROUP_MAC_V6, own),
        "ra": icmpv6(v6(source), "ff02::1", b"\x86\0\0\0\x40\0\x07\x08" + bytes(8), GROUP_MAC_V6, own),
        "redirect": icmpv6("fe80::1", v6("blue2"), b"\x89" + bytes(39), mac_of("blue2"), own),
    }


def _services(source: str) -> dict[str, bytes]:
    own = mac_of(source)
    dhcp = struct.pack("!HHHH", 68, 67, 250, 0) + b"\1\1\6\0" + bytes(238)
    offer = struct.pack("!HHHH", 67, 68, 250, 0) + b"\2\1\6\0" + bytes(238)
    dhcp6 = struct.pack("!HHHH", 546, 547, 40, 0) + b"\1" + bytes(31)
    group, query = ethernet(BROADCAST, own, 0x0800, b""), b"\x11\x64\0\0" + bytes(8)
    return {
        "dhcp": group + ipv4("0.0.0.0", "255.255.255.255", UDP, dhcp),
        "dhcp offer": group + ipv4(v4(source), "255.255.255.255", UDP, offer),
        "dhcp request": dhcp_frames.asked(own, _XID),
        "dhcp ack": dhcp_frames.told(
            dhcp_frames.v4(dhcp_frames.ACK, mac_of("blue1"), _XID, "10.0.0.77"),
            (own, v4(source)),
            mac_of("blue1"),
        ),
        "dhcp6 request": dhcp_frames.asked_v6(own, _XID[:3]),
        "dhcp6 reply": dhcp_frames.told_v6(
            dhcp_frames.v6(dhcp_frames.REPLY, _XID[:3], dhcp_frames.lease(("fd00::77", 60))),
            (own, "fe80::9"),
            mac_of("blue1"),
        ),
        "dhcp6": ethernet(GROUP_MAC_V6, own, 0x86DD, ipv6("fe80::9", "ff02::1:2", UDP, dhcp6)),
        "echo": _ip4(source, "blue2", ICMP, _icmp(8)),
        "unreachable": _ip4(source, "blue2", ICMP, _icmp(3)),
        "echo6": icmpv6(v6(source), v6("blue2"), b"\x80" + bytes(31), mac_of("blue2"), own),
        "igmp query": ethernet(GROUP_MAC, own, 0x0800, ipv4(v4(source), "224.0.0.1", IGMP, query)),
        "mld query": icmpv6(
            "fe80::9", "ff02::1", b"\x82\0\0\0\0\x64\0\0" + bytes(20), GROUP_MAC_V6, own, hops=1
        ),
        "broadcast": group + ipv4(v4(source), "255.255.255.255", UDP, UDP_HEADER),
        "multicast": ethernet(GROUP_MAC, own, 0x0800, ipv4(v4(source), "224.0.0.251", UDP, UDP_HEADER)),
        "multicast6": ethernet(GROUP_MAC_V6, own, 0x86DD, ipv6(v6(source), "ff02::16", UDP, UDP_HEADER)),
        "lldp": ethernet(b"\x01\x80\xc2\0\0\x0e", own, 0x88CC, bytes(40)),
        "not ip": ethernet(mac_of("blue2"), own, 0x88B5, bytes(40)),
    }


def _chains(source: str) -> dict[str, bytes]:
    """IPv6 with extension headers; "loop" ends with the frame, in the middle of its headers."""
    kinds = {
        "hop-by-hop": [HOP_BY_HOP],
        "options": [HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION],
        "authentication": [AUTHENTICATION],
        "fragment6": [FRAGMENT],
        "hidden icmp": [DESTINATION],
    }
    last = {"hidden icmp": (ICMPV6, b"\x86" + bytes(15))}
    made = {
        name: _ip6(source, "blue2", *chain(order, *last.get(name, (UDP, UDP_HEADER))))
        for name, order in kinds.items()
    }
    for kind in (HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION):
        made[f"loop of {kind}"] = _ip6(source, "blue2", *chain([kind], kind, b"", repeat=60))
    return made


def vm_frames(source: str = "blue1") -> dict[str, bytes]:
    """What a VM of virtual subnet 5001 may send."""
    udp = _ip4(source, "blue2", UDP, UDP_HEADER)
    routed = ipv4(v4(source), v4("web2"), UDP, UDP_HEADER)
    inside = ethernet(mac_of("red2"), mac_of("red1"), 0x0800, ipv4("10.0.0.5", "10.0.0.6", UDP, UDP_HEADER))
    return {
        "udp": udp,
        "tcp": _ip4(source, "blue2", TCP, TCP_HEADER),
        "udp6": _ip6(source, "blue2", UDP, UDP_HEADER),
        "tcp6": _ip6(source, "blue2", TCP, TCP_HEADER),
        "local": _ip4(source, "blue4", UDP, UDP_HEADER),
        "local6": _ip6(source, "blue4", UDP, UDP_HEADER),
        "routed": ethernet(gateway_mac(5001), mac_of(source), 0x0800, routed),
        "first fragment": _ip4(source, "blue2", UDP, UDP_HEADER, 0x2000),
        "later fragment": _ip4(source, "blue2", UDP, UDP_HEADER, 0x2005),
        "ip options": _with_ip_options(udp),
        "tagged": _tagged(udp, 0x8100),
        "tagged twice": _tagged(udp, 0x88A8, 0x8100),
        "nested": _ip4(source, "blue2", GRE, _GRE + inside),
        "nested6": _ip6(source, "blue2", GRE, _GRE + inside),
        **_neighbors(source),
        **_services(source),
        **_chains(source),
    }


def tunnelled(inner: bytes, version: int, vsid: int = 5001, source_pa: str = "") -> bytes:
    """As host 2 would send it to host 1, to VM "blue1" or all."""
    to = inner[:6] if inner[0] & 1 else mac_of("blue1")
    return encapsulated(
        to + inner[6:],
        vsid,
        source_pa or pa(2, 5001, version),
        pa(1, 5001, version),
        nic_mac(1),
        nic_mac(2),
    )


def _gre_variants(frame: bytes, version: int) -> dict[str, bytes]:
    """A tunnelled frame with another GRE header; the outer IPv4 checksum does not cover it."""
    at = 34 if version == 4 else 54
    words = {
        "gre without key": b"\0\0\x65\x58",
        "gre checksum": b"\xa0\0\x65\x58",
        "gre sequence": b"\x30\0\x65\x58",
        "gre version 1": b"\x20\x01\x65\x58",
        "gre routing": b"\x60\0\x65\x58",
        "gre of ip": b"\x20\0\x08\x00",
        "gre of arp": b"\x20\0\x08\x06",
    }
    return {name: frame[:at] + each + frame[at + 4 :] for name, each in words.items()}


def _outer_variants(frame: bytes, version: int) -> dict[str, bytes]:
    """A tunnelled frame with another outer IP header; in IPv4 its checksum is right unless told."""
    made = {"outer tagged": _tagged(frame, 0x8100)}
    if version == 6:
        for name, kinds in {
            "outer fragment": [FRAGMENT],
            "outer hop-by-hop": [HOP_BY_HOP],
            "outer options": [DESTINATION] * 3,
            "outer loop": [HOP_BY_HOP] * 60,
        }.items():
            first, data = chain(kinds, GRE, frame[54:])
            header = frame[14:18] + len(data).to_bytes(2, "big") + bytes((first,)) + frame[21:54]
            made[name] = frame[:14] + header + data
        return made
    for name, (at, value) in {
        "outer first fragment": (20, b"\x20\0"),
        "outer later fragment": (20, b"\0\x07"),
        "outer ihl 0": (14, b"\x40"),
        "outer ihl 4": (14, b"\x44"),
        "outer ihl 15": (14, b"\x4f"),
        "outer version 6": (14, b"\x65"),
        "outer length 0": (16, b"\0\0"),
        "outer length 41": (16, b"\0\x29"),
        "outer length 65535": (16, b"\xff\xff"),
    }.items():
        changed = frame[:at] + value + frame[at + len(value) :]
        total = naive_checksum(changed[14:24] + b"\0\0" + changed[26:34])
        made[name] = changed[:24] + total.to_bytes(2, "big") + changed[26:]
    made["outer checksum"] = frame[:24] + bytes((frame[24] ^ 1,)) + frame[25:]
    made["outer ip options"] = _with_ip_options(frame)
    return made


def refused_frames(version: int = 4) -> dict[str, bytes]:
    """What is no NVGRE although it looks like it: no VM may ever get any of it."""
    frame = tunnelled(_ip4("blue2", "blue1", UDP, UDP_HEADER), version)
    return {**_gre_variants(frame, version), **_outer_variants(frame, version)}


def pa_frames() -> dict[str, bytes]:
    """ARP, Neighbor Discovery, ICMP, IGMP and MLD of the PA network, for host 1's NIC."""
    own, other, group = nic_mac(1), nic_mac(2), ethernet(BROADCAST, nic_mac(2), 0x0800, b"")
    to_us = ethernet(own, other, 0x0800, b"")
    ours, theirs = pa(1, 5001), pa(2, 5001)
    ours6, theirs6 = pa(1, 5001, 6), pa(2, 5001, 6)
    quoted = ipv4(ours, theirs, GRE, _GRE + _ip4("blue1", "blue2", UDP, UDP_HEADER))
    quoted6 = ipv6(ours6, theirs6, GRE, _GRE + _ip6("blue1", "blue2", UDP, UDP_HEADER))
    quoted6 += bytes(-len(quoted6) % 8)
    option = bytes((4, len(quoted6) // 8 + 1)) + bytes(6) + quoted6
    routed = ip(theirs6) + ip(ours6) + option
    v3_query = b"\x11\x64\0\0" + bytes(4) + b"\x02\x7d\0\x01" + ip("192.168.1.9")
    mld2 = b"\x82\0\0\0\0\x64\0\0" + bytes(16) + b"\x02\x7d\0\x01" + ip("fd00::9")
    alert = bytes((ICMPV6, 0)) + b"\x05\x02\0\0\x01\0"
    listener = icmpv6("fe80::9", "ff02::1", mld2, b"\x33\x33\0\0\0\1", other, hops=1)
    mld_query = listener[:54] + alert + listener[54:]
    length = (struct.unpack_from("!H", mld_query, 18)[0] + 8).to_bytes(2, "big")
    return {
        "arp request": arp(1, (other, theirs), (bytes(6), ours), BROADCAST),
        "arp reply": arp(2, (other, theirs), (own, ours), own),
        "ns": solicitation(ours6, theirs6, other),
        "na": icmpv6(theirs6, ours6, b"\x88\0\0\0\x60\0\0\0" + ip(theirs6) + b"\2\1" + other, own, other),
        "echo": to_us + ipv4(theirs, ours, ICMP, _icmp(8)),
        "echo6": icmpv6(theirs6, ours6, b"\x80" + bytes(31), own, other),
        "redirect": to_us + ipv4("192.168.0.1", ours, ICMP, _icmp(5, ip("192.168.0.9") + quoted)),
        "redirect6": icmpv6("fe80::1", ours6, b"\x89" + bytes(7) + routed, own, other),
        "igmp query": group + ipv4(theirs, "224.0.0.1", IGMP, _summed(v3_query)),
        "igmp query 2": group + ipv4(theirs, "224.0.0.1", IGMP, _summed(v3_query[:8])),
        "mld query": mld_query[:18] + length + b"\0" + mld_query[21:],
    }


def _summed(message: bytes) -> bytes:
    return message[:2] + naive_checksum(message).to_bytes(2, "big") + message[4:]


def wire_frames(version: int = 4) -> dict[str, bytes]:
    """What may arrive at host 1's NIC over a PA network of one family."""
    inner = vm_frames("blue2")
    made = {f"tunnelled {name}": tunnelled(frame, version) for name, frame in inner.items()}
    once = tunnelled(inner["udp"], version)
    made["nvgre in nvgre"] = tunnelled(once, version)
    made["padded"] = once + bytes(6)
    made |= {
        f"plain {name}": frame for name, frame in inner.items() if name in ("udp", "arp request", "lldp")
    }
    return made | refused_frames(version) | {f"pa {name}": frame for name, frame in pa_frames().items()}
