"""A worker process: waits for its ports and NICs and runs the datapath; takes orders from control.

Orders change ports, NICs, tables and neighbors between two batches; each is acknowledged once it
holds. What only control can decide (an unresolved PA next hop) goes up as an ``unresolved`` message.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import msgspec

from testbed.channel import Channel, Message
from testbed.nic.stage import NicStage
from testbed.packets.ethernet import parse_mac
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.switch.pipeline import EXTENSIONS_CA, EXTENSIONS_PA, Pipeline
from testbed.switch.port import Port
from testbed.switch.stages import ExtensionsStage, PortStage
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink
from testbed.teaming.team import TeamStage
from testbed.topology.plan import HostPolicy
from testbed.wnv.filter import WnvFilter
from testbed.wnv.tables import Tables


def build_pipeline(state: SwitchState, wnv: WnvFilter) -> Pipeline:
    """The stages of a switch; their order is the pipeline's own."""
    return Pipeline(
        [
            PortStage(),
            ExtensionsStage(EXTENSIONS_CA),
            wnv,
            ExtensionsStage(EXTENSIONS_PA),
            TeamStage(state),
            NicStage(state),
        ]
    )


class Worker:
    """One worker; ``run`` returns when control closes the channel."""

    def __init__(self, control: Channel) -> None:
        self._control = control
        self.state = SwitchState()
        self.wnv = WnvFilter(self.state)
        self.datapath = Datapath(self.state, build_pipeline(self.state, self.wnv), self._unresolved)
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._running = True
        self._queues: set[int] = set()  # descriptors of the ports
        self._watch(control.socket.fileno(), self._order)

    def run(self) -> None:
        """The loop."""
        poll, ready = self._poll.poll, self._ready
        while self._running:
            for descriptor, events in poll():
                if handler := ready.get(descriptor):
                    handler()
                    if events & select.EPOLLERR and descriptor in self._queues:
                        self._unwatch(descriptor)  # the VM is gone; its queue would report it for ever

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._ready[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._ready.pop(descriptor, None):
            self._poll.unregister(descriptor)

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
            self._control.send({"op": "done", "result": handler(message, descriptors)})
        except OSError as error:  # such as a NIC that is not there: control tells who asked
            self._control.send({"op": "done", "error": f"{message['op']}: {error}"})

    def _on_add_nic(self, message: Message, _: list[int]) -> None:
        uplink = Uplink(message["name"], parse_mac(message["mac"]))
        self.state.uplinks[uplink.name] = uplink
        self._watch(uplink.fileno(), lambda: self.datapath.drain_uplink(uplink))

    def _on_remove_nic(self, message: Message, _: list[int]) -> None:
        if uplink := self.state.uplinks.pop(message["name"], None):
            self._unwatch(uplink.fileno())
            uplink.close()
            self.state.forget_flows()

    def _on_add_port(self, message: Message, descriptors: list[int]) -> None:
        self._on_remove_port(message, [])
        port = Port(message["name"], parse_mac(message["mac"]), message["vsid"], descriptors[0])
        self.state.add_port(port)
        self.state.forget_flows()
        self._queues.add(port.descriptor)
        self._watch(port.descriptor, lambda: self.datapath.drain_port(port))

    def _on_remove_port(self, message: Message, _: list[int]) -> None:
        if port := self.state.ports.get(message["name"]):
            self._unwatch(port.descriptor)
            self._queues.discard(port.descriptor)
            self.state.remove_port(port.name)
            self.state.forget_flows()

    def _on_policy(self, message: Message, _: list[int]) -> None:
        policy = msgspec.convert(message["policy"], HostPolicy)
        self.wnv.tables = Tables(policy, frozenset(message["preferred"]))
        self.state.active_nic = message["active_nic"]
        self.state.forget_flows()

    def _on_neighbor(self, message: Message, _: list[int]) -> None:
        self.datapath.neighbor(message["next_hop"], message["mac"])

    def _on_counters(self, _: Message, __: list[int]) -> dict[str, Any]:
        drops = {**self.datapath.drops}
        for uplink in self.state.uplinks.values():
            if overruns := uplink.overruns():
                drops[uplink.name, Drop.RX_OVERRUN] = overruns
        return {
            "ports": [port.counters() for port in self.state.ports.values()],
            "nics": [uplink.counters() for uplink in self.state.uplinks.values()],
            "drops": [
                {"object": name, "reason": str(reason), "count": count}
                for (name, reason), count in sorted(drops.items())
            ],
            "cpu_seconds": sum(os.times()[:2]),
        }
