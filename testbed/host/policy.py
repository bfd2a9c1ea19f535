"""The policy of a host as it is now: its owner's, and what the host has of its own (testbed.host.layers).

Requests (``op`` "policy" of the control socket): ``verb`` list, add, set, remove with ``object`` (a
kind of :data:`testbed.wnv.objects.KINDS`) and ``fields``; undo with ``changes`` as a change answered
them; networks. A change is checked whole, then the worker gets exactly the difference, then it holds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.host.layers import Layers, Ref
from testbed.host.orders import WorkerLink
from testbed.host.pa.addresses import AddressState
from testbed.host.provider import ProviderSide
from testbed.host.usable import Usable
from testbed.telemetry import EventLog
from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord, ProviderAddress
from testbed.wnv.policy import UNSPECIFIED, Change, PolicyStore, decode_changes


class PolicyControl:
    """Owns the policy; keeps worker and provider side in step with it."""

    def __init__(self, link: WorkerLink, provider: ProviderSide, events: EventLog) -> None:
        self._link = link
        self._provider = provider
        self._events = events
        self._layers = Layers(HostPolicy())
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

    def answer(self, message: Message) -> Message:
        """Answer a "policy" request. Raises BadInput, and then nothing has changed."""
        verb = message["verb"]
        if verb not in self._verbs:
            raise BadInput(f"unknown verb {verb!r}")
        return self._verbs[verb](message)

    # ---- what the owner says ----------------------------------------------------------------

    def replace(self, policy: HostPolicy) -> None:
        """Begin with the policy of a Plan; nothing of the host's own stays."""
        self._layers.replace(policy)
        self._provider.set_addresses({each.provider_address for each in policy.provider_addresses})
        groups = self._link.order(
            "policy", policy=msgspec.msgpack.encode(policy), preferred=self._provider.preferred()
        )
        self._provider.set_groups(groups)

    def reset(self, policy: HostPolicy) -> None:
        """The VMM's whole policy; what was changed by hand is gone."""
        self._hold(self._layers.reset(policy))

    def follow(self, changes: list[Change]) -> None:
        """Changes of the VMM's."""
        self._hold(self._layers.follow(changes))

    # ---- learning ---------------------------------------------------------------------------

    def assume(self, changes: list[Change]) -> None:
        """Changes that hold until the VMM speaks of their objects. Raises BadInput."""
        self._hold(self._layers.override(changes, learned=True))

    def retract(self, refs: Iterable[Ref]) -> None:
        """Give up what was assumed of some objects."""
        self._hold(self._layers.retract(refs))

    def record_of(self, vsid: int, ca: str) -> LookupRecord | None:
        """The lookup record of a CA."""
        return self._store.record_of(vsid, ca)

    def records_of_mac(self, vsid: int, mac: str) -> list[LookupRecord]:
        """The lookup records of a VM's adapter."""
        return [
            record
            for record in self._store.list("lookup-records")
            if isinstance(record, LookupRecord)
            and record.mac_address == mac
            and record.virtual_subnet_id == vsid
        ]

    def pa_of(self, vsid: int) -> str | None:
        """The host's own PA of a VSID."""
        for each in self._store.list("provider-addresses"):
            if isinstance(each, ProviderAddress) and each.virtual_subnet_id == vsid:
                return each.provider_address
        return None

    def on_link(self, vsid: int, ca: str) -> bool:
        """Whether a CA lies in a prefix of the virtual subnet."""
        address = ipaddress.ip_address(ca)
        return any(
            isinstance(route, CustomerRoute)
            and route.virtual_subnet_id == vsid
            and route.next_hop in UNSPECIFIED
            and address in ipaddress.ip_network(route.destination_prefix)
            for route in self._store.list("customer-routes")
        )

    # ---- changes --------------------------------------------------------------------------

    @property
    def _store(self) -> PolicyStore:
        return self._layers.effective

    def _change(self, message: Message, check: Callable[[str, dict[str, Any]], Iterable[Change]]) -> Message:
        changes = list(check(message["object"], message["fields"]))
        if not message.get("check"):
            self._hold(self._layers.override(changes, learned=False))
        return {"changes": [msgspec.to_builtins(change) for change in changes]}

    def _undo(self, message: Message) -> Message:
        """Take back changes as they were answered, the last one first."""
        done = decode_changes(message["changes"])
        back = [Change(change.kind, change.new, change.old) for change in reversed(done)]
        self._hold(self._layers.override(back, learned=False))
        return {}

    def _hold(self, changes: list[Change]) -> None:
        """Tell the worker and the provider side; then they hold."""
        if not changes:
            return
        if any(change.kind == "provider-addresses" for change in changes):
            self._provider.set_addresses({each.provider_address for each in self.policy().provider_addresses})
        groups = self._link.order(
            "change-policy",
            changes=[msgspec.to_builtins(change) for change in changes],
            preferred=self._provider.preferred(),
        )
        self._provider.set_groups(groups)
        self._events.add("policy-change", changes[0].kind, **_told(changes))

    # ---- questions ------------------------------------------------------------------------

    def _list(self, kind: str) -> list[dict[str, Any]]:
        objects = [msgspec.to_builtins(each) for each in self._store.list(kind)]
        if kind == "provider-addresses":
            states = self._provider.states()
            for each in objects:
                each["address_state"] = states.get(each["provider_address"], AddressState.TENTATIVE)
        elif kind == "lookup-records":
            policy = self._store.policy()
            usable = Usable(policy, set(self._provider.preferred()))
            for record, each in zip(policy.lookup_records, objects, strict=True):
                each["unusable"] = record.provider_address not in usable
                each["unsynchronized"] = self._layers.is_own(kind, record)
        return objects

    def _networks(self) -> Message:
        """The VSIDs and RDIDs that the policy speaks of, and whether all of it is the owner's."""
        policy = self._store.policy()
        vsids = {each.virtual_subnet_id for each in policy.lookup_records}
        vsids |= {each.virtual_subnet_id for each in policy.customer_routes}
        rdids = {each.routing_domain_id for each in policy.customer_routes}
        return {"vsids": sorted(vsids), "rdids": sorted(rdids), "planned": self._layers.in_step()}


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
