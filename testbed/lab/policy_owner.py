"""Policy changes where the lab has a VMM: it decides, and the hosts concerned follow."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from testbed.errors import BadInput, LabError
from testbed.lab import vmm
from testbed.lab.lab import Lab
from testbed.topology.management import VMM
from testbed.wnv.objects import KINDS, partial

Fields = dict[str, Any]
OF_ONE_HOST = ("provider-addresses", "provider-routes")
FOLLOW_SECONDS = 10.0


def change(lab: Lab, kind: str, verb: str, fields: Fields, host: str | None) -> list[Fields]:
    """Have the VMM add, set or remove, and wait until the hosts concerned have followed.

    Returns the changes, {"host": "vmm" or the host whose object it is, "kind", "old", "new"}. Raises
    BadInput with the VMM's reason, and then nothing has changed; LabError when it has decided and a
    host does not follow.
    """
    if kind in OF_ONE_HOST:
        if host is None:
            raise BadInput(f"{kind} belong to one host: say which with --host")
        fields = {**fields, "host": host}
    elif host is not None:
        raise BadInput(f"the VMM owns the {kind} of all hosts: leave --host out, or say --local")
    before = lab.vmm().get(f"/{kind}") if verb == "set" else []
    done = _order(lab, kind, verb, fields)
    _wait(lab, done)
    old_by_key = {_key(kind, each): each for each in before}
    changes = []
    for each in done:
        old = each if verb == "remove" else old_by_key.get(_key(kind, each))
        if verb == "set" and old == each:
            continue
        new = None if verb == "remove" else _bare(each)
        owner = each.get("host", VMM)
        changes.append({"host": owner, "kind": kind, "old": old and _bare(old), "new": new})
    return changes


def _order(lab: Lab, kind: str, verb: str, fields: Fields) -> list[Fields]:
    """The objects as they are now, or (remove) as they were."""
    client, path = lab.vmm(), f"/{kind}"
    if verb == "add":
        return [client.post(path, fields)]
    own = {"host": fields["host"]} if "host" in fields else {}
    known = partial(kind, {name: value for name, value in fields.items() if name != "host"})
    if verb == "remove":
        if extra := [name for name in known if name not in KINDS[kind].key]:
            raise BadInput(f"{kind}: {extra[0]} does not say which: use {', '.join(KINDS[kind].key)}")
        removed: list[Fields] = client.delete(path, **own, **known)
        return removed
    changed: list[Fields] = client.patch(path, {**own, **known})
    return changed


def _wait(lab: Lab, objects: Iterable[Fields]) -> None:
    """Return when the hosts that follow the objects' networks hold what was ordered."""
    client = lab.vmm()
    revision = client.get("/status")["revision"]
    rdids = {subnet["vsid"]: subnet["rdid"] for subnet in client.get("/subnets")}
    networks, hosts = set(), set()
    for each in objects:
        if "host" in each:
            hosts.add(each["host"])
        else:
            networks.add(rdids.get(each["virtual_subnet_id"]))
    views = client.get("/hosts")
    hosts |= {view["name"] for view in views if not networks.isdisjoint(view["networks"])}
    watching = {view["name"] for view in views if view["watching"]}
    vmm.wait_in_step(lab, sorted(hosts & watching), time.monotonic() + FOLLOW_SECONDS, revision)
    if away := sorted(hosts - watching):
        raise LabError(f"the VMM has it, but {', '.join(away)} is cut off from it and will follow later")


def _key(kind: str, item: Fields) -> tuple[Any, ...]:
    return (item.get("host"), *(item[name] for name in KINDS[kind].key))


def _bare(item: Fields) -> Fields:
    """The object without whose it is."""
    return {name: value for name, value in item.items() if name != "host"}
