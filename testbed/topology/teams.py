"""Checks on the teams of a topology."""

from __future__ import annotations

from testbed.errors import BadInput
from testbed.nic.faults import seconds
from testbed.topology.problems import Path, Problems
from testbed.topology.schema import Host, Topology


def check_teams(topology: Topology, problems: Problems) -> None:
    """Note what is wrong with a host's team: its members, their switch, its gap."""
    switches = _switches(topology)
    for i, host in enumerate(topology.hosts):
        here: Path = ("hosts", i, "team")
        _check_members(host, here, problems)
        if host.team.flowlet_gap is not None:
            try:
                seconds(host.team.flowlet_gap)
            except BadInput as error:
                problems.add((*here, "flowlet-gap"), str(error))
        at = {switches.get(f"{host.name}:{nic.name}", "") for nic in host.nics}
        if host.team.mode != "SwitchIndependent" and len(at) > 1:
            ends = ", ".join(sorted(at - {""}))
            remedy = "put all its cables on one, or use mode SwitchIndependent"
            problems.add((*here, "mode"), f"{host.team.mode} is with one switch, not with {ends}; {remedy}")


def _check_members(host: Host, here: Path, problems: Problems) -> None:
    names, team = [nic.name for nic in host.nics], host.team
    for key in ("primary", "standby"):
        name = getattr(team, key)
        if name is not None and name not in names:
            problems.unknown((*here, key), "NIC", name, names)
    if team.standby is None:
        return
    if team.mode != "SwitchIndependent":
        problems.add((*here, "standby"), f"{team.mode} has no standby members; leave it out")
    elif team.standby == team.primary or names == [team.standby]:
        problems.add((*here, "standby"), "leaves no member that is active; name another NIC")


def _switches(topology: Topology) -> dict[str, str]:
    """The switch of each NIC, "host1:nic1"."""
    ends = [link.endpoints for link in topology.links]
    return {
        end: other
        for first, second in ends
        for end, other in ((first, second), (second, first))
        if ":" in end
    }
