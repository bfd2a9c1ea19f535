"""Topology files as the tests need them."""

from __future__ import annotations

from pathlib import Path

BASE = """\
name: {name}
networks:
  - {{name: blue, subnets: [{{vsid: 5001, prefixes: [10.0.0.0/24, "fd00::/64"]}}]}}
hosts:
{hosts}
vms:
{vms}
fabric: {{switches: [{switches}]}}
links:
{links}
"""


def blue(vm: str, host: str, number: int) -> str:
    """A VM of the network blue."""
    addresses = f'[10.0.0.{number}, "fd00::{number}"]'
    return f"  - {{name: {vm}, host: {host}, vnics: [{{vsid: 5001, addresses: {addresses}}}]}}"


def plain(vm: str, host: str, number: int) -> str:
    """A VM that is not virtualised."""
    addresses = f'[172.16.0.{number}/24, "fd10::{number}/64"]'
    return f"  - {{name: {vm}, host: {host}, vnics: [{{vsid: 0, addresses: {addresses}}}]}}"


def write(
    folder: Path, name: str, hosts: dict[str, str], vms: list[str], more_links: tuple[str, ...] = ()
) -> Path:
    """A file for a lab called ``name``; ``hosts`` maps each host to the switch of its only NIC."""
    switches = sorted(set(hosts.values()))
    text = BASE.format(
        name=name,
        hosts="\n".join(f"  - {{name: {host}, nics: [{{name: nic1}}]}}" for host in hosts),
        vms="\n".join(vms),
        switches=", ".join(switches),
        links="\n".join(
            [f'  - endpoints: ["{host}:nic1", {switch}]' for host, switch in hosts.items()]
            + [f"  - endpoints: [{link}]" for link in more_links]
        ),
    )
    file = folder / f"{name}-{len(list(folder.iterdir()))}.yaml"
    file.write_text(text)
    return file
