"""A packet in one line, as far as its headers are there."""

from __future__ import annotations

import ipaddress
from datetime import datetime

from testbed.capture import pcapng
from testbed.capture.filters import OVER_IPV4, OVER_IPV6
from testbed.capture.records import Record

_GRE_WORDS = b"\x20\x00\x65\x58"
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 58: "ICMPv6"}
_PORTS = ("TCP", "UDP")


def line(record: Record, point: str) -> str:
    """``time point direction what, bytes [comments]``."""
    way = "out" if record.flags & 3 == pcapng.OUTBOUND else "in "
    comments = "".join(f" [{comment}]" for comment in record.comments)
    return f"{_stamp(record)} {point} {way} {describe(record.data)}, {record.length} bytes{comments}"


def event_line(record: Record, point: str) -> str:
    """``time point event ID: what``."""
    return f"{_stamp(record)} {point} {'; '.join(record.comments)}"


def _stamp(record: Record) -> str:
    when = datetime.fromtimestamp(record.time // 1_000_000_000).astimezone()
    return f"{when:%H:%M:%S}.{record.time % 1_000_000_000 // 1000:06}"


def describe(data: bytes) -> str:
    """NVGRE with its VSID and PAs, and what is inside; or what the frame is."""
    for base, kind, words in ((OVER_IPV4, b"\x08\x00", 34), (OVER_IPV6, b"\x86\xdd", 54)):
        is_gre = data[23:24] == b"\x2f" if base == OVER_IPV4 else data[20:21] == b"\x2f"
        if data[12:14] == kind and is_gre and data[words : words + 4] == _GRE_WORDS and len(data) >= base:
            vsid = int.from_bytes(data[base - 4 : base - 1], "big")
            return f"VSID {vsid} PA {_addresses(data)}: {_frame(data[base:])}"
    return _frame(data)


def _frame(data: bytes) -> str:
    kind = data[12:14]
    if kind == b"\x08\x06" and len(data) >= 42:
        verb = "reply" if data[21] == 2 else "request"
        return f"ARP {verb} {_address(data[28:32])} > {_address(data[38:42])}"
    if kind == b"\x08\x00" and len(data) >= 34:
        return f"{_addresses(data)} {_transport(data, data[23], 14 + (data[14] & 15) * 4)}"
    if kind == b"\x86\xdd" and len(data) >= 54:
        return f"{_addresses(data)} {_transport(data, data[20], 54)}"
    return f"{data[6:12].hex(':')} > {data[0:6].hex(':')} type 0x{kind.hex()}"


def _transport(data: bytes, protocol: int, start: int) -> str:
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if name in _PORTS and len(data) >= start + 4:
        source, destination = (int.from_bytes(data[at : at + 2], "big") for at in (start, start + 2))
        return f"{name} {source} > {destination}"
    if name.startswith("ICMP") and len(data) >= start + 2:
        return f"{name} type {data[start]} code {data[start + 1]}"
    return name


def _addresses(data: bytes) -> str:
    """Those of an IP header behind an Ethernet header."""
    at, size = (26, 4) if data[12:14] == b"\x08\x00" else (22, 16)
    return f"{_address(data[at : at + size])} > {_address(data[at + size : at + 2 * size])}"


def _address(data: bytes) -> str:
    return str(ipaddress.ip_address(data))
