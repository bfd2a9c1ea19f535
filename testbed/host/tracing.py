"""The worker's answer to the order ``trace``: whose packet it is, and which queue of a NIC takes it."""

from __future__ import annotations

from typing import Any, Protocol

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.host.nics import Nics
from testbed.host.pipeline import Filter
from testbed.host.taps import Taps
from testbed.nic.classifier import steer
from testbed.packets import nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.datapath import Datapath
from testbed.switch.extensions.stack import Stack
from testbed.switch.state import SwitchState
from testbed.switch.trace import PLAIN, outer_header
from testbed.switch.trace import trace as trace_switch
from testbed.switch.uplink import Uplink
from testbed.wnv.tables import is_multicast


class Switch(Protocol):
    """What a trace looks at of the switch."""

    state: SwitchState
    datapath: Datapath
    taps: Taps
    wnv: Filter
    stack: Stack
    nics: Nics


def trace(switch: Switch, message: Message) -> Message:
    """A packet from ``port``, or, without one, from the wire. ``assumed``: PA next hops and their MACs.

    From the wire it is the NIC that takes it, and the answer's ``hears`` is false where the fabric would not
    bring it: the outer destination is a group of which the host is no member.
    """
    frame, vnet = message["frame"], message.get("vnet", PLAIN)
    name = message.get("port")
    if name is not None:
        port = switch.state.ports.get(name)
        if port is None:
            known = ", ".join(switch.state.ports) or "none"
            raise BadInput(f"there is no port {name!r} on this host: one of {known}")
        assumed = dict(message.get("assumed", ()))
        return trace_switch(
            switch.datapath, switch.taps.plain, switch.wnv, switch.stack, port, frame, vnet, assumed
        )
    uplink = _taker(switch, frame)
    found = trace_switch(switch.datapath, switch.taps.plain, switch.wnv, switch.stack, uplink, frame, vnet)
    first = found["stages"][0]
    first["details"] = {**_arrival(switch, uplink, frame), **first["details"]}
    return {**found, "nic": uplink.name, "hears": _hears(switch, frame)}


def _taker(switch: Switch, frame: bytes) -> Uplink:
    """The member that takes a frame, or else the one whose MAC it is for, or any."""
    roles, uplinks = switch.state.roles, switch.state.uplinks
    if not uplinks:
        raise BadInput("this host has no NIC: give it one in the topology file")
    destination = frame[:6]
    for name in uplinks:
        if roles.hears_groups(name) if destination[0] & 1 else roles.takes(name, destination):
            return uplinks[name]
    home = next((name for name, mac in roles.macs.items() if mac == destination), None)
    return uplinks.get(home or roles.speaker(destination) or "") or next(iter(uplinks.values()))


def _arrival(switch: Switch, uplink: Uplink, frame: bytes) -> dict[str, Any]:
    """The NIC, its queue and why, the outer header."""
    found: dict[str, Any] = {"nic": uplink.name, "queue": 0}
    steering = switch.nics.steering(uplink.name)
    if steering is not None:
        steered = steer(steering, frame)
        found["queue"] = steered.queue
        if len(uplink.queues) > 1:
            found["by"] = "RSS" if steering.rss else "VMQ" if steering.vmq else "nothing"
            found["hash"] = f"{steered.hash:#010x} ({steered.kind})" if steering.rss else ""
    if nvgre.carries_gre(frame):
        try:
            found["outer"] = outer_header(frame)
        except MalformedFrame as error:
            found["malformed"] = str(error)
    return found


def _hears(switch: Switch, frame: bytes) -> bool:
    """Whether the fabric, which snoops, brings a frame here."""
    try:
        destination = nvgre.parse(frame).destination_pa
    except MalformedFrame:
        return True
    if not is_multicast(destination):
        return True
    vsids = {port.vsid for port in switch.state.ports.values()}
    return destination in switch.wnv.tables.groups(vsids)
