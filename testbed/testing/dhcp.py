"""DHCP as a test reads it in a frame, at a VM or inside NVGRE on a cable; a server and a client for VMs.

Messages: RFC 2131 and 2132, RFC 8415. The server is dnsmasq, the client ISC's dhclient, both in the VMs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
from collections.abc import Callable, Iterator
from subprocess import DEVNULL
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame

SECONDS = 20.0  # for a lease, and for a client to end
_COOKIE = b"\x63\x82\x53\x63"
_KIND = 53  # RFC 2132 section 9.6
_IA_NA, _IA_ADDRESS = 3, 5  # RFC 8415 sections 21.4 and 21.6
_UDP = 17
KINDS_V4 = {1: "discover", 2: "offer", 3: "request", 5: "ack", 6: "nak"}
KINDS_V6 = {1: "solicit", 2: "advertise", 3: "request", 7: "reply"}
CONVERSATION = {  # the four messages by which a client gets an address
    4: ("discover", "offer", "request", "ack"),
    6: ("solicit", "advertise", "request", "reply"),
}


class Message(NamedTuple):
    """kind: "discover", "solicit", ... source: MAC of the frame. given: the address; "" where none is."""

    kind: str
    source: str
    given: str


def parse(frame: bytes) -> Message | None:
    """What is in a frame of the customer's; None when it is no DHCP."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 282 and frame[23] == _UDP:
        at = 14 + (frame[14] & 15) * 4 + 8
        payload = frame[at:]
        if payload[236:240] != _COOKIE:
            return None
        kind = KINDS_V4.get(_options(payload[240:]).get(_KIND, b"\0")[0], "")
        yours = str(ipaddress.ip_address(payload[16:20]))
        return Message(kind, frame[6:12].hex(":"), "" if yours == "0.0.0.0" else yours)
    is_v6 = frame[12:14] == b"\x86\xdd" and len(frame) >= 66 and frame[20] == _UDP
    if is_v6 and frame[54:58] in (b"\x02\x22\x02\x23", b"\x02\x23\x02\x22"):  # ports 546 and 547
        end = 54 + int.from_bytes(frame[58:60], "big")
        return Message(KINDS_V6.get(frame[62], ""), frame[6:12].hex(":"), _lease(frame[66:end]))
    return None


def _options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:  # padding
            at += 1
            continue
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def _options_v6(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        kind, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _lease(options: bytes) -> str:
    inner = _options_v6(_options_v6(options).get(_IA_NA, b"")[12:])
    address = inner.get(_IA_ADDRESS, b"")[:16]
    return str(ipaddress.ip_address(address)) if len(address) == 16 else ""


def message(kind: str, source: str, given: str = "") -> Callable[[Frame], bool]:
    """Whether a frame is this message of this MAC, with this address if there is one."""

    def fits(frame: Frame) -> bool:
        found = parse(frame.inner)
        return found is not None and found[:2] == (kind, source) and given in ("", found.given)

    return fits


def require() -> None:
    """Skip the test where this machine lacks the server or the client."""
    for program in ("dnsmasq", "dhclient"):
        if shutil.which(program) is None:
            pytest.skip(f"this machine has no {program}: `testbed doctor` says what installs it")


def serve(vm: Vm, first: str, last: str) -> None:
    """Start a DHCP server in a VM, for addresses of its subnet; it ends with the VM."""
    length = ",64" if ":" in first else ""
    words = ["--no-ping", "--port=0", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file"]
    folder = "/run"
    vm.run(
        "dnsmasq",
        *words,
        f"--interface={vm.interface}",
        f"--dhcp-leasefile={folder}/testbed-dnsmasq.leases",
        f"--dhcp-range={first},{last}{length},1h",
    )


@contextlib.contextmanager
def client(vm: Vm, version: int, length: int) -> Iterator[None]:
    """A DHCP client runs in the VM for the ``with`` block; what it leased stays. length: of the prefix."""
    more = ["--address-prefix-len", length] if version == 6 else []
    process = vm.start("dhclient", "-d", f"-{version}", *more, vm.interface, stdout=DEVNULL, stderr=DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(SECONDS)
