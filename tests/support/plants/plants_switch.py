"""Faults on the wire, at boot and in the extensible switch."""

from __future__ import annotations

import itertools
from typing import Any

from planting import answering, around, plant

# ---- wire ---------------------------------------------------------------------------------


def patch_template(at: int, value: int) -> None:
    """A wrong byte in every NVGRE header, counted from the start of GRE."""
    from testbed.packets import nvgre

    def change(before: Any, *args: Any) -> bytearray:
        header = bytearray(before(*args))
        header[len(header) - 8 + at] = value
        return header

    around(nvgre, "template", change)


@plant(1)
def gre_version_1() -> None:
    patch_template(1, 1)


@plant(2)
def key_without_flow_id() -> None:
    from testbed.wnv import forwarding

    answering(forwarding, "flow_id_of", 0)


@plant(2)
def key_with_another_vsid() -> None:
    patch_template(6, 0)


@plant(3)
def flow_id_changes() -> None:
    from testbed.switch.datapath import Datapath
    from testbed.wnv import forwarding

    numbers = itertools.count()
    around(forwarding, "flow_id_of", lambda *_: next(numbers) & 0xFF)
    around(Datapath, "drain_port", _without_cache)


def _without_cache(before: Any, datapath: Any, port: Any, descriptor: int) -> None:
    datapath.state.forget_flows()
    before(datapath, port, descriptor)


@plant(3)
def flow_id_where_entropy_is_off() -> None:
    from testbed.wnv.forwarding import Forwarding

    def change(before: Any, forwarding: Any, state: Any, *, flow_entropy: bool) -> None:
        before(forwarding, state, flow_entropy=True)

    around(Forwarding, "__init__", change)


@plant(4)
def reserved_vsids_allowed() -> None:
    from testbed.wnv import objects

    objects.FIRST_VSID = 0


@plant(4)
def last_vsid_allowed_in_topologies() -> None:
    from testbed.topology import addresses

    addresses.LAST_VSID = 0xFFFFFF


@plant(5)
def tags_stay() -> None:
    from testbed.switch.buffer import FrameBuffer

    around(FrameBuffer, "untag", lambda before, buffer, end: end)


@plant(6)
def tags_accepted() -> None:
    from testbed.wnv import decapsulation

    decapsulation._CARRIED += decapsulation._TAGGED
    decapsulation._TAGGED = ()


@plant(7)
def fcs_sent() -> None:
    from testbed.switch.uplink import Uplink

    def change(before: Any, uplink: Any, *args: Any, **more: Any) -> None:
        before(uplink, *args, **more)
        send = uplink.send
        uplink.send = lambda data: send(bytes(data) + b"FCS!")

    around(Uplink, "__init__", change)


@plant(8)
def gateway_ignored() -> None:
    from testbed.wnv.tables import Tables

    around(Tables, "provider_next_hop", lambda before, tables, pa: pa)


@plant(9)
def fragments_accepted() -> None:
    from testbed.packets import nvgre

    def change(before: Any, frame: Any) -> Any:
        whole = bytearray(frame)
        whole[20:22] = b"\0\0"
        checksum = (whole[24] << 8 | whole[25]) + (frame[20] << 8 | frame[21])
        whole[24:26] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
        return before(whole)

    around(nvgre, "parse", change)


@plant(9)
def too_long_in_silence() -> None:
    from testbed.switch.actions import Oversize

    answering(Oversize, "__call__", None)


@plant(10)
def no_ipv6_inside() -> None:
    from testbed.wnv import decapsulation

    decapsulation._CARRIED = (0x0800, 0x0806)


# ---- MTU ----------------------------------------------------------------------------------


@plant(11)
def mtu_not_reduced() -> None:
    from testbed.topology import planner

    answering(planner, "vm_mtu", 1500)


@plant(12)
def mtu_of_legacy_reduced() -> None:
    from testbed.topology import planner

    around(planner, "vm_mtu", lambda before, *args, legacy: before(*args))


@plant(12)
def mtu_reduced_above_jumbo_frames() -> None:
    from testbed.topology import planner

    around(
        planner,
        "vm_mtu",
        lambda before, pa_mtu, *args, legacy: before(min(pa_mtu, 1500), *args, legacy=legacy),
    )


# ---- switch -------------------------------------------------------------------------------


@plant(13)
def extensions_miss_the_uplink() -> None:
    from testbed.switch.extensions.stage import UplinkExtensions

    answering(UplinkExtensions, "outbound", None)


@plant(13)
def extensions_see_customer_space_only() -> None:
    from testbed.switch.extensions.stage import UplinkExtensions

    def change(before: Any, stage: Any, stack: Any, state: Any, mode: str = "") -> None:
        before(stage, stack, state, "below-switch")

    around(UplinkExtensions, "__init__", change)


@plant(14)
def extensions_below_the_filter() -> None:
    from testbed.switch import pipeline

    order = list(pipeline.PIPELINES["below-switch"])
    order.remove(pipeline.UPLINK_EXTENSIONS)
    order.insert(order.index(pipeline.WNV) + 1, pipeline.UPLINK_EXTENSIONS)
    pipeline.PIPELINES["below-switch"] = tuple(order)


@plant(15)
def mark_missing() -> None:
    from testbed.switch.extensions.api import Frame

    def change(before: Any, frame: Any, *args: Any, **more: Any) -> None:
        before(frame, *args, **more)
        frame.native_forwarding = False

    around(Frame, "__init__", change)


@plant(15)
def drops_not_obeyed() -> None:
    from testbed.switch.extensions.stage import UplinkExtensions

    around(UplinkExtensions, "inbound", lambda before, stage, packet: before(stage, packet) and None)


@plant(16)
def vsid_of_the_vm() -> None:
    from testbed.lab.lab import Lab

    def change(before: Any, lab: Any, name: str) -> Any:
        channel = before(lab, name)
        if not hasattr(channel, "planted"):
            channel.planted = True
            call = channel.call
            channel.call = lambda op, *args, **fields: call(op, *args, **_first_vsid(op, fields))
        return channel

    around(Lab, "host", change)


def _first_vsid(op: str, fields: dict[str, Any]) -> dict[str, Any]:
    if op == "attach-port" and fields["port"]["name"].endswith(":eth1"):
        fields["port"]["vsid"] = 5001
    return fields


@plant(17)
def no_vsid_at_ingress() -> None:
    from testbed.switch.extensions import stage

    def change(before: Any, packet: Any, inner: Any, *, vsid: Any = None, destination: str = "") -> Any:
        return before(packet, inner, vsid=0, destination=destination)

    around(stage, "_frame", change)
