"""The control process of a host: owns policy and PA space, gives its worker orders, answers requests.

Requests on ``control.sock`` (see :mod:`testbed.channel`): ``configure`` (a HostPlan, and the host's
position in the lab; may be sent again with a changed plan), ``attach-port`` (with the TAP queue's
descriptor), ``detach-port``, ``status``, ``counters``. A change is answered when the worker has
acknowledged it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec

from testbed.channel import Channel, Message, Reply
from testbed.errors import BadInput, LabError
from testbed.host.pa_space import TIMERS, AddressState, PaSpace
from testbed.packets.ethernet import parse_mac
from testbed.topology.plan import HostPlan, HostPolicy


class Agent:
    """State of one host. ``worker``: channel to the worker process, ``worker_pid`` its process id."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Channel, worker_pid: int) -> None:
        self._loop = loop
        self._worker = worker
        self._worker_pid = worker_pid
        self._plan: HostPlan | None = None
        self._pa: PaSpace | None = None
        self._ports: dict[str, Message] = {}
        self._resolving: list[bytes] = []
        loop.add_reader(worker.socket, self._from_worker)

    def handle(self, message: Message, descriptors: list[int]) -> Reply:
        """Answer one request; closes the descriptors that came with it."""
        try:
            match message.get("op"):
                case "configure":
                    self._place_worker(message["position"])
                    return self._configure(msgspec.convert(message["plan"], HostPlan))
                case "attach-port":
                    return self._attach(message["port"], descriptors)
                case "detach-port":
                    return self._detach(message["name"])
                case "status":
                    return Reply(self._status())
                case "counters":
                    return Reply(self._order({"op": "counters"}))
            raise BadInput(f"unknown request {message.get('op')!r}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # ---- requests -------------------------------------------------------------------------

    def _place_worker(self, position: int) -> None:
        """One CPU for the worker, hosts taking turns by their ``position`` in the lab.

        Left alone, the scheduler moves a worker to the CPU of whoever sends to it, and the workers
        of two hosts that talk to each other share one.
        """
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._worker_pid, {processors[position % len(processors)]})

    def _configure(self, plan: HostPlan) -> Reply:
        old, self._plan = self._plan, plan
        before = set(old.nics) if old else set()
        for nic in before - set(plan.nics):
            self._order({"op": "remove-nic", "name": nic.name})
        for nic in set(plan.nics) - before:
            self._order({"op": "add-nic", "name": nic.name, "mac": nic.mac})
        if old is None or old.active_nic != plan.active_nic or self._pa is None:
            self._join_pa_network(plan)
        assert self._pa is not None
        self._pa.set_addresses({address.provider_address for address in plan.policy.provider_addresses})
        self._push_policy()
        return Reply()

    def _join_pa_network(self, plan: HostPlan) -> None:
        if self._pa:
            self._pa.close()
        mac = next(nic.mac for nic in plan.nics if nic.name == plan.active_nic)
        self._pa = PaSpace(
            self._loop,
            plan.active_nic,
            parse_mac(mac),
            TIMERS[plan.timers],
            self._neighbor,
            self._push_policy,
        )

    def _attach(self, port: Message, descriptors: list[int]) -> Reply:
        if len(descriptors) != 1:
            raise BadInput("attach-port needs exactly one descriptor")
        self._order({"op": "add-port", **port}, descriptors)
        self._ports[port["name"]] = port
        return Reply()

    def _detach(self, name: str) -> Reply:
        self._ports.pop(name, None)
        self._order({"op": "remove-port", "name": name})
        return Reply()

    def _status(self) -> Message:
        plan = self._plan
        states = self._pa.states() if self._pa else {}
        return {
            "configured": plan is not None,
            "tentative": [pa for pa, state in states.items() if state is AddressState.TENTATIVE],
            "duplicate": [pa for pa, state in states.items() if state is AddressState.DUPLICATE],
            "provider_addresses": [
                {
                    "address": address.provider_address,
                    "prefix_length": address.prefix_length,
                    "vsid": address.virtual_subnet_id,
                    "state": states.get(address.provider_address, AddressState.TENTATIVE),
                }
                for address in (plan.policy.provider_addresses if plan else ())
            ],
            "lookup_records": len(plan.policy.lookup_records) if plan else 0,
            "nics": [
                {"name": nic.name, "mac": nic.mac, "active": nic.name == plan.active_nic} for nic in plan.nics
            ]
            if plan
            else [],
            "ports": [{**port} for port in self._ports.values()],
            "processes": [
                {"pid": os.getpid(), "role": "control"},
                {"pid": self._worker_pid, "role": "worker"},
            ],
        }

    # ---- the worker -----------------------------------------------------------------------

    def _push_policy(self) -> None:
        """Give the worker the tables as they are now."""
        policy = self._plan.policy if self._plan else HostPolicy()
        self._order(
            {
                "op": "policy",
                "policy": msgspec.to_builtins(policy),
                "preferred": self._pa.preferred() if self._pa else [],
                "active_nic": self._plan.active_nic if self._plan else "",
            }
        )

    def _neighbor(self, next_hop: bytes, mac: bytes | None) -> None:
        self._order({"op": "neighbor", "next_hop": next_hop, "mac": mac})

    def _order(self, message: Message, descriptors: list[int] | None = None) -> Any:
        """Send an order and wait until it holds; what the worker asks meanwhile is kept for after."""
        self._worker.send(message, descriptors or ())
        while True:
            answer = self._worker.receive()
            if answer is None:
                raise LabError("the switch worker has died")
            if answer[0]["op"] == "done":
                break
            self._resolving.append(answer[0]["next_hop"])
        if self._resolving:
            self._loop.call_soon(self._resolve_kept)
        if "error" in answer[0]:
            raise LabError(answer[0]["error"])
        return answer[0]["result"]

    def _from_worker(self) -> None:
        if not self._worker.readable():
            return  # an order in the same turn of the loop has read it already
        answer = self._worker.receive()
        if answer is None:
            print("the switch worker has died", file=sys.stderr, flush=True)
            self._loop.remove_reader(self._worker.socket)
            self._loop.stop()
            return
        self._resolving.append(answer[0]["next_hop"])
        self._resolve_kept()

    def _resolve_kept(self) -> None:
        kept, self._resolving = self._resolving, []
        for next_hop in kept:
            if self._pa:
                self._pa.resolve(next_hop)
