"""Whether the switches carry a packet from port to port, the guests apart."""

from __future__ import annotations

import ipaddress

from testbed.explain import reasons
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case, End
from testbed.host.adapter_test import MAGIC
from testbed.host.pa.pings import HEADERS
from testbed.lab import adapter_test
from testbed.lab.adapter_test import Query, Stop

_SECONDS = 1.5


def injection(case: Case) -> Findings:
    """An echo from the sender's port to the receiver's and back, small and as long as the adapters allow."""
    if case.target is None or case.by_mac:  # the switches know no next hop to an address without a record
        return
    here, there = case.source, case.target
    mtu = min(here.vnic.mtu, there.vnic.mtu)
    largest = mtu - HEADERS[ipaddress.ip_address(case.address).version]
    for size, words in ((len(MAGIC), "small"), (largest, f"of {mtu} bytes")):
        asked = f"do the switches carry an echo ({words}) from port to port (Test-VMNetworkAdapter)?"
        mac = "" if here.vnic.vsid else there.vnic.mac
        query = Query(here.vnic.port, there.vnic.port, here.address, there.address, 100, mac, size, _SECONDS)
        outcome = adapter_test.run(case.lab, query, "both")
        if outcome.stopped is None:
            yield Evidence(asked, f"yes, {1000 * (outcome.round_trip or 0):.1f} ms", ok=True)
            continue
        stop = outcome.stopped
        at = f"{stop.hop}, {stop.stage}" if stop.stage else stop.hop
        yield Evidence(asked, f"no: the {stop.message} stopped at {at}: {stop.reason}", ok=False)
        yield _cause(here, there, stop, size == largest)
        return


def _cause(here: End, there: End, stop: Stop, only_large: bool) -> Cause:
    sender = here if stop.message == "request" else there
    packet = f"the {stop.message} from {sender.vm.name}"
    reason = stop.reason.partition(" (")[0]  # less from whom it came
    if stop.stage and reason not in reasons.QUIET:
        return reasons.cause_of(stop.hop, stop.stage, reason, packet, Weight.PROBED)
    if only_large:
        return Cause("fabric-mtu", Weight.SYMPTOM + 4, f"large packets are lost in the fabric: {stop.reason}")
    return Cause("lost", Weight.SYMPTOM + 1, f"{packet} is lost in the fabric: {stop.reason}")
