"""What the switches of a running lab would do with a packet: from its port, across the fabric, to its end.

Each host tells it for itself (its op ``trace``, which changes nothing). What would leave one is followed to
the hosts to which the fabric would bring it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.channel import Message
from testbed.errors import BadInput, LabError
from testbed.lab import trace_frames
from testbed.lab.lab import Lab
from testbed.lab.trace_frames import Ends, Kind
from testbed.lab.vms import known_vm
from testbed.packets.ethernet import HEADER, format_mac, parse_mac
from testbed.switch.roles import Roles
from testbed.topology.plan import VmPlan, VnicPlan

Hop = dict[str, Any]
_QUIET = ("not-for-us", "other-member", "own-packet")  # where a frame comes to that is not for there


class Start(NamedTuple):
    """The adapter that a packet is from."""

    vm: VmPlan
    vnic: VnicPlan


class Asked(NamedTuple):
    """A frame with its virtio_net_hdr, and what had to be said about how it was made."""

    frame: bytes
    vnet: bytes = bytes(10)
    remark: str = ""


def trace(lab: Lab, start: Start, asked: Asked) -> dict[str, Any]:
    """{"from", "frame", "remark", "hops", "outcome", "arrives"} of a packet. Raises BadInput, LabError."""
    host = start.vm.host
    first, awaited = _first(lab, start, asked)
    hops = [_hop(host, "outbound", first, port=start.vnic.port)]
    seen: set[tuple[str, bytes, str]] = set()
    for copy in first["copies"]:
        if copy["to"] != "wire":
            continue
        for there in _receivers(lab, host, copy["frame"]):
            key = there, copy["frame"][:12], copy["outer"]["destination_pa"] if copy["outer"] else ""
            if key in seen:  # another segment of the same packet
                continue
            seen.add(key)
            hops += _arrival(lab, there, copy)
    return result(lab, start, asked, hops, awaited)


def result(lab: Lab, start: Start, asked: Asked, hops: list[Hop], awaited: list[str]) -> dict[str, Any]:
    """What a trace tells of these hops. ``awaited``: the PA next hops that had to be resolved."""
    outcome, arrives = _outcome(lab, hops)
    if arrives and awaited:
        outcome += f", once {', '.join(awaited)} is resolved"
    return {
        "from": start.vnic.port,
        "frame": asked.frame.hex(),
        "remark": asked.remark,
        "hops": [_in_hex(hop) for hop in hops],
        "outcome": outcome,
        "arrives": arrives,
    }


def _first(lab: Lab, start: Start, asked: Asked) -> tuple[Message, list[str]]:
    """What the sender's host says, and for which PA next hops that some host has the packet waits first."""

    def ask(**more: Any) -> Message:
        fields = {"port": start.vnic.port, "frame": asked.frame, "vnet": asked.vnet, **more}
        found: Message = lab.ask(start.vm.host, "trace", **fields)["trace"]
        return found

    first = ask()
    waiting = {copy["next_hop"] for copy in first["copies"] if copy["to"] == "waiting"}
    known = _resolved(lab, waiting) if waiting else {}
    if not known:
        return first, []
    awaited, assumed = sorted(known), [(_packed(pa), mac) for pa, mac in known.items()]
    first = ask(assumed=assumed)
    for stage in first["stages"]:
        if stage["stage"] == "wnv" and stage["verdict"] == "pass":
            stage["reason"] = f"once {', '.join(awaited)} is resolved"
    return first, awaited


def _resolved(lab: Lab, wanted: set[str]) -> dict[str, bytes]:
    """The MACs that ARP and ND would find for PAs: those of their homes, on the hosts that have them."""
    found: dict[str, bytes] = {}
    for host in lab.plan.hosts:
        with contextlib.suppress(LabError):  # a host that is down answers nobody
            addresses = lab.ask(host.name, "status")["provider_addresses"]
            macs = {nic.name: parse_mac(nic.mac) for nic in host.nics}
            roles = Roles(host.team, macs, macs)
            for address in addresses:
                if address["address"] in wanted and address["state"] == "Preferred":
                    found[address["address"]] = roles.home_mac(_packed(address["address"]))
    return found


def _arrival(lab: Lab, host: str, copy: dict[str, Any]) -> list[Hop]:
    """What becomes of a frame at another host; nothing where the fabric does not bring it."""
    try:
        found = lab.ask(host, "trace", frame=copy["frame"], vnet=copy["vnet"])["trace"]
    except LabError as error:
        lost = {"to": "nobody", "stage": "nic", "reason": "host-down"}
        stage = {
            "stage": "nic",
            "way": "in",
            "verdict": "drop",
            "reason": "host-down",
            "details": {"error": str(error)},
        }
        return [_hop(host, "inbound", {"stages": [stage], "copies": [lost]}, nic="")]
    return [_hop(host, "inbound", found, nic=found["nic"])] if found["hears"] else []


def _hop(host: str, direction: str, found: Message, **at: str) -> Hop:
    stages, copies = found["stages"], found["copies"]
    return {"host": host, "direction": direction, **at, "stages": stages, "copies": copies}


def _in_hex(hop: Hop) -> Hop:
    """With bytes as text, for JSON."""
    copies = [
        {name: value.hex() if isinstance(value, bytes) else value for name, value in copy.items()}
        for copy in hop["copies"]
    ]
    return {**hop, "copies": copies}


# ---- the fabric -----------------------------------------------------------------------------


def _receivers(lab: Lab, host: str, frame: bytes) -> list[str]:
    """The other hosts to which the fabric's switches bring a frame: one if they know its MAC, else all."""
    destination = format_mac(frame[:6])
    others = [each.name for each in lab.plan.hosts if each.name != host]
    if frame[0] & 1:
        return others
    for each in lab.plan.hosts:
        if any(nic.mac == destination for nic in each.nics):
            return [each.name]
    for vm in lab.plan.vms:
        if any(vnic.mac == destination and vnic.vsid == 0 for vnic in vm.vnics):
            return [vm.host]
    return others


# ---- the end --------------------------------------------------------------------------------


def _outcome(lab: Lab, hops: list[Hop]) -> tuple[str, bool]:
    """What became of the packet in a few words, and whether anybody gets it or an answer comes."""
    vms = {vnic.port: vm.name for vm in lab.plan.vms for vnic in vm.vnics}
    delivered = [
        f"{vms.get(copy['port'], '?')} ({copy['port']}) on {hop['host']}"
        for hop, copy in _copies(hops)
        if copy["to"] == "port"
    ]
    if delivered:
        return f"delivered to {', '.join(delivered)}", True
    for hop in hops:
        for stage in hop["stages"]:
            if stage["verdict"] == "reply":
                details = stage["details"]
                mac = details.get("answered_with", "")
                return (
                    f"answered by the switch of {hop['host']} for {details.get('asks_for')} with {mac}",
                    True,
                )
    for hop, copy in _copies(hops):
        if copy["to"] == "waiting":
            return f"waits on {hop['host']} until {copy['next_hop']} is resolved", False
    lost = [(hop, copy) for hop, copy in _copies(hops) if copy["to"] == "nobody"]
    for hop, copy in sorted(lost, key=lambda each: each[1]["reason"] in _QUIET):
        told = any(each["to"] == "sender" for each in hop["copies"])
        more = ", and the sender is told" if told else ""
        return f"dropped: {copy['reason']} at {copy['stage']} on {hop['host']}{more}", False
    if any(copy["to"] == "wire" for _, copy in _copies(hops)):
        return "lost in the fabric: no host of the lab has its destination", False
    return "dropped", False


def _copies(hops: list[Hop]) -> Iterator[tuple[Hop, dict[str, Any]]]:
    return ((hop, copy) for hop in hops for copy in hop["copies"])


# ---- the packet -----------------------------------------------------------------------------


def started_at(lab: Lab, name: str, option: str = "--from") -> Start:
    """The adapter "VM" or "VM:ethN", the first one where none is named. Raises BadInput."""
    vm_name, _, interface = name.partition(":")
    vm = known_vm(lab, vm_name)
    for vnic in vm.vnics:
        if interface in ("", vnic.interface):
            return Start(vm, vnic)
    known = ", ".join(f"{vm_name}:{each.interface}" for each in vm.vnics) or "none"
    raise BadInput(f"{option} {name}: there is no such adapter: one of {known}")


def of_frame(text: str) -> Asked:
    """A frame in hexadecimal digits."""
    return Asked(trace_frames.of_hex(text))


def of_dhcp(start: Start) -> Asked:
    """The first packet of a DHCP client."""
    return Asked(trace_frames.discover(parse_mac(start.vnic.mac)))


def of_question(lab: Lab, start: Start, address: str) -> Asked:
    """ARP or Neighbor Discovery for an address."""
    wanted = _address(address, "--arp")
    source = _address_for(lab, start, address, _own_addresses(lab, start))
    return Asked(trace_frames.question(Ends(parse_mac(start.vnic.mac), b"", source, wanted)))


def of_packet(lab: Lab, start: Start, address: str, kind: Kind, *, any_adapter: bool) -> tuple[Start, Asked]:
    """A packet to an address as the guest would send it, from the adapter by which it would.

    ``any_adapter``: the guest chooses it; else it is that of ``start``.
    """
    wanted = _address(address, "--to")
    own = parse_mac(start.vnic.mac)
    if _is_group(wanted):
        source = _address_for(lab, start, address, _own_addresses(lab, start))
        return start, _asked(start, Ends(own, _group_mac(wanted), source, wanted), kind)
    interface, gateway, chosen = _route(lab, start, address, any_adapter=any_adapter)
    start = started_at(lab, f"{start.vm.name}:{interface}")
    own = parse_mac(start.vnic.mac)
    source = _packed(chosen) if chosen else _address_for(lab, start, address, _own_addresses(lab, start))
    asks_for = gateway or address
    mac = _neighbor(lab, start, asks_for)
    if mac is not None:
        return start, _asked(start, Ends(own, mac, source, wanted), kind)
    remark = f"nobody is known to have {asks_for}: the guest would ask for it first, and this is its question"
    return start, Asked(trace_frames.question(Ends(own, b"", source, _packed(asks_for))), remark=remark)


def _asked(start: Start, ends: Ends, kind: Kind) -> Asked:
    frame = trace_frames.packet(ends, kind)
    vnic = start.vnic
    if kind.protocol == "tcp" and vnic.offloads.in_use.lso:
        return Asked(frame, trace_frames.super_packet(frame, vnic.mtu))
    too_long = len(frame) - HEADER > vnic.mtu
    return Asked(frame, remark=f"longer than the adapter's MTU, {vnic.mtu} bytes" if too_long else "")


def _route(lab: Lab, start: Start, address: str, *, any_adapter: bool) -> tuple[str, str, str]:
    """Interface, gateway and source by the guest's own table."""
    from testbed.wiring import guest

    try:
        interface = "" if any_adapter else start.vnic.interface
        return guest.route(lab.netns(start.vm.name), address, interface)
    except LabError as error:
        remedy = "choose another destination, or give the whole packet with --frame"
        raise BadInput(f"--to {address}: {start.vm.name}: {error}: {remedy}") from None


def _neighbor(lab: Lab, start: Start, address: str) -> bytes | None:
    """The MAC that ARP or ND would find: the record's, or that of the only VM that has the address."""
    ports = lab.ask(start.vm.host, "status")["ports"]
    vsid = next((each["vsid"] for each in ports if each["name"] == start.vnic.port), start.vnic.vsid)
    wanted = str(ipaddress.ip_address(address))
    for record in lab.ask(start.vm.host, "policy", verb="list", object="lookup-records")["objects"]:
        if (record["virtual_subnet_id"], record["customer_address"]) == (vsid, wanted):
            return parse_mac(record["mac_address"])
    if vsid == 0:
        for vm in lab.plan.vms:
            for vnic in vm.vnics:
                if vnic.vsid == 0 and wanted in {each.partition("/")[0] for each in vnic.addresses}:
                    return parse_mac(vnic.mac)
    return None


def _own_addresses(lab: Lab, start: Start) -> list[str]:
    """What the adapter has, by the guest or, where that is down, by the plan."""
    from testbed.wiring import guest

    try:
        entries = guest.addresses(lab.netns(start.vm.name)).get(start.vnic.interface, [])
        return [entry["address"] for entry in entries]
    except LabError:
        return list(start.vnic.addresses)


def _address_for(lab: Lab, start: Start, address: str, own: list[str]) -> bytes:
    """The source that fits a destination: of its family and, if there is one, of its subnet."""
    wanted = ipaddress.ip_address(address)
    found = [each for each in map(ipaddress.ip_interface, own) if each.version == wanted.version]
    found.sort(key=lambda each: (wanted not in each.network, each.is_link_local))
    if not found:
        remedy = f"give it one with `testbed vm {lab.record.name} set-address`, or use --frame"
        raise BadInput(f"{start.vnic.port} has no IPv{wanted.version} address: {remedy}")
    return found[0].ip.packed


def _address(text: str, option: str) -> bytes:
    try:
        return _packed(text)
    except ValueError:
        raise BadInput(f"{option} {text!r} is no IP address: write it like 10.0.0.5 or fd00::5") from None


def _packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _is_group(address: bytes) -> bool:
    return ipaddress.ip_address(address).is_multicast or address == b"\xff" * 4


def _group_mac(address: bytes) -> bytes:
    from testbed.packets.datagram import multicast_mac

    return b"\xff" * 6 if address == b"\xff" * 4 else multicast_mac(address)
