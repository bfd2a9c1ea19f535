"""Build a lab from a Plan, end a lab, and the steps they share with changing one."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from testbed import plants
from testbed.engines.base import STATEFUL, Engine, NodeSpec
from testbed.engines.select import by_name
from testbed.errors import LabError
from testbed.lab import first_commands, link, nic, store, team, vmm
from testbed.lab.lab import FABRIC, Lab
from testbed.lab.vnic import port_of
from testbed.signals import undisturbed
from testbed.topology.management import VMM
from testbed.topology.plan import HostPolicy, Plan, VmPlan

Progress = Callable[[str], None]

DISK_BYTES = 64 << 20
READY_SECONDS = {"fast": 30.0, "rfc": 60.0}


def up(
    plan: Plan,
    engine: Engine,
    name: str | None,
    topology: str,
    progress: Progress,
    finish: Callable[[Lab], None] = lambda _: None,
    plant: str = "",
    *,
    lasting: bool = True,
) -> Lab:
    """A new, ready lab. Rolled back completely on any error, Ctrl-C and SIGTERM, also those in ``finish``.

    ``plant``: a fault that the switch of every host has (:mod:`testbed.plants`). ``lasting``: it outlives
    this process; else others may remove it once this process is dead.
    """
    record = store.reserve(plan.name, name, engine.name, topology, plant, lasting=lasting)
    lab = Lab(record, plan, engine)
    try:
        phases = _build(lab, progress)
        lab.record = msgspec.structs.replace(record, ready=True, phases=phases)
        store.save(lab.record)
        finish(lab)
    except BaseException:
        with undisturbed():
            progress("rolling back")
            lab.close()
            engine.destroy(lab.ref)
            store.forget(record)
        raise
    return lab


def _build(lab: Lab, progress: Progress) -> dict[str, float]:
    phases: dict[str, float] = {}
    began = time.monotonic()
    plan = lab.plan

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        progress(name)
        start = time.monotonic()
        yield
        phases[name] = round(time.monotonic() - start, 4)

    with phase("nodes"):
        if plan.vmm:
            vmm.prepare(lab.folder(VMM), plan)
        start_nodes(lab, [host.name for host in plan.hosts], [vm.name for vm in plan.vms], first=True)
    with phase("wiring"):
        wire(lab)
    with phase("hosts"):
        configure_hosts(lab)
        link.as_planned(lab, [cable for cable in plan.fabric.cables if cable.is_faulty])
    with phase("vms"):
        boot_vms(lab, plan.vms)
    with phase("ready"):
        wait_ready(lab, plan.vms)
        first_commands.run(lab, plan.vms)
        store.save_plan(lab.record.name, plan)
        lab.engine.commit(lab.ref)
    phases["total"] = round(time.monotonic() - began, 4)
    return phases


def start_nodes(lab: Lab, hosts: list[str], vms: list[str], *, first: bool = False) -> None:
    """Start nodes of the lab's Plan; with ``first`` the fabric too."""
    specs = lab.specs(hosts, vms)
    for spec in specs:
        if spec.role in STATEFUL:
            Path(spec.state_dir).mkdir(parents=True, exist_ok=True)
            Path(spec.state_dir, "control.sock").unlink(missing_ok=True)  # that of a host that was stopped
            if spec.role == "host" and lab.record.plant:
                plants.order(Path(spec.state_dir), lab.record.plant)
        if spec.disk:
            _make_disk(Path(spec.disk))
    if first:
        specs.append(NodeSpec(FABRIC, "fabric", ""))
        if lab.plan.vmm:  # first, for it takes longest
            specs.insert(0, NodeSpec(VMM, "vmm", str(lab.folder(VMM))))
    lab.engine.start(lab.ref, specs)


def _make_disk(path: Path) -> None:
    """An empty shared disk, if it is not there: sparse, so that it takes no room before it is written."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.truncate(max(DISK_BYTES, file.tell()))


def wire(lab: Lab) -> None:
    """Make all switches and links of the Plan."""
    from testbed.wiring import management
    from testbed.wiring.errors import translated
    from testbed.wiring.fabric import Wiring

    if lab.plan.vmm:
        with translated("wire the management network"):
            nodes = {link.node: lab.netns(link.node) for link in lab.plan.vmm.links}
            management.add(lab.netns(FABRIC), nodes, lab.plan.vmm)
    fabric = lab.plan.fabric
    hosts = {host.name: host for host in lab.plan.hosts}
    netns = {name: lab.netns(name) for name in hosts}
    with translated("wire the fabric"):
        wiring = Wiring(lab.netns(FABRIC), netns)
        wiring.add(fabric.switches, fabric.cables, fabric.trunks, hosts, fabric.pa_mtu)


def configure_hosts(lab: Lab, only: Iterable[str] | None = None) -> None:
    """Give hosts their part of the Plan."""
    wanted = None if only is None else set(only)
    for position, host in enumerate(lab.plan.hosts):
        if wanted is None or host.name in wanted:
            if lab.plan.vmm and wanted is not None:  # it is at work, and knows better than the Plan
                host = msgspec.structs.replace(host, policy=HostPolicy())
            plan = msgspec.to_builtins(host)
            lab.ask(host.name, "configure", plan=plan, position=position, vmm=vmm.access(lab, host.name))
            nic.install(lab, host.name)
            team.install(lab, host.name)


def boot_vms(lab: Lab, vms: Iterable[VmPlan]) -> None:
    """Give VMs their adapters, plug them into the switches, configure them."""
    from testbed.wiring.errors import translated

    for vm in vms:
        with translated(f"give {vm.name} its adapters"):
            _boot(lab, vm)


def _boot(lab: Lab, vm: VmPlan) -> None:
    from testbed.wiring import guest

    netns = lab.netns(vm.name)
    adapters = guest.create_adapters(netns, vm)
    try:
        for vnic, queues in adapters:
            lab.host(vm.host).call("attach-port", queues, port=port_of(vnic))
    finally:
        for _, queues in adapters:
            for queue in queues:
                os.close(queue)
    guest.configure(netns, vm, lab.plan.timers)


def wait_ready(lab: Lab, vms: Iterable[VmPlan]) -> None:
    """Return once no PA and no CA is tentative. Raises LabError at the deadline or on a duplicate."""
    from testbed.wiring import guest

    deadline = time.monotonic() + READY_SECONDS[lab.plan.timers]
    for host in lab.plan.hosts:
        while tentative := _tentative(lab, host.name):
            if time.monotonic() > deadline:
                raise LabError(f"{host.name}: provider addresses still tentative: {', '.join(tentative)}")
            time.sleep(0.01)  # a poll with a deadline
    if lab.plan.vmm:
        vmm.wait_in_step(lab, [host.name for host in lab.plan.hosts], deadline)
    for vm in vms:
        guest.wait_until_settled(lab.netns(vm.name), vm, deadline)
        if select.select([lab.node(vm.name).pidfd], [], [], 0)[0]:  # its command has ended meanwhile
            lab.forget(vm.name)
            lab.node(vm.name)  # fails, with its last words


def _tentative(lab: Lab, host: str) -> list[str]:
    status = lab.ask(host, "status")
    if status["duplicate"]:
        raise LabError(f"{host}: another machine has the provider address {', '.join(status['duplicate'])}")
    tentative: list[str] = status["tentative"]
    return tentative


def down(name: str) -> None:
    """End a lab and forget it; works when its topology file, its Plan or its supervisor is gone."""
    record = store.load(name)
    engine = by_name(record.engine)
    engine.destroy(store.ref(record))
    store.forget(record)
