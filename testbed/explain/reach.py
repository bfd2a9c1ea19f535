"""Whether the guests really reach each other: an echo of the sender's own kernel, seen at both adapters."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.capture import pcapng
from testbed.capture.filters import Criteria, at_adapter
from testbed.capture.source import Source
from testbed.explain import reasons
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case, End
from testbed.host.pa.pings import HEADERS
from testbed.lab import trace as tracing
from testbed.lab import trace_real
from testbed.lab.trace_frames import Kind
from testbed.namespaces import in_netns
from testbed.packets import ethernet
from testbed.packets.checksum import checksum
from testbed.wiring import observe

_SECONDS = 0.7  # for the answer to one request
_ATTEMPTS = 2
_SETTLE = 0.05  # for the counters of what was lost
_MARK = 16
_ECHO = struct.Struct("!BBHHH")
_SOLICITATION = b"\x87"  # of Neighbor Discovery; no IPv4 echo begins so
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}

Lost = dict[tuple[str, str, str, str], int]  # host, port or NIC, stage, reason


class Sights(NamedTuple):
    """How far the echo has come. refused: what the sender's kernel said, or "". asked: for the MAC."""

    refused: str
    asked: bool
    left: bool
    arrived: bool
    replied: bool
    returned: bool
    received: bool


def reach(case: Case) -> Findings:
    """A small echo and one as long as the adapters allow, from guest to guest."""
    here, there = case.source, case.target
    mtu = min(end.vnic.mtu for end in case.ends)
    largest = mtu - HEADERS[ipaddress.ip_address(case.address).version]
    name = there.vm.name if there else case.address
    for size, words in ((_MARK, "small"), (largest, f"of {mtu} bytes")):
        asked = f"does {name} answer an echo ({words}) of {here.vm.name}'s own kernel?"
        before = _drops(case)
        sights = _asked(case, size)
        if sights.received:
            yield Evidence(asked, "yes", ok=True)
            continue
        case.works = False
        time.sleep(_SETTLE)  # what was on its way is counted
        lost = {key: count for key, count in _drops(case).items() if count > before.get(key, 0)}
        said = "; ".join(f"{host}: {reason} at {stage}" for host, _, stage, reason in lost)
        yield Evidence(
            asked, f"no: {_told(sights)}{'; dropped meanwhile: ' + said if said else ''}", ok=False
        )
        yield from explained(case, sights, [*lost], only_large=size == largest)
        return
    case.works = True


def followed(case: Case) -> Findings:
    """A marked packet of the sender's, looked for at every cable, where nothing else has told the place."""
    if not case.untold or case.target is None:
        return
    start, packet = tracing.of_packet(
        case.lab, case.source.start, case.address, Kind(mark=os.urandom(_MARK)), any_adapter=False
    )
    found = trace_real.follow(case.lab, start, packet)
    places = [
        f"{'cable of' if 'nic' in stage['details'] else 'adapter'} {hop['host']}"
        for hop in found["hops"]
        for stage in hop["stages"]
        if "seen" in stage["reason"]
    ]
    seen = ", ".join(dict.fromkeys(places)) or "nowhere but where it was sent"
    yield Evidence(
        "where is a real packet seen (real trace)?", f"{seen}: {found['outcome']}", ok=found["arrives"]
    )
    if not found["arrives"]:
        yield Cause(
            "lost", Weight.SYMPTOM + 3, f"a packet is seen at {seen}, and then no more: {found['outcome']}"
        )


# ---- the echo -------------------------------------------------------------------------------


def _asked(case: Case, size: int) -> Sights:
    """Ask until there is an answer, and look at both adapters."""
    with contextlib.ExitStack() as stack:
        watches = [
            (end, stack.enter_context(_watching(case, end, number))) for number, end in enumerate(case.ends)
        ]
        sock = stack.enter_context(_socket(case))
        mark, refused, received = os.urandom(_MARK), "", False
        for attempt in range(_ATTEMPTS):
            try:
                _send(sock, case.address, mark.ljust(size, b"\0"), attempt)
            except OSError as error:
                refused = errno.errorcode.get(error.errno or 0, str(error))
                break
            if received := _answered(sock, case.address, mark, time.monotonic() + _SECONDS):
                break
        version = ipaddress.ip_address(case.address).version
        seen = {
            (position, way, kind)
            for position, (_, watch) in enumerate(watches)
            for way, kind in _seen(watch, mark, version)
        }
    question, out, back = (0, "out", "question"), (0, "out", "request"), (0, "in", "reply")
    return Sights(
        refused,
        question in seen,
        out in seen,
        (1, "in", "request") in seen,
        (1, "out", "reply") in seen,
        back in seen,
        received,
    )


@contextlib.contextmanager
def _watching(case: Case, end: End, number: int) -> Iterator[Source]:
    wanted = at_adapter(Criteria(ca=ipaddress.ip_address(case.address).packed), end.vnic.vsid)
    source = Source(number, end.vnic.port, case.lab.netns(end.vm.name), end.vnic.interface, wanted)
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def _socket(case: Case) -> Iterator[socket.socket]:
    """A raw ICMP socket in the sender's guest, from the address that is asked about."""
    six = ":" in case.address
    family = socket.AF_INET6 if six else socket.AF_INET
    with in_netns(case.lab.netns(case.source.vm.name)):
        sock = socket.socket(
            family,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK,
            socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP,
        )
    with sock:
        with contextlib.suppress(OSError):  # without its address, which is found in its turn
            sock.bind((case.source.address, 0))
        yield sock


def _send(sock: socket.socket, address: str, payload: bytes, sequence: int) -> None:
    kind = _REQUEST[6 if ":" in address else 4]
    identifier = os.getpid() & 0xFFFF
    plain = _ECHO.pack(kind, 0, 0, identifier, sequence) + payload
    total = checksum(plain)  # of ICMPv6 the kernel makes it
    sock.sendto(plain[:2] + total.to_bytes(2, "big") + plain[4:], (address, 0))


def _answered(sock: socket.socket, address: str, mark: bytes, deadline: float) -> bool:
    version = 6 if ":" in address else 4
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([sock], [], [], left)[0]:
            return False
        data = sock.recv(1 << 16)
        message = data[4 * (data[0] & 15) :] if version == 4 else data
        if message[:1] == bytes((_REPLY[version],)) and mark in message:
            return True
    return False


def _seen(watch: Source, mark: bytes, version: int) -> Iterator[tuple[str, str]]:
    """Way and kind of each packet of this echo at an adapter, as the guest has it."""
    for record in watch.read(4096):
        way = "out" if record.flags & 3 == pcapng.OUTBOUND else "in"
        at = ethernet.HEADER + (4 * (record.data[14] & 15) if version == 4 else 40)
        if ethernet.ethertype(record.data) == ethernet.TYPE_ARP or record.data[at : at + 1] == _SOLICITATION:
            yield way, "question"
        if mark not in record.data:
            continue
        kinds = {_REQUEST[version]: "request", _REPLY[version]: "reply"}
        if kind := kinds.get(record.data[at]):
            yield way, kind


def _told(sights: Sights) -> str:
    if sights.refused:
        return f"its kernel does not send it ({sights.refused})"
    if not sights.left:
        return "its question for the MAC has no answer" if sights.asked else "it has not left the adapter"
    if not sights.arrived:
        return "it has left, and has not arrived at the other adapter"
    if not sights.replied:
        return "it has arrived, and the other guest has not answered"
    return (
        "the answer has come back, and the guest has not taken it"
        if sights.returned
        else "the answer was lost"
    )


# ---- what it means --------------------------------------------------------------------------


def explained(case: Case, sights: Sights, lost: list[Any], *, only_large: bool) -> Findings:
    """The cause of an echo without an answer. lost: host, port or NIC, stage and reason of each drop."""
    here, there = case.source, case.target
    if sights.refused in ("EPERM", "EACCES") or sights.returned:
        yield _closed(case, here, "does not let it out" if sights.refused else "does not take the answer")
        return
    if sights.refused:
        yield Cause(
            "guest-network",
            Weight.PROBED,
            f"{here.vm.name}'s kernel does not send to {case.address} ({sights.refused})",
        )
        return
    if sights.arrived and not sights.replied and there is not None and not _of(lost, there.vnic.port):
        yield _closed(case, there, "gets the request and does not answer")
        return
    for host, _, stage, reason in lost:
        message = "the reply" if sights.replied else "the request"
        yield reasons.cause_of(host, stage, reason, message, Weight.PROBED - 5)
    if not sights.left and there is None:
        yield Cause("no-such-address", Weight.PROBED + 6, f"nobody answers for {case.address}")
    elif there is None and not lost:
        words = f"no VM has {case.address}, and what goes there by {case.beyond} is not answered"
        yield Cause("no-such-address", Weight.PROBED, words)
    elif not sights.left and sights.asked and not lost:
        words = f"{here.vm.name} asks for the MAC of {case.address}, and nobody answers"
        yield Cause("lost", Weight.PROBED - 10, words)
    elif not sights.left and not lost:
        yield _closed(case, here, "sends nothing")
    elif only_large and not lost:
        yield Cause(
            "fabric-mtu", Weight.SYMPTOM + 4, "small packets pass, and large ones are lost on their way"
        )
    elif not lost:
        case.untold = True
        yield Cause("lost", Weight.SYMPTOM, f"the echo was lost: {_told(sights)}")


def _of(lost: list[Any], port: str) -> bool:
    return any(name == port for _, name, _, _ in lost)


def _closed(case: Case, end: End, does: str) -> Cause:
    netns = case.lab.netns(end.vm.name)
    version = 6 if ":" in case.address else 4
    if tables := observe.filters(netns):
        why = f"the firewall of {end.vm.name} is closed (nftables: {', '.join(tables)})"
    elif observe.ignores_echoes(netns, version):
        why = f"{end.vm.name} is told to ignore echoes (icmp_echo_ignore_all)"
    else:
        why = f"a firewall or setting inside {end.vm.name} is in the way"
    return Cause("guest-firewall", Weight.PROBED + 5, f"{why}: {end.vm.name} {does}")


def _drops(case: Case) -> Lost:
    """Of the ends' hosts, but for what is part of normal life."""
    ports = {end.vnic.port for end in case.ends}
    found: Lost = {}
    for host in case.hosts:
        nics = {each.name for each in case.lab.plan.host(host).nics}
        for each in case.lab.ask(host, "counters")["counters"]:
            fields = each["fields"]
            if (
                each["kind"] != "drop"
                or fields["reason"] in reasons.QUIET
                or each["object"] not in ports | nics
            ):
                continue
            key = host, each["object"], fields["stage"], fields["reason"]
            found[key] = found.get(key, 0) + fields["packets"]
    return found
