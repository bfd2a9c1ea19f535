"""A host of a lab under test: its provider addresses, counters, events, policy; commands in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from testbed.testing import vm as commands

if TYPE_CHECKING:
    from testbed.lab.lab import Lab
    from testbed.topology.plan import HostPlan


class Host:
    """A host, by its name."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab = lab
        self.name = name

    def __repr__(self) -> str:
        return self.name

    @property
    def plan(self) -> HostPlan:
        """What it was given."""
        return self._lab.plan.host(self.name)

    @property
    def cables(self) -> str:
        """A glob of the points at its cables."""
        return f"cable:{self.name}/*"

    @property
    def is_r2(self) -> bool:
        """Whether its WNV filter is in the switch, as in 2012 R2; in 2012 it is below."""
        return self.plan.wnv == "in-switch"

    @property
    def is_faulty(self) -> bool:
        """Whether one of its cables does anything to frames."""
        cables = self._lab.plan.fabric.cables
        return any(cable.is_faulty for cable in cables if cable.host == self.name)

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """A request to its control process (docs/architecture.md)."""
        return self._lab.ask(self.name, op, **fields)

    def run(self, *command: object, **options: Any) -> commands.Finished:
        """Run a command in the host; options as of :meth:`testbed.testing.vm.Vm.run`."""
        return commands.run(self._lab, self.name, *command, **options)

    def provider_addresses(self, vsid: int) -> set[str]:
        """Its PAs of a virtual subnet."""
        objects = self.ask("policy", verb="list", object="provider-addresses")["objects"]
        return {each["provider_address"] for each in objects if each["virtual_subnet_id"] == vsid}

    def lookup_records(self, vsid: int, address: str) -> list[dict[str, Any]]:
        """Its records of a customer address: customer_address, mac_address, provider_address, type, ..."""
        found: list[dict[str, Any]] = self.ask("policy", verb="list", object="lookup-records")["objects"]
        return [
            each
            for each in found
            if each["virtual_subnet_id"] == vsid and each["customer_address"] == address
        ]

    def counters(self, kind: str = "") -> list[dict[str, Any]]:
        """Its counters, of one kind or all (docs/cli.md)."""
        found: list[dict[str, Any]] = self.ask("counters")["counters"]
        return [each for each in found if not kind or each["kind"] == kind]

    def dropped(self, reason: str) -> int:
        """Packets that it has dropped for a reason so far."""
        fields = (each["fields"] for each in self.counters("drop"))
        return sum(each["packets"] for each in fields if each["reason"] == reason)

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What it noticed, oldest first."""
        return [each for each in self.ask("events")["events"] if not kind or each["kind"] == kind]

    @contextlib.contextmanager
    def changed(self, kind: str, verb: str, **fields: Any) -> Iterator[None]:
        """Its policy with one change, which is taken back at the end of the block."""
        answer = self.ask("policy", object=kind, verb=verb, fields=fields)
        try:
            yield
        finally:
            self.ask("policy", verb="undo", changes=answer["changes"])
