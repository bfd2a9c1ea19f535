"""A host in this process: a real agent, and a real worker in a thread; NICs and PA network in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from support.switch import MemoryUplink, nic_mac, policy
from testbed.channel import pair
from testbed.host import nics as nics_module
from testbed.host import provider
from testbed.host.agent import Agent
from testbed.host.pa.addresses import AddressState
from testbed.host.worker import Worker
from testbed.switch.roles import Roles
from testbed.topology.plan import HostPlan, HostPolicy, NicPlan, TeamPlan

SECONDS = 10.0


class MemoryPaSpace:
    """A PA network in which a PA is Tentative until the test says otherwise."""

    def __init__(self, _loop: Any, roles: Roles, _timers: Any, _neighbor: Any, on_state: Any, *_: Any):
        self.roles, self._on_state = roles, on_state
        self.groups: set[str] = set()
        self.closed = False
        self._states: dict[str, AddressState] = {}

    def close(self) -> None:
        """Left."""
        self.closed = True

    def set_addresses(self, addresses: set[str]) -> None:
        """New ones are Tentative."""
        self._states = {each: self._states.get(each, AddressState.TENTATIVE) for each in addresses}

    def set_groups(self, groups: set[str]) -> None:
        """Joined."""
        self.groups = groups

    def states(self) -> dict[str, AddressState]:
        """Of each PA."""
        return {**self._states}

    def preferred(self) -> list[str]:
        """In use."""
        return [pa for pa, state in self._states.items() if state is AddressState.PREFERRED]

    def use(self, roles: Roles) -> None:
        """Other members work."""
        self.roles = roles

    def resolve(self, address: bytes) -> None:
        """Nobody answers."""

    def settle(self) -> None:
        """Every PA is preferred now."""
        self._states = dict.fromkeys(self._states, AddressState.PREFERRED)
        self._on_state()


class MemoryHost:
    """``ask`` is what the control socket answers; ``worker`` may be looked at between two questions."""

    def __init__(self, agent: Agent, worker: Worker, thread: threading.Thread) -> None:
        self.agent, self.worker = agent, worker
        self._thread = thread
        self.vms: dict[str, socket.socket] = {}

    @property
    def space(self) -> Any:
        """The PA network."""
        return self.agent._provider._space

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request. Raises what the agent raises."""
        return self.agent.handle({"op": op, **fields}, []).message

    def policy(self, verb: str, kind: str = "lookup-records", **more: Any) -> Any:
        """A request for policy."""
        return self.ask("policy", verb=verb, object=kind, **more)

    def configure(self, plan: HostPlan) -> None:
        """Give the host a plan."""
        self.ask("configure", plan=msgspec.to_builtins(plan), position=0)

    def plug(self, name: str, mac: bytes, vsid: int, queues: int = 1) -> None:
        """Plug a VM in, which speaks through ``vms[name]``; by queue 1 through ``vms["NAME/1"]``."""
        descriptors = []
        for number in range(queues):
            end = f"{name}/{number}" if number else name
            if end in self.vms:
                self.vms[end].close()
            self.vms[end], inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            descriptors.append(inside.detach())
        port = {"name": name, "mac": mac.hex(":"), "vsid": vsid}
        self.agent.handle({"op": "attach-port", "port": port}, descriptors)

    def seen_from_vms(self) -> None:
        """Return once the switch has read what the VMs have sent so far."""
        self.ask("counters")  # an order comes after the batch that was there before it
        self.ask("counters")


# The worker's order of a host without extensions.
CONFIGURE = {
    "host": "host1",
    "wnv": "in-switch",
    "flow_entropy": True,
    "extensions": [],
    "team": {"primary": "nic1"},
    "processors": {"count": 1, "budget": 0.0},
}


def plan(of: HostPolicy | None = None, **changes: Any) -> HostPlan:
    """Host 1 of the small network in support.switch."""
    made = HostPlan("host1", (NicPlan("nic1", nic_mac(1).hex(":"), 1500),), TeamPlan("nic1"), of or policy(1))
    return msgspec.structs.replace(made, **changes)


@contextmanager
def memory_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHost]:
    """A host that is not configured yet."""
    monkeypatch.setattr(provider, "PaSpace", MemoryPaSpace)
    monkeypatch.setattr(nics_module, "Uplink", _uplink)
    control, channel = pair()
    channel.socket.settimeout(None)
    worker = Worker(channel)
    thread = threading.Thread(target=worker.run)
    thread.start()
    loop = asyncio.new_event_loop()
    host = MemoryHost(Agent(loop, control, thread.native_id or os.getpid()), worker, thread)
    try:
        yield host
    finally:
        host.agent.close()
        ending = asyncio.all_tasks(loop)  # what it has cancelled gets to its end
        loop.run_until_complete(asyncio.gather(*ending, return_exceptions=True))
        loop.close()
        control.close()
        thread.join(SECONDS)
        channel.close()
        for port in worker.state.ports.values():
            port.close()
        for end in (*host.vms.values(), *worker.state.uplinks.values()):
            end.close()
        assert not thread.is_alive(), "the worker does not end with its channel"


def _uplink(name: str, mac: bytes, mtu: int, *, wnv_binding: bool, **_: object) -> MemoryUplink:
    uplink = MemoryUplink(name, mac)
    uplink.mtu, uplink.wnv_binding = mtu, wnv_binding
    return uplink
