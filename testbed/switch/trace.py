"""What the switch would do with a packet, stage by stage, without doing it.

The packet takes the switch's own stages, each watched, and the actions that come of it are carried out by a
:class:`testbed.switch.dry.DryRun`. Extensions are not asked: they may count what they see.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from testbed.packets import nvgre
from testbed.packets.ethernet import HEADER, format_mac
from testbed.packets.malformed import MalformedFrame
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.switch.dry import DryRun, Sent, SilentUplink
from testbed.switch.extensions.stack import Stack
from testbed.switch.packet import Denied, Hold, Packet, Reply, Verdict
from testbed.switch.pipeline import (
    NIC,
    PORT,
    PORT_EXTENSIONS,
    SWITCHING,
    UPLINK_EXTENSIONS,
    WNV,
    Pipeline,
    Stage,
)
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink
from testbed.teaming.stage import TeamStage
from testbed.telemetry import EventLog
from testbed.wnv import explain
from testbed.wnv.base import Filter
from testbed.wnv.filter import WnvFilter
from testbed.wnv.learning import Learning

PLAIN = bytes(10)  # a virtio_net_hdr without offload
_EXTENSIONS = (PORT_EXTENSIONS, UPLINK_EXTENSIONS)
Note = dict[str, Any]


def trace(
    datapath: Datapath,
    pipeline: Pipeline,
    wnv: Filter,
    stack: Stack,
    source: Port | Uplink,
    frame: bytes,
    vnet: bytes = PLAIN,
    assumed: Mapping[bytes, bytes] = MappingProxyType({}),
) -> Note:
    """{"stages": [...], "copies": [...]} of a packet from a VM's port, or from the wire at a NIC.

    ``pipeline``: the datapath's own, whoever looks at it otherwise.

    A stage has ``stage``, ``way`` ("out" or "in"), ``verdict``, ``reason`` and ``details``. A copy has
    ``to``: "port", "wire", "sender" (an answer, or that it is too big), "waiting" or "nobody". ``assumed``:
    the MACs of PA next hops, as if they were resolved.
    """
    watch = _Watch(datapath.state, wnv, stack)
    stages = [_Watched(stage, watch) for stage in pipeline.stages]
    with _unnoticed(datapath.state, wnv, assumed), DryRun(datapath, Pipeline(stages, pipeline.mode)) as dry:
        if isinstance(source, Port):
            dry.from_vm(source, frame, vnet)
        else:
            dry.from_wire(source, frame, vnet)
        return {
            "stages": [*watch.notes, *_at_the_end(dry, inbound=isinstance(source, Uplink))],
            "copies": _copies(dry),
        }


@contextlib.contextmanager
def _unnoticed(state: SwitchState, wnv: Filter, assumed: Mapping[bytes, bytes]) -> Iterator[None]:
    """Events and addresses of the block are noticed by nobody; what it assumes holds in it alone."""
    events, state.events = state.events, EventLog()
    neighbors, state.neighbors = state.neighbors, {**state.neighbors, **assumed}
    learning = wnv.learning if isinstance(wnv, WnvFilter) else None
    try:
        if isinstance(wnv, WnvFilter) and learning is not None:
            wnv.learning = Learning(lambda _: None, lambda _: None)
        yield
    finally:
        state.events, state.neighbors = events, neighbors
        if isinstance(wnv, WnvFilter):
            wnv.learning = learning


class _Watched:
    """A stage that is looked at while it decides."""

    def __init__(self, stage: Stage, watch: _Watch) -> None:
        self.name = stage.name
        self.stage = stage
        self._watch = watch

    def outbound(self, packet: Packet) -> Verdict:
        """As the stage has it."""
        return self._watch.see(self.stage, "out", self.stage.outbound, packet)

    def inbound(self, packet: Packet) -> Verdict:
        """As the stage has it."""
        return self._watch.see(self.stage, "in", self.stage.inbound, packet)


class _Watch:
    """Notes what each stage says, and why."""

    def __init__(self, state: SwitchState, wnv: Filter, stack: Stack) -> None:
        self._state, self._wnv, self._stack = state, wnv, stack
        self.notes: list[Note] = []

    def see(self, stage: Stage, way: str, step: Callable[[Packet], Verdict], packet: Packet) -> Verdict:
        """Let the stage decide. Raises MalformedFrame as it does."""
        if stage.name in _EXTENSIONS:
            self._skip(stage.name, way)
            return None
        try:
            verdict = step(packet)
        except MalformedFrame as error:
            self.notes.append(note(stage.name, way, "drop", Drop.MALFORMED, {"malformed": str(error)}))
            raise
        if (stage.name, way) == (NIC, "out"):
            return verdict  # what it does is known when the frame leaves
        said, reason = _said(verdict)
        if (stage.name, way) == (PORT, "in") and verdict is None:
            said = "deliver" if packet.ports else "pass"
        self.notes.append(note(stage.name, way, said, reason, self._details(stage, way, packet, verdict)))
        return verdict

    def _skip(self, name: str, way: str) -> None:
        if extensions := [each.name for each in self._stack.extensions]:
            reason = "; ".join(f"extension {each}: not asked in a dry run" for each in extensions)
            self.notes.append(note(name, way, "pass", reason, {"not_asked": extensions}))

    def _details(self, stage: Stage, way: str, packet: Packet, verdict: Verdict) -> Note:
        ports = [port.name for port in packet.ports]
        if stage.name == PORT:
            return {"ports": ports} if way == "in" else {"port": packet.source.name, "vsid": packet.vsid}
        if stage.name == SWITCHING:
            return {"ports": ports, "to_uplink": packet.to_wire}
        if stage.name == WNV:
            tables = self._wnv.tables
            if way == "out":
                details = explain.outbound(self._state, tables, packet, verdict)
            else:
                details = explain.inbound(tables, packet)
            return {**details, **({"ports": ports} if ports else {})}
        if isinstance(stage, TeamStage):
            return stage.describe(packet) if way == "out" and packet.egress is not None else {}
        return {"nic": packet.source.name, "destination_mac": format_mac(packet.frame[:6])}


def note(stage: str, way: str, verdict: str, reason: str = "", details: Note | None = None) -> Note:
    """What a stage says."""
    return {"stage": stage, "way": way, "verdict": verdict, "reason": str(reason), "details": details or {}}


def _said(verdict: Verdict) -> tuple[str, str]:
    if verdict is None:
        return "pass", ""
    if isinstance(verdict, Reply):
        return "reply", "answered by the switch"
    if isinstance(verdict, Hold):
        return "hold", f"waits until {_text(verdict.next_hop)} is resolved"
    return "drop", verdict.reason if isinstance(verdict, Denied) else verdict


def _at_the_end(dry: DryRun, *, inbound: bool) -> list[Note]:
    """What is known only when the packet leaves: NICs, and what is lost there."""
    notes = [_leaving(uplink, sent) for uplink in dry.uplinks.values() if (sent := uplink.sent())]
    known = Counter(dry.packet.lost if dry.packet else ())
    for (stage, name, vsid, reason), count in dry.drops.items():
        if count > known[stage, reason]:
            details: Note = {"object": name, "vsid": vsid}
            if reason in (Drop.OVERSIZE, Drop.TX_OVERSIZE):
                details |= _sizes(dry)
            way = "in" if inbound or (stage == PORT and dry.packet) else "out"
            notes.append(note(stage, way, "drop", reason, details))
        known[stage, reason] -= count
    return notes


def _sizes(dry: DryRun) -> Note:
    """Of what is too long: how long it is, and what the cable takes."""
    packet = dry.packet
    assert packet is not None
    overheads = [
        nvgre.OVERHEAD_IPV4 if len(each.source_pa) == 4 else nvgre.OVERHEAD_IPV6 for each in packet.tunnels
    ]
    told = any(port.told for port in dry.ports.values())
    return {
        "length": len(packet.frame) - HEADER + max(overheads, default=0),
        "mtu": min(uplink.mtu for uplink in dry.uplinks.values()),
        "sender_is_told": told,
    }


def _leaving(uplink: SilentUplink, sent: list[Sent]) -> Note:
    longest = max(len(each.frame) for each in sent) - HEADER
    details: Note = {"nic": uplink.name, "frames": len(sent), "ip_length": longest, "mtu": uplink.mtu}
    if uplink.tx_software_segments:
        details["segmentation"] = f"by the switch, into {uplink.tx_software_segments} frames"
    elif uplink.tx_lso_packets:
        details["segmentation"] = f"by the NIC, into {uplink.tx_lso_segments} frames"
    return note(NIC, "out", "pass", "", details)


def _copies(dry: DryRun) -> list[Note]:
    copies: list[Note] = []
    for port in dry.ports.values():
        if (delivered := port.delivered()) is not None:
            queue, sent = delivered
            copies.append({"to": "port", "port": port.name, "queue": queue, "frame": sent.frame})
        copies += [{"to": "sender", "what": "too-big", "frame": frame} for frame in port.told]
    copies += [{"to": "sender", "what": "answer", "frame": frame} for frame in dry.replies]
    for uplink in dry.uplinks.values():
        copies += [_on_the_wire(uplink, sent) for sent in uplink.sent()]
    copies += [{"to": "waiting", "next_hop": _text(each)} for each in dry.waiting]
    for (stage, _, _, reason), count in dry.drops.items():
        copies += [{"to": "nobody", "stage": stage, "reason": str(reason)}] * count
    return copies


def _on_the_wire(uplink: SilentUplink, sent: Sent) -> Note:
    outer: Note | None = None
    if nvgre.carries_gre(sent.frame):
        with contextlib.suppress(MalformedFrame):
            outer = outer_header(sent.frame)
    return {"to": "wire", "nic": uplink.name, "vnet": sent.vnet, "frame": sent.frame, "outer": outer}


def outer_header(frame: bytes) -> Note:
    """The outer header of an NVGRE frame as plain data. Raises MalformedFrame."""
    outer = nvgre.parse(frame)
    return {
        "destination_mac": format_mac(outer.destination_mac),
        "source_mac": format_mac(outer.source_mac),
        "source_pa": _text(outer.source_pa),
        "destination_pa": _text(outer.destination_pa),
        "vsid": outer.vsid,
        "flow_id": outer.flow_id,
        "length": outer.length,
    }


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
