"""ping, test-vmnetworkadapter: whether provider addresses and VMs' adapters reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from testbed.cli.output import format_option, print_json
from testbed.errors import BadInput

if TYPE_CHECKING:
    from testbed.lab.adapter_test import Outcome


@click.command()
@click.argument("name")
@click.argument("host")
@click.option(
    "--pa", "target", metavar="ADDRESS|HOST", required=True, help="A provider address, or all of a host."
)
@click.option("--from", "source", metavar="PA", default="", help="The host's own; default: those that fit.")
@click.option("--count", metavar="N", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(0, 65507),
    default=32,
    show_default=True,
    help="Of payload.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 60),
    default=1.0,
    show_default=True,
    help="Of each request.",
)
@click.option("--member", metavar="NIC", default="", help="Send through this member of the team.")
@click.option("--sweep", is_flag=True, help="Find the largest payload that passes unfragmented.")
@format_option
def ping(name: str, host: str, target: str, output: str, **options: Any) -> None:
    """Ping from a host's provider addresses to one, or to all of another host.

    The host's own `ping` can't: provider addresses belong to the switch. Exits 1 if one does not answer.
    """
    from testbed.lab import ping as pinging
    from testbed.lab.lab import Lab

    found = []
    with Lab.open(name) as lab:
        for pair in pinging.ping(lab, host, target, pinging.Options(**options)):
            found.append(pair)
            if output != "json":
                _print_ping(pair)
    if output == "json":
        print_json(found)
    if not all(pinging.is_answered(pair) for pair in found):
        raise SystemExit(1)


def _print_ping(pair: dict[str, Any]) -> None:
    way = f"{pair['source']} -> {pair['destination']}" + (f" by {pair['member']}" if pair["member"] else "")
    if "path_mtu" in pair:
        answer = "no answer"
        if pair["path_mtu"] is not None:
            answer = f"path MTU {pair['path_mtu']}, largest payload {pair['largest_payload']}"
        click.echo(f"{way}: {answer}")
        return
    for round_trip in pair["round_trips"]:
        click.echo(f"{way}: " + ("no answer" if round_trip is None else f"{1000 * round_trip:.2f} ms"))
    summary = f"{way}: {pair['sent']} sent, {pair['lost']} lost"
    if pair["min"] is not None:
        summary += (
            ", min/avg/max " + "/".join(f"{1000 * pair[key]:.2f}" for key in ("min", "avg", "max")) + " ms"
        )
    click.echo(summary)


@click.command("test-vmnetworkadapter")
@click.argument("name")
@click.option("--sender", metavar="VM", default="", help="The VM, or its port (blue1:eth0).")
@click.option("--receiver", metavar="VM", default="", help="The VM, or its port.")
@click.option("--sender-ip", metavar="ADDRESS", required=True)
@click.option("--receiver-ip", metavar="ADDRESS", required=True)
@click.option("--sequence-number", metavar="N", type=click.IntRange(0, 65535), default=100, show_default=True)
@click.option(
    "--next-hop-mac", metavar="MAC", default="", help="Where the request goes first; of VSID 0: needed."
)
@click.option("--payload-size", metavar="BYTES", type=int, default=32, show_default=True)
@click.option(
    "--as", "role", type=click.Choice(["sender", "receiver"]), help="This end only; begin with the receiver."
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 600),
    default=5.0,
    show_default=True,
    help="How long to wait.",
)
@format_option
def test_adapter(name: str, role: Any, output: str, **options: Any) -> None:
    """Send an ICMP echo from one VM's port to another's; the guests have no part in it.

    Tells the round trip, or at which hop it stopped; then it exits 1.
    """
    import msgspec

    from testbed.lab import adapter_test
    from testbed.lab.lab import Lab

    for end in ("sender", "receiver"):
        if role in (None, end) and not options[end]:
            raise BadInput(f"which VM is the {end}? Say --{end} VM")
    query = adapter_test.Query(**options)
    with Lab.open(name) as lab:
        outcome = adapter_test.run(lab, query, role or "both")
    if output == "json":
        print_json({**msgspec.to_builtins(query), **msgspec.to_builtins(outcome)})
    else:
        sender = f"{query.sender} {query.sender_ip}".strip()
        receiver = f"{query.receiver} {query.receiver_ip}".strip()
        click.echo(f"{sender} -> {receiver}, sequence number {query.sequence_number}: {_told(outcome)}")
    if outcome.result != "Success":
        raise SystemExit(1)


def _told(outcome: Outcome) -> str:
    if outcome.stopped is None:
        trip = "" if outcome.round_trip is None else f", {1000 * outcome.round_trip:.2f} ms"
        return outcome.result + trip
    stop = outcome.stopped
    where = f"at {stop.hop}, stage {stop.stage}" if stop.stage else f"in the {stop.hop}"
    return f"{outcome.result}: the {stop.message} stopped {where}: {stop.reason}"


COMMANDS = (ping, test_adapter)
