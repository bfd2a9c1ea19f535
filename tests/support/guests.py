"""Guests of running labs: closed by a firewall, and listened to from inside."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pyroute2.nftables.main import NFTables

from support.labs import Lab
from testbed.lab.lab import Lab as Opened
from testbed.namespaces import in_netns

LAST = bytes.fromhex("decade") * 5  # in the payload of a ping that ends a capture
ECHOES = "icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))"
SECONDS = 20.0
_INET, _TABLE, _DROP = 1, "closed", 0


@contextlib.contextmanager
def closed(lab: Opened, *vms: str) -> Iterator[None]:
    """nftables in the guests drop all IP, both ways."""
    with contextlib.ExitStack() as stack:
        for vm in vms:
            with in_netns(lab.netns(vm)), NFTables(nfgen_family=_INET) as tables:
                tables.table("add", name=_TABLE)
                stack.callback(_open, lab.netns(vm))
                for hook in ("input", "output"):
                    tables.chain("add", table=_TABLE, name=hook, hook=hook, type="filter", policy=_DROP)
        yield


def _open(netns: int) -> None:
    with in_netns(netns), NFTables(nfgen_family=_INET) as tables:
        tables.table("del", name=_TABLE)


@contextlib.contextmanager
def listening(lab: Lab, folder: Path, *vms: str) -> Iterator[dict[str, list[bytes]]]:
    """tcpdump in the guests; at the end the echoes that each has seen, but for a last one of the first VM's.

    That one goes to 10.0.0.6, and shows that all of them have listened.
    """
    found: dict[str, list[bytes]] = {}
    with contextlib.ExitStack() as stack:
        files = {vm: folder / f"{vm}.pcap" for vm in vms}
        for vm, file in files.items():
            words = ["tcpdump", "-Z", "root", "-U", "-n", "-i", "eth0", "-w", "-", ECHOES]
            target = stack.enter_context(file.open("wb"))
            dump = lab.cli.start("exec", lab.name, vm, "--", *words, stdout=target)
            stack.callback(_end, dump)
            assert dump.stderr
            while b"listening on" not in (line := dump.stderr.readline()):
                assert line, f"tcpdump of {vm} has ended"
        yield found
        lab.cli.output(lab.name, vms[0], "ping", "-c", 1, "-W", 2, "-p", LAST.hex(), "10.0.0.6")
        end = time.monotonic() + SECONDS
        for vm, file in files.items():
            while LAST not in file.read_bytes():
                assert time.monotonic() < end, f"the last ping is not in the capture of {vm}"
                time.sleep(0.05)  # a poll with a deadline
            found[vm] = [frame for frame in _frames(file.read_bytes()) if LAST not in frame]


def _end(dump: subprocess.Popen[bytes]) -> None:
    """End a tcpdump by way of its `exec`, which passes the signal on."""
    dump.terminate()
    dump.communicate(timeout=SECONDS)


def _frames(capture: bytes) -> Iterator[bytes]:
    """Of a whole pcap file of this machine's byte order."""
    at = 24
    while at + 16 <= len(capture):
        (length,) = struct.unpack_from("=I", capture, at + 8)
        yield capture[at + 16 : at + 16 + length]
        at += 16 + length
