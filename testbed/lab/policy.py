"""Policy of a running lab: the objects of its hosts, and changes that hold on all of them or on none.

Where a VMM owns the policy, changes are its business (testbed.lab.policy_owner).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from testbed.errors import BadInput, LabError
from testbed.lab import policy_owner
from testbed.lab.lab import Lab
from testbed.lab.vnic import find
from testbed.wnv.objects import partial

Fields = dict[str, Any]


def objects(lab: Lab, kind: str, host: str | None) -> list[Fields]:
    """The objects of one kind, of one host or of all; each names its ``host``."""
    return [
        {"host": name, **each}
        for name in ([host] if host else _host_names(lab))
        for each in _ask(lab, name, "list", object=kind)["objects"]
    ]


def change(
    lab: Lab, kind: str, verb: str, fields: Fields, host: str | None, *, local: bool = False
) -> list[Fields]:
    """Add, set or remove; the changes made: {"host", "kind", "old", "new"}.

    With a VMM it is that which changes; ``local``: one host alone, until it is in step with the VMM again.
    Without one and without ``host`` every host that has policy of the network that ``fields`` belong to.
    All of them are asked first. Raises BadInput with a host's reason, and then nothing has changed.
    """
    if local and host is None:
        raise BadInput("--local changes one host alone: say which with --host")
    if lab.plan.vmm and not local:
        return policy_owner.change(lab, kind, verb, fields, host)
    hosts = [host] if host else _concerned(lab, kind, fields)
    for name in hosts:
        _ask(lab, name, verb, object=kind, fields=fields, check=True)
    done: dict[str, list[Fields]] = {}
    try:
        for name in hosts:
            done[name] = _ask(lab, name, verb, object=kind, fields=fields)["changes"]
    except (BadInput, LabError) as error:
        for name, changes in reversed(done.items()):
            with contextlib.suppress(LabError):  # a host that died meanwhile has nothing to undo
                _ask(lab, name, "undo", changes=changes)
        raise LabError(f"{error}; the change was undone on the hosts that had it") from error
    return [{"host": name, **each} for name, changes in done.items() for each in changes]


def select_next_hop(
    lab: Lab, host: str, destination: str, vsid: int, source: str | None
) -> dict[str, Any] | None:
    """What host ``host`` would do with a packet (Select-NetVirtualizationNextHop)."""
    found: dict[str, Any] | None = lab.ask(
        host, "select-next-hop", source_ca=source, destination_ca=destination, vsid=vsid
    )["next_hop"]
    return found


def set_port(lab: Lab, port: str, vsid: int) -> dict[str, Any]:
    """Give a running port another VSID; {"host", "port", "virtual_subnet_id", "before"}."""
    vm, _ = find(lab, port)
    answer = lab.ask(vm.host, "set-port", name=port, vsid=vsid)
    return {"host": vm.host, "port": port, "virtual_subnet_id": vsid, "before": answer["before"]}


def drifted(lab: Lab, hosts: Iterable[str]) -> list[str]:
    """Those of the hosts whose policy is no longer what the Plan gave them."""
    return [name for name in hosts if not _ask(lab, name, "networks")["planned"]]


def _concerned(lab: Lab, kind: str, fields: Fields) -> list[str]:
    """The hosts that have policy of the VSID or routing domain that the fields name."""
    if kind in policy_owner.OF_ONE_HOST:
        raise BadInput(f"{kind} belong to one host: say which with --host")
    fields = partial(kind, fields)
    rdid, vsid = fields.get("routing_domain_id"), fields.get("virtual_subnet_id")
    if rdid is not None:
        what, key, wanted = f"routing domain {rdid}", "rdids", rdid
    elif vsid is not None:
        what, key, wanted = f"VSID {vsid}", "vsids", vsid
    else:
        which = "--routing-domain-id or " if kind == "customer-routes" else ""
        raise BadInput(f"which hosts? Say {which}--virtual-subnet-id, or --host")
    hosts = [name for name in _host_names(lab) if wanted in _ask(lab, name, "networks")[key]]
    if not hosts:
        raise BadInput(f"no host has policy of {what}: say which one is to have it with --host")
    return hosts


def _host_names(lab: Lab) -> list[str]:
    return [host.name for host in lab.plan.hosts]


def _ask(lab: Lab, host: str, verb: str, **fields: Any) -> dict[str, Any]:
    """A "policy" request; a refusal names the host."""
    lab.check_host(host)
    try:
        return lab.ask(host, "policy", verb=verb, **fields)
    except BadInput as error:
        raise BadInput(f"{host}: {error}") from error
