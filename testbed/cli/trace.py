"""trace: what the switches of a running lab would do with a packet."""

from __future__ import annotations

import sys
from typing import Any

import click

from testbed.cli.output import format_option, print_json
from testbed.errors import BadInput

_PORT = click.IntRange(0, 65535)


@click.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="VM[:ethN]", help="Whose packet it is.")
@click.option("--to", metavar="IP", help="Send to this address; by default an ICMP echo request.")
@click.option("--protocol", type=click.Choice(["icmp", "tcp", "udp"]), help="With --to. Default: icmp.")
@click.option("--port", type=_PORT, help="With --to: destination port of TCP or UDP.")
@click.option("--source-port", type=_PORT, help="With --to: source port of TCP or UDP.")
@click.option("--size", type=int, help="With --to: bytes of the IP packet.")
@click.option("--frame", metavar="HEX", help="Send this Ethernet frame.")
@click.option("--dhcp", is_flag=True, help="Send a DHCPDISCOVER.")
@click.option("--arp", metavar="IP", help="Ask for this address, by ARP or Neighbor Discovery.")
@format_option
def trace(name: str, source: str, output: str, **packet: Any) -> None:
    """Say what would become of a packet, stage by stage across hosts. Nothing is sent, nothing changes."""
    from testbed.lab import trace as tracing
    from testbed.lab.lab import Lab
    from testbed.lab.trace_frames import Kind

    _check(packet)
    with Lab.open(name) as lab:
        start = tracing.started_at(lab, source)
        if packet["frame"] is not None:
            asked = tracing.of_frame(packet["frame"])
        elif packet["dhcp"]:
            asked = tracing.of_dhcp(start)
        elif packet["arp"] is not None:
            asked = tracing.of_question(lab, start, packet["arp"])
        else:
            kind = Kind(
                packet["protocol"] or "icmp", *(packet[key] or 0 for key in ("port", "source_port", "size"))
            )
            start, asked = tracing.of_packet(lab, start, packet["to"], kind, any_adapter=":" not in source)
        found = tracing.trace(lab, start, asked)
    print_json(found) if output == "json" else _print(found)
    sys.exit(0 if found["arrives"] else 1)


def _check(packet: dict[str, Any]) -> None:
    """Raise BadInput unless it is said what to send, and once."""
    ways = [key for key in ("to", "frame", "dhcp", "arp") if packet[key] not in (None, False)]
    if len(ways) != 1:
        raise BadInput("say what to send with one of --to IP, --frame HEX, --dhcp and --arp IP")
    of_to = [key for key in ("protocol", "port", "source_port", "size") if packet[key] is not None]
    if of_to and ways != ["to"]:
        raise BadInput(f"--{of_to[0].replace('_', '-')} goes with --to, not with --{ways[0]}: leave it out")
    ported = [key for key in ("port", "source_port") if packet[key] is not None]
    if ported and packet["protocol"] not in ("tcp", "udp"):
        raise BadInput(f"--{ported[0].replace('_', '-')} needs --protocol tcp or udp")


def _print(found: dict[str, Any]) -> None:
    click.echo(f"{len(found['frame']) // 2} bytes from {found['from']}")
    if found["remark"]:
        click.echo(f"  {found['remark']}")
    for hop in found["hops"]:
        click.echo(f"{hop['host']}, {hop['direction']}, {hop.get('port') or hop.get('nic')}")
        for stage in hop["stages"]:
            click.echo(f"  {_line(stage)}")
        for copy in hop["copies"]:
            click.echo(f"  -> {_copy(copy)}")
    click.echo(found["outcome"])


def _line(stage: dict[str, Any]) -> str:
    """A stage in one line."""
    said = stage["verdict"] + (f" ({stage['reason']})" if stage["reason"] else "")
    details = "; ".join(
        f"{_word(key)} {_text(value)}" for key, value in stage["details"].items() if value != ""
    )
    return f"{stage['stage']} {stage['way']}: {said}" + (f": {details}" if details else "")


def _copy(copy: dict[str, Any]) -> str:
    if copy["to"] == "port":
        return f"port {copy['port']}, queue {copy['queue']}"
    if copy["to"] == "wire":
        outer = f": {_text(copy['outer'])}" if copy["outer"] else ""
        return f"wire by {copy['nic']}, {len(copy['frame']) // 2} bytes{outer}"
    if copy["to"] == "sender":
        return f"the sender: {copy['what']}"
    if copy["to"] == "waiting":
        return f"waits for {copy['next_hop']}"
    return f"dropped at {copy['stage']}: {copy['reason']}"


def _word(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "[" + ", ".join(f"{_word(key)} {_text(each)}" for key, each in value.items() if each != "") + "]"
        )
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


COMMANDS = (trace,)
