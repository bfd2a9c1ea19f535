"""The team of a running lab's host: shown with what its members do, a member given up and taken back."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from testbed.channel import Message
from testbed.lab.lab import FABRIC, Lab
from testbed.namespaces import in_netns


def install(lab: Lab, host: str) -> None:
    """Give a host's team its partner in the switch, if its mode wants one."""
    from testbed.wiring.aggregate import add_aggregate

    plan = lab.plan.fabric.aggregate(host)
    if plan is None:
        return
    made = add_aggregate(
        lab.netns(FABRIC), plan.switch_interface, plan.interface, plan.ports, lab.plan.fabric.pa_mtu
    )
    parts = {
        "device": made.device,
        "ears": made.ears,
        "members": made.members,
        "ports": list(plan.ports),
        "system": plan.system,
        "timers": lab.plan.timers,
        "fast": plan.fast,
    }
    try:
        lab.host(host).call("install-partner", made.descriptors, mode=plan.mode, parts=parts)
    finally:
        for descriptor in made.descriptors:
            os.close(descriptor)


def uninstall(lab: Lab, hosts: Collection[str]) -> None:
    """Make the cables of hosts ports like any other again."""
    from testbed.wiring.aggregate import remove_aggregate

    for plan in lab.plan.fabric.aggregates:
        if plan.host in hosts:
            remove_aggregate(lab.netns(FABRIC), plan.switch_interface, plan.interface, plan.ports)


def show(lab: Lab, host: str) -> Message:
    """Mode, members, their packets and flows; what came out of order. Raises BadInput, LabError."""
    lab.check_host(host)
    team: Message = lab.ask(host, "team")["team"]
    counters = {each["name"]: each["counters"] for each in lab.ask(host, "nics")["nics"]}
    for member in team["members"]:
        own = counters[member["name"]]
        keys = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
        member |= {key: own[key] for key in keys}
        member["flows"] = team["flows"].get(member["name"], 0)
    out_of_order = sum(_out_of_order(lab, vm.name) for vm in lab.plan.vms if vm.host == host)
    return {"host": host, **team, "received_out_of_order": out_of_order}


def set_member(lab: Lab, host: str, member: str, *, failed: bool) -> None:
    """Give a member up until it is restored, or restore it. Raises BadInput, LabError."""
    lab.check_host(host)
    lab.ask(host, "set-team-member", name=member, failed=failed)


def _out_of_order(lab: Lab, vm: str) -> int:
    """TCP segments that came before others that were sent earlier (TcpExt TCPOFOQueue of the VM's kernel)."""
    with in_netns(lab.netns(vm)):
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    found: dict[str, Any] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            found = dict(zip(names.split(), values.split(), strict=True))
    return int(found.get("TCPOFOQueue", 0))
