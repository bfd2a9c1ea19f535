"""Test-VMNetworkAdapter: an ICMP echo from one VM's port to another's, in which the guests have no part.

The receiver's end is begun first. Both may be asked for by one call, or each by one of its own, as the
administrators of two hosts would; then neither knows what the other's host has seen.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from testbed.errors import BadInput, LabError
from testbed.host.adapter_test import MAGIC, End, Progress, Sent
from testbed.host.pa.pings import HEADERS
from testbed.lab.lab import Lab
from testbed.packets.ethernet import parse_mac
from testbed.switch.drops import Drop
from testbed.switch.pipeline import NIC, WNV
from testbed.topology.plan import VnicPlan

Role: TypeAlias = Literal["sender", "receiver", "both"]
_LOOK = 0.005  # seconds between looks at what has come of it
_SPARE = 10.0  # seconds after which a host ends a test by itself, beyond its time
_OTHERS = (Drop.OTHER_MEMBER, Drop.NOT_FOR_US)  # what a copy that the fabric has flooded comes to
_FABRIC = "fabric"


class Query(msgspec.Struct, frozen=True):
    """What is tested, as the cmdlet has it. sender, receiver: VMs, or their ports."""

    sender: str
    receiver: str
    sender_ip: str
    receiver_ip: str
    sequence_number: int = 100
    next_hop_mac: str = ""
    payload_size: int = 32
    timeout: float = 5.0


class Stop(msgspec.Struct, frozen=True):
    """Where it ended: the request or the reply, at a host (stage and reason) or in the fabric."""

    message: Literal["request", "reply"]
    hop: str
    stage: str
    reason: str


class Outcome(msgspec.Struct, frozen=True):
    """What has come of it. round_trip: seconds, as the sender's host has measured."""

    result: Literal["Success", "Failure"]
    round_trip: float | None
    stopped: Stop | None


class Place(NamedTuple):
    """A VM's port, and the host it is at."""

    host: str
    vnic: VnicPlan


def run(lab: Lab, query: Query, role: Role) -> Outcome:
    """Test it, from the end ``role``. Raises BadInput, LabError."""
    addresses = _addresses(query)
    ends: dict[str, Place] = {}
    if role != "sender":
        ends["receiver"] = _place(lab, "receiver", query.receiver, query.receiver_ip)
    if role != "receiver":
        ends["sender"] = _place(lab, "sender", query.sender, query.sender_ip)
        _check_size(query, ends["sender"].vnic)
    identifier = random.randrange(1, 1 << 16)
    sender_ip, receiver_ip = addresses
    with contextlib.ExitStack() as stack:
        asked: dict[str, _Asked] = {}
        for name, place in ends.items():
            sends = name == "sender"
            end = End(
                place.vnic.port,
                *((sender_ip, receiver_ip) if sends else (receiver_ip, sender_ip)),
                sends=sends,
                sequence=query.sequence_number,
                identifier=identifier if role != "receiver" else None,
                mac=_mac(query.next_hop_mac) if sends else None,
            )
            asked[name] = stack.enter_context(_begun(lab, place.host, end, query))
        return _wait(asked, time.monotonic() + query.timeout)


class _Asked(NamedTuple):
    """An end that has begun."""

    lab: Lab
    host: str
    number: int

    def progress(self) -> Progress:
        told = self.lab.ask(self.host, "test-adapter-state", test=self.number)["progress"]
        return msgspec.convert(told, Progress)


@contextlib.contextmanager
def _begun(lab: Lab, host: str, end: End, query: Query) -> Iterator[_Asked]:
    number = lab.ask(
        host,
        "test-adapter",
        end=msgspec.to_builtins(end, builtin_types=(bytes,)),
        size=query.payload_size,
        timeout=query.timeout + _SPARE,
    )["test"]
    try:
        yield _Asked(lab, host, number)
    finally:
        with contextlib.suppress(LabError):
            lab.ask(host, "test-adapter-end", test=number)


def _wait(asked: dict[str, _Asked], deadline: float) -> Outcome:
    """Until it has succeeded, has stopped where somebody has seen it, or has taken too long."""
    hosts = {name: end.host for name, end in asked.items()}
    while True:
        over = time.monotonic() > deadline
        seen = {name: end.progress() for name, end in asked.items()}
        sender, receiver = seen.get("sender"), seen.get("receiver")
        if sender is not None and sender.round_trip is not None:
            return Outcome("Success", sender.round_trip, None)
        stop = _stopped(hosts, sender, receiver, over=over)
        if stop is not None:
            return Outcome("Failure", None, stop)
        replied = receiver.sent if receiver is not None else None
        if sender is None and replied is not None and not replied.unresolved:
            return Outcome("Success", None, None)
        if over:
            return Outcome("Failure", None, _unknown(hosts, sender, receiver))
        time.sleep(_LOOK)


# ---- where it has stopped -------------------------------------------------------------------


def _stopped(
    hosts: dict[str, str], sender: Progress | None, receiver: Progress | None, *, over: bool
) -> Stop | None:
    """Where somebody has seen it stop. ``over``: what still waits has waited for too long."""
    here, there = hosts.get("sender", ""), hosts.get("receiver", "")
    if sender is not None and (stop := _lost_at_home("request", here, sender.sent, over=over)):
        return stop
    if receiver is not None:
        if not receiver.received and (stop := _lost_on_arrival("request", there, receiver, over=over)):
            return stop
        if stop := _lost_at_home("reply", there, receiver.sent, over=over):
            return stop
    return None if sender is None else _lost_on_arrival("reply", here, sender, over=over)


def _lost_at_home(
    message: Literal["request", "reply"], host: str, sent: Sent | None, *, over: bool
) -> Stop | None:
    if sent is None:
        return None
    if sent.drops and not sent.nics:
        stage, reason = sent.drops[0]
        return Stop(message, host, stage, reason)
    if sent.unresolved and over:
        nobody = ", ".join(str(ipaddress.ip_address(each)) for each in sent.unresolved)
        return Stop(message, host, WNV, f"{Drop.PA_UNREACHABLE}: {nobody} does not answer")
    return None


def _lost_on_arrival(
    message: Literal["request", "reply"], host: str, seen: Progress, *, over: bool
) -> Stop | None:
    telling = [sight for sight in seen.sights if sight.reason not in _OTHERS]
    if not telling and over:
        telling = seen.sights  # the fabric has flooded a copy, which proves nothing while another may come
    if not telling:
        return None
    last = telling[-1]
    return Stop(message, host, last.stage, f"{last.reason} (from {last.source})")


def _unknown(hosts: dict[str, str], sender: Progress | None, receiver: Progress | None) -> Stop:
    """Where it was seen last, when nobody has seen it stop."""
    here, there = hosts.get("sender", "the sender's host"), hosts.get("receiver", "the receiver's host")
    if sender is None:
        return Stop("request", _FABRIC, "", f"nothing for this test has reached {there}")
    replied = receiver is not None and receiver.sent is not None
    message: Literal["request", "reply"] = "reply" if replied else "request"
    start, goal = (there, here) if replied else (here, there)
    sent = receiver.sent if replied and receiver is not None else sender.sent
    nics = sent.nics if sent is not None else []
    if not nics and sent is not None and not sent.waiting and start != goal:
        return Stop(message, start, NIC, Drop.TX_REFUSED)
    by = f" by {', '.join(nics)}" if nics else ""
    if receiver is None:
        return Stop(message, _FABRIC, "", f"it has left {start}{by}, and no reply has come back")
    return Stop(message, _FABRIC, "", f"it has left {start}{by}, and has not reached {goal}")


# ---- what is asked for ----------------------------------------------------------------------


def _addresses(query: Query) -> tuple[bytes, bytes]:
    """Both addresses, packed."""
    found = []
    for option, text in (("--sender-ip", query.sender_ip), ("--receiver-ip", query.receiver_ip)):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise BadInput(f"{option} {text!r} is no IP address: write it like 10.0.0.5 or fd00::5") from None
        if address.is_multicast or address.is_unspecified or text == "255.255.255.255":
            raise BadInput(f"{option} {text} is no address of one VM")
        found.append(address.packed)
    if len(found[0]) != len(found[1]):
        raise BadInput("--sender-ip and --receiver-ip are of different families: give two of the same")
    return found[0], found[1]


def _place(lab: Lab, option: str, name: str, address: str) -> Place:
    """The port of a VM, by its own name ("blue1:eth0"), or the VM's only one, or the one with the address."""
    places = {vnic.port: Place(vm.host, vnic) for vm in lab.plan.vms for vnic in vm.vnics}
    if name in places:
        return places[name]
    vm = next((vm for vm in lab.plan.vms if vm.name == name), None)
    if vm is None:
        known = ", ".join(each.name for each in lab.plan.vms)
        raise BadInput(f"--{option} {name!r}: {lab.record.name} has no such VM: one of {known}")
    found = [vnic for vnic in vm.vnics if address in (text.partition("/")[0] for text in vnic.addresses)]
    if len(vm.vnics) == 1:
        found = [*vm.vnics]
    if len(found) != 1:
        known = ", ".join(vnic.port for vnic in vm.vnics)
        raise BadInput(f"--{option} {name} has several adapters: name the port, one of {known}")
    return Place(vm.host, found[0])


def _check_size(query: Query, vnic: VnicPlan) -> None:
    most = vnic.mtu - HEADERS[ipaddress.ip_address(query.sender_ip).version]
    if not len(MAGIC) <= query.payload_size <= most:
        raise BadInput(
            f"--payload-size {query.payload_size}: from {len(MAGIC)} to {most}, "
            f"which is what passes the adapter's MTU of {vnic.mtu}"
        )


def _mac(text: str) -> bytes | None:
    if not text:
        return None
    try:
        mac = parse_mac(text)
    except ValueError:
        raise BadInput(
            f"--next-hop-mac {text!r} is no MAC address: write it like 00-15-5d-00-00-01"
        ) from None
    if mac[0] & 1:
        raise BadInput(f"--next-hop-mac {text} is a group's: name one machine's")
    return mac
