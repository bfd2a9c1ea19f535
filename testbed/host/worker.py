"""A worker process: waits for its ports and NICs and runs the datapath; takes orders from control.

Orders change ports, NICs, pipeline, tables and neighbors between two batches; each is acknowledged once
it holds. One that is refused changes nothing. What only control can decide goes up in between: an
``unresolved`` PA next hop, and that there are ``claims`` of addresses for control to fetch.
"""

from __future__ import annotations

import ipaddress
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from testbed.channel import Channel, Message
from testbed.errors import TestbedError
from testbed.host.adapter_test import AdapterTests, End
from testbed.host.claims import ClaimBox
from testbed.host.counters import VsidTotals, collect
from testbed.host.nics import Nics
from testbed.host.pipeline import FILTERS, Filter, build_pipeline
from testbed.host.taps import Taps
from testbed.host.team.worker import WorkerTeam
from testbed.host.work import Work
from testbed.nic.guest import GuestOffloads
from testbed.nic.offloads import Offloads
from testbed.packets.ethernet import parse_mac
from testbed.switch.datapath import BATCH, Datapath
from testbed.switch.drops import Drop, DropCounts
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.stack import Stack
from testbed.switch.pipeline import NIC
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.teaming.flowlets import Flowlets
from testbed.topology.plan import ExtensionPlan, HostPolicy, ProcessorsPlan, TeamPlan
from testbed.wnv.filter import WnvFilter
from testbed.wnv.learning import Learning
from testbed.wnv.policy import decode_changes
from testbed.wnv.tables import Tables

_QUEUE = 1024  # packets that a queue of a VM's NIC may hold for the switch (a TAP device's default is 1000)
_LOOK = 1.0  # seconds between looks at what has to end by itself, while there is any
_MADE_OF = ("host", "wnv", "flow_entropy", "extensions")  # of an order: what a pipeline is made of


class Worker:
    """One worker; ``run`` returns when control closes the channel."""

    def __init__(self, control: Channel) -> None:
        self._control = control
        self.state = SwitchState()
        self.wnv: Filter = WnvFilter(self.state)
        self.stack = Stack([], self.state)
        self.flowlets = Flowlets()
        pipeline = build_pipeline(self.state, self.wnv, self.stack, flowlets=self.flowlets)
        self.datapath = Datapath(self.state, pipeline, self._unresolved)
        self.claims = ClaimBox(lambda: self._control.send({"op": "claims"}))
        self.learning = Learning(self.claims.put, self._set_inspects)
        self._made_of: Message = {}  # the pipeline
        self._totals = VsidTotals()
        self._poll = select.epoll()
        self.work = Work(self.state, self.datapath, self._poll)
        self.nics = Nics(self.state, self._own_pa)
        self.team = WorkerTeam(self.state, self.flowlets)
        self._ready: dict[int, Callable[[], None]] = {}
        self.tests = AdapterTests(
            self.state,
            self.datapath,
            lambda: self.wnv.tables,
            self._watch,
            self._unwatch,
            lambda: self._set_inspects(bool(self.learning.exchanges.open)),
        )
        self._running = True
        self._queues: set[int] = set()  # descriptors of the ports
        self._handed: list[int] = []  # descriptors that go with the next acknowledgement
        self.taps = Taps(self.state, self.datapath, self._watch, self._unwatch, self.tests.renewed)
        self._watch(control.socket.fileno(), self._order)

    def _own_pa(self, vsid: int) -> bytes | None:
        return self.wnv.tables.own_pa(vsid)

    def run(self) -> None:
        """The loop."""
        poll, ready, exchanges = self._poll.poll, self._ready, self.learning.exchanges.open
        while self._running:
            for descriptor, events in poll(self._patience(_LOOK if exchanges else None)):
                if handler := ready.get(descriptor):
                    handler()
                    if events & select.EPOLLERR and descriptor in self._queues:
                        self._unwatch(descriptor)  # the VM is gone; its queue would report it for ever
            if exchanges:
                self.learning.exchanges.expire()
            if self.work.scheduler:
                self.work.scheduler.resume()
            if self.team.balances:
                self.flowlets.look(time.monotonic())

    def _patience(self, seconds: float | None) -> float | None:
        """How long to wait for something to read."""
        if (scheduler := self.work.scheduler) is None or (wait := scheduler.timeout()) is None:
            return seconds
        return wait if seconds is None else min(wait, seconds)

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._ready[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._ready.pop(descriptor, None):
            self._poll.unregister(descriptor)
            self.work.forget(descriptor)

    def _unresolved(self, next_hop: bytes) -> None:
        self._control.send({"op": "unresolved", "next_hop": next_hop})

    def _order(self) -> None:
        try:
            received = self._control.receive()
        except OSError:
            received = None
        if received is None:
            self._running = False
            return
        message, descriptors = received
        handler = getattr(self, f"_on_{message['op'].replace('-', '_')}")
        try:
            answer = {"result": handler(message, descriptors)}
        except TestbedError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        except OSError as error:  # such as a NIC that is not there: control tells who asked
            answer = {"error": f"{message['op']}: {error}"}
        handed, self._handed = self._handed, []
        self._control.send({"op": "done", **answer}, handed)
        for descriptor in handed:
            os.close(descriptor)

    # ---- the switch -----------------------------------------------------------------------

    def _on_configure(self, message: Message, _: list[int]) -> None:
        """Mode, extensions and the active NIC; a new pipeline only when it would be another one."""
        made_of = {key: message[key] for key in _MADE_OF}
        if made_of != self._made_of:
            self.state.events.host = message["host"]
            stack = Stack(self._extensions(message["extensions"]), self.state)
            wnv = FILTERS[message["wnv"]](self.state, flow_entropy=message["flow_entropy"])
            wnv.tables = self.wnv.tables
            self.wnv, self.stack, self._made_of = wnv, stack, made_of
            for port in self.state.ports.values():
                stack.attach_port(port)
            self.taps.use(build_pipeline(self.state, wnv, stack, message["wnv"], self.flowlets))
        learns = isinstance(self.wnv, WnvFilter) and message.get("learning", True)
        if isinstance(self.wnv, WnvFilter):
            self.wnv.learning = self.learning if learns else None
        if not learns:
            self._forget_learning(self.state.ports)
        self._set_inspects(bool(self.learning.exchanges.open))
        self.work.on(msgspec.convert(message["processors"], ProcessorsPlan))
        self.work.members = message.get("nics", [])
        self.team.configure(msgspec.convert(message["team"], TeamPlan))
        self.state.forget_flows()

    def _set_inspects(self, exchanges: bool) -> None:
        """Look into received packets where extensions may, while a VM waits or a test runs, and for vRSS."""
        spread = any(len(port.queues) > 1 for port in self.state.ports.values())
        self.datapath.inspects = bool(self.stack.extensions) or exchanges or spread or self.tests.running

    def _forget_learning(self, ports: Iterable[str]) -> None:
        for name in ports:
            self.learning.forget(name)
            self.claims.forget(name)

    def _extensions(self, plain: list[Any]) -> list[Extension]:
        if not plain:
            return []
        from testbed.switch.extensions.load import load  # 3 MiB that a host without extensions saves

        return load(msgspec.convert(plain, list[ExtensionPlan]), self.state.events)

    def _on_add_nic(self, message: Message, _: list[int]) -> None:
        uplink = self.nics.add(message)
        self.team.refresh()
        for queue in uplink.queues:
            self._watch(queue.socket.fileno(), self.work.of_queue(uplink, queue))
        self.nics.ports_changed()

    def _on_remove_nic(self, message: Message, _: list[int]) -> None:
        if uplink := self.nics.remove(message["name"]):
            self.team.refresh()
            for queue in uplink.queues:
                self._unwatch(queue.socket.fileno())
            uplink.close()

    def _on_team_state(self, message: Message, _: list[int]) -> None:
        """Which members have failed, and the gap from which flows may move (None: as it is)."""
        self.team.set_state(message["failed"], message["gap"])
        self.nics.ports_changed()

    def _on_received(self, _: Message, __: list[int]) -> dict[str, int]:
        """Frames that each NIC has received."""
        uplinks = self.state.uplinks.values()
        return {uplink.name: sum(queue.rx_packets for queue in uplink.queues) for uplink in uplinks}

    def _on_team(self, _: Message, __: list[int]) -> Message:
        return self.team.describe()

    def _on_install_nic(self, message: Message, descriptors: list[int]) -> None:
        """The registers of the NIC's classifier have come."""
        self.nics.install(message["name"], descriptors[0])
        os.close(descriptors[0])

    def _on_set_nic(self, message: Message, _: list[int]) -> None:
        offloads = msgspec.convert(message["offloads"], Offloads)
        self.nics.change(message["name"], offloads, message["rss"])

    def _on_nics(self, _: Message, __: list[int]) -> list[Message]:
        return self.nics.describe()

    # ---- ports: each of these answers the PA groups that the host is to be a member of ------

    def _on_add_port(self, message: Message, descriptors: list[int]) -> list[str]:
        self._on_remove_port(message, [])
        port = Port(message["name"], parse_mac(message["mac"]), message["vsid"], *descriptors)
        port.use(msgspec.convert(message.get("offloads", {}), GuestOffloads))
        self.state.add_port(port)
        self.stack.attach_port(port)
        self._ports_changed()
        for descriptor in descriptors:
            self._queues.add(descriptor)
            self._watch(descriptor, self.work.of_port(port, descriptor))
        if message.get("moved") and port.vsid == 0:
            self.team.announce(port)
        return self._groups()

    def _on_hand_over_port(self, message: Message, _: list[int]) -> list[str]:
        """As remove-port, but the queues stay open and go along; what the VM sends waits in them."""
        self._handed = [os.dup(descriptor) for descriptor in self.state.ports[message["name"]].descriptors]
        return self._on_remove_port(message, [])

    def _on_remove_port(self, message: Message, _: list[int]) -> list[str]:
        if port := self.state.ports.get(message["name"]):
            for descriptor in port.descriptors:
                self._unwatch(descriptor)
                self._queues.discard(descriptor)
            self._totals.close(port, removed=True)
            self.stack.detach_port(port.name)
            self._forget_learning([port.name])
            self.state.remove_port(port.name)
            self._ports_changed()
        return self._groups()

    def _ports_changed(self) -> None:
        self._set_inspects(bool(self.learning.exchanges.open))
        self.nics.ports_changed()
        self.state.forget_flows()

    def _on_set_vnic(self, message: Message, _: list[int]) -> None:
        self.state.ports[message["name"]].use(msgspec.convert(message["offloads"], GuestOffloads))
        self.state.forget_flows()

    def _on_set_port(self, message: Message, _: list[int]) -> list[str]:
        port = self.state.ports[message["name"]]
        self._totals.close(port, removed=False)
        self._forget_learning([port.name])
        self.state.set_vsid(port, message["vsid"])
        self.stack.detach_port(port.name)
        self.stack.attach_port(port)
        self.state.forget_flows()
        return self._groups()

    def _groups(self) -> list[str]:
        vsids = {port.vsid for port in self.state.ports.values()}
        return [str(ipaddress.ip_address(group)) for group in self.wnv.tables.groups(vsids)]

    # ---- policy -----------------------------------------------------------------------------

    def _on_policy(self, message: Message, _: list[int]) -> list[str]:
        policy = msgspec.msgpack.decode(message["policy"], type=HostPolicy)
        self.wnv.tables = Tables(policy, frozenset(message["preferred"]))
        self.claims.policy_changed()
        self.nics.ports_changed()
        self.state.forget_flows()
        return self._groups()

    def _on_change_policy(self, message: Message, _: list[int]) -> list[str]:
        self.wnv.tables.apply(decode_changes(message["changes"]))
        self.claims.policy_changed()
        return self._on_preferred({"addresses": message["preferred"]}, [])

    def _on_preferred(self, message: Message, _: list[int]) -> list[str]:
        self.wnv.tables.set_preferred(frozenset(message["addresses"]))
        self.nics.ports_changed()
        self.state.forget_flows()
        return self._groups()

    def _on_neighbor(self, message: Message, _: list[int]) -> None:
        self.datapath.neighbor(message["next_hop"], message["mac"])

    # ---- learning ---------------------------------------------------------------------------

    def _on_claims(self, _: Message, __: list[int]) -> list[Message]:
        return self.claims.take()

    def _on_probe(self, message: Message, _: list[int]) -> None:
        """Ask a VM whether it has an address; ``probe-end`` is to follow."""
        if port := self.state.ports.get(message["port"]):
            self.learning.probes.send(self.wnv.tables, port, message["address"])

    def _on_probe_result(self, message: Message, _: list[int]) -> bool:
        """Whether a VM has been heard with an address since it was asked."""
        port = self.state.ports.get(message["port"])
        return port is not None and self._heard(port, message["address"])

    def _on_probe_end(self, message: Message, _: list[int]) -> None:
        self.learning.probes.end(message["port"], message["address"])

    def _heard(self, port: Port, address: bytes) -> bool:
        """What a VM has said so far has to be read before anybody calls it silent."""
        probes = self.learning.probes
        for descriptor in port.descriptors:
            for _ in range(0, _QUEUE, BATCH):
                if probes.answered(port.name, address):
                    return True
                before = port.from_vm_packets
                self.datapath.drain_port(port, descriptor)
                if port.from_vm_packets - before < BATCH:
                    break
        return probes.answered(port.name, address)

    # ---- tests of adapters ------------------------------------------------------------------

    def _on_test_adapter(self, message: Message, _: list[int]) -> None:
        """Begin a test at one end of it; where that is the sender, its request leaves now."""
        number, end = message["test"], msgspec.convert(message["end"], End)
        self.tests.begin(number, end)
        if end.sends:
            self.tests.send(number, message["size"])

    def _on_test_adapter_state(self, message: Message, _: list[int]) -> Any:
        return msgspec.to_builtins(self.tests.progress(message["test"]), builtin_types=(bytes,))

    def _on_test_adapter_end(self, message: Message, _: list[int]) -> None:
        self.tests.end(message["test"])

    # ---- questions --------------------------------------------------------------------------

    def _on_select_next_hop(self, message: Message, _: list[int]) -> Any:
        found = self.wnv.select_next_hop(message["source_ca"], message["destination_ca"], message["vsid"])
        return msgspec.to_builtins(found)

    def _on_provider_next_hop(self, message: Message, _: list[int]) -> bytes | None:
        """The PA to which a packet for a PA goes, None without a route."""
        return self.wnv.tables.provider_next_hop(message["address"])

    def _on_trace(self, message: Message, _: list[int]) -> Message:
        """What would become of a packet from a port, or from the wire."""
        from testbed.host.tracing import trace  # a host that is not asked saves it

        return trace(self, message)

    def _on_events(self, _: Message, __: list[int]) -> Message:
        events = self.state.events
        return {"events": [msgspec.to_builtins(event) for event in events.take()], "lost": events.lost}

    def _on_extension(self, message: Message, _: list[int]) -> Any:
        return self.stack.query(message["name"])

    def _on_capture(self, message: Message, descriptors: list[int]) -> None:
        self.taps.open(message, descriptors[0])

    def _on_capture_counts(self, message: Message, _: list[int]) -> Message:
        return self.taps.counts(message["id"])

    def _on_drops(self, _: Message, __: list[int]) -> list[tuple[str, str, int, str, int]]:
        """The counters of drops alone: stage, port or NIC, VSID, reason, packets."""
        return [(*key[:3], str(key[3]), packets) for key, packets in self._drops().items()]

    def _drops(self) -> DropCounts:
        """What the pipeline has dropped, and what NICs and kernel did."""
        drops = {**self.datapath.drops}
        for uplink in self.state.uplinks.values():
            if overruns := uplink.overruns():
                drops[NIC, uplink.name, 0, Drop.RX_OVERRUN] = overruns
            if refused := uplink.refused():
                key = NIC, uplink.name, 0, Drop.TX_REFUSED
                drops[key] = drops.get(key, 0) + refused
        return drops

    def _on_counters(self, _: Message, __: list[int]) -> Any:
        counters = collect(
            self.state.events.host,
            self.state.ports.values(),
            self.state.uplinks.values(),
            self._drops(),
            self._totals,
            self.stack.counters(),
            self.team.counters(),
        )
        return msgspec.to_builtins(counters)
