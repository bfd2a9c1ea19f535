"""The capture file: byte for byte as the draft says, and read by two other programs."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from testbed.capture import pcapng

FRAME = bytes.fromhex("ffffffffffff020000000001") + b"\x08\x00" + bytes(range(33))  # 47 bytes: needs padding
TIME = 1_700_000_000_123_456_789


def hexed(text: str) -> bytes:
    return bytes.fromhex("".join(text.split()))


def test_the_section_header() -> None:
    assert pcapng.section("testbed") == hexed(
        """0a0d0d0a 2c000000 4d3c2b1a 0100 0000 ffffffffffffffff
        0400 0700 74657374626564 00 0000 0000 2c000000"""
    )


def test_an_interface() -> None:
    assert pcapng.interface("vm:blue1", "x", 96) == hexed(
        """01000000 34000000 0100 0000 60000000
        0200 0800 766d3a626c756531 0300 0100 78 000000 0900 0100 09 000000 0000 0000 34000000"""
    )


def test_a_packet() -> None:
    made = pcapng.packet(3, TIME, b"\x01\x02\x03\x04\x05", 1500, pcapng.OUTBOUND | pcapng.MULTICAST, ["hi"])
    assert made == hexed(
        """06000000 3c000000 03000000 fe9c9717 15cd853d 05000000 dc050000 0102030405 000000
        0100 0200 6869 0000 0200 0400 0a000000 0000 0000 3c000000"""
    )


def test_a_packet_without_options() -> None:
    assert pcapng.packet(0, 0, b"\x01\x02\x03\x04", 4) == hexed(
        "06000000 24000000 00000000 00000000 00000000 04000000 04000000 01020304 24000000"
    )


def test_statistics() -> None:
    assert pcapng.statistics(1, TIME, 7, 2) == hexed(
        """05000000 34000000 01000000 fe9c9717 15cd853d
        0400 0800 0700000000000000 0500 0800 0200000000000000 0000 0000 34000000"""
    )


def file() -> bytes:
    return b"".join(
        [
            pcapng.section("testbed"),
            pcapng.interface("vm:blue1"),
            pcapng.interface("host1:nic1", "NIC", 40),
            pcapng.packet(0, TIME, FRAME, len(FRAME), pcapng.OUTBOUND, ["one", "zwei \u00fc"]),
            pcapng.packet(1, TIME + 1, FRAME[:40], 1400, pcapng.INBOUND | pcapng.BROADCAST),
            pcapng.statistics(0, TIME + 2, 1, 0),
        ]
    )


def test_scapy_reads_it() -> None:
    packets = list(RawPcapNgReader(io.BytesIO(file())))
    assert [data for data, _ in packets] == [FRAME, FRAME[:40]]
    one, two = (told for _, told in packets)
    assert (one.ifname, one.direction, one.wirelen) == (b"vm:blue1", 2, len(FRAME))
    assert (two.ifname, two.direction, two.wirelen) == (b"host1:nic1", 1, 1400)
    assert ((two.tshigh << 32) + two.tslow, two.tsresol) == (TIME + 1, 1_000_000_000)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_reads_it(tmp_path: Path) -> None:
    target = tmp_path / "x.pcapng"
    target.write_bytes(file())
    fields = (
        "frame.time_epoch",
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.packet_flags_direction",
        "frame.comment",
    )
    words = ["tshark", "-n", "-r", str(target), "-T", "fields", "-E", "aggregator=;"]
    for field in fields:
        words += ["-e", field]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert [text.split("\t") for text in done.stdout.splitlines()] == [
        ["1700000000.123456789", "vm:blue1", "47", "47", "0x00000002", "one;zwei \u00fc"],
        ["1700000000.123456790", "host1:nic1", "1400", "40", "0x00000001", ""],
    ]
