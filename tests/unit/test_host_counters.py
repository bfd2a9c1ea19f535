"""testbed.host.counters: records, and totals by VSID that never shrink."""

from __future__ import annotations

import os
from typing import Any

from support.switch import MemorySwitch
from testbed.host.counters import VsidTotals, collect
from testbed.switch.drops import Drop, count
from testbed.switch.port import Port


def port(name: str, vsid: int) -> Port:
    reading, writing = os.pipe()
    os.close(reading)
    return Port(name, b"\2\0\0\0\0\1", vsid, writing)


def records(counters: Any, kind: str) -> dict[str, dict[str, Any]]:
    return {each.object: each.fields for each in counters if each.kind == kind}


def test_every_record_says_when_and_of_which_host() -> None:
    with MemorySwitch() as switch:
        drops = {**switch.datapath.drops}
        count(drops, "wnv", "blue1", 5001, Drop.NOT_IP)
        count(drops, "wnv", "blue1", 5001, Drop.NOT_IP)
        count(drops, "nic", "nic1", 0, Drop.NOT_FOR_US)
        state = switch.state
        found = collect(
            "host1",
            state.ports.values(),
            state.uplinks.values(),
            drops,
            VsidTotals(),
            {"acl": {"hits": 3}},
            {"flowlets_moved": 4},
        )
    assert {each.host for each in found} == {"host1"}
    assert len({each.time for each in found}) == 1
    assert records(found, "drop")["blue1"] == {
        "stage": "wnv",
        "vsid": 5001,
        "reason": "not-ip",
        "packets": 2,
    }
    assert records(found, "stage") == {"nic": {"drop_packets": 1}, "wnv": {"drop_packets": 2}}
    assert records(found, "vsid")["5001"]["drop_packets"] == 2
    assert records(found, "vsid")["0"]["drop_packets"] == 1
    assert records(found, "team") == {"team": {"flowlets_moved": 4}}
    assert records(found, "extension") == {"acl": {"hits": 3}}
    assert set(records(found, "port")["blue1"]) == {
        "vsid",
        "from_vm_packets",
        "from_vm_bytes",
        "to_vm_packets",
        "to_vm_bytes",
        "to_vm_software_segments",
        "to_vm_software_checksums",
        "suppressed_claims",
    }
    assert set(records(found, "nic")["nic1"]) == {
        *("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "tx_lso_packets", "tx_lso_segments"),
        *("tx_software_segments", "tx_software_checksums", "rx_rsc_packets", "rx_rsc_segments"),
    }
    assert records(found, "worker")["worker-0"]["cpu_seconds"] > 0


def test_a_vsid_counts_what_its_ports_did_while_they_were_in_it() -> None:
    totals = VsidTotals()
    one, other = port("one", 5001), port("other", 5001)
    try:
        one.from_vm_packets, other.from_vm_packets = 10, 1
        assert totals.by_vsid([one, other])[5001]["from_vm_packets"] == 11
        totals.close(one, removed=False)
        one.vsid = 5002
        one.from_vm_packets += 5
        assert totals.by_vsid([one, other])[5001]["from_vm_packets"] == 11
        assert totals.by_vsid([one, other])[5002]["from_vm_packets"] == 5
        totals.close(one, removed=True)
        assert totals.by_vsid([other])[5001]["from_vm_packets"] == 11
        assert totals.by_vsid([other])[5002]["from_vm_packets"] == 5
        again = port("one", 5002)  # of the same name
        again.from_vm_packets = 2
        assert totals.by_vsid([other, again])[5002]["from_vm_packets"] == 7
        again.close()
    finally:
        one.close()
        other.close()
