"""Any series of changes: the store stays consistent, and the tables are those of its policy."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from support.random_input import repeatable
from support.switch import BLUE, RED, mac_of, policy, tables
from testbed.errors import BadInput
from testbed.topology.plan import HostPolicy
from testbed.wnv.objects import KINDS
from testbed.wnv.policy import Change, PolicyStore, decode_changes
from testbed.wnv.tables import Tables

NAT, NONE = "TranslationMethodNat", "TranslationMethodNone"
_VSIDS = st.sampled_from([5001, 5002, 6001])
_ONE, _OTHER = mac_of("blue1").hex(":"), "00:15:5d:00:00:50"
_SHAPES = [  # what fits together: type, CAs, MACs, PAs
    ("Static", ["10.0.0.5", "10.0.0.50", "fd00::5"], [_ONE, _OTHER], ["192.168.1.1", "192.168.1.2"]),
    ("Dynamic", ["10.0.0.50", "fd00::50"], [_OTHER], ["192.168.1.2", "2001:db8::2", "169.254.254.254"]),
    ("L2Only", ["0.0.0.0", "::"], [_ONE, _OTHER], ["192.168.1.1", "192.168.1.2"]),
    ("GatewayWildcard", ["0.0.0.0", "::"], [_ONE, _OTHER], ["192.168.1.2", "2001:db8::2"]),
    ("Static", ["255.255.255.255"], ["ff:ff:ff:ff:ff:ff"], ["239.1.1.1", "ff15::1"]),
    ("Static", ["ff02::1"], ["33:33:00:00:00:01"], ["239.1.1.1"]),
]
_RULES = st.sampled_from(["TranslationMethodEncap", "TranslationMethodEncap", NAT, NONE])


@st.composite
def _records(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly valid ones."""
    kind, addresses, macs, pas = draw(st.sampled_from(_SHAPES))
    return {
        "customer_address": draw(st.sampled_from(addresses)),
        "virtual_subnet_id": draw(_VSIDS),
        "mac_address": draw(st.sampled_from(macs)),
        "provider_address": draw(st.sampled_from(pas)),
        "type": kind,
        "rule": draw(_RULES) if kind in ("Static", "Dynamic") else "TranslationMethodEncap",
    }


_ROUTES = st.fixed_dictionaries(
    {
        "routing_domain_id": st.sampled_from([BLUE, RED]),
        "virtual_subnet_id": _VSIDS,
        "destination_prefix": st.sampled_from(["10.0.0.0/24", "10.0.0.0/8", "fd00::/64", "0.0.0.0/0"]),
        "next_hop": st.sampled_from(["0.0.0.0", "10.0.0.5", "::", "fd00::5"]),
        "metric": st.integers(0, 2),
    }
)
_ADDRESSES = st.fixed_dictionaries(
    {
        "provider_address": st.sampled_from(["192.168.1.1", "192.168.1.9", "2001:db8::1"]),
        "prefix_length": st.sampled_from([16, 24]),
        "virtual_subnet_id": _VSIDS,
    }
)
_PROVIDER_ROUTES = st.fixed_dictionaries(
    {
        "destination_prefix": st.sampled_from(["0.0.0.0/0", "192.168.0.0/16", "2001::/16"]),
        "next_hop": st.sampled_from(["192.168.0.1", "192.168.0.2", "2001::1"]),
        "metric": st.integers(0, 2),
    }
)
_ORDERS = st.one_of(
    st.tuples(st.just("lookup-records"), _records()),
    st.tuples(st.just("customer-routes"), _ROUTES),
    st.tuples(st.just("provider-addresses"), _ADDRESSES),
    st.tuples(st.just("provider-routes"), _PROVIDER_ROUTES),
)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "set", "remove"]), _ORDERS, st.booleans()),
    min_size=10,
    max_size=30,
)


def _contents(of: Tables) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if name != "_shared"}


def _fields(verb: str, kind: str, fields: dict[str, Any], narrow: bool) -> dict[str, Any]:
    known = KINDS[kind]
    wanted = known.key if narrow else known.key[:1]
    if verb == "set":
        wanted += known.changeable
    return fields if verb == "add" else {name: fields[name] for name in wanted if name in fields}


def _run(steps: list[tuple[str, tuple[str, dict[str, Any]], bool]]) -> int:
    """How many orders were accepted; store and tables are compared after each."""
    start = policy()
    store, kept = PolicyStore(start), tables(start)
    preferred = frozenset(["192.168.1.1", "2001:db8::1"])
    kept.set_preferred(preferred)
    accepted = 0
    for verb, (kind, fields), narrow in steps:
        before = store.policy()
        try:
            changes = list(getattr(store, verb)(kind, _fields(verb, kind, fields, narrow)))
        except BadInput:
            assert store.policy() == before
            continue
        store.apply(changes)
        kept.apply(decode_changes(msgspec.msgpack.decode(msgspec.msgpack.encode(changes))))
        assert _contents(kept) == _contents(Tables(store.policy(), preferred))
        accepted += bool(changes)
    fresh = PolicyStore(store.policy())
    assert vars(fresh) == vars(store)
    return accepted


@repeatable
@given(_STEPS)
def test_after_any_changes_the_tables_are_those_of_the_policy(steps: Any) -> None:
    _run(steps)


def test_the_sequences_do_change_something() -> None:
    """The test above would prove nothing if all orders were refused."""
    counted = []

    @repeatable
    @given(_STEPS)
    def run(steps: Any) -> None:
        counted.append(_run(steps))

    run()
    assert sum(counted) > 500


def test_everything_removed_leaves_empty_tables() -> None:
    store, kept = PolicyStore(policy()), tables(policy())
    for kind in KINDS:
        changes = [Change(kind, each, None) for each in store.list(kind)]
        store.apply(changes)
        kept.apply(changes)
    kept.set_preferred(frozenset())
    assert store.policy() == HostPolicy()
    assert _contents(kept) == _contents(Tables(HostPolicy(), frozenset()))
