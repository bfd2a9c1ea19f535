"""Captures read with tshark, in columns that know which address is whose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.frames import UDP, arp, encapsulated, ethernet, ipv4, ipv6, ports
from testbed.capture import pcapng
from testbed.capture.decode import COLUMNS, decode
from testbed.errors import BadInput, MachineLacks

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")
CA4 = ethernet(MAC_B, MAC_A, 0x0800, ipv4("10.0.0.5", "10.0.0.6", UDP, ports(5, 7) + b"\0\x08\0\0"))
CA6 = ethernet(MAC_B, MAC_A, 0x86DD, ipv6("fd00::5", "fd00::6", UDP, ports(5, 7) + b"\0\x08\0\0"))
ARP = arp(1, (MAC_A, "10.0.0.5"), (bytes(6), "10.0.0.6"), b"\xff" * 6)
PA4, PA6 = ("192.168.7.1", "192.168.7.2"), ("fd00:7::1", "fd00:7::2")
NOBODY = ("", "")


@needs_tshark
def test_the_columns(tmp_path: Path) -> None:
    four, six = ("10.0.0.5", "10.0.0.6"), ("fd00::5", "fd00::6")
    cases = [(CA4, "", four, NOBODY), (CA6, "", six, NOBODY), (ARP, "", four, NOBODY)]
    for pa in (PA4, PA6):
        for inner, ca in ((CA4, four), (CA6, six), (ARP, four)):
            cases.append((encapsulated(inner, 5001, *pa, MAC_B), "5001", ca, pa))
    file = tmp_path / "x.pcapng"
    with file.open("wb") as target:
        target.write(pcapng.section("testbed") + pcapng.interface("host1:nic1"))
        for number, (frame, *_) in enumerate(cases):
            when = (1_700_000_000 + number) * 1_000_000_000
            target.write(pcapng.packet(0, when, frame, len(frame), 0, ["one", "two"]))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in decode(file)]
    assert len(rows) == len(cases)
    for number, (row, (_, vsid, ca, pa)) in enumerate(zip(rows, cases, strict=True)):
        assert row["time"] == f"{1_700_000_000 + number}.000000"
        assert (row["point"], row["comment"], row["VSID"]) == ("host1:nic1", "one; two", vsid), number
        assert (row["CA source"], row["CA destination"]) == ca, number
        assert (row["PA source"], row["PA destination"]) == pa, number
        assert row["info"], number


@needs_tshark
def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"no capture at all")
    with pytest.raises(BadInput, match=r"--decode .*/x: tshark: .*isn't a capture file"):
        list(decode(file))
    with pytest.raises(BadInput, match="no such file"):
        list(decode(tmp_path / "y"))


def test_without_tshark_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineLacks, match="package tshark"):
        list(decode(tmp_path / "x"))
