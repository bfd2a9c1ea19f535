"""Checks of what hosts learn and what they and the VMM tell of it: statements 33 to 35."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from typing import Any

from testbed.conformance.outcome import NotShown, expect
from testbed.conformance.scene import Guest, Scene, poll

SECONDS = 20.0


def by_dhcp(scene: Scene) -> str:
    """33: a real client leases an address of a real server on another host."""
    client = _unaddressed(scene)
    _inside(scene, client, "dhclient", "-4", "-1", "-pf", "/run/dhclient.pid", client.interface)
    found = _inside(scene, client, "ip", "-4", "-o", "addr", "show", "dev", client.interface)
    leased = str(ipaddress.ip_interface(found.split()[3]).ip)
    record = _record_everywhere(scene, leased)
    expect(record["type"] == "Dynamic", f"the record of {leased} is {record['type']}")
    expect(record["mac_address"] == client.mac.hex(":"), f"{leased} is the record of {record['mac_address']}")
    told = _told(scene, leased)
    expect(told == ["Added by dhcp"], f"the VMM was told of {leased}: {told}")
    return (
        f"{scene.name}: {client.name} on {client.host} leased {leased}: Dynamic records at "
        f"{', '.join(host.name for host in scene.plan.hosts)}; Added with MAC, VSID and PA at the VMM"
    )


def limits(scene: Scene) -> str:
    """34: an address of no prefix of the subnet; one more than the port may learn."""
    guest = _addressed(scene)
    outside = "192.0.2.77"
    _announce(scene, guest, outside)
    refused = poll(lambda: _refusals(scene, guest, outside), SECONDS)
    expect(refused, f"nothing was told of {outside}, which lies outside the subnet")
    expect(not _records(scene, guest.host, outside), f"{outside} was learned")
    client, port = scene.lab.vmm(), guest.port
    before = client.get(f"/ports/{port}")["dynamic_address_limit"]
    client.patch(f"/ports/{port}", {"dynamic_address_limit": 1})
    first, second = "10.0.0.61", "10.0.0.62"
    try:
        _announce(scene, guest, first)
        _record_everywhere(scene, first)
        _announce(scene, guest, second)
        refused = poll(lambda: _refusals(scene, guest, second), SECONDS)
        expect(refused, f"nothing was told of {second}, which is one too many")
        expect(not _records(scene, guest.host, second), f"{second} was learned beyond the limit of 1")
    finally:
        client.patch(f"/ports/{port}", {"dynamic_address_limit": before})
        for address in (outside, first, second):
            _inside(scene, guest, "ip", "addr", "del", f"{address}/32", "dev", guest.interface)
    return (
        f"{scene.name}: {guest.name} took {outside}, outside its subnet, and {second} with a limit of 1 and "
        f"{first} learned: neither was learned, both told as address-refused"
    )


def moves(scene: Scene) -> str:
    """35: a VM that migrates, and one that is removed."""
    from testbed.lab import migrate, vms

    host, target = scene.plan.hosts[0].name, scene.plan.hosts[1].name
    made = vms.add(scene.lab, "mover", host, _addressed(scene).vsid, [], learn=False)
    address = made.vnics[0].addresses[0].partition("/")[0]
    try:
        migrate.migrate(scene.lab, "mover", target)
    finally:
        vms.remove(scene.lab, "mover")
    told = _told(scene, address)
    expect(
        told == ["Added by policy", "Moved by policy", "Deleted by policy"], f"{address} was told as {told}"
    )
    return (
        f"{scene.name}: a VM with {address} was added on {host}, migrated to {target}, removed: told as "
        "Added, Moved, Deleted, each with MAC, CA, VSID and PA"
    )


# ---- who and what --------------------------------------------------------------------------


def _unaddressed(scene: Scene) -> Guest:
    for guest in scene.guests:
        if guest.vsid and not guest.ca:
            return guest
    raise NotShown("every VM has an address")


def _addressed(scene: Scene) -> Guest:
    for guest in scene.guests:
        if guest.vsid and 4 in guest.ca:
            return guest
    raise NotShown("no VM has an IPv4 address")


def _inside(scene: Scene, guest: Guest, *command: str) -> str:
    """Standard output of a command in a VM."""
    words = [sys.executable, "-m", "testbed", "exec", scene.lab.record.name, guest.name, "--", *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    expect(done.returncode == 0, f"{guest.name}: {' '.join(command)}: {done.stderr.strip()[-200:]}")
    return done.stdout


def _announce(scene: Scene, guest: Guest, address: str) -> None:
    """The VM takes an address, which it announces."""
    _inside(scene, guest, "ip", "addr", "add", f"{address}/32", "dev", guest.interface)


def _records(scene: Scene, host: str, address: str) -> list[dict[str, Any]]:
    found = scene.lab.ask(host, "policy", verb="list", object="lookup-records")["objects"]
    return [each for each in found if each["customer_address"] == address]


def _record_everywhere(scene: Scene, address: str) -> dict[str, Any]:
    """The record of an address, once all hosts have it."""
    for host in scene.plan.hosts:
        found = poll(lambda host=host: _records(scene, host.name, address), SECONDS)  # type: ignore[misc]
        expect(found, f"{host.name} has no record of {address}")
    record: dict[str, Any] = found[0]
    return record


def _refusals(scene: Scene, guest: Guest, address: str) -> list[dict[str, Any]]:
    events = scene.events(guest.host, "address-refused")
    return [each for each in events if each["fields"]["ca"] == address]


def _told(scene: Scene, address: str) -> list[str]:
    """Reason and cause of the VMM's events of an address, all of whose fields are there."""
    events = scene.lab.vmm().get("/events", after=0, limit=1000)["events"]
    fields = [each["fields"] for each in events if each["kind"] == "customer-address"]
    wanted = [each for each in fields if each["ca"] == address]
    expect(
        all(each["mac"] and each["vsid"] and each["pa"] for each in wanted), f"fields are missing: {wanted}"
    )
    return [f"{each['reason']} by {each['how']}" for each in wanted]
