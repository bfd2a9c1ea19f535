"""Plans, live state and pictures for tests of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from support.cli import TOPOLOGIES
from testbed.graph.model import CableState, Live
from testbed.nic.faults import WAYS, Faults
from testbed.topology import plan_from_file
from testbed.topology.plan import Plan

HOSTILE = "</script><script>window.struck=1</script>\"'&amp;\\N]]>-->\x07"
# control characters are no text of XML; a backslash is kept from what follows
SHOWN = HOSTILE.replace("\x07", " ").replace("\\", "\\\N{ZERO WIDTH SPACE}")


def plan(name: str, **settings: str) -> Plan:
    """That of a topology that ships."""
    return plan_from_file(TOPOLOGIES / f"{name}.yaml", settings)


def hostile(name: str = "2host") -> Plan:
    """One whose file could be written: what a VM is made of is anybody's text."""
    good = plan(name)
    first, *others = good.vms
    return msgspec.structs.replace(
        good, vms=(msgspec.structs.replace(first, image=HOSTILE, command=(HOSTILE,)), *others)
    )


def renamed(name: str = "2host") -> Plan:
    """One that no file can say: names, too, are anything."""
    good = plan(name)
    first, *others = good.vms
    vm = msgspec.structs.replace(first, name=HOSTILE)
    return msgspec.structs.replace(good, name=HOSTILE, vms=(vm, *others))


def live(made: Plan, **more: Any) -> Live:
    """A lab of this Plan in which all is well; ``more``: fields that are otherwise."""
    hosts = {
        host.name: {
            "name": host.name,
            "provider_address_states": [{"address": "192.168.0.1", "vsid": 5001, "state": "Preferred"}],
            "vmm": {"connected": True, "revision": 3},
            "lookup_records": 4,
        }
        for host in made.hosts
    }
    vms = {
        vm.name: [
            {
                "interface": vnic.interface,
                "vsid": vnic.vsid,
                "addresses": [address.partition("/")[0] for address in vnic.addresses],
            }
            for vnic in vm.vnics
        ]
        for vm in made.vms
    }
    good = CableState(True, {way: Faults() for way in WAYS})
    fields: dict[str, Any] = {
        "engine": "namespaces",
        "ready": True,
        "hosts": hosts,
        "vms": vms,
        "vmm": {"revision": 3},
        "cables": {f"{cable.host}:{cable.nic}": good for cable in made.fabric.cables},
        "members": {
            host.name: [{"name": nic.name, "state": "Active", "fault": ""} for nic in host.nics]
            for host in made.hosts
        },
    }
    for key, value in more.items():
        fields[key] = {**fields[key], **value} if isinstance(value, dict) else value
    return Live(**fields)


def page(folder: Path, text: str) -> Path:
    """A file with this page."""
    file = folder / "page.html"
    file.write_text(text)
    return file
