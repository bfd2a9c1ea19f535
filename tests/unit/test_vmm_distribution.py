"""Whatever changes and however the streams break: a host that watched has what a fresh snapshot has."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from support.vmm import BLUE, RED, contents
from testbed.errors import BadInput
from testbed.topology.plan import HostPolicy
from testbed.vmm import model
from testbed.vmm.distribution import Hub, catch_up, policy_json, scopes_of
from testbed.vmm.replica import Missed, Replica
from testbed.vmm.rules import hosts, learning, migration, networks, orders, placement, policy, pools
from testbed.vmm.store.database import Store, Transaction
from testbed.vmm.store.tables import PORTS, PREPARATIONS, PROVIDER_ADDRESSES, SUBNETS
from testbed.wnv.policy import PolicyStore

HOSTS = ("h1", "h2", "h3")
VMS = ("a", "b", "c", "d")
VSIDS = (5001, 5002, 6001)
CAS = ("10.0.0.5", "10.0.0.6", "10.0.1.5", "fd00::5")
GREEN = "{00000000-0000-0000-0000-00000000cafe}"


def world(store: Store) -> None:
    with store.change() as tx:
        pools.add_pa_pool(tx, model.NewPool("pa", "192.168.0.0/28"))
        for rdid, name in ((BLUE, "blue"), (RED, "red"), (GREEN, "green")):
            networks.add_network(tx, model.NewNetwork(name, rdid))
        networks.add_subnet(tx, model.NewSubnet(BLUE, 5001, ("10.0.0.0/24", "fd00::/64")))
        networks.add_subnet(tx, model.NewSubnet(BLUE, 5002, ("10.0.1.0/24",), multicast="239.1.1.1"))
        networks.add_subnet(tx, model.NewSubnet(RED, 6001, ("10.0.0.0/24",)))
        for name in HOSTS:
            hosts.register(tx, model.NewHost(name))
        # so that there is a steady state to begin with, in which most changes are no resets
        for vm, host, vsid in (("a", "h1", 5001), ("b", "h2", 5001), ("c", "h3", 5002), ("d", "h1", 6001)):
            place(vm, host, vsid, {}, gateway=False)(tx)


# ---- orders: each a function of a transaction, any of which may be refused ---------------------

Order = Callable[[Transaction], Any]
host_names, vm_names, vsids = st.sampled_from(HOSTS), st.sampled_from(VMS), st.sampled_from(VSIDS)
cas = st.sampled_from(CAS)


def place(vm: str, host: str, vsid: int, addresses: Any, *, gateway: bool) -> Order:
    fields = {"vsid": vsid, "is_gateway": gateway, "dynamic_address_limit": 2} | addresses
    order = {"name": vm, "host": host, "adapters": [fields]}
    return lambda tx: placement.place(tx, msgspec.convert(order, model.NewVm))


def migrate(vm: str, to: str, phase: Any) -> Order:
    return lambda tx: migration.migrate(tx, vm, model.Migration(to, phase))


def learn(vm: str, ca: str, silent: bool, replaces: Any) -> Order:
    def do(tx: Transaction) -> None:
        port = placement.existing_port(tx, f"{vm}:eth0")
        own = tx.get(PROVIDER_ADDRESSES, port.host, port.vsid)
        assert own is not None
        report = model.Learned(port.mac, ca, port.vsid, own.provider_address, "arp", replaces)
        held = policy.record_of_address(tx, port.vsid, ca) if silent else None
        learning.learn(tx, port.host, report, held)

    return do


def age(vm: str, ca: str) -> Order:
    def do(tx: Transaction) -> None:
        port = placement.existing_port(tx, f"{vm}:eth0")
        learning.age(tx, port.host, port.vsid, port.mac, ca)

    return do


def subnet(add: bool, rdid: str, vsid: int) -> Order:
    if add:
        return lambda tx: networks.add_subnet(tx, model.NewSubnet(rdid, vsid, (f"10.{vsid - 7000}.0.0/24",)))
    return lambda tx: networks.remove_subnet(tx, vsid)


def record(ca: str, vsid: int, add: bool) -> Order:
    new = model.NewLookupRecord(ca, vsid, "00:00:00:00:00:01", "192.168.0.14", vm_name="by hand")
    if add:
        return lambda tx: orders.add_record(tx, new)
    return lambda tx: orders.remove_records(tx, {"customer_address": ca, "virtual_subnet_id": vsid})


addresses = st.one_of(
    st.just({}), st.just({"allocate": [4]}), st.lists(cas, max_size=2).map(lambda given: {"addresses": given})
)
ORDERS = st.one_of(
    st.builds(place, vm_names, host_names, vsids, addresses, gateway=st.booleans()),
    st.builds(place, vm_names, host_names, vsids, addresses, gateway=st.booleans()),
    st.builds(lambda vm: lambda tx: placement.remove(tx, vm), vm_names),
    st.builds(migrate, vm_names, host_names, st.just("commit")),
    st.builds(migrate, vm_names, host_names, st.sampled_from(["prepare", "prepare", "commit", "cancel"])),
    st.builds(learn, vm_names, cas, st.booleans(), st.none() | cas),
    st.builds(learn, vm_names, cas, st.just(True), st.none()),
    st.builds(age, vm_names, cas),
    st.builds(
        lambda vm, new: lambda tx: placement.change_port(tx, f"{vm}:eth0", model.PortChange(tuple(new))),
        vm_names,
        st.lists(cas, max_size=2),
    ),
    st.builds(subnet, st.booleans(), st.sampled_from([BLUE, GREEN]), st.sampled_from([7001, 7002])),
    st.builds(record, cas, vsids, st.booleans()),
    st.builds(
        lambda host, metric: (
            lambda tx: orders.add_provider_route(
                tx, model.HostProviderRoute(host, "0.0.0.0/0", "192.168.0.14", metric)
            )
        ),
        host_names,
        st.integers(1, 3),
    ),
    st.builds(
        lambda vsid, metric: (
            lambda tx: orders.set_customer_routes(tx, {"virtual_subnet_id": vsid, "metric": metric})
        ),
        vsids,
        st.integers(1, 3),
    ),
)
# What befalls a host's stream
FAULTS = st.sampled_from(["read", "read", "read", "break", "cut", "twice", "swap", "again", "trim"])
STEPS = st.lists(
    st.tuples(ORDERS, st.tuples(FAULTS, host_names, st.integers(0, 3))), min_size=15, max_size=40
)


# ---- a host ------------------------------------------------------------------------------------


class Watching:
    """A host: its stream, its table, and all lines it ever got."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub = hub
        self.name = name
        self.replica = Replica()
        self.table = PolicyStore(HostPolicy())
        self.lines: list[bytes] = []
        self._stream: AsyncIterator[bytes] | None = None

    async def disconnect(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()  # type: ignore[attr-defined]
        self._stream = None

    async def read(self) -> list[bytes]:
        """The lines there are, up to the next keep-alive."""
        if self._stream is None:
            begin = self.hub.resume_point(self.replica.revision, self.replica.store)
            self._stream = self.hub.watch(self.name, begin)
        data = b""
        while b'"keep-alive"' not in data:
            data += await anext(self._stream)
        lines = data.splitlines()
        for line in lines:
            self.check_own(line)
        self.lines += lines
        return lines

    def check_own(self, line: bytes) -> None:
        """Nothing in a line is of a network of which no VM is on the host, or prepared to come."""
        store = self.hub.store
        coming = [each.vm for each in store.select(PREPARATIONS, host=self.name)]
        ports = store.select(PORTS, host=self.name) + [p for vm in coming for p in store.select(PORTS, vm=vm)]
        networks_here = {port.rdid for port in ports}
        own = {each.vsid for each in self.hub.store.select(SUBNETS) if each.rdid in networks_here}
        known = {each.vsid for each in self.hub.store.select(SUBNETS)}
        foreign = [vsid for vsid in known - own if b'"virtual_subnet_id":%d,' % vsid in line]
        assert not foreign, f"{self.name} was told of VSIDs {foreign}: {line!r}"

    def apply(self, lines: list[bytes]) -> bool:
        """False: a line was missed."""
        for line in lines:
            try:
                found = self.replica.feed(line)
            except Missed:
                event("a missed line was noticed")
                return False
            if isinstance(found, HostPolicy):
                self.table.replace(found)
            elif not isinstance(found, model.Probe):
                self.table.apply(found)
        return True

    async def suffer(self, fault: str, number: int) -> None:
        if fault == "break":
            await self.disconnect()
            return
        if fault == "again":  # what came long ago comes again
            self.apply(self.lines[-number - 1 :])
            return
        lines = await self.read()
        if fault == "cut":
            await self.disconnect()
            lines = lines[:number]
        elif fault == "twice":
            lines = [line for each in lines for line in (each, each)]
        elif fault == "swap" and len(lines) > 1:
            lines = [*lines[1:], lines[0]]
        if not self.apply(lines):
            await self.disconnect()


def as_sets(policy: HostPolicy) -> dict[str, set[object]]:
    return {name: set(getattr(policy, name)) for name in policy.__struct_fields__}


async def scenario(store: Store, steps: list[Any]) -> None:
    hub = Hub(store, keep_alive=0.0005)
    watching = {name: Watching(hub, name) for name in HOSTS}
    for host in watching.values():
        assert host.apply(await host.read())
    for order, (fault, name, number) in steps:
        before = contents(store)
        try:
            with store.change() as tx:
                order(tx)
        except BadInput:
            assert contents(store) == before
        if fault == "trim":
            trim(store)
        else:
            await watching[name].suffer(fault, number)
    for name, host in watching.items():
        if not host.apply(await host.read()):  # what is left of a stream with a gap
            await host.disconnect()
            assert host.apply(await host.read())
        await host.disconnect()
        fresh = msgspec.json.decode(policy_json(store, name), type=HostPolicy)
        assert as_sets(host.table.policy()) == as_sets(fresh), name
        if fresh.lookup_records:
            event("a host with policy")
    hub.close()


def trim(store: Store) -> None:
    """As a store does from time to time."""
    with store.change() as tx:
        tx.trim(store.revision - 1)
        tx.event("trim", "log")
    store.log_start = store.revision - 2


@settings(derandomize=True, deadline=None, max_examples=60)
@given(STEPS)
def test_a_host_that_watched_has_what_a_snapshot_has(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "vmm.sqlite")
        try:
            store.connection.execute("PRAGMA synchronous = OFF")
            world(store)
            asyncio.run(scenario(store, steps))
        finally:
            store.close()


def test_the_search_for_foreign_records_finds_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "vmm.sqlite")
    world(store)
    host = Watching(Hub(store), "h2")
    with pytest.raises(AssertionError, match="6001"):
        host.check_own(b'{"virtual_subnet_id":6001,"mac_address":""}')
    store.close()


# ---- one line at a time ------------------------------------------------------------------------


def reset(revision: int, store: str = "s") -> bytes:
    return b'{"type":"reset","revision":%d,"store":"%s","policy":{}}' % (revision, store.encode())


def change(after: int, revision: int) -> bytes:
    route = b'{"destination_prefix":"0.0.0.0/0","next_hop":"192.168.0.1"}'
    head = b'{"type":"changes","after":%d,"revision":%d,' % (after, revision)
    return head + b'"changes":[{"kind":"provider-routes","old":null,"new":%s}]}' % route


def test_what_came_before_is_nothing_to_do() -> None:
    replica = Replica()
    assert replica.feed(reset(5)) == HostPolicy()
    assert len(replica.feed(change(5, 7))) == 1  # type: ignore[arg-type]
    for line in (change(5, 7), reset(5), b'{"type":"keep-alive","after":5,"revision":6}'):
        assert replica.feed(line) == []
        assert replica.revision == 7
    assert replica.feed(reset(3, "another")) == HostPolicy()
    assert (replica.store, replica.revision) == ("another", 3)


def test_a_keep_alive_moves_on() -> None:
    replica = Replica("s", 5)
    assert replica.feed(b'{"type":"keep-alive","after":5,"revision":9}') == []
    assert len(replica.feed(change(9, 12))) == 1  # type: ignore[arg-type]


def test_what_was_missed_is_noticed() -> None:
    replica = Replica("s", 5)
    for line in (change(6, 7), b'{"type":"keep-alive","after":6,"revision":9}'):
        with pytest.raises(Missed):
            replica.feed(line)
        assert replica.revision == 5
    with pytest.raises(Missed):
        Replica().feed(change(5, 7))


def test_a_probe_is_of_no_revision() -> None:
    line = b'{"type":"probe","vsid":5001,"mac":"02:00:00:00:00:01","ca":"10.0.0.5"}'
    probe = model.Probe(5001, "02:00:00:00:00:01", "10.0.0.5")
    for replica in (Replica(), Replica("s", 5)):
        before = replica.store, replica.revision
        assert [replica.feed(line), replica.feed(line)] == [probe, probe]
        assert (replica.store, replica.revision) == before
    assert len(replica.feed(change(5, 6))) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("line", [b"", b"{}", b"nonsense", b'{"type":"other"}', b'{"type":"reset"}'])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Replica("s", 5).feed(line)


def test_a_host_far_behind_gets_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "vmm.sqlite")
    world(store)
    scopes = scopes_of(store, "h1")
    behind = store.revision
    for metric in range(1, 6):
        with store.change() as tx:
            orders.set_customer_routes(tx, {"virtual_subnet_id": 5001, "metric": metric})
    monkeypatch.setattr("testbed.vmm.distribution._LONGEST_CATCH_UP", 5)
    found = catch_up(store, scopes, behind)
    assert found is not None
    assert (found[0].count(b"\n"), found[1]) == (5, store.revision)
    monkeypatch.setattr("testbed.vmm.distribution._LONGEST_CATCH_UP", 4)
    assert catch_up(store, scopes, behind) is None
    store.close()
