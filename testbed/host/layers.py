"""A host's policy in two layers: what its owner said, and what this host has of its own above it.

The owner is the VMM or, where there is none, the Plan. A host's own objects are those that it assumes
because it has learned an address, until the owner speaks of that address, and those that were changed
by hand on this host alone, until the next whole policy of the owner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from testbed.errors import BadInput
from testbed.topology.plan import HostPolicy, LookupRecord
from testbed.wnv.objects import KINDS, PolicyObject, key_of, objects_of
from testbed.wnv.policy import UNSPECIFIED, Change, PolicyStore

Ref: TypeAlias = tuple[str, tuple[Any, ...]]  # kind and key of an object
Refs: TypeAlias = dict[Ref, None]  # each once, in their order


class Own(NamedTuple):
    """An object of the host's own; None: the host does without the owner's."""

    item: PolicyObject | None
    learned: bool


class Layers:
    """``effective`` is what holds. Every order answers the changes of it, made as a whole.

    Raises BadInput when the changes contradict what is there; then nothing has changed.
    """

    def __init__(self, policy: HostPolicy) -> None:
        self.replace(policy)

    def replace(self, policy: HostPolicy) -> None:
        """The owner's whole policy; nothing is the host's own any more."""
        self._owners = _by_ref(policy)
        self._own: dict[Ref, Own] = {}
        self.effective = PolicyStore(policy)

    def reset(self, policy: HostPolicy) -> list[Change]:
        """The owner's whole policy; what was changed by hand is gone, what was learned waits for its word."""
        owners = _by_ref(policy)
        refs = dict.fromkeys([*owners, *self._owners, *self._own])

        def put() -> None:
            self._owners = owners
            self._own = {
                ref: own for ref, own in self._own.items() if own.learned and own.item != owners.get(ref)
            }

        return self._insist(refs, put)

    def follow(self, changes: Iterable[Change]) -> list[Change]:
        """Changes of the owner's. Its word on an object or a CA ends what the host had of its own there."""
        changes = list(changes)
        places = {_place(item) for change in changes for item in (change.old, change.new)} - {None}
        there = (ref for ref, own in self._own.items() if _place(own.item) in places)
        refs = dict.fromkeys([*map(_ref, changes), *there])

        def put() -> None:
            for ref in refs:
                self._own.pop(ref, None)
            for change in changes:
                if change.new is None:
                    self._owners.pop(_ref(change), None)
                else:
                    self._owners[_ref(change)] = change.new

        return self._insist(refs, put)

    def override(self, changes: Iterable[Change], *, learned: bool) -> list[Change]:
        """Changes of the host's own."""
        changes = list(changes)

        def put() -> None:
            for change in changes:
                ref = _ref(change)
                if change.new == self._owners.get(ref):
                    self._own.pop(ref, None)
                else:
                    self._own[ref] = Own(change.new, learned)

        return self._switch(dict.fromkeys(map(_ref, changes)), put)

    def retract(self, refs: Iterable[Ref]) -> list[Change]:
        """Do without these of the host's own: the owner's hold again."""
        gone = dict.fromkeys(ref for ref in refs if ref in self._own)

        def put() -> None:
            for ref in gone:
                del self._own[ref]

        return self._switch(gone, put)

    def is_own(self, kind: str, item: PolicyObject) -> bool:
        """Whether an effective object is not the owner's (Unsynchronized)."""
        return (kind, key_of(kind, item)) in self._own

    def in_step(self) -> bool:
        """Whether nothing is the host's own."""
        return not self._own

    # ---- one layer above the other ----------------------------------------------------------

    def _insist(self, refs: Refs, put: Callable[[], None]) -> list[Change]:
        """The owner's word: where something of the host's own stands against it, all of that goes."""
        try:
            return self._switch(refs, put)
        except BadInput:
            refs = refs | dict.fromkeys(self._own)

            def put_alone() -> None:
                put()
                self._own = {}

            return self._switch(refs, put_alone)

    def _switch(self, refs: Refs, put: Callable[[], None]) -> list[Change]:
        owners, own = self._owners, dict(self._own)
        spoken = {ref: owners[ref] for ref in refs if ref in owners}
        before = {ref: self._top(ref) for ref in refs}
        put()
        after = {ref: self._top(ref) for ref in refs}
        changes = [Change(ref[0], before[ref], after[ref]) for ref in refs if before[ref] != after[ref]]
        changes.sort(key=lambda change: change.new is not None)  # what goes first makes room
        try:
            self.effective.apply(changes)
        except BadInput:
            for ref in refs:
                owners.pop(ref, None)
            self._owners, self._own = owners | spoken, own
            raise
        return changes

    def _top(self, ref: Ref) -> PolicyObject | None:
        own = self._own.get(ref)
        return self._owners.get(ref) if own is None else own.item


def _by_ref(policy: HostPolicy) -> dict[Ref, PolicyObject]:
    return {(kind, key_of(kind, item)): item for kind in KINDS for item in objects_of(policy, kind)}


def _ref(change: Change) -> Ref:
    item = change.old if change.new is None else change.new
    return change.kind, key_of(change.kind, item)


def _place(item: PolicyObject | None) -> tuple[int, str] | None:
    """The VSID and CA of a record: one machine has it, whatever the MAC."""
    if not isinstance(item, LookupRecord) or item.customer_address in UNSPECIFIED:
        return None
    return item.virtual_subnet_id, item.customer_address
