"""Whether the owner of the policy is there, and the hosts are in step with it."""

from __future__ import annotations

from testbed.errors import LabError
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case
from testbed.topology.management import VMM


def owner(case: Case) -> Findings:
    """The VMM, and each end's host's link to it. Packets go on passing without, by the policy of before."""
    if case.lab.plan.vmm is None:
        yield Evidence("who owns the policy?", "the topology file: the lab has no VMM", ok=True)
        return
    try:
        case.lab.node(VMM)
        revision = case.lab.vmm().get("/status")["revision"]
    except LabError as error:
        case.vmm_error = str(error)
        yield Evidence("does the VMM answer?", str(error), ok=False)
        yield Cause("vmm-away", Weight.DEGRADED, f"the VMM does not answer, {_MEANWHILE}")
        return
    yield Evidence("does the VMM answer?", f"yes, revision {revision}", ok=True)
    for host in case.hosts:
        told = case.status(host)["vmm"]
        asked = f"does {host} follow the VMM?"
        if told and told["connected"]:
            yield Evidence(asked, f"yes, revision {told['revision']}", ok=True)
            continue
        case.cut_off.add(host)
        why = told["error"] if told else "it was told of none"
        yield Evidence(asked, f"no: {why}", ok=False)
        yield Cause("vmm-away", Weight.DEGRADED, f"{host} is cut off from the VMM ({why}), {_MEANWHILE}")


_MEANWHILE = "so that hosts go on with the policy they had, and nothing new reaches them"
