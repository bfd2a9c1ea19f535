"""Checks on a topology as a whole: names, references, cables. Addresses: :mod:`.addresses`.

Everything that is wrong is reported at once, one line per problem, in the order of the file.
"""

from __future__ import annotations

from testbed.errors import BadInput
from testbed.nic.guest import of_vnic
from testbed.topology.addresses import check_addresses
from testbed.topology.extensions import check_extensions
from testbed.topology.impairments import check_impairments
from testbed.topology.load import Source
from testbed.topology.planner import words
from testbed.topology.problems import Path, Problems
from testbed.topology.profiles import Profiles
from testbed.topology.schema import Topology
from testbed.topology.teams import check_teams

RESERVED_NODES = ("fabric", "vmm")
# The kernel refuses interfaces of these names: each has (or would have) a meaning under /proc/sys/net.
RESERVED_INTERFACES = ("lo", "all", "default")
MAX_INTERFACE_NAME = 15  # IFNAMSIZ less the NUL


def check(topology: Topology, source: Source, profiles: Profiles) -> None:
    """Raise BadInput with every problem of the topology, ``FILE:LINE: KEY: what; remedy`` each."""
    problems = Problems(source)
    _check_names(topology, problems)
    _check_hosts(topology, problems)
    check_teams(topology, problems)
    _check_vms(topology, problems)
    check_addresses(topology, problems)
    _check_links(topology, problems)
    check_impairments(topology, problems)
    check_extensions(topology, problems)
    _check_offloads(topology, problems, profiles)
    _check_guest_offloads(topology, problems)
    if lines := problems.lines():
        raise BadInput("\n".join(lines))


def _check_names(topology: Topology, problems: Problems) -> None:
    """Hosts, VMs and switches share one set of names, since every verb names them alike."""
    problems.unique(
        [(("networks", i, "name"), network.name) for i, network in enumerate(topology.networks)],
        "is also the name of {first}; give each network its own name",
    )
    nodes: list[tuple[Path, str]] = []
    nodes += [(("hosts", i, "name"), host.name) for i, host in enumerate(topology.hosts)]
    nodes += [(("vms", i, "name"), vm.name) for i, vm in enumerate(topology.vms)]
    nodes += [(("fabric", "switches", i), name) for i, name in enumerate(topology.fabric.switches)]
    for path, name in nodes:
        if name in RESERVED_NODES:
            problems.add(path, f'"{name}" is the name of one of the lab\'s own nodes; choose another name')
    problems.unique(
        nodes, "is also the name of {first}; hosts, VMs and switches share one set of names, choose another"
    )


def _check_hosts(topology: Topology, problems: Problems) -> None:
    for i, host in enumerate(topology.hosts):
        here: Path = ("hosts", i)
        names = [((*here, "nics", j, "name"), nic.name) for j, nic in enumerate(host.nics)]
        problems.unique(names, "is also the name of {first}; give each NIC of a host its own name")
        for path, name in names:
            if len(name) > MAX_INTERFACE_NAME:
                limit = f"at most {MAX_INTERFACE_NAME} characters"
                problems.add(path, f'"{name}" is too long for the name of a kernel interface; use {limit}')
            elif name in RESERVED_INTERFACES:
                problems.add(path, f'"{name}" is reserved by the kernel; choose another name, such as nic1')


def _check_offloads(topology: Topology, problems: Problems, profiles: Profiles) -> None:
    for i, host in enumerate(topology.hosts):
        for j, nic in enumerate(host.nics):
            here: Path = ("hosts", i, "nics", j)
            try:
                profiles.get(nic.profile)
            except BadInput as error:
                problems.add((*here, "profile"), str(error))
                continue
            try:
                profiles.offloads(nic)
            except BadInput as error:
                problems.add((*here, "offloads" if nic.offloads else "supports"), str(error))


def _check_guest_offloads(topology: Topology, problems: Problems) -> None:
    for i, vm in enumerate(topology.vms):
        for j, vnic in enumerate(vm.vnics):
            try:
                of_vnic(vnic.supports, vnic.offloads)
            except BadInput as error:
                problems.add(("vms", i, "vnics", j, "offloads"), str(error))


def _check_vms(topology: Topology, problems: Problems) -> None:
    hosts = [host.name for host in topology.hosts]
    for i, vm in enumerate(topology.vms):
        if vm.host not in hosts:
            problems.unknown(("vms", i, "host"), "host", vm.host, hosts)
        if vm.image is not None and (
            vm.image.startswith("-") or not vm.image.isprintable() or " " in vm.image
        ):
            problems.add(("vms", i, "image"), "is no image name; write it like debian:12")
        if vm.image == "":
            problems.add(("vms", i, "image"), "is empty; name an image or leave the key out")
        if vm.command is not None and (not vm.command or any("\0" in word for word in vm.command)):
            problems.add(("vms", i, "command"), "is no command; list a program and its arguments")
        for j, command in enumerate(vm.exec):
            if fault := _command_fault(command):
                problems.add(("vms", i, "exec", j), fault)


def _command_fault(command: str | list[str]) -> str:
    """What is wrong with a command of ``exec``, or ""."""
    try:
        found = words(command)
    except ValueError as error:
        return f"is no command: {error}; quote it as a shell wants it"
    if not found or any("\0" in word for word in found):
        return "is no command; write a program and its arguments"
    return ""


def _check_links(topology: Topology, problems: Problems) -> None:
    nics = {host.name: [nic.name for nic in host.nics] for host in topology.hosts}
    switches = topology.fabric.switches
    cabled: dict[str, Path] = {}
    group = {name: name for name in switches}  # switches that are connected carry the same value
    for i, link in enumerate(topology.links):
        good = [
            _check_endpoint(("links", i, "endpoints", j), end, nics, switches, cabled, problems)
            for j, end in enumerate(link.endpoints)
        ]
        if not all(good):
            continue
        here: Path = ("links", i, "endpoints")
        first, second = link.endpoints
        if ":" in first and ":" in second:
            problems.add(here, f"{first} and {second} are both NICs; put a switch between them")
        elif first == second:
            problems.add(here, f"connects {first} with itself; name another switch or remove the link")
        elif ":" not in first + second:
            if group[first] == group[second]:
                loop = f"{first} and {second} are connected already, so this link closes a loop"
                problems.add(here, f"{loop}; switches have no spanning tree, remove one link of the loop")
            old = group[second]
            group = {name: group[first] if value == old else value for name, value in group.items()}
    for i, host in enumerate(topology.hosts):
        for j, nic in enumerate(host.nics):
            if f"{host.name}:{nic.name}" not in cabled:
                example = f'{{endpoints: ["{host.name}:{nic.name}", {switches[0]}]}}'
                problems.add(("hosts", i, "nics", j), f"{nic.name} has no cable; add a link, {example}")


def _check_endpoint(
    path: Path,
    end: str,
    nics: dict[str, list[str]],
    switches: list[str],
    cabled: dict[str, Path],
    problems: Problems,
) -> bool:
    """Whether the endpoint of a link is good; a host's NIC is noted in ``cabled``."""
    host, colon, nic = end.partition(":")
    if not colon:
        if end in switches:
            return True
        if end in nics:
            problems.add(path, f'"{end}" is a host; name its NIC too: "{end}:{nics[end][0]}"')
        else:
            problems.unknown(path, "switch", end, switches)
        return False
    if host in switches:
        problems.add(path, f'ports of switches are numbered by themselves; write "{host}" alone')
        return False
    if host not in nics:
        problems.unknown(path, "host", host, list(nics))
        return False
    if nic not in nics[host]:
        problems.unknown(path, f"NIC of {host}", nic, nics[host])
        return False
    if end in cabled:
        problems.add(path, f"{end} has a cable already, {problems.where(cabled[end])}; remove one of them")
        return False
    cabled[end] = path
    return True
