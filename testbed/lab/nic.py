"""NICs of a running lab: their receive side is installed, their offloads shown and switched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.lab.lab import FABRIC, Lab
from testbed.nic.offloads import Offloads
from testbed.topology.plan import CablePlan


def install(lab: Lab, host: str) -> None:
    """Give the NICs of a host the receive side that their settings need, if they don't have it."""
    plan = next(each for each in lab.plan.hosts if each.name == host)
    if all(not _needs_classifier(nic.offloads, nic.queues) for nic in plan.nics):
        return
    for nic in show(lab, host):
        _install(lab, host, nic)


def show(lab: Lab, host: str) -> list[Message]:
    """The NICs of a host as they are now. Raises BadInput, LabError."""
    _cables(lab, host)
    found: list[Message] = lab.ask(host, "nics")["nics"]
    return found


def change(
    lab: Lab, host: str, names: Sequence[str], offloads: Mapping[str, bool], rss: Mapping[str, Any]
) -> None:
    """Switch offloads of NICs of a running host (all of them without ``names``), and set their RSS.

    What is refused by one NIC has changed none before it in the list of ``names``. Packets that were
    accepted are not lost. Raises BadInput, LabError.
    """
    from testbed.wiring.fabric import Wiring

    cables = {cable.nic: cable for cable in _cables(lab, host)}
    if unknown := [name for name in names if name not in cables]:
        raise BadInput(f"{host} has no NIC {unknown[0]!r}: one of {', '.join(cables)}")
    wanted = [nic for nic in show(lab, host) if not names or nic["name"] in names]
    after = {nic["name"]: _offloads(nic).changed(offloads) for nic in wanted}
    for nic in wanted:
        _install(lab, host, nic, after[nic["name"]])
        lab.ask(host, "set-nic", name=nic["name"], offloads=dict(offloads), rss=dict(rss))
    wiring = Wiring(lab.netns(FABRIC), {host: lab.netns(host)})
    for name, now in after.items():
        wiring.set_receive(cables[name], now)


def replace(lab: Lab, host: str, name: str, offloads: Offloads) -> Offloads:
    """Make a NIC another one, with these capabilities and settings; what it was before."""
    from testbed.wiring.fabric import Wiring

    nic = next(each for each in show(lab, host) if each["name"] == name)
    _install(lab, host, nic, offloads)
    base = msgspec.to_builtins(offloads)
    lab.ask(host, "set-nic", name=name, base=base, offloads={}, rss={})
    cable = next(cable for cable in _cables(lab, host) if cable.nic == name)
    Wiring(lab.netns(FABRIC), {}).set_receive(cable, offloads)
    return _offloads(nic)


def enabled(lab: Lab, cable: CablePlan) -> Offloads:
    """What the NIC of a cable supports and has enabled now."""
    return _offloads(next(nic for nic in show(lab, cable.host) if nic["name"] == cable.nic))


def _install(lab: Lab, host: str, nic: Message, offloads: Offloads | None = None) -> None:
    from testbed.wiring.fabric import Wiring

    if nic["has_classifier"] or not _needs_classifier(offloads or _offloads(nic), nic["queues"]):
        return
    cable = next(cable for cable in _cables(lab, host) if cable.nic == nic["name"])
    registers = Wiring(lab.netns(FABRIC), {}).add_classifier(cable)
    try:
        lab.host(host).call("install-nic", [registers], name=nic["name"])
    finally:
        os.close(registers)


def _needs_classifier(offloads: Offloads, queues: int) -> bool:
    """Whether a NIC is more than one queue on which everything may be joined."""
    return queues > 1 or not (offloads.plain.rsc and offloads.nvgre.rsc)


def _offloads(nic: Message) -> Offloads:
    return msgspec.convert(nic["offloads"], Offloads)


def _cables(lab: Lab, host: str) -> list[CablePlan]:
    lab.check_host(host)
    return [cable for cable in lab.plan.fabric.cables if cable.host == host]
