"""A worker's NICs: opened, switched, and their registers written as a driver does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.nic.classifier import HASH_TYPES, KEY, Steering
from testbed.nic.offloads import Offloads
from testbed.nic.registers import TABLE, Registers
from testbed.packets.ethernet import parse_mac
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink

_TABLE_SIZES = tuple(1 << bits for bits in range(8))


class Rss(msgspec.Struct, frozen=True):
    """What can be set of receive-side scaling (NDIS_RECEIVE_SCALE_PARAMETERS)."""

    key: bytes
    table: tuple[int, ...]
    hash_types: tuple[str, ...] = tuple(HASH_TYPES)


@dataclass
class Nic:
    """A NIC of this host."""

    uplink: Uplink
    rss: Rss
    registers: Registers | None = None
    filters: dict[tuple[bytes, int], int] = field(default_factory=dict)


class Nics:
    """The NICs by name. They are in the switch's state as uplinks too."""

    def __init__(self, state: SwitchState, provider_address: Callable[[int], bytes | None]) -> None:
        """``provider_address(vsid)``: the PA to which packets for a virtual subnet come."""
        self._state = state
        self.provider_address = provider_address
        self._nics: dict[str, Nic] = {}

    def add(self, message: Message) -> Uplink:
        """Open a NIC of the Plan. Raises OSError."""
        uplink = Uplink(
            message["name"],
            parse_mac(message["mac"]),
            message["mtu"],
            wnv_binding=message["wnv_binding"],
            offloads=msgspec.convert(message["offloads"], Offloads),
            queues=message["queues"],
        )
        self._state.uplinks[uplink.name] = uplink
        table = tuple(position % len(uplink.queues) for position in range(TABLE))
        self._nics[uplink.name] = Nic(uplink, Rss(KEY, table))
        self._state.forget_flows()
        return uplink

    def remove(self, name: str) -> Uplink | None:
        """Take a NIC away; the caller closes it. None: there is none of this name."""
        if nic := self._nics.pop(name, None):
            del self._state.uplinks[name]
            if nic.registers:
                nic.registers.close()
            self._state.forget_flows()
            return nic.uplink
        return None

    def install(self, name: str, descriptor: int) -> None:
        """The NIC's classifier is there: its registers are this memory."""
        nic = self._nics[name]
        if nic.registers:
            nic.registers.close()
        nic.registers = Registers(descriptor)
        self._program(nic)

    def change(self, name: str, offloads: Offloads, rss: dict[str, Any]) -> None:
        """Switch offloads and set what ``rss`` has of key, table and hash types. Raises BadInput."""
        nic = self._nics[name]
        new = checked(nic.rss, rss, len(nic.uplink.queues))
        nic.rss, nic.uplink.offloads = new, offloads
        self._program(nic)
        self._state.forget_flows()

    def ports_changed(self) -> None:
        """VMs have come or gone: VMQ gives each a queue, by turns; queue 0 is everybody else's.

        In a team whose queues add up a VM has its queue on the member that takes what comes for it.
        """
        roles = self._state.roles
        ports = [self._state.ports[name] for name in sorted(self._state.ports)]
        for name, nic in self._nics.items():
            here = [port for port in ports if roles.queue_mode != "Sum-of-Queues" or self._at(port) == name]
            queues = len(nic.uplink.queues)
            filters = {
                (port.mac, 0): 1 + i % (queues - 1) if queues > 1 else 0 for i, port in enumerate(here)
            }
            if filters != nic.filters:
                nic.filters = filters
                self._program(nic)

    def _at(self, port: Port) -> str | None:
        """The member at which what is for a VM arrives: by its MAC, or by its virtual subnet's PA."""
        roles, address = self._state.roles, port.mac
        if port.vsid:
            found = self.provider_address(port.vsid)
            if found is None:
                return None
            address = found
        return roles.speaker(address)

    def describe(self) -> list[Message]:
        """Each NIC's settings and the counters of its registers."""
        return [
            {
                "name": name,
                "offloads": msgspec.to_builtins(nic.uplink.offloads),
                "queues": len(nic.uplink.queues),
                "rss": {
                    "key": nic.rss.key.hex(),
                    "table": list(nic.rss.table),
                    "hash_types": list(nic.rss.hash_types),
                },
                "vmq": {mac.hex(":"): queue for (mac, _), queue in nic.filters.items()},
                "has_classifier": nic.registers is not None,
                "counters": {
                    **nic.uplink.counters(),
                    **(nic.registers.counters() if nic.registers else {}),
                },
            }
            for name, nic in self._nics.items()
        ]

    def steering(self, name: str) -> Steering | None:
        """What the registers of a NIC say; None where it has none, and with it one queue."""
        nic = self._nics.get(name)
        return _steering(nic) if nic and nic.registers else None

    @staticmethod
    def _program(nic: Nic) -> None:
        if nic.registers is not None:
            nic.registers.write(_steering(nic), nic.uplink.offloads, len(nic.uplink.queues))


def _steering(nic: Nic) -> Steering:
    plain, nvgre = nic.uplink.plain, nic.uplink.nvgre
    several = len(nic.uplink.queues) > 1
    return Steering(
        rss=plain.rss and several,
        vmq=plain.vmq and several,
        nvgre_rss=nvgre.rss,
        nvgre_vmq=nvgre.vmq,
        key=nic.rss.key,
        table=nic.rss.table,
        hash_types=sum(HASH_TYPES[name] for name in nic.rss.hash_types),
        filters=nic.filters,
    )


def checked(now: Rss, wanted: dict[str, Any], queues: int) -> Rss:
    """The settings with some changed. Raises BadInput."""
    key, table = wanted.get("key", now.key), tuple(wanted.get("table", now.table))
    types = tuple(wanted.get("hash_types", now.hash_types))
    if len(key) != len(KEY):
        remedy = f"write {2 * len(KEY)} hex digits"
        raise BadInput(f"an RSS key has {len(KEY)} bytes, this one {len(key)}: {remedy}")
    if len(table) not in _TABLE_SIZES:
        raise BadInput(f"an RSS table has 1, 2, 4, ... or {TABLE} entries, this one {len(table)}")
    if wrong := [entry for entry in table if not 0 <= entry < queues]:
        raise BadInput(f"an RSS table names queue {wrong[0]}: the NIC has 0 to {queues - 1}")
    if unknown := [name for name in types if name not in HASH_TYPES]:
        raise BadInput(f"unknown hash type {unknown[0]!r}: use some of {', '.join(HASH_TYPES)}")
    return Rss(key, table, types)
