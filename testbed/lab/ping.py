"""Ping between the provider addresses of a running lab's hosts, as the `ping -p` of Windows."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput, LabError
from testbed.host.pa.pings import HEADERS, Order, longest
from testbed.lab.lab import Lab

_LOOK = 0.01  # seconds between looks at how far a ping is
_SPARE = 10.0  # seconds beyond what a ping may take, on a busy machine


class Options(msgspec.Struct, frozen=True):
    """source: an own PA, "": those that fit. member: the NIC to send through, "": as the team decides."""

    source: str = ""
    member: str = ""
    count: int = 4
    size: int = 32
    timeout: float = 1.0
    sweep: bool = False


class _Address(NamedTuple):
    address: str
    prefix_length: int
    vsid: int
    state: str

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version

    def reaches(self, other: str) -> bool:
        """Whether another one is on its link."""
        network = ipaddress.ip_interface(f"{self.address}/{self.prefix_length}").network
        return ipaddress.ip_address(other) in network


def ping(lab: Lab, host: str, target: str, options: Options) -> Iterator[Message]:
    """What comes of each pair of provider addresses, one after the other. target: a PA, or another host.

    Raises BadInput, before anything is sent, and LabError.
    """
    lab.check_host(host)
    targets = _targets(lab, host, target)
    own = [each for each in _addresses(lab, host) if each.state == "Preferred"]
    if options.source:
        own = _chosen(host, own, options.source)
    pairs = [(source, each) for each, vsids in targets.items() for source in _sources(own, each, vsids)]
    if not pairs:
        families = ", ".join(sorted({f"IPv{ipaddress.ip_address(each).version}" for each in targets}))
        raise BadInput(f"{host} has no provider address in use from which to ping {target} ({families})")
    mtu = _mtu(lab, host, options.member)
    orders = [_order(source, destination, options, mtu) for source, destination in pairs]
    return (_described(order, options, _run(lab, host, order)) for order in orders)


def _addresses(lab: Lab, host: str) -> list[_Address]:
    told = lab.ask(host, "status")["provider_addresses"]
    return [_Address(*(each[field] for field in _Address._fields)) for each in told]


def _targets(lab: Lab, host: str, target: str) -> dict[str, set[int]]:
    """The PAs to ping, each with the VSIDs for which a host of the lab has it."""
    hosts = [each.name for each in lab.plan.hosts]
    if target == host:
        raise BadInput(f"{host} does not ping itself: name another host, or one of its provider addresses")
    if target in hosts:
        found: dict[str, set[int]] = {}
        for each in _addresses(lab, target):
            found.setdefault(each.address, set()).add(each.vsid)
        if not found:
            raise BadInput(f"{target} has no provider addresses")
        return found
    try:
        address = str(ipaddress.ip_address(target))
    except ValueError:
        known = ", ".join(name for name in hosts if name != host)
        raise BadInput(
            f"--pa {target!r} is neither an address, such as 192.168.0.2, nor another host: one of {known}"
        ) from None
    vsids: set[int] = set()
    for name in hosts:
        with contextlib.suppress(LabError):  # a host that is down tells nothing, and is pinged all the same
            vsids |= {each.vsid for each in _addresses(lab, name) if each.address == address}
    return {address: vsids}


def _chosen(host: str, own: Sequence[_Address], source: str) -> list[_Address]:
    with contextlib.suppress(ValueError):  # what is no address is none of the host's either
        source = str(ipaddress.ip_address(source))
    found = [each for each in own if each.address == source]
    if not found:
        known = ", ".join(dict.fromkeys(each.address for each in own)) or "none"
        raise BadInput(f"--from {source}: no provider address that {host} has in use: one of {known}")
    return found


def _sources(own: Sequence[_Address], destination: str, vsids: set[int]) -> list[str]:
    """Of the family: those of the destination's virtual subnet, else those on its link, else all."""
    version = ipaddress.ip_address(destination).version
    family = [each for each in own if each.version == version]
    same = [each for each in family if each.vsid in vsids]
    near = [each for each in family if each.reaches(destination)]
    return [*dict.fromkeys(each.address for each in same or near or family)]


def _mtu(lab: Lab, host: str, member: str) -> int:
    nics = {each["name"]: each["mtu"] for each in lab.ask(host, "status")["nics"]}
    if member and member not in nics:
        raise BadInput(f"--member {member}: {host} has no such NIC: one of {', '.join(nics)}")
    return int(nics[member] if member else min(nics.values()))


def _order(source: str, destination: str, options: Options, mtu: int) -> Order:
    most = mtu - HEADERS[ipaddress.ip_address(destination).version]
    if options.size > most and not options.sweep:
        raise BadInput(
            f"--size {options.size}: more than leaves the NIC unfragmented to {destination}: at most {most}"
        )
    count, size = (0, most) if options.sweep else (options.count, options.size)
    return Order(source, destination, "", count, size, options.timeout, options.member)


def _run(lab: Lab, host: str, order: Order) -> Message:
    number = lab.ask(host, "ping", **msgspec.to_builtins(order))["ping"]
    end = time.monotonic() + longest(order) + _SPARE
    try:
        while not (result := lab.ask(host, "ping-result", ping=number))["done"]:
            if time.monotonic() > end:
                raise LabError(f"{host} does not come to the end of its ping of {order.destination}")
            time.sleep(_LOOK)
        return result
    finally:
        with contextlib.suppress(LabError):
            lab.ask(host, "ping-end", ping=number)


def _described(order: Order, options: Options, result: Message) -> Message:
    found: dict[str, Any] = {"source": order.source, "destination": order.destination, "member": order.member}
    answered = [each for each in result["round_trips"] if each is not None]
    if options.sweep:
        header = HEADERS[ipaddress.ip_address(order.destination).version]
        largest = result["largest"]
        path_mtu = None if largest is None else largest + header
        return {
            **found,
            "largest_payload": largest,
            "path_mtu": path_mtu,
            "requests": len(result["round_trips"]),
        }
    return {
        **found,
        "size": order.size,
        "round_trips": result["round_trips"],
        "sent": len(result["round_trips"]),
        "lost": len(result["round_trips"]) - len(answered),
        "min": min(answered, default=None),
        "avg": sum(answered) / len(answered) if answered else None,
        "max": max(answered, default=None),
    }


def is_answered(found: Message) -> bool:
    """Whether anything came back from the destination."""
    return found.get("path_mtu") is not None or found.get("min") is not None
