"""Capture files: pcapng (draft-ietf-opsawg-pcapng), written block by block, so that a reader can follow.

Every block is complete in itself: what has been written so far is always a valid file. Numbers are in
this machine's byte order, as the format wants it; times are nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

SECTION_HEADER = 0x0A0D0D0A
INTERFACE = 1
STATISTICS = 5
PACKET = 6

ETHERNET, UPPER_PDU = 1, 252  # LINKTYPE_ETHERNET, LINKTYPE_WIRESHARK_UPPER_PDU

_BYTE_ORDER = 0x1A2B3C4D
_NANOSECONDS = b"\x09"  # if_tsresol: 10 to the power of -9
_UNKNOWN_LENGTH = -1

_END, _COMMENT = 0, 1
_APPLICATION = 4  # shb_userappl
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9  # if_...
_FLAGS = 2  # epb_flags
_RECEIVED, _DROPPED = 4, 5  # isb_ifrecv, isb_ifdrop

# epb_flags: direction in bits 0 and 1, how it was received in bits 2 to 4
INBOUND, OUTBOUND = 1, 2
UNICAST, MULTICAST, BROADCAST, PROMISCUOUS = 1 << 2, 2 << 2, 3 << 2, 4 << 2

Option = tuple[int, bytes]


def section(application: str) -> bytes:
    """The section header, first in a file."""
    body = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    return _block(SECTION_HEADER, body, [(_APPLICATION, application.encode())])


def interface(name: str, description: str = "", snaplen: int = 0, link: int = ETHERNET) -> bytes:
    """An interface; packets name it by its place among the interfaces of the section. snaplen 0: no limit."""
    options = [(_NAME, name.encode())]
    if description:
        options.append((_DESCRIPTION, description.encode()))
    options.append((_RESOLUTION, _NANOSECONDS))
    return _block(INTERFACE, struct.pack("=HHI", link, 0, snaplen), options)


def packet(
    interface: int, time: int, data: bytes, length: int, flags: int = 0, comments: Iterable[str] = ()
) -> bytes:
    """A packet, of which ``data`` is the start and ``length`` the whole."""
    head = struct.pack("=IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    options = [(_COMMENT, comment.encode()) for comment in comments]
    if flags:
        options.append((_FLAGS, struct.pack("=I", flags)))
    return _block(PACKET, head + _padded(data), options)


def statistics(interface: int, time: int, received: int, dropped: int) -> bytes:
    """What an interface has received, and lost because nobody read in time."""
    options = [(_RECEIVED, struct.pack("=Q", received)), (_DROPPED, struct.pack("=Q", dropped))]
    return _block(STATISTICS, struct.pack("=III", interface, time >> 32, time & 0xFFFFFFFF), options)


def _block(kind: int, body: bytes, options: Iterable[Option]) -> bytes:
    parts = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    if parts:
        parts.append(struct.pack("=HH", _END, 0))
    content = body + b"".join(parts)
    total = len(content) + 12
    return struct.pack("=II", kind, total) + content + struct.pack("=I", total)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
