"""Random changes of everything that a switch decides by, for two switches that must go on agreeing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import msgspec

from support import corpus
from support.accounting import Config
from support.frames import BROADCAST, TCP, UDP, encapsulated, ethernet, ip, ipv4, ipv6, ports
from support.frames import vnet as offload
from support.switch import (
    BLUE,
    PLAIN,
    MemorySwitch,
    Seen,
    gateway_mac,
    mac_of,
    nic_mac,
    pa,
    policy,
    records,
    v4,
    v6,
)
from testbed.channel import pair
from testbed.errors import BadInput
from testbed.host.worker import Worker
from testbed.topology.plan import HostPolicy, LookupRecord, ProviderAddress
from testbed.wnv.policy import Change, PolicyStore
from testbed.wnv.tables import Tables

ENCAP, NAT, NONE = (f"TranslationMethod{rule}" for rule in ("Encap", "Nat", "None"))
NEW = "00:15:5d:00:0e:01"
Step = tuple[str, Any]

_OUTSIDE = {"blue1": "5", "blue2": "6", "web1": "15", "web2": "16"}


def _outside(name: str, version: int) -> str:
    return (f"192.168.9.{_OUTSIDE[name]}") if version == 4 else f"2001:db8::9:{_OUTSIDE[name]}"


def _groups(version: int) -> list[LookupRecord]:
    group = "239.1.1.1" if version == 4 else "ff15::7"
    return [
        LookupRecord("255.255.255.255", 5001, "ff:ff:ff:ff:ff:ff", group),
        LookupRecord("ff02::1", 5001, "33:33:00:00:00:01", group),
    ]


def _learners(version: int) -> list[LookupRecord]:
    return [
        LookupRecord(family, 5001, NEW, pa(2, 5001, version), type="L2Only") for family in ("0.0.0.0", "::")
    ]


def policies(version: int) -> dict[str, HostPolicy]:
    """Where a series starts: encapsulated by unicast, with PA groups, with L2Only records, with a rule."""
    plain = policy(1, version)
    made = {"plain": plain}
    for name, more in (("groups", _groups(version)), ("learners", _learners(version))):
        made[name] = policy(1, version, lookup_records=(*records(version), *more))
    for rule in (NAT, NONE):

        def changed(record: LookupRecord, rule: str = rule) -> LookupRecord:
            if record.vm_name not in _OUTSIDE:
                return record
            own = 6 if ":" in record.customer_address else 4
            return msgspec.structs.replace(record, rule=rule, provider_address=_outside(record.vm_name, own))

        own = [
            ProviderAddress(_outside(name, family), {4: 16, 6: 64}[family], vsid)
            for name, vsid in (("blue1", 5001), ("web1", 5002))
            for family in (4, 6)
        ]
        made[rule] = policy(
            1,
            version,
            lookup_records=tuple(map(changed, records(version))),
            provider_addresses=(*plain.provider_addresses, *own),
        )
    return made


# ---- what may happen ----------------------------------------------------------------------


def _orders(version: int) -> list[tuple[str, str, dict[str, list[Any]]]]:
    """Orders to a policy store: verb, kind, and for each field the values it may have."""
    subnets: list[Any] = [5001, 5001, 5002, 6001]
    where: dict[str, list[Any]] = {
        "customer_address": [v4("blue2"), v4("blue4"), v4("web2"), v6("blue2"), v6("web1"), v4("blue1")],
        "virtual_subnet_id": subnets,
    }
    pas: list[Any] = [pa(host, 5001, version) for host in (1, 2, 3)]
    route: dict[str, list[Any]] = {
        "routing_domain_id": [BLUE],
        "virtual_subnet_id": [5001, 5002],
        "destination_prefix": ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16", "fd00::/64"],
        "next_hop": ["0.0.0.0", "10.0.0.7", "::", "fd00::7"],
    }
    outer: dict[str, list[Any]] = {
        "destination_prefix": ["0.0.0.0/0", "192.168.1.2/32", "2001:db8::1:2/128"],
        "next_hop": pas[1:],
    }
    own: dict[str, list[Any]] = {"provider_address": pas[:1], "virtual_subnet_id": subnets}
    extra = [msgspec.structs.asdict(each) for each in (*_groups(version), *_learners(version))]
    record = where | {"mac_address": [mac_of("blue2").hex(":"), NEW], "provider_address": pas}
    metric: dict[str, list[Any]] = {"metric": [0, 1, 2]}
    return [
        ("set", "lookup-records", where | {"provider_address": pas}),
        ("set", "lookup-records", where | {"rule": [ENCAP, NAT, NONE]}),
        ("remove", "lookup-records", where),
        ("add", "lookup-records", record),
        *(("add", "lookup-records", {name: [value] for name, value in each.items()}) for each in extra),
        ("remove", "lookup-records", {"mac_address": [NEW]}),
        ("add", "customer-routes", route | metric),
        ("set", "customer-routes", {"virtual_subnet_id": subnets} | metric),
        ("remove", "customer-routes", route),
        ("add", "provider-routes", outer | metric),
        ("remove", "provider-routes", {"next_hop": outer["next_hop"]}),
        ("remove", "provider-addresses", own),
        ("add", "provider-addresses", own | {"prefix_length": [16, 64] if version == 6 else [16, 32]}),
    ]


def change(rng: Random, version: int) -> Step:
    """Whatever makes a switch decide otherwise than before; an order may be refused."""
    match rng.randrange(6):
        case 0:
            address = rng.choice([pa(2, 5001, version), pa(3, 5001, version), "192.168.9.6"])
            return "neighbor", (address, rng.choice([nic_mac(2), nic_mac(7), None]))
        case 1:
            return "port", (rng.choice(["blue1", "blue4", "plain1"]), rng.choice([5001, 5001, 5002, 6001, 0]))
        case 2:
            return "duplicate", rng.choice([pa(1, 5001, version), pa(1, 5002, version), "", ""])
    verb, kind, fields = rng.choice(_orders(version))
    return "order", (verb, kind, {name: rng.choice(values) for name, values in fields.items()})


def _flow(rng: Random, source: str) -> bytes:
    """A packet of a TCP or UDP flow, which is what the flow cache takes."""
    target = rng.choice(["blue2", "blue2", "blue3", "blue4", "web1", "web2", "blue1"])
    to = rng.choice([mac_of(target), mac_of(target), gateway_mac(5001), BROADCAST])
    protocol, body = rng.choice([TCP, UDP]), ports(rng.choice([1, 3]), 80) + bytes(20)
    if rng.randrange(2):
        return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), v4(target), protocol, body))
    return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), v6(target), protocol, body))


def _from_wire(rng: Random, version: int, inner: bytes) -> bytes:
    to = rng.choice([mac_of("blue1"), mac_of("blue4"), BROADCAST])
    vsid, host = rng.choice([5001, 5001, 5001, 5002, 6001]), rng.choice([2, 2, 3])
    outer = pa(host, 5001, version), pa(1, 5001, version), nic_mac(1), nic_mac(2)
    return encapsulated(to + inner[6:], vsid, *outer, rng.choice([0, 7]))


def _spoiled(rng: Random, frame: bytes) -> bytes:
    """With one or two other bytes in its headers, and perhaps cut."""
    changed = bytearray(frame)
    for _ in range(rng.randint(1, 2)):
        changed[rng.randrange(min(len(changed), 100))] ^= rng.choice([1, 2, 4, 0x10, 0x80, 0xFF])
    return bytes(changed[: rng.choice([len(changed), len(changed), rng.randrange(len(changed))])])


def _short(rng: Random, frame: bytes) -> bytes:
    """With an IP length that ends before the ports do."""
    at, least = (16, 20) if frame[12] == 0x08 else (18, 0)
    return frame[:at] + (least + rng.randint(0, 3)).to_bytes(2, "big") + frame[at + 2 :]


def _pool(rng: Random, version: int) -> list[Step]:
    """A few packets. Flows next to each other, for the cache to confuse, and one of anything else."""
    flow, back = _flow(rng, "blue1"), _flow(rng, "blue2")
    near = flow[:-23] + bytes((flow[-23] ^ 2,)) + flow[-22:]  # another source port
    entering = _from_wire(rng, version, back)
    other = rng.choice([*corpus.vm_frames().values()])
    others = rng.choice([*corpus.wire_frames(version).values()])
    sender = rng.choice(["blue1", "blue1", "blue4", "plain1"])
    leaving = [flow, near, _flow(rng, "blue1"), _spoiled(rng, flow), _short(rng, flow), other]
    coming = [entering, _from_wire(rng, version, back), _spoiled(rng, entering), others]
    coming.append(_from_wire(rng, version, _short(rng, back)))
    vnet = rng.choice([PLAIN, PLAIN, offload(34, 16), rng.randbytes(10)])
    return [("vm", (sender, each, vnet)) for each in leaving] + [("wire", (each, vnet)) for each in coming]


def series(rng: Random, version: int, length: int) -> Iterator[Step]:
    """Packets from a pool, which is sometimes another, with changes in between."""
    pool = _pool(rng, version)
    for _ in range(length):
        if not rng.randrange(40):
            pool = _pool(rng, version)
        if not rng.randrange(10):
            yield change(rng, version)
        yield rng.choice(pool)


# ---- the two switches ---------------------------------------------------------------------


class Twins:
    """``fast`` caches, and a worker changes it bit by bit; ``slow`` decides each packet anew.

    The tables of ``slow`` are made from the whole policy after each change.
    """

    def __init__(self, fast: MemorySwitch, slow: MemorySwitch, worker: Worker, start: HostPolicy) -> None:
        self.fast, self.slow, self._worker = fast, slow, worker
        self._store = PolicyStore(start)
        self._duplicate = ""
        self.changed = 0
        for switch in (fast, slow):
            switch.apply(start)

    def do(self, kind: str, what: Any) -> None:
        """One step on both; what comes of it must be the same."""
        if kind in ("vm", "wire"):
            assert self._packet(self.fast, kind, what) == self._packet(self.slow, kind, what)
        elif kind == "neighbor":
            assert self._neighbor(self.fast, what) == self._neighbor(self.slow, what)
            self.changed += 1
        elif kind == "port":
            self._move(*what)
        elif kind == "duplicate":
            self._duplicate = what
            self._changed([])
        else:
            self._order(*what)
        assert self.fast.datapath.drops == self.slow.datapath.drops
        assert self.fast.unresolved == self.slow.unresolved
        assert self.fast.datapath.held == self.slow.datapath.held

    def _packet(self, switch: MemorySwitch, kind: str, what: Any) -> Seen:
        return switch.from_vm(*what) if kind == "vm" else switch.from_wire(*what)

    def _neighbor(self, switch: MemorySwitch, what: Any) -> Seen:
        if switch is self.slow:
            return switch.neighbor(*what)
        address, mac = what
        return switch.caused(lambda: self._worker._on_neighbor({"next_hop": ip(address), "mac": mac}, []))

    def _move(self, name: str, vsid: int) -> None:
        self._worker._on_set_port({"name": name, "vsid": vsid}, [])
        port = self.slow.state.ports[name]
        self.slow.state.set_vsid(port, vsid)
        self.slow.stack.detach_port(name)
        self.slow.stack.attach_port(port)
        self.changed += 1

    def _order(self, verb: str, kind: str, fields: dict[str, Any]) -> None:
        try:
            wanted = list(getattr(self._store, verb)(kind, fields))
            self._store.apply(wanted)
        except BadInput:
            return
        self._changed(wanted)

    def _changed(self, wanted: list[Change]) -> None:
        policy = self._store.policy()
        preferred = [each.provider_address for each in policy.provider_addresses]
        preferred = [each for each in preferred if each != self._duplicate]
        message = msgspec.msgpack.decode(msgspec.msgpack.encode({"changes": wanted, "preferred": preferred}))
        self._worker._on_change_policy(message, [])
        self.slow.wnv.tables = Tables(policy, frozenset(preferred))
        self.changed += 1


@contextmanager
def twins(config: Config, start: HostPolicy) -> Iterator[Twins]:
    """Both of them, closed afterwards."""
    with ExitStack() as stack:
        fast, slow = (stack.enter_context(config.made(cached=cached)) for cached in (True, False))
        control, end = (stack.enter_context(each) for each in pair())
        del control
        worker = Worker(end)
        stack.callback(worker._poll.close)
        worker.state, worker.datapath = fast.state, fast.datapath
        worker.wnv, worker.stack = fast.wnv, fast.stack
        yield Twins(fast, slow, worker, start)
