"""Cables, switches' ports and members of teams on the way, as they are now."""

from __future__ import annotations

from testbed.channel import Message
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case
from testbed.lab.lab import FABRIC
from testbed.topology.plan import CablePlan
from testbed.wiring import observe

_NO_CARRIER, _NO_ANSWER = "no-carrier", "no-answer"
_BAD = {"loss": "lost", "corruption": "corrupted"}
_HEALTHY = ("", "holding", "administrative")  # nothing wrong, back in a moment, or an order


def cables(case: Case) -> Findings:
    """Of each end's host: carrier, MTU and faults of its cables, and which members of its team work."""
    if len(case.hosts) == 1 and case.target is not None:
        return  # packets between two VMs of a host meet no cable
    ports = observe.links(case.lab.netns(FABRIC))
    for host in case.hosts:
        team: Message = case.lab.ask(host, "team")["team"]
        members = {each["name"]: each for each in team["members"]}
        told = {each["nic"]: each for each in case.lab.ask(host, "cables")["cables"]}
        nics = observe.links(case.lab.netns(host))
        plans = [each for each in case.lab.plan.fabric.cables if each.host == host]
        dead = {
            each.nic
            for each in plans
            if not (ports[each.interface].passes and nics[each.nic].passes) or _is_hole(told[each.nic])
        }
        dead |= {name for name, each in members.items() if each["state"] == "Failed"}
        for cable in plans:
            rest = sorted(members.keys() - dead)
            yield from _cable(case, cable, ports, nics, told[cable.nic], members[cable.nic]["fault"], rest)
        if members and dead >= members.keys():
            yield Cause("team", Weight.PROVEN - 1, f"no member of {host}'s team works")
    yield from _trunks(case, ports)


def _cable(
    case: Case,
    plan: CablePlan,
    ports: dict[str, observe.Link],
    nics: dict[str, observe.Link],
    told: Message,
    fault: str,
    rest: list[str],
) -> Findings:
    """One cable; ``rest``: the members that work, which stand in for it."""
    name, port, nic = f"{plan.host}:{plan.nic}", ports[plan.interface], nics[plan.nic]
    others = [each for each in rest if each != plan.nic]
    weight = Weight.DEGRADED if others else Weight.PROVEN
    more = f"; {', '.join(others)} stands in for it" if others else ""
    asked = f"is the cable {name} as it should be?"
    wanted = min(
        case.lab.plan.fabric.pa_mtu,
        next(each.mtu for each in case.lab.plan.host(plan.host).nics if each.name == plan.nic),
    )
    said: list[str] = []
    if not (port.passes and nic.passes) or fault == _NO_CARRIER:
        said.append("it has no carrier")
        yield Cause("cable-down", weight, f"the cable {name} is down{more}")
    elif fault == _NO_ANSWER or _is_hole(told):
        said.append("it has carrier, and nothing passes")
        yield Cause(
            "black-hole",
            weight,
            f"the cable {name} is a black hole: it has carrier, and nothing passes{more}",
        )
    elif fault not in _HEALTHY:
        said.append(f"its member of the team has failed: {fault}")
        yield Cause("team", weight, f"the member {plan.nic} of {plan.host}'s team has failed ({fault}){more}")
    if min(port.mtu, nic.mtu) < wanted:
        said.append(f"it has the MTU {min(port.mtu, nic.mtu)}, and {wanted} is needed")
        case.narrow = f"the cable {name} has the MTU {min(port.mtu, nic.mtu)}"
        words = f"{case.narrow}, and the fabric's is to be {wanted}"
        yield Cause("fabric-mtu", Weight.SUSPECT + 6, words)
    for way, faults in told["ways"].items():
        parts = [
            f"{faults[key]:.3g} of its frames {way} are {word}" for key, word in _BAD.items() if faults[key]
        ]
        if parts and not _is_hole(told):
            case.lossy = True
            said += parts
            yield Cause("lossy-cable", Weight.SUSPECT + 2, f"the cable {name} is bad: {' and '.join(parts)}")
    yield Evidence(asked, "; ".join(said) or f"yes: carrier, MTU {port.mtu}{_state(fault)}", ok=not said)


def _state(fault: str) -> str:
    return f"; member not used: {fault}" if fault else ""


def _is_hole(told: Message) -> bool:
    return any(faults["black_hole"] or faults["loss"] >= 1 for faults in told["ways"].values())


def _trunks(case: Case, ports: dict[str, observe.Link]) -> Findings:
    wanted = case.lab.plan.fabric.pa_mtu
    for trunk in case.lab.plan.fabric.trunks:
        name = "--".join(end.switch for end in trunk.ends)
        links = [ports[end.interface] for end in trunk.ends]
        mtu = min(each.mtu for each in links)
        asked = f"is the trunk {name} as it should be?"
        if not all(each.passes for each in links):
            yield Evidence(asked, "it has no carrier", ok=False)
            yield Cause("cable-down", Weight.SUSPECT, f"the trunk {name} is down")
        elif mtu < wanted:
            yield Evidence(asked, f"it has the MTU {mtu}, and {wanted} is needed", ok=False)
            case.narrow = f"the trunk {name} has the MTU {mtu}"
            words = f"{case.narrow}, and the fabric's is to be {wanted}"
            yield Cause("fabric-mtu", Weight.SUSPECT + 5, words)
        else:
            yield Evidence(asked, f"yes: carrier, MTU {mtu}", ok=True)
