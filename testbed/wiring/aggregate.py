"""Aggregates of links at a switch, without a bonding driver.

::

    bridge -- AGG ==== ears        a veth pair; the programs of bpf/aggregate.c are on both ends
               |        |
      aggregate_tx, rx  LACPDUs of the members, with marks
               |
          member ports             not in the bridge; each is the switch's end of a host's cable

Ears only keeps up the carrier of AGG and lets LACPDUs be heard behind the faults of the cables.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from testbed.linkwatch import open_link_watch
from testbed.namespaces import in_netns
from testbed.nic.aggregate import MEMBERS, SLOW_MARK, Aggregate
from testbed.nic.features import CABLE_FABRIC, set_features
from testbed.socketfilter import ANCILLARY, JUMP_EQUAL, LD_WORD, RETURN, attach
from testbed.wiring import sysctl
from testbed.wiring.fabric import index_of
from testbed.wiring.hardware import attach_aggregate, detach_aggregate

_ETH_P_ALL = 3
_MARK = ANCILLARY + 20  # SKF_AD_MARK (linux/filter.h)
_LONGEST = 1 << 16


class AggregateParts(NamedTuple):
    """What whoever drives an aggregate needs.

    descriptors: of the programs' memory, of a link watch in the fabric namespace, and of a packet socket
    for each member in the order of ``members``; they are the caller's. A socket hears what slow protocols
    say on its member, and sends on any interface that is named as the destination. The rest are indexes
    of interfaces, as :class:`testbed.nic.aggregate.Aggregate` takes them.
    """

    descriptors: list[int]
    device: int
    ears: int
    members: list[int]


def add_aggregate(
    fabric_netns: int, switch_interface: str, name: str, ports: Sequence[str], mtu: int
) -> AggregateParts:
    """Make ports of a switch an aggregate, the bridge's port ``name`` (at most 15 characters).

    No member is active. Raises LookupError if one of the interfaces is not there, ValueError for more
    than 8 ports; the ports are in the bridge then, as before.
    """
    if len(ports) > MEMBERS:
        raise ValueError(f"{name}: {len(ports)} ports are more than the {MEMBERS} of an aggregate")
    with in_netns(fabric_netns), IPRoute() as ip, contextlib.ExitStack() as on_error:
        sysctl.write(sysctl.SILENT)
        bridge = index_of(ip, switch_interface)
        members = [index_of(ip, port) for port in ports]
        device, ears = _add_device(ip, name, mtu)
        on_error.callback(ip.link, "del", index=device)
        for member in members:
            ip.link("set", index=member, master=0)
            on_error.callback(_give_back, ip, bridge, member)
        descriptors: list[int] = []
        on_error.callback(_close, descriptors)
        descriptors.append(attach_aggregate(ip, device, ears, members))
        Aggregate(descriptors[0], device, ears, members).close()  # frames are their members' from now on
        descriptors.append(open_link_watch().detach())
        descriptors += [_open_ear(ears, position) for position in range(len(members))]
        ip.link("set", index=device, master=bridge, state="up")
        on_error.pop_all()
    return AggregateParts(descriptors, device, ears, members)


def remove_aggregate(fabric_netns: int, switch_interface: str, name: str, ports: Sequence[str]) -> None:
    """Make the members ports of the switch again; what is gone already is no error."""
    with in_netns(fabric_netns), IPRoute() as ip:
        for index in ip.link_lookup(ifname=name):
            ip.link("del", index=index)
        bridges = ip.link_lookup(ifname=switch_interface)
        for port in ports:
            for index in ip.link_lookup(ifname=port):
                if bridges:
                    _give_back(ip, bridges[0], index)


def _add_device(ip: Any, name: str, mtu: int) -> tuple[int, int]:
    """The veth pair; its other end gets a free name, for a name made of ``name`` may be too long."""
    ip.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": "ears%d", "mtu": mtu})
    device = index_of(ip, name)
    try:
        # not a cable: the members decide what is cut
        set_features(name, CABLE_FABRIC["aggregated"])
        (link,) = ip.get_links(device)
        ears = int(link.get("link"))
        ip.tc("add", "blackhole", ears)
        ip.link("set", index=ears, state="up")
    except BaseException:
        ip.link("del", index=device)
        raise
    return device, ears


def _give_back(ip: Any, bridge: int, member: int) -> None:
    detach_aggregate(ip, member)
    ip.link("set", index=member, master=bridge)


def _open_ear(ears: int, position: int) -> int:
    """A packet socket that hears a member's slow protocols."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        program = (
            (LD_WORD, 0, 0, _MARK),
            (JUMP_EQUAL, 0, 1, SLOW_MARK + position),
            (RETURN, 0, 0, _LONGEST),
            (RETURN, 0, 0, 0),
        )
        attach(sock, program)
        sock.bind((socket.if_indextoname(ears), _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
