"""Cables of a lab: faults, rates, carrier; of the Plan at first, then as they are changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.lab.lab import FABRIC, Lab
from testbed.nic.faults import WAYS, Faults, Way, changed
from testbed.topology.plan import CablePlan


def show(lab: Lab, end: str) -> Message:
    """A cable ("host1:nic1") as it is now: switch, up, and each direction. Raises BadInput, LabError."""
    from testbed.wiring.fabric import Wiring

    cable = _cable(lab, end)
    return {
        "cable": end,
        "switch": cable.switch,
        "up": Wiring(lab.netns(FABRIC), {}).is_up(cable),
        "ways": _ask(lab, cable)["ways"],
    }


def change(lab: Lab, end: str, ways: Sequence[Way], settings: Mapping[str, str]) -> None:
    """Set some of :data:`testbed.nic.faults.WORDS` for directions of a cable; the rest stays.

    Raises BadInput, LabError.
    """
    cable = _cable(lab, end)
    told = _ask(lab, cable)
    _put(lab, cable, told, {way: changed(faults(told["ways"][way]), settings) for way in ways})


def clear(lab: Lab, end: str) -> None:
    """A good cable again: no faults, no rate, up."""
    cable = _cable(lab, end)
    _put(lab, cable, _ask(lab, cable), dict.fromkeys(WAYS, Faults()))
    set_up(lab, end, up=True)


def set_up(lab: Lab, end: str, *, up: bool) -> None:
    """Carrier on both ends, or on none."""
    from testbed.wiring.fabric import Wiring

    Wiring(lab.netns(FABRIC), {}).set_up(_cable(lab, end), up=up)


def replace(lab: Lab, end: str, ways: Mapping[Way, Faults]) -> None:
    """Give directions of a cable just these faults. Raises BadInput, LabError."""
    cable = _cable(lab, end)
    _put(lab, cable, _ask(lab, cable), ways)


def as_planned(lab: Lab, cables: Iterable[CablePlan]) -> None:
    """Give cables of running hosts the faults that the Plan says, if they have others."""
    for cable in cables:
        _put(lab, cable, _ask(lab, cable), {"to-host": cable.to_host, "from-host": cable.from_host})


def _put(lab: Lab, cable: CablePlan, told: Message, wanted: Mapping[Way, Faults]) -> None:
    """Make a cable that is as it was told into what is wanted."""
    from testbed.wiring.fabric import Wiring

    wiring = Wiring(lab.netns(FABRIC), {cable.host: lab.netns(cable.host)})
    if not told["has_programs"] and any(each.in_programs for each in wanted.values()):
        _install(lab, cable, wiring)
    for way, now in wanted.items():
        before = faults(told["ways"][way])
        if now.rate != before.rate:
            wiring.set_rate(cable, way, now.rate)
        if now != before:
            lab.ask(cable.host, "set-cable", name=cable.nic, way=way, faults=msgspec.to_builtins(now))


def _install(lab: Lab, cable: CablePlan, wiring: Any) -> None:
    made = wiring.add_faults(cable)
    try:
        fields = {"name": cable.nic, "port": made.port, "wires": made.wires}
        lab.host(cable.host).call("install-cable", made.descriptors, **fields)
    finally:
        for descriptor in made.descriptors:
            os.close(descriptor)


def _ask(lab: Lab, cable: CablePlan) -> Message:
    return next(each for each in lab.ask(cable.host, "cables")["cables"] if each["nic"] == cable.nic)


def faults(told: Mapping[str, Any]) -> Faults:
    """Those of one direction, as a host tells it."""
    return Faults(**{key: told[key] for key in Faults.__struct_fields__})


def _cable(lab: Lab, end: str) -> CablePlan:
    cables = {f"{cable.host}:{cable.nic}": cable for cable in lab.plan.fabric.cables}
    if end not in cables:
        raise BadInput(f"{lab.record.name} has no cable {end!r}: one of {', '.join(cables)}")
    return cables[end]
