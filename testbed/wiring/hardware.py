"""The hardware of emulated NICs: eBPF programs at both ends of a cable."""

from __future__ import annotations

import os
from typing import Any

from testbed.nic.bpf import loader
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST
from testbed.nic.offloads import Offloads
from testbed.topology.schema import Wire

# tc handles of the two hooks of clsact (linux/pkt_sched.h)
_CLSACT_INGRESS = 0xFFFFFFF2
_CLSACT_EGRESS = 0xFFFFFFF3


def attach_hardware(ip: Any, index: int, transmit: int, receive: int) -> None:
    """Attach a NIC's programs, nic_tx and nic_rx by their descriptors, to the interface ``index``."""
    ip.tc("add", "clsact", index)
    _attach(ip, index, _CLSACT_EGRESS, transmit, "nic_tx")
    _attach(ip, index, _CLSACT_INGRESS, receive, "nic_rx")


def attach_classifier(ip: Any, index: int) -> int:
    """Attach a NIC's receive side to the switch's end of its cable; the descriptor of its registers.

    The NIC has queue 0 and joins nothing until they are written.
    """
    program, registers = loader.load_with_map("cable", "cable_rx", "registers")
    try:
        ip.tc("add", "clsact", index)
        _attach(ip, index, _CLSACT_EGRESS, program, "cable_rx")
    except BaseException:
        os.close(registers)
        raise
    finally:
        os.close(program)
    return registers


def host_features(wire: Wire) -> dict[str, bool]:
    """Kernel features of the NIC's end of its cable; what a NIC can do is the switch's business."""
    return dict(CABLE_HOST[wire])


def fabric_features(wire: Wire, offloads: Offloads) -> dict[str, bool]:
    """... of the switch's end: what a NIC may not take as one is cut before it."""
    joins = offloads.plain.rsc and offloads.nvgre.rsc
    return dict(CABLE_FABRIC[wire if joins else "frames"])


def _attach(ip: Any, index: int, parent: int, program: int, name: str) -> None:
    ip.tc(
        "add-filter", "bpf", index, ":1", fd=program, name=name, parent=parent, classid=1, direct_action=True
    )
