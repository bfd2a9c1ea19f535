"""A running lab: its record, its Plan, and handles of its nodes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.channel import TIMEOUT_SECONDS as CHANNEL_SECONDS
from testbed.channel import Channel, Message, connect
from testbed.engines.base import Engine, Node, NodeSpec
from testbed.engines.select import by_name
from testbed.errors import BadInput
from testbed.lab import store
from testbed.lab.store import LabRecord
from testbed.namespaces import netns_of
from testbed.topology.management import VMM
from testbed.topology.plan import Plan

if TYPE_CHECKING:
    from testbed.lab.vmm_client import VmmClient

FABRIC = "fabric"


class Lab:
    """Use it in a ``with`` block: what it opens, it closes.

    patience: seconds that a host or the VMM may take to answer; None: as long as they usually may.
    """

    def __init__(self, record: LabRecord, plan: Plan, engine: Engine) -> None:
        self.record = record
        self.plan = plan
        self.engine = engine
        self.ref = store.ref(record)
        self.patience: float | None = None
        self._nodes: dict[str, Node] = {}
        self._netns: dict[str, int] = {}
        self._hosts: dict[str, Channel] = {}
        self._vmm: VmmClient | None = None

    @classmethod
    def open(cls, name: str) -> Lab:
        """The lab called ``name``. Raises BadInput, LabError."""
        record = store.load(name)
        return cls(record, store.load_plan(name), by_name(record.engine))

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all handles; the lab lives on."""
        if self._vmm:
            self._vmm.close()
        for name in [*self._nodes]:
            self.forget(name)
        self.engine.close()

    def forget(self, name: str) -> None:
        """Close the handles of one node."""
        if channel := self._hosts.pop(name, None):
            channel.close()
        self.release_netns(name)
        if node := self._nodes.pop(name, None):
            node.close()

    def node_names(self) -> list[str]:
        """Hosts, VMs, the VMM if there is one, then the fabric."""
        vmm = [VMM] if self.plan.vmm else []
        return [*(host.name for host in self.plan.hosts), *(vm.name for vm in self.plan.vms), *vmm, FABRIC]

    def node(self, name: str) -> Node:
        """An open handle. Raises BadInput for a name the lab does not have, LabError when it is down."""
        if name not in self._nodes:
            if name not in self.node_names():
                known = ", ".join(self.node_names())
                raise BadInput(f"{self.record.name} has no node {name!r}: one of {known}")
            self._nodes[name] = self.engine.open(self.ref, name)
        return self._nodes[name]

    def check_host(self, name: str) -> None:
        """Raise BadInput unless the lab has this host."""
        known = [host.name for host in self.plan.hosts]
        if name not in known:
            raise BadInput(f"{self.record.name} has no host {name!r}: one of {', '.join(known)}")

    def netns(self, name: str) -> int:
        """Descriptor of a node's network namespace; stays this lab object's own."""
        if name not in self._netns:
            node = self.node(name)
            self._netns[name] = netns_of(node.pid, node.pidfd)
        return self._netns[name]

    def release_netns(self, name: str) -> None:
        """Close the descriptor of a node's network namespace, which would outlive the node by it."""
        if (netns := self._netns.pop(name, -1)) >= 0:
            os.close(netns)

    def host(self, name: str) -> Channel:
        """The control channel of a host."""
        if name not in self._hosts:
            self.node(name)  # fails with the node's last words if it is down
            self._hosts[name] = connect(self.folder(name) / "control.sock", self.patience or CHANNEL_SECONDS)
        return self._hosts[name]

    def ask(self, host: str, op: str, **fields: Any) -> Message:
        """One request to a host."""
        return self.host(host).call(op, **fields)[0]

    def vmm(self) -> VmmClient:
        """The lab's VMM. Raises BadInput when it has none."""
        if self.plan.vmm is None:
            raise BadInput(f"{self.record.name} has no VMM: say `vmm: true` in its topology file")
        if self._vmm is None:
            from testbed.lab import vmm_client  # an HTTP client, which few verbs need

            seconds = self.patience or vmm_client.TIMEOUT_SECONDS
            self._vmm = vmm_client.VmmClient(self.folder(VMM), seconds)
        return self._vmm

    def folder(self, name: str) -> Path:
        """The folder of a host or of the VMM."""
        return self.ref.directory / "nodes" / name

    def disk(self, name: str) -> Path:
        """The file that is a shared disk."""
        return self.ref.directory / "disks" / name

    def specs(self, hosts: list[str], vms: list[str]) -> list[NodeSpec]:
        """What the engine starts for these nodes."""
        specs = [NodeSpec(name, "host", str(self.folder(name))) for name in hosts]
        for name in vms:
            vm = self.plan.vm(name)
            disk = str(self.disk(vm.shared_disk)) if vm.shared_disk else None
            specs.append(NodeSpec(name, "vm", "", vm.image, vm.command, vm.announce, disk))
        return specs


@contextlib.contextmanager
def opened(name: str) -> Iterator[Lab]:
    """The lab called ``name`` for the ``with`` block, closed at its end."""
    with Lab.open(name) as lab:
        yield lab
