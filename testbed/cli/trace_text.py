"""A trace in words: a line for each stage, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Details = dict[str, Any]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """All of a trace."""
    yield f"{len(found['frame']) // 2} bytes from {found['from']}"
    if found["remark"]:
        yield f"  {found['remark']}"
    for hop in found["hops"]:
        yield f"{hop['host']}, {hop['direction']}, {hop.get('port') or hop.get('nic')}"
        for stage in hop["stages"]:
            yield f"  {stage_line(stage)}"
        for copy in hop["copies"]:
            yield f"  -> {copy_line(copy)}"
    yield found["outcome"]


def stage_line(stage: dict[str, Any]) -> str:
    """A stage: what it says, why, and what it had before it."""
    said = stage["verdict"] + (f", {stage['reason']}" if stage["reason"] else "")
    tell = _TELL.get(stage["stage"], _plain)
    details = "; ".join(each for each in tell(stage["details"]) if each)
    return f"{stage['stage']} ({stage['way']}): {said}" + (f": {details}" if details else "")


def copy_line(copy: dict[str, Any]) -> str:
    """A copy: where it goes."""
    match copy["to"]:
        case "port":
            queue = "" if copy["queue"] is None else f", queue {copy['queue']}"
            return f"to port {copy['port']}{queue}"
        case "wire":
            return f"to the wire by {copy['nic']}, {len(copy['frame']) // 2} bytes{_outer(copy['outer'])}"
        case "sender":
            return f"to the sender: {_SENDER[copy['what']]}"
        case "waiting":
            return f"waits: {copy['next_hop']} is to be resolved first"
    return f"dropped at {copy['stage']}: {copy['reason']}"


_SENDER = {"answer": "the switch's answer", "too-big": "ICMP, the packet is too big"}


def _outer(outer: Details | None) -> str:
    if not outer:
        return ""
    macs = f"{outer['source_mac']} > {outer['destination_mac']}"
    pas = f"{outer['source_pa']} > {outer['destination_pa']}"
    return f": {macs}, {pas}, VSID {outer['vsid']}, FlowID {outer['flow_id']}"


def _port(details: Details) -> Iterator[str]:
    if "port" in details:
        yield f"from {details['port']}, VSID {details['vsid']}"
    elif "ports" in details:
        yield f"to {', '.join(details['ports']) or 'no port'}"
    else:
        yield from _lost(details)


def _wnv(details: Details) -> Iterator[str]:
    if "object" in details or "counted_meanwhile" in details:
        yield from _lost(details)
        return
    yield details.get("switched", "")
    yield from _found(details)
    yield f"flooded: {details['flooded']}" if "flooded" in details else ""
    yield from map(_tunnel, details.get("tunnels", ()))
    yield from map(_unresolved, details.get("would_wait_for", ()))
    if turned := details.get("translation"):
        yield f"not encapsulated: {turned['source']} > {turned['destination']}"
    yield _hop(details) if "next_hop" in details else ""
    for name, value in details.get("rewrite", {}).items():
        yield f"{name.replace('_', ' ').replace('mac', 'MAC')} becomes {value}"
    if "provider_address" in details:
        yield from _decapsulation(details)
    yield details.get("malformed", "")
    yield f"found {', '.join(details['ports'])}" if details.get("ports") else ""


def _found(details: Details) -> Iterator[str]:
    """What the filter has looked up."""
    if "asks_for" in details:
        yield f"{details['protocol']} about {details['asks_for']}"
    if "destination" in details:
        yield f"to {details['destination']}"
    if route := details.get("route"):
        hop = "on-link" if route["next_hop"] == "on-link" else f"by {route['next_hop']}"
        yield f"route {route['prefix']} {hop}, metric {route['metric']}, of VSID {route['vsid']}"
    if record := details.get("record"):
        yield _record(record)
    if "answered_with" in details:
        yield f"answered for {details['answered_for']} with {details['answered_with']}"


def _record(record: Details) -> str:
    who = f" ({record['vm_name']})" if record.get("vm_name") else ""
    kind = "the default gateway" if record["gateway"] else record.get("type", "")
    rule = record["rule"].removeprefix("TranslationMethod")
    where = f"{record['mac_address']} at {record['provider_address']}, VSID {record['virtual_subnet_id']}"
    found = f", found by {record['found_by']}" if "found_by" in record else ""
    return f"record {record['customer_address']}{who}: {where}, {rule}, {kind}{found}".rstrip(", ")


def _tunnel(tunnel: Details) -> str:
    pas = f"{tunnel['source_pa']} > {tunnel['destination_pa']}"
    return f"NVGRE {pas}, VSID {tunnel['vsid']}, FlowID {tunnel['flow_id']}, {_hop(tunnel)}"


def _hop(details: Details) -> str:
    return f"PA route {details['provider_route']}, next hop {details['next_hop']} ({details['next_hop_mac']})"


def _unresolved(details: Details) -> str:
    source = f"from {details['source_pa']}, " if "source_pa" in details else ""
    return f"{source}{_hop(details)}: would wait"


def _decapsulation(details: Details) -> Iterator[str]:
    whose = (
        "of this host" if details["is_local"] else "a group" if details["is_group"] else "not of this host"
    )
    known = "known" if details["sender_is_known"] else "unknown to the policy"
    yield f"PA {details['provider_address']} is {whose}; VSID {details['vsid']}"
    yield f"sender {details['sender']} is {known}; inner destination MAC {details['inner_destination_mac']}"


def _team(details: Details) -> Iterator[str]:
    if "algorithm" not in details:
        yield from _lost(details)
        return
    flow = "".join(f", {each} {details[each]}" for each in ("hash", "bucket") if each in details)
    yield f"{details['mode']}, {details['algorithm']}{flow}"
    if details["member"] is None:
        yield "no member works"
        return
    yield f"by {details['member']}, {details['why']}"
    spoken = details.get("home_spoken_for_by")
    yield f"home {details['home']}" + (f", for which {spoken} speaks" if spoken else "")
    yield f"source MAC {details['source_mac']}, of {details['mac_of']}"


def _nic(details: Details) -> Iterator[str]:
    if "frames" in details:
        length = f"IP length {details['ip_length']} of {details['mtu']}"
        yield f"{details['nic']}, {details['frames']} frame(s), {length}"
        yield details.get("segmentation", "")
    elif "nic" in details:
        queue = f", queue {details['queue']}" if "queue" in details else ""
        yield f"{details['nic']}{queue}" + (f" by {details['by']}" if "by" in details else "")
        yield f"hash {details['hash']}" if details.get("hash") else ""
        yield _outer(details.get("outer")).removeprefix(": ")
        yield details.get("malformed", "")
    else:
        yield from _lost(details)


def _lost(details: Details) -> Iterator[str]:
    if "counted_meanwhile" in details:
        yield f"{details['counted_meanwhile']} counted meanwhile"
    if "length" in details:
        yield f"IP length {details['length']}, the cable takes {details['mtu']}"
        yield "the sender is told" if details["sender_is_told"] else "nobody is told"
    yield details.get("malformed", "")


def _plain(details: Details) -> Iterator[str]:
    for name, value in details.items():
        if name != "not_asked":  # the reason says it
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{name.replace('_', ' ')} {text or 'none'}"


_TELL = {"port": _port, "wnv": _wnv, "team": _team, "nic": _nic}
