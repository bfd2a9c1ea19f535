"""The control process of a host: owns policy and PA space, gives its worker orders, answers requests.

Requests on ``control.sock`` (see :mod:`testbed.channel`): ``configure`` (a HostPlan, the host's
position in the lab, and how it reaches the VMM; may be sent again with a changed plan),
``attach-port`` (with the descriptors of the TAP queues), ``detach-port``, ``hand-over-port`` (answers with
those descriptors), ``set-port``, ``policy`` (see :mod:`testbed.host.policy`), ``resync`` (with the VMM),
``select-next-hop``, ``trace``, ``status``, ``counters``, ``events``, ``extension``, ``capture`` (with a
socket for the packets), and those of :mod:`testbed.host.diagnostics`. A change is answered when the worker
has acknowledged it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import msgspec

from testbed.channel import Channel, Message, Reply
from testbed.errors import BadInput
from testbed.host.cables import Cables
from testbed.host.diagnostics import Diagnostics
from testbed.host.events import HostEvents
from testbed.host.learning import Learner
from testbed.host.links import Links
from testbed.host.orders import WorkerLink
from testbed.host.pa.addresses import AddressState
from testbed.host.policy import PolicyControl
from testbed.host.provider import ProviderSide
from testbed.host.team.side import TeamSide
from testbed.host.vmm.side import VmmSide
from testbed.nic.faults import Faults
from testbed.nic.guest import GuestOffloads
from testbed.nic.offloads import Offloads
from testbed.telemetry import EventLog
from testbed.topology.plan import HostPlan, NicPlan
from testbed.wnv.objects import FIRST_VSID, LAST_VSID

_TAP = ("id", "point", "vsid", "snaplen")  # of an order: what a capture wants of the switch


class Agent:
    """State of one host. ``worker``: channel to the worker process, ``worker_pid`` its process id."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Channel, worker_pid: int) -> None:
        self._loop = loop
        self._worker_pid = worker_pid
        self._plan: HostPlan | None = None
        self._ports: dict[str, Message] = {}
        self._events = EventLog()
        self._link = WorkerLink(loop, worker)
        self._told = HostEvents(loop, self._link, self._events)
        self._provider = ProviderSide(loop, self._link, self._events)
        self._policy = PolicyControl(self._link, self._provider, self._events)
        self._cables = Cables()
        self._team = TeamSide(loop, self._link, self._events, self._provider.use)
        self._links = Links(loop, self._events, self._team.links_changed)
        self._learner = Learner(loop, self._link, self._policy, self._events)
        self._vmm = VmmSide(loop, self._policy, self._learner, self._events, self._address_states)
        self._provider.on_state = self._vmm.addresses_changed
        self._diagnostics = Diagnostics(loop, self._link, self._provider, self._nic_names)
        self._answers: dict[str, Callable[[Message], Message]] = {
            "configure": self._configure,
            "detach-port": self._detach,
            "set-port": self._set_port,
            "set-vnic": self._set_vnic,
            "policy": self._policy.answer,
            "select-next-hop": self._select_next_hop,
            "resync": lambda _: self._resync(),
            "status": lambda _: self._status(),
            "nics": lambda _: {"nics": self._link.order("nics")},
            "set-nic": self._set_nic,
            "cables": lambda _: {"cables": self._cables.describe(self._nic_names())},
            "replug": self._replug,
            "team": lambda _: {"team": {**self._team.describe(), **self._link.order("team")}},
            "set-team-member": self._set_team_member,
            "set-cable": self._set_cable,
            "counters": lambda _: {"counters": self._link.order("counters")},
            "events": lambda message: self._told.since(message.get("after")),
            "trace": self._trace,
            "capture-counts": lambda message: self._link.order("capture-counts", id=message["id"]),
            "extension": lambda message: {"result": self._link.order("extension", name=message["name"])},
            **self._diagnostics.answers,
        }

    def handle(self, message: Message, descriptors: list[int]) -> Reply:
        """Answer one request; closes the descriptors that came with it."""
        try:
            op = message.get("op", "")
            if op == "attach-port":
                return Reply(self._attach(message, descriptors))
            if op == "hand-over-port":
                return self._hand_over(message["name"])
            if op == "capture":
                self._link.order(op, descriptors, **{key: message[key] for key in _TAP})
                return Reply({})
            if op == "install-nic":
                self._link.order(op, descriptors, name=message["name"])
                return Reply({})
            if op == "install-partner":
                self._team.install_partner(message, [os.dup(each) for each in descriptors])
                return Reply({})
            if op == "install-cable":
                self._cables.install(message, descriptors)
                return Reply({})
            if op in self._answers:
                return Reply(self._answers[op](message))
            raise BadInput(f"unknown request {op!r}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # ---- the plan -------------------------------------------------------------------------

    def _place_worker(self, position: int) -> None:
        """One CPU for the worker, hosts taking turns by their ``position`` in the lab.

        Left alone, the scheduler moves a worker to the CPU of whoever sends to it, and the workers
        of two hosts that talk to each other share one.
        """
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._worker_pid, {processors[position % len(processors)]})

    def _configure(self, message: Message) -> Message:
        """Take over a plan. What can be refused (extensions) is asked first."""
        plan, old = msgspec.convert(message["plan"], HostPlan), self._plan
        self._place_worker(message["position"])
        self._events.host = plan.name
        self._link.order(
            "configure",
            host=plan.name,
            wnv=plan.wnv,
            flow_entropy=plan.flow_entropy,
            extensions=msgspec.to_builtins(plan.extensions),
            team=msgspec.to_builtins(plan.team),
            nics=[nic.name for nic in plan.nics],
            learning=plan.learning,
            processors=msgspec.to_builtins(plan.processors),
        )
        self._plan = plan
        before = {_hardware(nic): nic for nic in old.nics} if old else {}
        after = {_hardware(nic): nic for nic in plan.nics}
        for nic in [nic for key, nic in before.items() if key not in after]:
            self._link.order("remove-nic", name=nic.name)
            self._cables.remove(nic.name)
        for nic in [nic for key, nic in after.items() if key not in before]:
            self._link.order("add-nic", **msgspec.to_builtins(nic))
        if old is None or _team_of(old) != _team_of(plan) or not self._provider.joined:
            self._provider.join(plan, self._team.configure(plan))
            self._links.watch(self._nic_names())
        self._told.start()
        for kind, name, change in _changes(old, plan):
            self._events.add(kind, name, change=change)
        self._learner.configure(plan.timers, learning=plan.learning)
        self._vmm.join(plan.name, message.get("vmm"))
        if not self._vmm.owns_policy:
            self._policy.replace(plan.policy)
        return {}

    def _resync(self) -> Message:
        if self._vmm.status() is None:
            raise BadInput("the lab has no VMM: say `vmm: true` in its topology file")
        self._vmm.resync()
        return {}

    def close(self) -> None:
        """The host ends."""
        self._told.close()
        self._diagnostics.close()
        self._learner.stop()
        self._vmm.close()
        self._links.close()
        self._team.close()
        self._cables.close()

    # ---- ports ----------------------------------------------------------------------------

    def _attach(self, message: Message, descriptors: list[int]) -> Message:
        """``moved``: the VM comes from another host."""
        port = message["port"]
        if not descriptors:
            raise BadInput("attach-port needs a descriptor for each queue, at least one")
        moved = bool(message.get("moved"))
        self._provider.set_groups(self._link.order("add-port", descriptors, moved=moved, **port))
        self._ports[port["name"]] = port
        self._learner.attached(port["name"], port["mac"], port["vsid"])
        self._port_event(port, "arrived" if moved else "added")
        return {}

    def _hand_over(self, name: str) -> Reply:
        """Part with a VM that goes to another host; its queues go along in the reply."""
        if name not in self._ports:
            raise BadInput(f"there is no port {name!r}: one of {', '.join(self._ports) or 'none'}")
        groups, handed = self._link.hand_over("hand-over-port", name=name)
        for descriptor in handed:
            self._loop.call_soon(os.close, descriptor)  # after the reply has carried it away
        port = self._ports.pop(name)
        self._port_event(port, "handed-over")
        self._learner.detached(name)
        self._provider.set_groups(groups)
        return Reply({"port": port}, handed)

    def _detach(self, message: Message) -> Message:
        port = self._ports.pop(message["name"], None)
        self._learner.detached(message["name"])
        self._provider.set_groups(self._link.order("remove-port", name=message["name"]))
        if port is not None:
            self._port_event(port, "removed")
        return {}

    def _port_event(self, port: Message, change: str) -> None:
        self._events.add("port", port["name"], change=change, vsid=port["vsid"], mac=port["mac"])

    def _set_port(self, message: Message) -> Message:
        """Set-VMNetworkAdapter -VirtualSubnetId: the guest and its MTU stay as they are."""
        name, vsid = message["name"], message["vsid"]
        if name not in self._ports:
            raise BadInput(f"there is no port {name!r}: one of {', '.join(self._ports) or 'none'}")
        if vsid != 0 and not FIRST_VSID <= vsid <= LAST_VSID:
            raise BadInput(f"virtual subnet id {vsid}: use {FIRST_VSID} to {LAST_VSID}, or 0 for none")
        before = self._ports[name]["vsid"]
        self._provider.set_groups(self._link.order("set-port", name=name, vsid=vsid))
        self._ports[name] = {**self._ports[name], "vsid": vsid}
        self._learner.attached(name, self._ports[name]["mac"], vsid)
        self._events.add("port-change", name, vsid=vsid, before=before)
        return {"port": self._ports[name], "before": before}

    def _set_vnic(self, message: Message) -> Message:
        """Switch what the VM's adapter does; none named: say what it does. The guest's side is not here."""
        name, wanted = message["name"], message["offloads"]
        if name not in self._ports:
            raise BadInput(f"there is no port {name!r}: one of {', '.join(self._ports) or 'none'}")
        offloads = msgspec.convert(self._ports[name].get("offloads", {}), GuestOffloads).changed(wanted)
        plain = msgspec.to_builtins(offloads)
        if wanted:
            self._link.order("set-vnic", name=name, offloads=plain)
            self._events.add("vnic-change", name, **wanted)
        self._ports[name] = {**self._ports[name], "offloads": plain}
        return {"port": self._ports[name]}

    def _set_nic(self, message: Message) -> Message:
        """Switch offloads of a NIC and set its RSS, checked whole first. What is not named stays.

        ``base``: what the NIC is from now on, before ``offloads`` are switched.
        """
        known = {nic["name"]: nic for nic in self._link.order("nics")}
        name = message["name"]
        if name not in known:
            raise BadInput(f"there is no NIC {name!r}: one of {', '.join(known) or 'none'}")
        base = message.get("base") or known[name]["offloads"]
        offloads = msgspec.convert(base, Offloads).changed(message["offloads"])
        plain = msgspec.to_builtins(offloads)
        self._link.order("set-nic", name=name, offloads=plain, rss=message["rss"])
        self._events.add("nic-change", name, **message["offloads"])
        return {}

    def _set_cable(self, message: Message) -> Message:
        """Faults of one direction of a NIC's cable, all of them; programs that they need are there."""
        self._cables.set(message["name"], message["way"], msgspec.convert(message["faults"], Faults))
        self._events.add("cable-change", message["name"], way=message["way"], **message["faults"])
        return {}

    def _replug(self, message: Message) -> Message:
        """A NIC has another cable, and so another interface of the same name: without faults, as at first."""
        nic = next(nic for nic in self._nics() if nic.name == message["name"])
        self._cables.remove(nic.name)
        self._link.order("remove-nic", name=nic.name)
        self._link.order("add-nic", **msgspec.to_builtins(nic))
        assert self._plan is not None
        addresses = {each.provider_address for each in self._policy.policy().provider_addresses}
        self._provider.join(self._plan, self._team.configure(self._plan))
        self._links.watch(self._nic_names())
        self._provider.set_addresses(addresses)
        self._events.add("nic", nic.name, change="replugged")
        return {}

    def _set_team_member(self, message: Message) -> Message:
        self._team.set_administrative(message["name"], failed=message["failed"])
        return {}

    def _nics(self) -> tuple[NicPlan, ...]:
        return self._plan.nics if self._plan else ()

    def _nic_names(self) -> list[str]:
        return [nic.name for nic in self._nics()]

    # ---- questions ------------------------------------------------------------------------

    def _select_next_hop(self, message: Message) -> Message:
        found = self._link.order(
            "select-next-hop",
            source_ca=message.get("source_ca"),
            destination_ca=message["destination_ca"],
            vsid=message["vsid"],
        )
        return {"next_hop": found}

    def _trace(self, message: Message) -> Message:
        """What would become of a packet; the records that matched with what the policy knows of them."""
        found: Message = self._link.order("trace", **{key: message[key] for key in message if key != "op"})
        for stage in found["stages"]:
            if (shown := stage["details"].get("record")) is not None:
                record = self._policy.record_of(shown["virtual_subnet_id"], shown["customer_address"])
                shown["type"] = record.type if record else "L2Only"
                shown["vm_name"] = record.vm_name if record else ""
        return {"trace": found}

    def _status(self) -> Message:
        plan = self._plan
        if plan is None:
            return {"configured": False, **_OF_NOTHING, "processes": self._processes()}
        states = self._provider.states()
        return {
            "configured": True,
            "tentative": [pa for pa, state in states.items() if state is AddressState.TENTATIVE],
            "duplicate": [pa for pa, state in states.items() if state is AddressState.DUPLICATE],
            "provider_addresses": [
                {
                    "address": address.provider_address,
                    "prefix_length": address.prefix_length,
                    "vsid": address.virtual_subnet_id,
                    "state": states.get(address.provider_address, AddressState.TENTATIVE),
                }
                for address in self._policy.policy().provider_addresses
            ],
            "lookup_records": len(self._policy.policy().lookup_records),
            "vmm": self._vmm.status(),
            "wnv": plan.wnv,
            "flow_entropy": plan.flow_entropy,
            "extensions": [extension.name for extension in plan.extensions],
            "nics": [
                {
                    "name": nic.name,
                    "mac": nic.mac,
                    "mtu": nic.mtu,
                    "active": nic.name in self._team.roles.active,
                    "wnv_binding": nic.wnv_binding,
                }
                for nic in plan.nics
            ],
            "team": self._team.summary(),
            "ports": [{**port} for port in self._ports.values()],
            "processes": self._processes(),
        }

    def _address_states(self) -> list[Message]:
        """As the VMM wants them told."""
        states = self._provider.states()
        return [
            {
                "provider_address": each.provider_address,
                "virtual_subnet_id": each.virtual_subnet_id,
                "state": states.get(each.provider_address, AddressState.TENTATIVE),
            }
            for each in self._policy.policy().provider_addresses
        ]

    def _processes(self) -> list[Message]:
        return [
            {"pid": os.getpid(), "role": "control"},
            {"pid": self._worker_pid, "role": "worker"},
            *self._cables.processes(),
        ]


_OF_NOTHING: Message = {
    "tentative": [],
    "duplicate": [],
    "provider_addresses": [],
    "lookup_records": 0,
    "vmm": None,
    "wnv": "",
    "flow_entropy": True,
    "extensions": [],
    "nics": [],
    "team": None,
    "ports": [],
}


def _hardware(nic: NicPlan) -> NicPlan:
    """A NIC less what is switched while it runs (``set-nic``)."""
    return msgspec.structs.replace(nic, profile="", offloads=Offloads())


def _team_of(plan: HostPlan) -> tuple[object, ...]:
    """What the PA space depends on."""
    return [_hardware(nic) for nic in plan.nics], plan.team, plan.timers


def _changes(old: HostPlan | None, new: HostPlan) -> Iterator[tuple[str, str, str]]:
    """What another plan makes of a host's parts: kind and object of each event, and the change."""
    if old is None:
        yield "host", new.name, "started"
        return
    parts: tuple[tuple[str, tuple[dict[str, object], ...]], ...] = (
        ("nic", tuple({nic.name: _hardware(nic) for nic in plan.nics} for plan in (old, new))),
        ("extension", tuple({each.name: each for each in plan.extensions} for plan in (old, new))),
    )
    for kind, (before, after) in parts:
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                change = "added" if name not in before else "changed" if name in after else "removed"
                yield kind, name, change
