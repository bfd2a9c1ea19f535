"""Whether the nodes run, and whether the hosts answer."""

from __future__ import annotations

from testbed.errors import LabError
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case
from testbed.lab.lab import FABRIC


def running(case: Case) -> Findings:
    """The nodes of both ends and the fabric; a host's control and its worker must answer."""
    names = [*case.hosts, *dict.fromkeys(end.vm.name for end in case.ends), FABRIC]
    down = []
    for name in names:
        try:
            case.lab.netns(name)  # which a node that has ended does not have
            if name in case.hosts:
                case.status(name)
                case.lab.ask(name, "counters")  # the worker is asked for them
        except LabError as error:
            down.append(name)
            yield Evidence(f"does {name} run, and answer?", str(error), ok=False)
            yield Cause("node-down", Weight.ROOT, f"{name} is down or does not answer ({error})")
    if not down:
        yield Evidence(f"do {', '.join(names)} run?", "yes, and the hosts answer", ok=True)
