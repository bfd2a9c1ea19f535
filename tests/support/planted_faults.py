"""Faults that are planted in a running lab, each taken back at the end of its block."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from support import teams
from support.guests import closed
from support.labs import Lab
from support.vmm_lab import vmm_process
from support.waiting import until
from testbed.lab import link, vmm
from testbed.lab import policy as changes
from testbed.lab.lab import Lab as Opened
from testbed.namespaces import in_netns
from testbed.nic.faults import WAYS

SECONDS = 15.0
Plant = Callable[[Lab, Opened], contextlib.AbstractContextManager[None]]


def commands(node: str, plant: str, back: str) -> Plant:
    """Shell commands in a node: one that plants, one that takes back."""

    @contextlib.contextmanager
    def run(_: Lab, inside: Opened) -> Iterator[None]:
        shell(inside, node, plant)
        try:
            yield
        finally:
            shell(inside, node, back)

    return run


def shell(inside: Opened, node: str, command: str) -> None:
    """Run a command in a node's network namespace."""
    with in_netns(inside.netns(node)):
        subprocess.run(["sh", "-c", command], check=True, timeout=SECONDS)


def mac(vm: str, other: str) -> Plant:
    """A guest whose adapter has another MAC than its port."""

    @contextlib.contextmanager
    def run(lab: Lab, inside: Opened) -> Iterator[None]:
        own = inside.plan.vm(vm).vnics[0].mac
        with commands(vm, f"ip link set eth0 address {other}", f"ip link set eth0 address {own}")(
            lab, inside
        ):
            yield

    return run


def policy(host: str, kind: str, verb: str, **fields: object) -> Plant:
    """A change of one host's policy behind the VMM's back, until it takes it all anew.

    A field of (HOST, VSID) is that host's provider address, (VM, "mac") a VM's MAC.
    """

    @contextlib.contextmanager
    def run(_: Lab, inside: Opened) -> Iterator[None]:
        known = {name: _address(inside, value) for name, value in fields.items()}
        changes.change(inside, kind, verb, known, host, local=True)
        try:
            yield
        finally:
            inside.ask(host, "resync")
            vmm.wait_in_step(inside, [host], time.monotonic() + SECONDS)
            until(lambda: _preferred(inside, host), f"a PA of {host} is not Preferred again")

    return run


def _address(inside: Opened, word: object) -> object:
    if isinstance(word, tuple):
        host, vsid = word
        if vsid == "mac":
            return inside.plan.vm(host).vnics[0].mac
        found = inside.ask(host, "status")["provider_addresses"]
        return next(each["address"] for each in found if each["vsid"] == vsid)
    return word


def _preferred(inside: Opened, host: str) -> bool:
    return all(each["state"] == "Preferred" for each in inside.ask(host, "status")["provider_addresses"])


def both(one: Plant, other: Plant) -> Plant:
    """Two faults that are one only together."""

    @contextlib.contextmanager
    def run(lab: Lab, inside: Opened) -> Iterator[None]:
        with one(lab, inside), other(lab, inside):
            yield

    return run


def duplicate_pa(host: str, vsid: int, other: str) -> Plant:
    """A host whose provider address of a VSID is another host's as well."""
    key = {"virtual_subnet_id": vsid, "provider_address": (host, vsid)}
    gone = policy(host, "provider-addresses", "remove", **key)
    new = {**key, "provider_address": (other, vsid), "prefix_length": 20}
    same = policy(host, "provider-addresses", "add", **new)

    @contextlib.contextmanager
    def run(lab: Lab, inside: Opened) -> Iterator[None]:
        with both(gone, same)(lab, inside):
            until(lambda: bool(inside.ask(host, "status")["duplicate"]), f"{host} finds no duplicate")
            yield

    return run


def virtual_subnet(port: str, vsid: int, back: int) -> Plant:
    """A port in another virtual subnet."""

    @contextlib.contextmanager
    def run(_: Lab, inside: Opened) -> Iterator[None]:
        changes.set_port(inside, port, vsid)
        try:
            yield
        finally:
            changes.set_port(inside, port, back)

    return run


def cable_down(end: str) -> Plant:
    """A cable without carrier."""
    return _cable(end, lambda inside, bad: link.set_up(inside, end, up=not bad))


def cable_set(end: str, **settings: str) -> Plant:
    """A cable with faults, both ways; at the end it is good again."""
    named = {key.replace("_", "-"): value for key, value in settings.items()}

    def put(inside: Opened, bad: bool) -> None:
        if bad:
            link.change(inside, end, WAYS, named)
        else:
            link.clear(inside, end)

    return _cable(end, put)


def _cable(end: str, put: Callable[[Opened, bool], None]) -> Plant:
    """The team's opinion of the member is waited for, both times, where there is a team."""
    host, _, member = end.partition(":")

    @contextlib.contextmanager
    def run(_: Lab, inside: Opened) -> Iterator[None]:
        put(inside, True)
        try:
            if len(inside.plan.host(host).nics) > 1:
                teams.wait_for(inside, "Failed", member, host=host)
            yield
        finally:
            put(inside, False)
            teams.wait_for(inside, "Active", member, host=host)

    return run


def firewall(vm: str) -> Plant:
    """A guest that lets no IP in or out."""
    return lambda _, inside: closed(inside, vm)


def stopped(process: Callable[[Lab], int]) -> Plant:
    """A process that does nothing meanwhile."""

    @contextlib.contextmanager
    def run(lab: Lab, _: Opened) -> Iterator[None]:
        pid = process(lab)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    return run


def worker_of(host: str) -> Callable[[Lab], int]:
    """The process of a host's switch."""

    def find(lab: Lab) -> int:
        found: list[dict[str, Any]] = lab.cli.inspect(lab.name)["hosts"]
        processes = next(each["processes"] for each in found if each["name"] == host)
        return int(next(each["pid"] for each in processes if each["role"] == "worker"))

    return find


def vmm_stopped() -> Plant:
    """A VMM that does not answer."""
    return stopped(vmm_process)


@contextlib.contextmanager
def cut_off(inside: Opened, host: str) -> Iterator[None]:
    """A host without its management link, once it has noticed."""
    with contextlib.ExitStack() as back:
        port = f"mgmt_{host}"
        shell(inside, "fabric", f"ip link set {port} down")
        back.callback(until, lambda: inside.ask(host, "status")["vmm"]["connected"], f"{host} is not back")
        back.callback(shell, inside, "fabric", f"ip link set {port} up")
        until(lambda: not inside.ask(host, "status")["vmm"]["connected"], f"{host} has noticed nothing", 25.0)
        yield
