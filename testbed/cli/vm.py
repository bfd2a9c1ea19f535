"""vm: add, remove and renumber VMs of a running lab."""

from __future__ import annotations

import click

from testbed.cli.output import format_option, print_json
from testbed.errors import BadInput


@click.command()
@click.argument("name")
@click.argument("verb", type=click.Choice(["add", "remove", "set-address"]))
@click.argument("vm")
@click.argument("address", nargs=-1)
@click.option("--host", metavar="HOST", help="add: where the VM is to run.")
@click.option("--virtual-subnet-id", "vsid", metavar="VSID", type=int, help="add: its virtual subnet.")
@click.option("--learn", is_flag=True, help="add: no address; it is learned when the VM takes one (DHCP).")
@click.option("--interface", default="eth0", show_default=True, help="set-address: which adapter.")
@format_option
def vm(
    name: str,
    verb: str,
    vm: str,
    address: tuple[str, ...],
    host: str | None,
    vsid: int | None,
    learn: bool,
    interface: str,
    output: str,
) -> None:
    """Add a VM to a running lab, remove one, or give one other addresses.

    add takes an address of each family from the subnet's pools, unless some are given; guest and policy
    change in one step. Needs a lab with a VMM.
    """
    from testbed.lab import vms
    from testbed.lab.lab import Lab

    _check(verb, address, host, vsid, learn=learn)
    with Lab.open(name) as lab:
        if verb == "remove":
            vms.remove(lab, vm)
            done = {"vm": vm, "removed": True}
        else:
            if verb == "add":
                assert host is not None
                assert vsid is not None
                plan = vms.add(lab, vm, host, vsid, address, learn=learn)
            else:
                plan = vms.set_address(lab, vm, interface, address)
            done = {
                "vm": vm,
                "host": plan.host,
                "adapters": [
                    {"interface": vnic.interface, "mac": vnic.mac, "addresses": list(vnic.addresses)}
                    for vnic in plan.vnics
                ],
            }
    _show(done, output)


def _check(verb: str, addresses: tuple[str, ...], host: str | None, vsid: int | None, *, learn: bool) -> None:
    if verb == "add" and (host is None or vsid is None):
        raise BadInput("vm add: say --host and --virtual-subnet-id")
    if verb != "add" and (host is not None or vsid is not None or learn):
        raise BadInput(f"vm {verb}: --host, --virtual-subnet-id and --learn belong to add")
    if verb == "add" and learn and addresses:
        raise BadInput("vm add: --learn is for a VM without addresses: leave one of both out")
    if verb == "remove" and addresses:
        raise BadInput("vm remove: takes no addresses")
    if verb == "set-address" and not addresses:
        raise BadInput("vm set-address: give the addresses that the adapter is to have")


def _show(done: dict[str, object], output: str) -> None:
    if output == "json":
        print_json(done)
    elif done.get("removed"):
        click.echo(f"{done['vm']} is removed")
    else:
        adapters = done["adapters"]
        assert isinstance(adapters, list)
        for each in adapters:
            found = ", ".join(each["addresses"]) or "no address yet"
            click.echo(f"{done['vm']} on {done['host']}: {each['interface']} {each['mac']} {found}")


COMMANDS = (vm,)
