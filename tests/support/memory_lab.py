"""Three hosts in memory that answer what a trace asks of a lab's hosts."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

from support.frames import ip
from support.switch import VMS, MemorySwitch, mac_of, v4
from testbed.errors import LabError
from testbed.host import tracing
from testbed.lab import trace as tracer
from testbed.lab import trace_frames
from testbed.lab.trace import Asked
from testbed.lab.trace_frames import Ends, Kind
from testbed.nic.classifier import Steering
from testbed.topology.plan import NicPlan, TeamPlan, VmPlan, VnicPlan


class MemoryLab:
    """What a trace needs of a lab: three hosts that answer the op ``trace``."""

    def __init__(self) -> None:
        self.hosts = {f"host{number}": MemorySwitch(number) for number in (1, 2, 3)}
        nics = [
            SimpleNamespace(
                name=name, nics=[NicPlan("nic1", switch.nic.mac.hex(":"), 1500)], team=TeamPlan("nic1")
            )
            for name, switch in self.hosts.items()
        ]
        self.plan = SimpleNamespace(hosts=nics, vms=())
        self.add(
            tuple(
                VmPlan(name, f"host{where}", (VnicPlan("eth0", name, vsid, mac_of(name).hex(":"), 1458),))
                for name, (where, vsid, _) in VMS.items()
            )
        )
        self.record = SimpleNamespace(name="memory")
        self.steering: Steering | None = None
        self.asked: list[str] = []
        self.down: set[str] = set()

    def add(self, vms: tuple[VmPlan, ...]) -> None:
        self.plan.vms += vms
        self.plan.vm = {vm.name: vm for vm in self.plan.vms}.__getitem__

    def ask(self, host: str, op: str, **message: Any) -> dict[str, Any]:
        switch = self.hosts[host]
        if op == "status":
            own = [str(ipaddress.ip_address(each)) for each in switch.wnv.tables.local_pas]
            return {"provider_addresses": [{"address": each, "state": "Preferred"} for each in own]}
        if host in self.down:
            raise LabError(f"{host} is down")
        self.asked.append(host)
        worker = SimpleNamespace(
            state=switch.state,
            datapath=switch.datapath,
            taps=SimpleNamespace(plain=switch.datapath.pipeline),
            wnv=switch.wnv,
            stack=switch.stack,
            nics=SimpleNamespace(steering=lambda _: self.steering),
        )
        return {"trace": tracing.trace(worker, message)}  # type: ignore[arg-type]

    def trace(self, name: str, frame: bytes) -> dict[str, Any]:
        start = tracer.started_at(self, name)  # type: ignore[arg-type]
        return tracer.trace(self, start, Asked(frame))  # type: ignore[arg-type]

    def ping(self, name: str, other: str, to: bytes | None = None, size: int = 0) -> dict[str, Any]:
        ends = Ends(mac_of(name), to or mac_of(other), ip(v4(name)), ip(v4(other)))
        return self.trace(name, trace_frames.packet(ends, Kind(size=size)))

    def close(self) -> None:
        for switch in self.hosts.values():
            switch.close()
