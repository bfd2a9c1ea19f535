"""The policy of a host as it is now: the Plan's, and what was changed by hand since.

Requests (``op`` "policy" of the control socket): ``verb`` list, add, set, remove with ``object`` (a
kind of :data:`testbed.wnv.objects.KINDS`) and ``fields``; undo with ``changes`` as a change answered
them; networks. A change is checked whole, then the worker gets exactly the difference, then it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.host.orders import WorkerLink
from testbed.host.pa.addresses import AddressState
from testbed.host.provider import ProviderSide
from testbed.host.usable import Usable
from testbed.telemetry import EventLog
from testbed.topology.plan import HostPolicy
from testbed.wnv.policy import Change, PolicyStore, decode_changes


class PolicyControl:
    """Owns the policy; keeps worker and provider side in step with it."""

    def __init__(self, link: WorkerLink, provider: ProviderSide, events: EventLog) -> None:
        self._link = link
        self._provider = provider
        self._events = events
        self._planned = HostPolicy()
        self._store = PolicyStore(self._planned)
        self._verbs: dict[str, Callable[[Message], Message]] = {
            "list": lambda message: {"objects": self._list(message["object"])},
            "add": lambda message: self._change(message, self._store.add),
            "set": lambda message: self._change(message, self._store.set),
            "remove": lambda message: self._change(message, self._store.remove),
            "undo": self._undo,
            "networks": lambda _: self._networks(),
        }

    def policy(self) -> HostPolicy:
        """The whole policy of now."""
        return self._store.policy()

    def replace(self, planned: HostPolicy) -> None:
        """Take over the policy of a Plan; changes made by hand are gone."""
        self._planned = planned
        self._store.replace(planned)
        self._provider.set_addresses({each.provider_address for each in planned.provider_addresses})
        groups = self._link.order(
            "policy", policy=msgspec.msgpack.encode(planned), preferred=self._provider.preferred()
        )
        self._provider.set_groups(groups)

    def answer(self, message: Message) -> Message:
        """Answer a "policy" request. Raises BadInput, and then nothing has changed."""
        verb = message["verb"]
        if verb not in self._verbs:
            raise BadInput(f"unknown verb {verb!r}")
        return self._verbs[verb](message)

    # ---- changes --------------------------------------------------------------------------

    def _change(self, message: Message, check: Callable[[str, dict[str, Any]], Iterable[Change]]) -> Message:
        changes = list(check(message["object"], message["fields"]))
        if not message.get("check"):
            self._apply(changes)
        return {"changes": [msgspec.to_builtins(change) for change in changes]}

    def _undo(self, message: Message) -> Message:
        """Take back changes as they were answered, the last one first."""
        done = decode_changes(message["changes"])
        self._apply([Change(change.kind, change.new, change.old) for change in reversed(done)])
        return {}

    def _apply(self, changes: list[Change]) -> None:
        self._store.apply(changes)
        if any(change.kind == "provider-addresses" for change in changes):
            self._provider.set_addresses(
                {each.provider_address for each in self._store.policy().provider_addresses}
            )
        groups = self._link.order(
            "change-policy",
            changes=[msgspec.to_builtins(change) for change in changes],
            preferred=self._provider.preferred(),
        )
        self._provider.set_groups(groups)
        if changes:
            self._events.add("policy-change", changes[0].kind, **_told(changes))

    # ---- questions ------------------------------------------------------------------------

    def _list(self, kind: str) -> list[dict[str, Any]]:
        objects = [msgspec.to_builtins(each) for each in self._store.list(kind)]
        if kind == "provider-addresses":
            states = self._provider.states()
            for each in objects:
                each["address_state"] = states.get(each["provider_address"], AddressState.TENTATIVE)
        elif kind == "lookup-records":
            policy, planned = self._store.policy(), set(self._planned.lookup_records)
            usable = Usable(policy, set(self._provider.preferred()))
            for record, each in zip(policy.lookup_records, objects, strict=True):
                each["unusable"] = record.provider_address not in usable
                each["unsynchronized"] = record not in planned
        return objects

    def _networks(self) -> Message:
        """The VSIDs and RDIDs that the policy speaks of, and whether it is still the Plan's."""
        policy = self._store.policy()
        vsids = {each.virtual_subnet_id for each in policy.lookup_records}
        vsids |= {each.virtual_subnet_id for each in policy.customer_routes}
        rdids = {each.routing_domain_id for each in policy.customer_routes}
        return {"vsids": sorted(vsids), "rdids": sorted(rdids), "planned": _same(policy, self._planned)}


def _told(changes: list[Change]) -> dict[str, Any]:
    """How many objects were added, removed and changed; the object itself when it is one."""
    told: dict[str, Any] = {
        "added": sum(change.old is None for change in changes),
        "removed": sum(change.new is None for change in changes),
        "changed": sum(None not in (change.old, change.new) for change in changes),
    }
    if len(changes) == 1:
        told |= {"old": msgspec.to_builtins(changes[0].old), "new": msgspec.to_builtins(changes[0].new)}
    return told


def _same(one: HostPolicy, other: HostPolicy) -> bool:
    """Whether two policies hold the same objects, in whatever order."""
    return all(
        set(getattr(one, field)) == set(getattr(other, field)) for field in HostPolicy.__struct_fields__
    )
