"""Whether the hosts' provider addresses reach each other, and up to which size."""

from __future__ import annotations

import ipaddress

from testbed.errors import BadInput
from testbed.explain.model import CERTAIN, Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case
from testbed.host.pa.pings import HEADERS
from testbed.lab import ping as pinging
from testbed.lab.ping import Options

_SECONDS = 0.8  # for an answer
_SWEEP_SECONDS = 0.15  # for an answer while the largest size is looked for


def provider(case: Case) -> Findings:
    """A small ping and one of the fabric's MTU between the PAs of the two virtual subnets."""
    if case.target is None or len(case.hosts) < 2 or not case.source.vnic.vsid:
        return
    here, there = case.hosts
    own = case.preferred(here, case.source.vnic.vsid)
    other = case.preferred(there, case.target.vnic.vsid)
    if not own or not other or (":" in own) != (":" in other):
        return
    between = f"{own} ({here}) and {other} ({there})"
    asked = f"does a ping pass between {between}?"
    if not _answered(case, here, Options(own, count=2, timeout=_SECONDS), other):
        yield Evidence(asked, "no", ok=False)
        yield Cause(
            "pa-unreachable", Weight.SYMPTOM + 2, f"no ping passes between the provider addresses {between}"
        )
        return
    yield Evidence(asked, "yes", ok=True)
    mtu = case.lab.plan.fabric.pa_mtu
    largest = mtu - HEADERS[ipaddress.ip_address(other).version]
    asked = f"does a ping of {mtu} bytes pass unfragmented?"
    if _answered(case, here, Options(own, count=2, size=largest, timeout=_SECONDS), other):
        yield Evidence(asked, "yes", ok=True)
        return
    if case.lossy:  # which explains it, and would make a guess of a sweep
        yield Evidence(asked, "no", ok=False)
        return
    (found,) = pinging.ping(case.lab, here, other, Options(own, sweep=True, timeout=_SWEEP_SECONDS))
    yield Evidence(asked, f"no, {found['path_mtu']} at most", ok=False)
    passes = f"{found['path_mtu']} bytes pass instead of {mtu}"
    words = f"the fabric's MTU between {here} and {there} is too small: {passes}"
    words += f" ({case.narrow})" if case.narrow else ""
    yield Cause("fabric-mtu", CERTAIN + 2, words)


def _answered(case: Case, host: str, options: Options, other: str) -> bool:
    try:
        return any(pinging.is_answered(each) for each in pinging.ping(case.lab, host, other, options))
    except BadInput:  # no route, which is found in its turn
        return False
