"""Who plays which part in a check: adapters of a lab, chosen from its Plan. All raise NotShown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from testbed.conformance.outcome import NotShown
from testbed.conformance.scene import Guest, Scene

Pair = tuple[Guest, Guest]


def _pairs(scene: Scene) -> Iterator[Pair]:
    """Adapters with addresses, two at a time, on hosts of 2012 R2."""
    usable = [
        guest
        for guest in scene.guests
        if guest.vsid and guest.ca and not guest.is_gateway and scene.host(guest.host).wnv == "in-switch"
    ]
    for one in usable:
        for other in usable:
            if one is not other:
                yield one, other


def _first(scene: Scene, fits: Callable[[Guest, Guest], bool], what: str) -> Pair:
    for one, other in _pairs(scene):
        if fits(one, other):
            return one, other
    raise NotShown(f"{scene.name} has no {what}")


def remote(scene: Scene, *versions: int) -> Pair:
    """Two of one virtual subnet on different hosts, with CAs of these IP versions (default: 4)."""

    def fits(one: Guest, other: Guest) -> bool:
        both = all(version in guest.ca for guest in (one, other) for version in versions or (4,))
        return both and one.vsid == other.vsid and one.host != other.host

    return _first(scene, fits, "two VMs of one subnet on different hosts")


def local(scene: Scene) -> Pair:
    """Two of one virtual subnet on one host."""
    return _first(
        scene,
        lambda one, other: (
            one.vsid == other.vsid and one.host == other.host and 4 in one.ca and 4 in other.ca
        ),
        "two VMs of one subnet on one host",
    )


def routed(scene: Scene) -> Pair:
    """Two of different virtual subnets of one network on different hosts."""
    return _first(
        scene,
        lambda one, other: (
            one.network == other.network
            and one.vsid != other.vsid
            and one.host != other.host
            and 4 in one.ca
            and 4 in other.ca
        ),
        "two VMs of different subnets of one network on different hosts",
    )


def twins(scene: Scene) -> tuple[Pair, Pair]:
    """Two remote pairs of different networks with the same CAs on the same hosts."""
    pairs = [
        (one, other)
        for one, other in _pairs(scene)
        if one.vsid == other.vsid and one.host != other.host and 4 in one.ca and 4 in other.ca
    ]
    for first in pairs:
        for second in pairs:
            same = all(a.ca[4] == b.ca[4] and a.host == b.host for a, b in zip(first, second, strict=True))
            if same and first[0].network != second[0].network:
                return first, second
    raise NotShown(f"{scene.name} has no two networks with the same addresses on the same hosts")


def stranger(scene: Scene, network: str) -> Guest:
    """One of another network. Raises NotShown."""
    for one, _ in _pairs(scene):
        if one.network != network and 4 in one.ca:
            return one
    raise NotShown(f"{scene.name} has one network only")
