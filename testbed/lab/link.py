"""Cables of a running lab: faults, rates, carrier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.lab.lab import FABRIC, Lab
from testbed.nic.faults import WAYS, Faults, Way
from testbed.topology.plan import CablePlan


def show(lab: Lab, end: str) -> Message:
    """A cable ("host1:nic1") as it is now: switch, up, and each direction. Raises BadInput, LabError."""
    from testbed.wiring.fabric import Wiring

    cable = _cable(lab, end)
    told = next(each for each in lab.ask(cable.host, "cables")["cables"] if each["nic"] == cable.nic)
    nothing = {**msgspec.to_builtins(Faults()), "rate": 0, "counters": {}}
    return {
        "cable": end,
        "switch": cable.switch,
        "up": Wiring(lab.netns(FABRIC), {}).is_up(cable),
        "ways": told["ways"] or {way: dict(nothing) for way in WAYS},
    }


def change(lab: Lab, end: str, ways: Sequence[Way], wanted: Mapping[str, Any]) -> None:
    """Set faults of some directions of a cable, and with "rate" the bits per second; the rest stays.

    Raises BadInput, LabError.
    """
    from testbed.wiring.fabric import Wiring

    cable = _cable(lab, end)
    wiring = Wiring(lab.netns(FABRIC), {cable.host: lab.netns(cable.host)})
    now = show(lab, end)
    _install(lab, cable, wiring)
    for way in ways:
        fields = {key: now["ways"][way][key] for key in Faults.__struct_fields__}
        faults = {**fields, **{key: value for key, value in wanted.items() if key != "rate"}}
        rate = wanted.get("rate", now["ways"][way]["rate"])
        if rate != now["ways"][way]["rate"]:
            wiring.set_rate(cable, way, rate)
        lab.ask(cable.host, "set-cable", name=cable.nic, way=way, faults=faults, rate=rate)


def clear(lab: Lab, end: str) -> None:
    """A good cable again: no faults, no rate, up."""
    change(lab, end, WAYS, {**msgspec.to_builtins(Faults()), "rate": 0})
    set_up(lab, end, up=True)


def set_up(lab: Lab, end: str, *, up: bool) -> None:
    """Carrier on both ends, or on none."""
    from testbed.wiring.fabric import Wiring

    Wiring(lab.netns(FABRIC), {}).set_up(_cable(lab, end), up=up)


def _install(lab: Lab, cable: CablePlan, wiring: Any) -> None:
    told = next(each for each in lab.ask(cable.host, "cables")["cables"] if each["nic"] == cable.nic)
    if told["ways"]:
        return
    memory = wiring.add_faults(cable)
    try:
        lab.host(cable.host).call("install-cable", [memory], name=cable.nic)
    finally:
        os.close(memory)


def _cable(lab: Lab, end: str) -> CablePlan:
    cables = {f"{cable.host}:{cable.nic}": cable for cable in lab.plan.fabric.cables}
    if end not in cables:
        raise BadInput(f"{lab.record.name} has no cable {end!r}: one of {', '.join(cables)}")
    return cables[end]
