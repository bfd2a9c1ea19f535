"""testbed.host.layers: the owner's policy, and what a host has of its own above it."""

from __future__ import annotations

import random

import msgspec
import pytest

from support.switch import policy
from testbed.errors import BadInput
from testbed.host.layers import Layers
from testbed.topology.plan import HostPolicy, LookupRecord, ProviderAddress
from testbed.wnv.objects import key_of
from testbed.wnv.policy import Change

KIND = "lookup-records"


def record(last: int, mac: int = 1, host: int = 1, kind: str = "Static") -> LookupRecord:
    return LookupRecord(f"10.0.0.{last}", 5001, f"02:00:00:00:00:{mac:02x}", f"192.168.0.{host}", type=kind)  # type: ignore[arg-type]


def ref(item: LookupRecord) -> tuple[str, tuple[object, ...]]:
    return KIND, key_of(KIND, item)


def add(item: LookupRecord) -> Change:
    return Change(KIND, None, item)


def holds(layers: Layers) -> set[LookupRecord]:
    return set(layers.effective.policy().lookup_records)


def layers_of(*records: LookupRecord) -> Layers:
    return Layers(HostPolicy(lookup_records=records))


def test_the_owners_changes_are_the_effective_ones() -> None:
    layers = layers_of(record(5))
    changes = layers.follow([add(record(6)), Change(KIND, record(5), record(5, host=2))])
    assert {(change.old, change.new) for change in changes} == {
        (None, record(6)),
        (record(5), record(5, host=2)),
    }
    assert holds(layers) == {record(6), record(5, host=2)}
    assert layers.in_step()


def test_what_is_assumed_is_the_hosts_own_until_the_owner_speaks_of_it() -> None:
    layers = layers_of(record(5))
    mine = record(9, kind="Dynamic")
    assert layers.override([add(mine)], learned=True) == [add(mine)]
    assert layers.is_own(KIND, mine)
    assert not layers.is_own(KIND, record(5))
    assert layers.follow([add(mine)]) == []  # as it is already
    assert layers.in_step()
    assert holds(layers) == {record(5), mine}


def test_the_owners_word_on_a_ca_ends_what_the_host_assumed_of_it_whatever_the_mac() -> None:
    layers = layers_of()
    layers.override([add(record(9, mac=1, kind="Dynamic"))], learned=True)
    layers.follow([add(record(9, mac=2))])
    assert holds(layers) == {record(9, mac=2)}
    assert layers.in_step()


def test_records_without_an_address_do_not_end_each_other() -> None:
    learner = LookupRecord("0.0.0.0", 5001, "02:00:00:00:00:01", "192.168.0.1", type="L2Only")
    other = msgspec.structs.replace(learner, mac_address="02:00:00:00:00:02")
    layers = layers_of()
    layers.override([add(learner)], learned=False)
    layers.follow([add(other)])
    assert holds(layers) == {learner, other}


def test_given_up_by_hand_and_retracted() -> None:
    layers = layers_of(record(5), record(6, mac=2))
    assert layers.override([Change(KIND, record(5), None)], learned=False) == [Change(KIND, record(5), None)]
    assert holds(layers) == {record(6, mac=2)}
    assert layers.retract([ref(record(5)), ref(record(7))]) == [add(record(5))]
    assert layers.in_step()


def test_what_is_put_back_by_hand_is_no_longer_the_hosts_own() -> None:
    layers = layers_of(record(5))
    changed = record(5, host=7)
    layers.override([Change(KIND, record(5), changed)], learned=False)
    assert not layers.in_step()
    layers.override([Change(KIND, changed, record(5))], learned=False)
    assert layers.in_step()


def test_a_whole_policy_ends_changes_by_hand_and_keeps_what_was_learned() -> None:
    layers = layers_of(record(5))
    by_hand, learned, known = record(7), record(8, mac=3, kind="Dynamic"), record(9, mac=4, kind="Dynamic")
    layers.override([add(by_hand)], learned=False)
    layers.override([add(learned), add(known)], learned=True)
    layers.reset(HostPolicy(lookup_records=(record(6), known)))
    assert holds(layers) == {record(6), learned, known}
    assert layers.is_own(KIND, learned)
    assert not layers.is_own(KIND, known)


def test_what_stands_against_the_owners_whole_policy_goes() -> None:
    layers = layers_of()
    layers.override([add(record(8, mac=3, kind="Dynamic"))], learned=True)
    owners = HostPolicy(lookup_records=(record(8, mac=5),))
    layers.reset(owners)
    assert holds(layers) == {record(8, mac=5)}
    assert layers.in_step()


def test_a_refused_override_has_changed_nothing() -> None:
    layers = layers_of(record(5, mac=1))
    with pytest.raises(BadInput, match="has this CA already"):
        layers.override([add(record(6)), add(record(5, mac=2))], learned=True)
    assert holds(layers) == {record(5, mac=1)}
    assert layers.in_step()
    assert layers.follow([add(record(6))]) == [add(record(6))]


def test_the_owners_change_that_does_not_fit_is_refused_and_nothing_has_changed() -> None:
    layers = layers_of(record(5, mac=1))
    layers.override([add(record(9, mac=9))], learned=False)
    with pytest.raises(BadInput):
        layers.follow([add(record(5, mac=2))])  # its old record was not removed
    assert holds(layers) == {record(5, mac=1), record(9, mac=9)}
    assert layers.is_own(KIND, record(9, mac=9))


@pytest.mark.parametrize("seed", range(3))
def test_random_orders_end_as_the_owner_alone_once_it_has_spoken(seed: int) -> None:
    """Whatever was overridden: after a whole policy, what is not the host's own is the owner's."""
    chance = random.Random(seed)
    owners = {record(last, mac=last) for last in range(2, 12)}
    layers = Layers(HostPolicy(lookup_records=tuple(owners)))
    for _ in range(400):
        last = chance.randrange(2, 20)
        item = record(last, mac=chance.choice((last, last + 50)), host=chance.randrange(1, 4))
        there = next((each for each in holds(layers) if each.customer_address == item.customer_address), None)
        if chance.random() < 0.5:
            old = next((each for each in owners if each.customer_address == item.customer_address), None)
            changes = ([Change(KIND, old, None)] if old else []) + [add(item)]
            layers.follow(changes)
            owners = (owners - {old}) | {item}
            assert item in holds(layers)
        elif there is None or there.mac_address == item.mac_address:
            layers.override([Change(KIND, there, item)], learned=chance.random() < 0.5)
        own = {each for each in holds(layers) if layers.is_own(KIND, each)}
        assert holds(layers) - own <= owners
    layers.reset(HostPolicy(lookup_records=tuple(owners)))
    own = {each for each in holds(layers) if layers.is_own(KIND, each)}
    assert holds(layers) - own <= owners
    layers.replace(HostPolicy(lookup_records=tuple(owners)))
    assert holds(layers) == owners


def test_other_kinds_are_layered_too() -> None:
    layers = Layers(policy(1))
    old = layers.effective.policy().provider_addresses[0]
    new = msgspec.structs.replace(old, prefix_length=20)
    assert isinstance(new, ProviderAddress)
    layers.override([Change("provider-addresses", old, new)], learned=False)
    assert new in layers.effective.policy().provider_addresses
    layers.reset(policy(1))
    assert layers.effective.policy().provider_addresses[0] == old
