"""vmm: what a lab's VMM knows, and what has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.errors import BadInput

VIEWS = ("networks", "pools", "hosts", "vms", "events", "resync")


@click.command()
@click.argument("name")
@click.argument("view", type=click.Choice(VIEWS))
@click.option("--follow", is_flag=True, help="events: go on with those to come.")
@click.option("--kind", metavar="KIND", help="events: of this kind only, such as customer-address.")
@click.option("--host", metavar="HOST", help="resync: this host only.")
@format_option
def vmm(name: str, view: str, follow: bool, kind: str | None, host: str | None, output: str) -> None:
    """Show what the VMM of a running lab knows; resync has hosts take their whole policy anew.

    VIEW is networks, pools, hosts, vms, events or resync.
    """
    from testbed.lab.lab import Lab

    if view != "events" and (follow or kind):
        raise BadInput(f"vmm {view}: --follow and --kind belong to events")
    if view != "resync" and host:
        raise BadInput(f"vmm {view}: --host belongs to resync")
    with Lab.open(name) as lab:
        client = lab.vmm()
        if view == "events":
            _events(client, output, kind, follow=follow)
        elif view == "resync":
            _resync(lab, host, output)
        else:
            rows, columns = _READERS[view](client)
            _show(rows, columns, output)


Rows = tuple[list[dict[str, Any]], tuple[str, ...]]


def _networks(client: Any) -> Rows:
    names = {network["rdid"]: network["name"] for network in client.get("/networks")}
    rows = [{"network": names[subnet["rdid"]], **subnet} for subnet in client.get("/subnets")]
    return rows, ("network", "rdid", "vsid", "prefixes", "gateways", "multicast")


def _pools(client: Any) -> Rows:
    rows = []
    for pool in client.get("/pools"):
        used = client.get(f"/pools/{pool['name']}")["addresses"]
        rows.append({**pool, "in_use": len(used), "addresses": used})
    return rows, ("name", "purpose", "prefix", "first", "last", "in_use")


def _hosts(client: Any) -> Rows:
    return client.get("/hosts"), ("name", "watching", "networks", "reported")


def _vms(client: Any) -> Rows:
    """One row for each adapter, with the addresses that it has learned beside those of the policy."""
    learned: dict[str, list[str]] = {}
    for record in client.get("/lookup-records"):
        if record["type"] == "Dynamic":
            learned.setdefault(record["mac_address"], []).append(record["customer_address"])
    rows = [
        {**port, "learned": learned.get(port["mac"], [])}
        for view in client.get("/vms")
        for port in view["ports"]
    ]
    return rows, ("vm", "host", "port", "vsid", "mac", "addresses", "learned")


_READERS: dict[str, Callable[[Any], Rows]] = {
    "networks": _networks,
    "pools": _pools,
    "hosts": _hosts,
    "vms": _vms,
}


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], output: str) -> None:
    if output == "json":
        print_json(rows)
    else:
        names = [column.replace("_", " ") for column in columns]
        print_table(names, [[row[column] for column in columns] for row in rows])


def _events(client: Any, output: str, kind: str | None, *, follow: bool) -> None:
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        answer = client.get("/events", after=after, limit=1000)
        found += answer["events"]
        if answer["revision"] <= after or not answer["events"]:
            break
        after = answer["revision"]
    wanted = [event for event in found if kind in (None, event["kind"])]
    if output == "json" and not follow:
        print_json(wanted)
        return
    for event in wanted:
        _print_event(event, output)
    if follow:
        for event in client.lines("/events/stream", after=after):
            if "kind" in event and kind in (None, event["kind"]):
                _print_event(event, output)


def _print_event(event: dict[str, Any], output: str) -> None:
    """A line each; as JSON a line each too, so that a program can follow."""
    if output == "json":
        import msgspec

        click.echo(msgspec.json.encode(event))
        return
    stamp = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    told = " ".join(f"{key}={value}" for key, value in event["fields"].items() if value not in (None, ""))
    where = f"{event['host']}: " if event["host"] else ""
    click.echo(f"{stamp} {where}{event['kind']} {event['object']} {told}")


def _resync(lab: Any, host: str | None, output: str) -> None:
    from testbed.lab import vmm as lab_vmm

    if host is not None:
        lab.check_host(host)
    wanted = [host] if host else [each.name for each in lab.plan.hosts]
    for each in wanted:
        lab.ask(each, "resync")
    lab_vmm.wait_in_step(lab, wanted, time.monotonic() + lab_vmm.RESYNC_SECONDS)
    if output == "json":
        print_json({"resynced": wanted})
    else:
        click.echo(f"{', '.join(wanted)}: in step with the VMM")


COMMANDS = (vmm,)
