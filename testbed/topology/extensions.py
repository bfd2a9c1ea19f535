"""Checks on the switch extensions that hosts name: they exist, and understand their settings.

That needs the extensions' own code, which is imported only when a topology names one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from testbed.errors import BadInput
from testbed.topology.problems import Path, Problems
from testbed.topology.schema import Host, Topology

if TYPE_CHECKING:
    from testbed.switch.extensions.api import Extension


def check_extensions(topology: Topology, problems: Problems) -> None:
    """Note every extension that is unknown, there twice, or has settings that it can't use."""
    ports = [f"{vm.name}:eth{i}" for vm in topology.vms for i, _ in enumerate(vm.vnics)]
    for i, host in enumerate(topology.hosts):
        if host.extensions:
            _check_host(("hosts", i, "extensions"), host, ports, problems)


def _check_host(here: Path, host: Host, ports: list[str], problems: Problems) -> None:
    from testbed.switch.extensions.load import find

    problems.unique(
        [
            ((*here, j), each) if isinstance(each, str) else ((*here, j, "name"), each.name)
            for j, each in enumerate(host.extensions)
        ],
        "is also the name of {first}; a host has an extension once, put all settings there",
    )
    forwarding = ""
    for j, each in enumerate(host.extensions):
        name, path = (each, (*here, j)) if isinstance(each, str) else (each.name, (*here, j, "name"))
        try:
            found = find(name)
        except BadInput as error:
            problems.add(path, str(error))
            continue
        if found.kind == "forwarding":
            if forwarding and forwarding != name:
                problems.add(
                    path, f"{forwarding} is a forwarding extension too; a switch has one, leave one out"
                )
            forwarding = name
        settings = {} if isinstance(each, str) else each.settings
        _check_settings((*here, j, "settings"), found, settings, ports, problems)


def _check_settings(
    here: Path, kind: type[Extension], settings: dict[str, object], ports: list[str], problems: Problems
) -> None:
    from testbed.switch.extensions.load import settings_for

    try:
        converted = settings_for(kind, settings)
    except msgspec.ValidationError as error:
        problems.wrong_value(here, str(error), kind.Settings)
        return
    for path, port in kind.named_ports(converted):
        if port not in ports:
            problems.unknown((*here, *path), "port", port, ports)
