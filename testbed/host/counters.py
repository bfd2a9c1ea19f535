"""The counters of a worker, as records."""

from __future__ import annotations

import os
import time
from collections import Counter as Sum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from testbed.switch.drops import DropCounts
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink
from testbed.telemetry import Counter

VSID_FIELDS = ("from_vm_packets", "from_vm_bytes", "to_vm_packets", "to_vm_bytes")


class VsidTotals:
    """Packets and bytes by VSID, which go on growing when a port changes its VSID or is removed."""

    def __init__(self) -> None:
        self._closed: dict[int, Sum[str]] = {}
        self._counted: dict[str, Sum[str]] = {}  # by port: what stands in a closed account

    def close(self, port: Port, *, removed: bool) -> None:
        """The port leaves its VSID: what it has counted since it joined stays with that VSID."""
        self._closed.setdefault(port.vsid, Sum()).update(self._since(port))
        if removed:
            self._counted.pop(port.name, None)
        else:
            self._counted[port.name] = _totals(port)

    def by_vsid(self, ports: Iterable[Port]) -> dict[int, Sum[str]]:
        """The totals now."""
        totals = {vsid: Sum(closed) for vsid, closed in self._closed.items()}
        for port in ports:
            totals.setdefault(port.vsid, Sum()).update(self._since(port))
        return totals

    def _since(self, port: Port) -> Sum[str]:
        totals = _totals(port)
        totals.subtract(self._counted.get(port.name, {}))
        return totals


def _totals(port: Port) -> Sum[str]:
    return Sum({field: getattr(port, field) for field in VSID_FIELDS})


def collect(
    host: str,
    ports: Iterable[Port],
    uplinks: Iterable[Uplink],
    drops: DropCounts,
    totals: VsidTotals,
    extensions: Mapping[str, dict[str, int]],
    team: Mapping[str, int],
) -> list[Counter]:
    """All counters of a worker: ports, NICs, team, VSIDs, stages, drops, extensions, the worker itself."""
    ports, now = list(ports), time.time()

    def record(kind: str, name: str, fields: dict[str, Any]) -> Counter:
        return Counter(now, host, kind, name, fields)

    by_stage, by_vsid = Sum[str](), Sum[int]()
    for (stage, _, vsid, _), packets in drops.items():
        by_stage[stage] += packets
        by_vsid[vsid] += packets
    passed = totals.by_vsid(ports)
    cpu = os.times()
    return [
        *(record("port", port.name, _without(port.counters(), "port")) for port in ports),
        *(record("nic", uplink.name, _without(uplink.counters(), "nic")) for uplink in uplinks),
        *([record("team", "team", dict(team))] if team else []),
        *(
            record(
                "vsid",
                str(vsid),
                {
                    **{field: passed.get(vsid, Sum())[field] for field in VSID_FIELDS},
                    "drop_packets": by_vsid[vsid],
                },
            )
            for vsid in sorted({*passed, *by_vsid})
        ),
        *(record("stage", stage, {"drop_packets": count}) for stage, count in sorted(by_stage.items())),
        *_drops(now, host, drops),
        *(record("extension", name, fields) for name, fields in extensions.items()),
        record("worker", "worker-0", {"cpu_seconds": cpu.user + cpu.system}),
    ]


def _drops(now: float, host: str, drops: DropCounts) -> Iterator[Counter]:
    for (stage, name, vsid, reason), packets in sorted(drops.items()):
        fields = {"stage": stage, "vsid": vsid, "reason": str(reason), "packets": packets}
        yield Counter(now, host, "drop", name, fields)


def _without(counters: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in counters.items() if key != name}
