"""Whether everyone reaches those whom they should reach, and nobody else.

Tenants share addresses, so an answer proves nothing about who gave it: every VM answers with its
own identity. The sockets are opened inside the VMs' network namespaces and served from here, so
that any image can be a VM; what they send goes through the VM's own kernel stack and the switch.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import selectors
import socket
import time
from typing import Any

import msgspec
from msgspec import Struct

from testbed.errors import LabError
from testbed.lab.lab import Lab
from testbed.namespaces import in_netns

ANSWER_SECONDS = 5.0  # for those who must answer
SILENCE_SECONDS = 0.5  # for those who must not, counted from the last expected answer
RETRY_SECONDS = 0.2
_PORTS = range(20000, 60000)


class Guest(Struct, frozen=True):
    """A VM with its live addresses. networks: the VM networks it is part of ("" for VSID 0)."""

    name: str
    networks: frozenset[str]
    addresses: tuple[str, ...]


class Probe(Struct):
    """One question: from a VM to an address. expected: who is to answer (None: nobody)."""

    source: str
    address: str
    expected: str | None
    answers: set[str]

    @property
    def ok(self) -> bool:
        """Exactly the expected VM answered."""
        return self.answers == ({self.expected} if self.expected else set())


class _Message(Struct, array_like=True):
    lab: str
    kind: str  # "?" or "!"
    probe: int
    sender: str


def check(lab: Lab) -> dict[str, Any]:
    """Probe all pairs of VMs over all their addresses.

    Result: {"ok", "pairs", "problems": [{"from", "address", "expected", "answered_by"}],
    "leaks": [{"from", "to"}]}; a leak is a datagram that arrived at a VM of no common network.
    """
    from testbed.wiring import guest

    guests = []
    for vm in lab.plan.vms:
        live = guest.addresses(lab.netns(vm.name))
        networks = {vnic.interface: vnic.network for vnic in vm.vnics}
        # what a VM should have counts even when it has lost it
        found = {ipaddress.ip_interface(text).ip for vnic in vm.vnics for text in vnic.addresses}
        for interface in networks:
            entries = [entry for entry in live.get(interface, []) if not entry["duplicate"]]
            found |= {ipaddress.ip_interface(entry["address"]).ip for entry in entries}
        addresses = sorted(str(address) for address in found if not address.is_link_local)
        guests.append(Guest(vm.name, frozenset(networks.values()), tuple(addresses)))
    probes = plan_probes(guests)
    with _Responders(lab, guests, probes) as responders:
        responders.run()
        leaks = responders.leaks
    problems = [
        {
            "from": probe.source,
            "address": probe.address,
            "expected": probe.expected,
            "answered_by": sorted(probe.answers),
        }
        for probe in probes
        if not probe.ok
    ]
    return {"ok": not problems and not leaks, "pairs": len(probes), "problems": problems, "leaks": leaks}


def plan_probes(guests: list[Guest]) -> list[Probe]:
    """Every VM asks every address that anyone has; who must answer is decided by its own network."""
    everything = {address for guest in guests for address in guest.addresses}
    probes = []
    for guest in guests:
        for address in sorted(everything - set(guest.addresses)):
            owners = [
                other.name
                for other in guests
                if address in other.addresses and other.networks & guest.networks
            ]
            probes.append(Probe(guest.name, address, owners[0] if owners else None, set()))
    return probes


class _Responders:
    """A pair of UDP sockets (IPv4, IPv6) in every VM: answers questions, sends and collects ours."""

    def __init__(self, lab: Lab, guests: list[Guest], probes: list[Probe]) -> None:
        self._lab = lab
        self._guests = {guest.name: guest for guest in guests}
        self._probes = probes
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._port = 0
        self.leaks: list[dict[str, str]] = []

    def __enter__(self) -> _Responders:
        for _ in range(50):
            self._port = random.choice(_PORTS)
            try:
                self._open()
            except OSError:  # some VM has a program on this port
                self._close()
                continue
            return self
        raise LabError("no UDP port is free in all VMs at once")

    def __exit__(self, *_: object) -> None:
        self._close()
        self._selector.close()

    def run(self) -> None:
        """Ask until all expected answers are there or the time is up, then listen for forbidden ones."""
        deadline = time.monotonic() + ANSWER_SECONDS
        self._ask(lambda probe: True)
        retry = time.monotonic() + RETRY_SECONDS
        while self._missing() and time.monotonic() < deadline:
            self._serve(min(retry, deadline))
            if time.monotonic() >= retry:
                self._ask(lambda probe: probe.expected is not None and not probe.answers)
                retry += RETRY_SECONDS
        self._ask(lambda probe: probe.expected is None)
        quiet = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < quiet:
            self._serve(quiet)

    def _missing(self) -> bool:
        return any(probe.expected is not None and not probe.answers for probe in self._probes)

    def _open(self) -> None:
        for name in self._guests:
            with in_netns(self._lab.netns(name)):
                for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    self._sockets[name, family] = sock
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((any_address, self._port))
                    self._selector.register(sock, selectors.EVENT_READ, name)

    def _close(self) -> None:
        for sock in self._sockets.values():
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            sock.close()
        self._sockets.clear()

    def _ask(self, wanted: Any) -> None:
        for number, probe in enumerate(self._probes):
            if wanted(probe):
                self._send(probe.source, probe.address, self._port, "?", number)

    def _send(self, source: str, address: str, port: int, kind: str, probe: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        message = _Message(self._lab.record.id, kind, probe, source)
        with contextlib.suppress(OSError):  # no route, or refused: then nobody answers, which is what counts
            self._sockets[source, family].sendto(msgspec.msgpack.encode(message), (address, port))

    def _serve(self, until: float) -> None:
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            assert isinstance(key.fileobj, socket.socket)
            try:
                data, peer = key.fileobj.recvfrom(2048)
                message = msgspec.msgpack.decode(data, type=_Message)
            except (OSError, msgspec.DecodeError):
                continue
            if message.lab != self._lab.record.id:
                self.leaks.append({"from": f"lab {message.lab}", "to": key.data})
                continue
            self._note(key.data, message)
            if message.kind == "?":
                self._send(key.data, peer[0], peer[1], "!", message.probe)

    def _note(self, receiver: str, message: _Message) -> None:
        sender = self._guests[message.sender]
        if not sender.networks & self._guests[receiver].networks:
            self.leaks.append({"from": sender.name, "to": receiver})
        if message.kind == "!":
            self._probes[message.probe].answers.add(message.sender)
