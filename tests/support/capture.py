"""Frames on a cable of a running lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.labs import Lab

LAST = bytes.fromhex("c0ffee") * 5  # in the payload of a ping that ends a capture
SECONDS = 20.0


def port_of(lab: Lab, host: str, nic: str) -> str:
    """The fabric's end of a cable."""
    for switch in lab.cli.inspect(lab.name)["fabric"]["switches"]:
        for port in switch["ports"]:
            if (port.get("host"), port.get("nic")) == (host, nic):
                return str(port["interface"])
    raise AssertionError(f"no cable at {host}:{nic}")


@contextmanager
def captured(lab: Lab, interface: str, file: Path, expression: str, vm: str, address: str) -> Iterator[None]:
    """tcpdump in the fabric, writing to ``file`` out here; complete once a last ping of ``vm`` is in it."""
    words = ["tcpdump", "-Z", "root", "-U", "-B", 16384, "-s", 2048, "-i", interface, "-w", "-", expression]
    with file.open("wb") as target:
        dump = lab.cli.start("exec", lab.name, "fabric", "--", *words, stdout=target)
        with lab.cli.ended(dump):
            assert dump.stderr
            while b"listening on" not in (line := dump.stderr.readline()):
                assert line, "tcpdump has ended"
            yield
            lab.cli.output(lab.name, vm, "ping", "-c", 1, "-W", 2, "-p", LAST.hex(), address)
            end = time.monotonic() + SECONDS
            while LAST not in file.read_bytes():
                assert time.monotonic() < end, "the last ping is not in the capture"
                time.sleep(0.05)  # a poll with a deadline
            dump.terminate()
            said = dump.communicate(timeout=10)[1]
            assert b"\n0 packets dropped by kernel" in said, said
