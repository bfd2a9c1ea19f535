"""A host's policy objects, and changes of them that are checked before anything is changed.

``add``, ``set`` and ``remove`` say which changes an order means, or refuse it; ``apply`` does them. So
whoever changes several hosts can ask all of them first. What one order changes is done as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from testbed.errors import BadInput
from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord
from testbed.wnv import objects
from testbed.wnv.objects import KINDS, Fields, PolicyObject, describe, key_of

Key: TypeAlias = tuple[Any, ...]
Snapshot: TypeAlias = tuple[dict[str, dict[Key, PolicyObject]], dict[tuple[str, int], str], dict[str, Key]]
UNSPECIFIED = ("0.0.0.0", "::")
_NAMED = 5  # how many objects a message lists


class Change(Struct, frozen=True):
    """One object before and after: ``old`` None adds it, ``new`` None removes it."""

    kind: str
    old: Any = None  # PolicyObject | None; msgspec can't tell the types apart, decode_changes can
    new: Any = None


def decode_changes(data: Any) -> list[Change]:
    """Changes that came as plain data, as MessagePack leaves them. Raises msgspec.ValidationError."""
    return [
        Change(kind, _decode(kind, each.get("old")), _decode(kind, each.get("new")))
        for each in data
        for kind in (each["kind"],)
    ]


def _decode(kind: str, value: Any) -> PolicyObject | None:
    return None if value is None else msgspec.convert(value, KINDS[kind].type)


class PolicyStore:
    """The policy of one host. Nothing here is shared between threads."""

    def __init__(self, policy: HostPolicy) -> None:
        self.replace(policy)

    def replace(self, policy: HostPolicy) -> None:
        """Another policy, whole and made by the planner: it is not checked."""
        self._objects: dict[str, dict[Key, PolicyObject]] = {
            kind: {key_of(kind, item): item for item in objects.objects_of(policy, kind)} for kind in KINDS
        }
        # What must be unique beside the keys: the MAC of a CA, the record of an outside address
        self._macs: dict[tuple[str, int], str] = {}
        self._outside: dict[str, Key] = {}
        for record in self._objects["lookup-records"].values():
            self._index(None, record)

    def policy(self) -> HostPolicy:
        """All objects, in the order in which they came."""
        fields: dict[str, Any] = {
            kind.replace("-", "_"): tuple(self._objects[kind].values()) for kind in KINDS
        }
        return HostPolicy(**fields)

    def list(self, kind: str) -> tuple[PolicyObject, ...]:
        """The objects of one kind."""
        objects.properties(kind)
        return tuple(self._objects[kind].values())

    def record_of(self, vsid: int, ca: str) -> LookupRecord | None:
        """The lookup record of a CA, in canonical text."""
        mac = self._macs.get((ca, vsid))
        found = self._objects["lookup-records"].get((ca, vsid, mac))
        return found if isinstance(found, LookupRecord) else None

    def add(self, kind: str, fields: Fields) -> Sequence[Change]:
        """The change that adds an object. Raises BadInput."""
        change = Change(kind, None, objects.convert(kind, fields))
        self._check([change])
        return [change]

    def set(self, kind: str, fields: Fields) -> Sequence[Change]:
        """The changes of all objects whose key has the given parts: the other fields are their new values.

        Raises BadInput; none is among the changes that would not differ.
        """
        known = objects.properties(kind)
        for name in fields:
            if name in known.type.__struct_fields__ and name not in (*known.key, *known.changeable):
                raise BadInput(
                    f"{kind}: {name} can't be changed: remove the object and add it with the new {name}"
                )
        values = objects.partial(kind, fields)
        found = self._select(kind, values)
        new_values = {name: value for name, value in values.items() if name in known.changeable}
        if not new_values:
            raise BadInput(f"{kind}: nothing to set: give at least one of {', '.join(known.changeable)}")
        changed = [(old, objects.checked(kind, msgspec.structs.replace(old, **new_values))) for old in found]
        changes = [Change(kind, old, new) for old, new in changed if old != new]
        self._check(changes)
        return changes

    def remove(self, kind: str, fields: Fields) -> Sequence[Change]:
        """The changes that remove all objects whose key has the given parts. Raises BadInput."""
        known = objects.properties(kind)
        values = objects.partial(kind, fields)
        for name in values:
            if name not in known.key:
                raise BadInput(f"{kind}: {name} does not say which: use {', '.join(known.key)}")
        return [Change(kind, item, None) for item in self._select(kind, values)]

    def apply(self, changes: Iterable[Change]) -> None:
        """Do all of the changes, or (BadInput) none of them: the policy is no longer what they were for."""
        changes = tuple(changes)
        before = self._snapshot(changes)
        try:
            self._do(changes)
        except BadInput:
            self._restore(before)
            raise

    # ---- which objects are meant ----------------------------------------------------------

    def _select(self, kind: str, values: Fields) -> Sequence[PolicyObject]:
        key = KINDS[kind].key
        wanted = {name: values[name] for name in key if name in values}
        if not wanted:
            raise BadInput(f"{kind}: which? Give at least one of {', '.join(key)}")
        existing = self._objects[kind]
        place = wanted.get("customer_address"), wanted.get("virtual_subnet_id")
        if kind == "lookup-records" and place in self._macs:
            wanted.setdefault("mac_address", self._macs[place])  # the rest of the key: no search
        if len(wanted) == len(key):
            item = existing.get(tuple(wanted[name] for name in key))
            found = [] if item is None else [item]
        else:
            parts = attrgetter(*wanted)  # one pass in C: the policy may be large
            target = tuple(wanted.values()) if len(wanted) > 1 else next(iter(wanted.values()))
            found = [item for item in existing.values() if parts(item) == target]
        if not found:
            asked = " ".join(f"{name} {value}" for name, value in wanted.items())
            raise BadInput(f"{kind}: there is none with {asked}; {self._there(kind, wanted)}")
        return found

    def _there(self, kind: str, wanted: Fields) -> str:
        """What is there instead: first those that share most of the key."""
        ranked = sorted(
            self._objects[kind].values(),
            key=lambda item: -sum(getattr(item, name) == value for name, value in wanted.items()),
        )
        if not ranked:
            return "there are none at all"
        names = [" ".join(map(str, key_of(kind, item))) for item in ranked[:_NAMED]]
        more = f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else ""
        return f"there is {', '.join(names)}{more}"

    # ---- doing it, as a whole or not at all -----------------------------------------------

    def _check(self, changes: Sequence[Change]) -> None:
        """Raise what stands against the changes."""
        if len(changes) == 1:
            self._check_one(changes[0])
            return
        before = self._snapshot(changes)
        try:
            self._do(changes)
        finally:
            self._restore(before)

    def _do(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._check_one(change)
            self._put(change)

    def _snapshot(self, changes: Sequence[Change]) -> Snapshot | None:
        """A copy to return to, where part of the changes may be done. The policy may be large."""
        if len(changes) < 2:
            return None
        kinds = {change.kind for change in changes}
        return {kind: dict(self._objects[kind]) for kind in kinds}, dict(self._macs), dict(self._outside)

    def _restore(self, before: Snapshot | None) -> None:
        if before is not None:
            contents, self._macs, self._outside = before
            self._objects |= contents

    def _check_one(self, change: Change) -> None:
        kind, old, new = change.kind, change.old, change.new
        existing = self._objects[kind]
        if old is not None and existing.get(key_of(kind, old)) != old:
            raise BadInput(f"{describe(kind, old)}: it has changed meanwhile: look at it and try again")
        if new is None:
            return
        if old is None and key_of(kind, new) in existing:
            raise BadInput(f"{describe(kind, new)}: it is there already: set its fields, or remove it first")
        if isinstance(new, LookupRecord):
            self._check_record(new)
        elif isinstance(new, CustomerRoute):
            self._check_domain(new)

    def _check_record(self, record: LookupRecord) -> None:
        place = describe("lookup-records", record)
        mac = self._macs.get((record.customer_address, record.virtual_subnet_id))
        if mac not in (None, record.mac_address):
            raise BadInput(
                f"{place}: VSID {record.virtual_subnet_id} has this CA already, with the MAC {mac}: "
                "remove that record first"
            )
        outside = objects.outside_address(record)
        owner = self._outside.get(outside) if outside else None
        if owner not in (None, key_of("lookup-records", record)):
            raise BadInput(
                f"{place}: without encapsulation {outside} stands for one VM, and is "
                f"{' '.join(map(str, owner or ()))}'s: use another address, or the rule {objects.ENCAP}"
            )

    def _check_domain(self, route: CustomerRoute) -> None:
        for other in self._objects["customer-routes"].values():
            assert isinstance(other, CustomerRoute)
            same = other.virtual_subnet_id == route.virtual_subnet_id
            if same and other.routing_domain_id != route.routing_domain_id:
                raise BadInput(
                    f"{describe('customer-routes', route)}: VSID {route.virtual_subnet_id} belongs to "
                    f"{other.routing_domain_id}: use that routing domain, or remove its routes first"
                )

    def _put(self, change: Change) -> None:
        existing = self._objects[change.kind]
        if change.new is None:
            del existing[key_of(change.kind, change.old)]
        else:
            existing[key_of(change.kind, change.new)] = change.new
        if change.kind == "lookup-records":
            self._index(change.old, change.new)

    def _index(self, old: Any, new: Any) -> None:
        for record in (old, new):
            if record is None or record.customer_address in UNSPECIFIED:
                continue
            place = record.customer_address, record.virtual_subnet_id
            outside = objects.outside_address(record)
            if record is new:
                self._macs[place] = record.mac_address
                if outside:
                    self._outside[outside] = key_of("lookup-records", record)
            else:
                self._macs.pop(place, None)
                if outside:
                    self._outside.pop(outside, None)
