"""trace: what the switches of a running lab would do with a packet."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from testbed.cli.output import format_option, print_json
from testbed.cli.trace_text import lines
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
@click.option("--real", is_flag=True, help="Really send it, and say where it was seen.")
@format_option
def trace(name: str, source: str, output: str, real: bool, **packet: Any) -> None:
    """Say what would become of a packet, stage by stage across hosts; without --real nothing is sent."""
    from testbed.lab import trace as tracing
    from testbed.lab import trace_real
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
            port, source_port, size = (packet[key] or 0 for key in ("port", "source_port", "size"))
            mark = os.urandom(16) if real else b""
            kind = Kind(packet["protocol"] or "icmp", port, source_port, size, mark)
            start, asked = tracing.of_packet(lab, start, packet["to"], kind, any_adapter=":" not in source)
        found = trace_real.follow(lab, start, asked) if real else tracing.trace(lab, start, asked)
    if output == "json":
        print_json(found)
    else:
        for line in lines(found):
            click.echo(line)
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


COMMANDS = (trace,)
