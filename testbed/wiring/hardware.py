"""The hardware of emulated NICs: eBPF programs at both ends of a cable."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from testbed.nic.bpf import loader
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST
from testbed.nic.offloads import Offloads
from testbed.topology.schema import Wire

# tc handles of the two hooks of clsact (linux/pkt_sched.h)
_CLSACT_INGRESS = 0xFFFFFFF2
_CLSACT_EGRESS = 0xFFFFFFF3
_ROOT = 0xFFFFFFFF
_MEMBER = 30  # priority of what takes frames from a port: behind faults and echo
_BURST, _QUEUE = 70_000, 150_000  # bytes: a super-packet has to fit


def attach_hardware(ip: Any, index: int, transmit: int, receive: int) -> None:
    """Attach a NIC's programs, nic_tx and nic_rx by their descriptors, to the interface ``index``."""
    ip.tc("add", "clsact", index)
    _attach(ip, index, _CLSACT_EGRESS, transmit, "nic_tx")
    _attach(ip, index, _CLSACT_INGRESS, receive, "nic_rx")


def attach_queue(ip: Any, index: int, queue: int) -> None:
    """Attach cable_queue to the switch's end of a cable: before all that may come later."""
    _add_clsact(ip, index)
    _attach(ip, index, _CLSACT_EGRESS, queue, "cable_queue", 5)


def attach_classifier(ip: Any, index: int) -> int:
    """Attach a NIC's receive side to the switch's end of its cable; the descriptor of its registers.

    The NIC has queue 0 until they are written.
    """
    return _with_memory(ip, ("cable", "registers"), ((index, "cable_rx", _CLSACT_EGRESS, 20),))


def attach_faults(ip: Any, index: int, wires: Sequence[int]) -> int:
    """Attach the faults of a cable to its switch's end; the descriptor of their memory.

    wires: the devices, to the host and from it, through which frames go that are held back.
    """
    programs = (
        (index, "to_host", _CLSACT_EGRESS, 10),
        (index, "from_host", _CLSACT_INGRESS, 10),
        (wires[0], "held_to_host", _CLSACT_INGRESS, 10),
        (wires[1], "held_from_host", _CLSACT_INGRESS, 10),
    )
    return _with_memory(ip, ("faults", "faults"), programs)


def attach_echo(ip: Any, index: int) -> None:
    """Have a switch's port give loopback messages back; the other end of its cable must not do the same."""
    (program,) = loader.load("echo", "echo")
    try:
        _add_clsact(ip, index)
        _attach(ip, index, _CLSACT_INGRESS, program, "echo", 20)
    finally:
        os.close(program)


def attach_aggregate(ip: Any, device: int, ears: int, members: Sequence[int]) -> int:
    """Make interfaces the members of an aggregate; the descriptor of its memory, in which none is active.

    device: index of the bridge's port; ears: of its other end.
    """
    programs = (
        (device, "aggregate_tx", _CLSACT_EGRESS, 30),
        (ears, "aggregate_ears", _CLSACT_INGRESS, 30),
        *((member, "aggregate_rx", _CLSACT_INGRESS, _MEMBER) for member in members),
    )
    return _with_memory(ip, ("aggregate", "aggregate"), programs)


def detach_aggregate(ip: Any, member: int) -> None:
    """Make a member a port like any other; it may be one already."""
    try:
        ip.tc("del-filter", "bpf", member, parent=_CLSACT_INGRESS, prio=_MEMBER)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL):  # no such filter; no programs at all
            raise


def _with_memory(ip: Any, source: tuple[str, str], programs: Sequence[tuple[int, str, int, int]]) -> int:
    """Attach programs (interface, name, hook, priority: the lowest comes first); their map's descriptor."""
    memory, loaded = loader.load_with_map(*source, *(name for _, name, _, _ in programs))
    try:
        for (index, name, hook, priority), program in zip(programs, loaded, strict=True):
            _add_clsact(ip, index)
            _attach(ip, index, hook, program, name, priority)
    except BaseException:
        os.close(memory)
        raise
    finally:
        for program in loaded:
            os.close(program)
    return memory


def _add_clsact(ip: Any, index: int) -> None:
    try:
        ip.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code != errno.EEXIST:  # other programs have it already
            raise


def set_rate(ip: Any, index: int, bits_per_second: int) -> None:
    """Shape what an interface sends; 0: not any more."""
    if not bits_per_second:
        try:
            ip.tc("del", index=index, parent=_ROOT)
        except NetlinkError as error:
            if error.code != errno.ENOENT:  # there is none
                raise
        return
    burst = max(_BURST, bits_per_second // 8 // 250)  # bytes of 4 ms
    limit = burst + max(_QUEUE, bits_per_second // 8 // 20)  # 50 ms
    ip.tc("replace", "tbf", index, rate=bits_per_second // 8, burst=burst, limit=limit)


def host_features(wire: Wire) -> dict[str, bool]:
    """Kernel features of the NIC's end of its cable; what a NIC can do is the switch's business."""
    return dict(CABLE_HOST[wire])


def fabric_features(wire: Wire, offloads: Offloads) -> dict[str, bool]:
    """... of the switch's end: what a NIC may not take as one is cut before it."""
    joins = offloads.plain.rsc and offloads.nvgre.rsc
    return dict(CABLE_FABRIC[wire if joins else "frames"])


def _attach(ip: Any, index: int, parent: int, program: int, name: str, priority: int = 100) -> None:
    ip.tc(
        "add-filter",
        "bpf",
        index,
        ":1",
        fd=program,
        name=name,
        parent=parent,
        classid=1,
        direct_action=True,
        prio=priority,
    )
