"""Reverse ARP, as a switch sees it."""

from __future__ import annotations

import struct

from testbed.packets import rarp

MAC = bytes.fromhex("00155d000005")


def test_an_announcement_is_a_request_that_names_its_sender_twice() -> None:
    """RFC 903: opcode 3, "request reverse"; the frame is as long as Ethernet wants it."""
    frame = rarp.announcement(MAC)
    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x80\x35"
    assert struct.unpack_from("!HHBBH", frame, 14) == (1, 0x0800, 6, 4, 3)
    assert frame[22:28] == frame[32:38] == MAC
    assert frame[28:32] == frame[38:42] == bytes(4)
    assert frame[42:] == bytes(18)
