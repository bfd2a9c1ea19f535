"""What the switches say they would do with a packet, there and back; nothing is sent."""

from __future__ import annotations

from typing import Any

from testbed.errors import BadInput
from testbed.explain import reasons
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case, End
from testbed.lab import trace as tracing
from testbed.lab.trace_frames import Kind
from testbed.switch.drops import Drop

Trace = dict[str, Any]


def traces(case: Case) -> Findings:
    """An echo request each way, or one to an address that is no VM's."""
    if case.target is None:
        yield from _outward(case)
    for here, there in case.ways:
        if not here.address or not there.address:
            continue
        asked = f"what would become of a packet from {here.vm.name} to {there.vm.name} (dry trace)?"
        found = _trace(case, here, there.address)
        if isinstance(found, str):
            yield Evidence(asked, found, ok=False)
            yield Cause(
                "guest-network", Weight.PROVEN, f"{here.vm.name} can't send to {there.address} ({found})"
            )
            continue
        arrives = there.vnic.port in delivered(found)
        yield Evidence(asked, found["remark"] or found["outcome"], ok=arrives)
        if not arrives:
            yield _explained(found, here, there.address, Weight.PROVEN - 5)


def apart(case: Case) -> Findings:
    """Whether the switches would bring a packet from one end to the other, which are never to meet."""
    here, there = case.source, case.target
    assert there is not None
    asked = f"would a packet from {here.vm.name} for {case.address} reach {there.vm.name} (dry trace)?"
    found = _trace(case, here, case.address)
    if isinstance(found, str):
        yield Evidence(asked, f"it would not leave {here.vm.name}: {found}", ok=True)
    elif there.vnic.port in delivered(found):
        yield Evidence(asked, found["outcome"], ok=False)
        words = f"a packet from {here.vm.name} reaches {there.vm.name}, which is in another routing domain"
        yield Cause("leak", Weight.ROOT, words)
    else:
        yield Evidence(asked, f"no: {found['outcome']}", ok=True)


def _outward(case: Case) -> Findings:
    here, address = case.source, case.address
    asked = f"what would become of a packet from {here.vm.name} to {address} (dry trace)?"
    found = _trace(case, here, address)
    if isinstance(found, str):
        yield Evidence(asked, found, ok=False)
        yield Cause("guest-network", Weight.PROVEN, f"{here.vm.name} can't send to {address} ({found})")
        return
    lost = _lost(found)
    if lost is not None and lost[2] == Drop.GATEWAY_ADDRESS:
        yield Evidence(asked, found["outcome"], ok=True)
        case.design = f"{address} is the default gateway, which answers ARP and ND by design and nothing else"
    elif delivered(found) or not here.vnic.vsid:  # beside VMs, any machine of the fabric may have it
        case.beyond = ", ".join(delivered(found))
        yield Evidence(asked, found["remark"] or found["outcome"], ok=True)
    else:
        yield Evidence(asked, found["outcome"], ok=False)
        network = f"the network {here.vnic.network}" if here.vnic.network else "the lab"
        yield Cause(
            "no-such-address", Weight.PROVEN, f"no VM of {network} has {address}, and no route leads further"
        )


def _trace(case: Case, here: End, address: str) -> Trace | str:
    """The trace, or why the guest could not send."""
    try:
        start, asked = tracing.of_packet(case.lab, here.start, address, Kind(), any_adapter=False)
        return tracing.trace(case.lab, start, asked)
    except BadInput as error:  # less what it says to the one who types a trace
        said = str(error).removeprefix(f"--to {address}: ").removeprefix(f"{here.vm.name}: ")
        return said.partition(": choose another")[0]


def delivered(found: Trace) -> list[str]:
    """The ports that would get it."""
    return [copy["port"] for hop in found["hops"] for copy in hop["copies"] if copy["to"] == "port"]


def _lost(found: Trace) -> tuple[str, str, str] | None:
    """Host, stage and reason of the drop that matters."""
    lost = [
        (hop["host"], copy["stage"], copy["reason"])
        for hop in found["hops"]
        for copy in hop["copies"]
        if copy["to"] == "nobody"
    ]
    lost.sort(key=lambda each: each[2] in reasons.QUIET)
    return lost[0] if lost else None


def _explained(found: Trace, here: End, address: str, weight: int) -> Cause:
    """The cause that a trace points to which does not arrive."""
    packet = f"a packet from {here.vm.name} to {address}"
    if ports := delivered(found):
        return Cause("stale-record", weight, f"{packet} goes to {', '.join(ports)} instead")
    if found["remark"]:
        return Cause("missing-record", weight, f"{packet} is not sent: {found['remark']}")
    for hop in found["hops"]:
        for copy in hop["copies"]:
            if copy["to"] == "waiting":
                words = f"{packet} would go to the provider address {copy['next_hop']}, which no host has"
                return Cause("stale-record", weight, words)
    if (lost := _lost(found)) is not None:
        return reasons.cause_of(*lost, packet, weight)
    return Cause("lost", weight, f"{packet} is {found['outcome']}")
