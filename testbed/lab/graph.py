"""The live state of a lab that a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.errors import LabError
from testbed.graph.model import CableState, Live
from testbed.lab.inspect import inspect
from testbed.lab.lab import FABRIC, Lab
from testbed.lab.link import faults
from testbed.topology.plan import CablePlan

if TYPE_CHECKING:
    from testbed.wiring.fabric import Wiring


def live(lab: Lab) -> Live:
    """What a running lab tells of itself. Raises LabError when its fabric is gone."""
    from testbed.wiring.fabric import Wiring

    found = inspect(lab)
    wiring = Wiring(lab.netns(FABRIC), {})
    ways: dict[str, Any] = {}
    members: dict[str, Any] = {}
    for host in found["hosts"]:
        name = host["name"]
        try:
            told = lab.ask(name, "cables")["cables"]
            members[name] = lab.ask(name, "team")["team"]["members"]
        except LabError:
            continue  # inspect says what is the matter with it
        for cable in told:
            ways[f"{name}:{cable['nic']}"] = {way: faults(each) for way, each in cable["ways"].items()}
    vms: dict[str, list[dict[str, Any]]] = {}
    for entry in found["vms"]:
        vms.setdefault(entry["name"], []).append(entry)
    return Live(
        engine=found["engine"],
        ready=found["ready"],
        hosts={host["name"]: host for host in found["hosts"]},
        vms=vms,
        vmm=found["vmm"],
        cables={
            end: CableState(_is_up(wiring, cable), ways.get(end, {}))
            for cable in lab.plan.fabric.cables
            if (end := f"{cable.host}:{cable.nic}")
        },
        members=members,
    )


def _is_up(wiring: Wiring, cable: CablePlan) -> bool:
    try:
        return wiring.is_up(cable)
    except LookupError:  # it ended with its host
        return False
