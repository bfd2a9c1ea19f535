"""The policy store: what is valid, what a change means, and that a refused one changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.switch import BLUE, RED, mac_of, pa, policy
from testbed.errors import BadInput
from testbed.topology.plan import CustomerRoute, LookupRecord, ProviderAddress, ProviderRoute
from testbed.wnv.policy import Change, PolicyStore, decode_changes

NAT, NONE = "TranslationMethodNat", "TranslationMethodNone"
RECORD = {
    "customer_address": "10.0.0.50",
    "virtual_subnet_id": 5001,
    "mac_address": "00:15:5d:00:00:50",
    "provider_address": "192.168.1.2",
}
ROUTE = {
    "routing_domain_id": BLUE,
    "virtual_subnet_id": 5001,
    "destination_prefix": "10.9.0.0/16",
    "next_hop": "10.0.0.6",
}
ADDRESS = {"provider_address": "192.168.1.77", "prefix_length": 16, "virtual_subnet_id": 5001}
PROVIDER_ROUTE = {"destination_prefix": "10.99.0.0/16", "next_hop": "192.168.0.254"}


@pytest.fixture
def store() -> PolicyStore:
    return PolicyStore(policy())


def _refused(store: PolicyStore, verb: str, kind: str, fields: dict[str, Any]) -> str:
    before = store.policy()
    with pytest.raises(BadInput) as caught:
        getattr(store, verb)(kind, fields)
    assert store.policy() == before
    message = str(caught.value)
    assert message.startswith(kind)
    return message


def _apply(store: PolicyStore, verb: str, kind: str, fields: dict[str, Any]) -> list[Change]:
    """The changes, which are not there before they are applied."""
    before = store.policy()
    changes = list(getattr(store, verb)(kind, fields))
    assert store.policy() == before
    store.apply(changes)
    return changes


# ---- adding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (
            "lookup-records",
            RECORD,
            LookupRecord("10.0.0.50", 5001, "00:15:5d:00:00:50", "192.168.1.2"),
        ),
        (
            "lookup-records",
            RECORD
            | {
                "customer_address": "FD00:0:0:0:0::50",
                "mac_address": "00-15-5D-00-00-AB",
                "provider_address": "2001:DB8::2",
                "virtual_subnet_id": "5001",  # as a command line has it
            },
            LookupRecord("fd00::50", 5001, "00:15:5d:00:00:ab", "2001:db8::2"),
        ),
        (
            "lookup-records",
            RECORD | {"mac_address": "101010101105", "rule": NAT, "use_vm_mac_address": "true"},
            LookupRecord(
                "10.0.0.50", 5001, "10:10:10:10:11:05", "192.168.1.2", rule=NAT, use_vm_mac_address=True
            ),
        ),
        (
            "customer-routes",
            ROUTE | {"routing_domain_id": BLUE.strip("{}")},
            CustomerRoute(BLUE, 5001, "10.9.0.0/16", "10.0.0.6", 255),
        ),
        (
            "customer-routes",
            ROUTE | {"routing_domain_id": "ABCDEF00" + RED[9:-1], "virtual_subnet_id": 7001},
            CustomerRoute("{abcdef00" + RED[9:], 7001, "10.9.0.0/16", "10.0.0.6", 255),
        ),
        (
            "customer-routes",
            ROUTE | {"destination_prefix": "FD01::/48", "next_hop": "::", "metric": 0xFFFFFFFF},
            CustomerRoute(BLUE, 5001, "fd01::/48", "::", 0xFFFFFFFF),
        ),
        ("provider-addresses", ADDRESS, ProviderAddress("192.168.1.77", 16, 5001)),
        ("provider-routes", PROVIDER_ROUTE, ProviderRoute("10.99.0.0/16", "192.168.0.254", 255)),
    ],
)
def test_add(store: PolicyStore, kind: str, fields: dict[str, Any], expected: Any) -> None:
    assert _apply(store, "add", kind, fields) == [Change(kind, None, expected)]
    assert store.list(kind)[-1] == expected
    assert "it is there already" in _refused(store, "add", kind, fields)


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "L2Only", "customer_address": "0.0.0.0"},
        {"type": "GatewayWildcard", "customer_address": "::"},
        {
            "customer_address": "255.255.255.255",
            "mac_address": "ff:ff:ff:ff:ff:ff",
            "provider_address": "239.1.1.1",
        },
        {"customer_address": "ff02::1", "mac_address": "33:33:00:00:00:01", "provider_address": "ff15::1"},
        {"provider_address": "169.254.254.254"},  # a default gateway
        {"provider_address": "fe80::254"},
        {"type": "Dynamic"},
        {"virtual_subnet_id": 4096},
        {"virtual_subnet_id": 16777214},
        {"rule": NONE},
    ],
)
def test_valid_records(store: PolicyStore, changed: dict[str, Any]) -> None:
    _apply(store, "add", "lookup-records", RECORD | changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"virtual_subnet_id": 4095}, "4096 to 16777214"),
        ({"virtual_subnet_id": 16777215}, "4096 to 16777214"),
        ({"virtual_subnet_id": 0}, "4096 to 16777214"),
        ({"virtual_subnet_id": "many"}, "virtual_subnet_id"),
        ({"customer_address": 5}, "customer_address"),
        ({"customer_address": "10.0.0.300"}, "is no IP address"),
        ({"customer_address": "fe80::1%eth0"}, "names a zone"),
        ({"customer_address": "127.0.0.1"}, "loopback"),
        ({"customer_address": "0.0.0.0"}, "give it, or another type"),
        ({"type": "L2Only"}, "has the CA 0.0.0.0 or ::"),
        ({"type": "GatewayWildcard"}, "has the CA 0.0.0.0 or ::"),
        ({"type": "Fixed"}, "Static, Dynamic, L2Only or GatewayWildcard"),
        ({"rule": "Nat"}, "TranslationMethodEncap"),
        ({"mac_address": "00:15"}, "is no MAC address"),
        ({"mac_address": "01:00:5e:00:00:01"}, "that of one VM"),
        ({"mac_address": "00:00:00:00:00:00"}, "is zero"),
        ({"provider_address": "239.1.1.1"}, "to be a unicast address"),
        ({"provider_address": "0.0.0.0"}, "no machine's"),
        ({"provider_address": "255.255.255.255"}, "no machine's"),
        ({"provider_address": "127.0.0.1"}, "no machine's"),
        (
            {"customer_address": "224.0.0.251", "mac_address": "01:00:5e:00:00:fb"},
            "to be a multicast address",
        ),
        ({"customer_address": "224.0.0.251", "provider_address": "239.1.1.1"}, "is to be the group's"),
        ({"use_vm_mac_address": True}, NAT),
        ({"use_vm_mac_address": "perhaps"}, "use_vm_mac_address"),
        ({"rule": NAT, "provider_address": "2001:db8::2"}, "one address family"),
        ({"rule": NONE, "provider_address": "2001:db8::2"}, "one address family"),
        ({"rule": NAT, "type": "L2Only", "customer_address": "0.0.0.0"}, "needs a single CA"),
        (
            {
                "rule": NAT,
                "customer_address": "224.0.0.1",
                "mac_address": "01:00:5e:00:00:01",
                "provider_address": "239.1.1.1",
            },
            "needs a single CA",
        ),
        ({"colour": "red"}, "there is no field 'colour'"),
        ({"customer_address": "10.0.0.5"}, mac_of("blue1").hex(":")),  # another VM's
        ({"customer_address": "10.0.0.1"}, "remove that record first"),
    ],
)
def test_invalid_records(store: PolicyStore, changed: dict[str, Any], says: str) -> None:
    assert says in _refused(store, "add", "lookup-records", RECORD | changed)


def test_a_missing_field(store: PolicyStore) -> None:
    fields = {name: value for name, value in RECORD.items() if name != "mac_address"}
    message = _refused(store, "add", "lookup-records", fields)
    assert "mac_address" in message
    assert message.endswith("give it")


def test_the_unspecified_address_may_come_with_several_macs(store: PolicyStore) -> None:
    for last in ("51", "52"):
        wild = {"customer_address": "0.0.0.0", "type": "L2Only", "mac_address": f"00:15:5d:00:00:{last}"}
        _apply(store, "add", "lookup-records", RECORD | wild)
    assert "it is there already" in _refused(
        store, "add", "lookup-records", RECORD | wild | {"type": "GatewayWildcard"}
    )


def test_an_address_outside_stands_for_one_vm(store: PolicyStore) -> None:
    """A packet without NVGRE says nothing but its addresses, whatever its network."""
    _apply(store, "add", "lookup-records", RECORD | {"rule": NAT})
    other = RECORD | {"customer_address": "10.0.1.51", "virtual_subnet_id": 5002}
    assert "10.0.0.50 5001" in _refused(store, "add", "lookup-records", other | {"rule": NAT})
    _apply(store, "add", "lookup-records", other | {"rule": NONE})
    third = other | {"virtual_subnet_id": 6001, "rule": NONE}
    assert "stands for one VM" in _refused(store, "add", "lookup-records", third)
    _apply(store, "remove", "lookup-records", {"customer_address": "10.0.1.51"})
    _apply(store, "add", "lookup-records", third)
    # changing the rule frees the address, and takes it
    _apply(
        store, "set", "lookup-records", {"customer_address": "10.0.0.50", "rule": "TranslationMethodEncap"}
    )
    _apply(store, "add", "lookup-records", other | {"rule": NAT})
    assert "stands for one VM" in _refused(
        store, "set", "lookup-records", {"customer_address": "10.0.0.50", "rule": NAT}
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"destination_prefix": "10.9.0.1/16"}, "write 10.9.0.0/16"),
        ({"destination_prefix": "10.9.0.0"}, "no prefix length"),
        ({"destination_prefix": "10.9.0.0/33"}, "is no prefix"),
        ({"next_hop": "::"}, "0.0.0.0 for an on-link route"),
        ({"destination_prefix": "fd01::/48"}, ":: for an on-link route"),
        ({"next_hop": "224.0.0.1"}, "no machine's"),
        ({"next_hop": "127.0.0.1"}, "no machine's"),
        ({"metric": -1}, "0 to 4294967295"),
        ({"metric": 4294967296}, "0 to 4294967295"),
        ({"metric": "low"}, "metric"),
        ({"routing_domain_id": "blue"}, "is no GUID"),
        ({"virtual_subnet_id": 100}, "4096 to 16777214"),
        ({"routing_domain_id": RED}, f"VSID 5001 belongs to {BLUE}"),
    ],
)
def test_invalid_customer_routes(store: PolicyStore, changed: dict[str, Any], says: str) -> None:
    assert says in _refused(store, "add", "customer-routes", ROUTE | changed)


def test_a_vsid_can_move_to_another_routing_domain(store: PolicyStore) -> None:
    _apply(store, "remove", "customer-routes", {"virtual_subnet_id": 5001})
    _apply(store, "add", "customer-routes", ROUTE | {"routing_domain_id": RED})


@pytest.mark.parametrize(
    ("kind", "changed", "says"),
    [
        ("provider-addresses", {"provider_address": "239.1.1.1"}, "unicast"),
        ("provider-addresses", {"provider_address": "169.254.1.1"}, "link-local"),
        ("provider-addresses", {"provider_address": "0.0.0.0"}, "no machine's"),
        ("provider-addresses", {"prefix_length": 33}, "1 to 32"),
        ("provider-addresses", {"prefix_length": 0}, "1 to 32"),
        ("provider-addresses", {"virtual_subnet_id": 1}, "4096"),
        ("provider-routes", {"next_hop": "2001:db8::1"}, "address family"),
        ("provider-routes", {"destination_prefix": "10.99.0.1/16"}, "write 10.99.0.0/16"),
    ],
)
def test_invalid_provider_objects(store: PolicyStore, kind: str, changed: dict[str, Any], says: str) -> None:
    fields = ADDRESS if kind == "provider-addresses" else PROVIDER_ROUTE
    assert says in _refused(store, "add", kind, fields | changed)


def test_an_unknown_kind(store: PolicyStore) -> None:
    for call in (
        lambda: store.list("routes"),
        lambda: store.add("routes", {}),
        lambda: store.set("routes", {}),
        lambda: store.remove("routes", {}),
    ):
        with pytest.raises(BadInput, match="lookup-records, customer-routes"):
            call()


# ---- setting ----------------------------------------------------------------------------------

WHICH = {"customer_address": "10.0.0.6", "virtual_subnet_id": 5001, "mac_address": mac_of("blue2").hex(":")}


@pytest.mark.parametrize(
    "changed",
    [
        {"provider_address": "192.168.1.3"},
        {"rule": NAT},
        {"vm_name": "other", "context": "moved", "customer_id": "x"},
        {"rule": NAT, "use_vm_mac_address": True},
    ],
)
def test_set(store: PolicyStore, changed: dict[str, Any]) -> None:
    (change,) = _apply(store, "set", "lookup-records", WHICH | changed)
    assert change.new == msgspec.structs.replace(change.old, **changed)
    assert change.new in store.list("lookup-records")
    assert change.old not in store.list("lookup-records")
    assert store.set("lookup-records", WHICH | changed) == []


def test_part_of_the_key_means_several(store: PolicyStore) -> None:
    changes = _apply(
        store, "set", "lookup-records", {"mac_address": WHICH["mac_address"].upper(), "context": "moved"}
    )
    assert [change.new.customer_address for change in changes] == ["10.0.0.6", "fd00::6"]


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("lookup-records", WHICH | {"type": "Dynamic"}, "type can't be changed"),
        ("lookup-records", WHICH, "nothing to set"),
        ("lookup-records", {"context": "x"}, "which?"),
        ("lookup-records", WHICH | {"provider_address": "239.1.1.1"}, "unicast"),
        ("lookup-records", WHICH | {"use_vm_mac_address": True}, NAT),
        ("lookup-records", WHICH | {"colour": "red"}, "no field 'colour'"),
        ("lookup-records", WHICH | {"rule": 5}, "rule"),
        (
            "lookup-records",
            WHICH | {"mac_address": "00:15:5d:00:00:99", "context": "x"},
            "there is 10.0.0.6 5001",
        ),
        ("customer-routes", {"virtual_subnet_id": 5001, "metric": -1}, "0 to 4294967295"),
        (
            "customer-routes",
            {"virtual_subnet_id": 7001, "metric": 1},
            "there is none with virtual_subnet_id 7001",
        ),
        ("provider-addresses", {"provider_address": pa(1, 5001), "prefix_length": 99}, "1 to 32"),
    ],
)
def test_what_cannot_be_set(store: PolicyStore, kind: str, fields: dict[str, Any], says: str) -> None:
    assert says in _refused(store, "set", kind, fields)


def test_set_of_the_other_kinds(store: PolicyStore) -> None:
    _apply(store, "add", "provider-routes", PROVIDER_ROUTE)
    (change,) = _apply(store, "set", "provider-routes", PROVIDER_ROUTE | {"metric": "7"})
    assert change.new.metric == 7
    assert len(_apply(store, "set", "customer-routes", {"routing_domain_id": BLUE.upper(), "metric": 9})) == 4
    (change,) = _apply(
        store, "set", "provider-addresses", {"provider_address": pa(1, 5001), "prefix_length": 24}
    )
    assert change.new.prefix_length == 24


# ---- removing ---------------------------------------------------------------------------------


def test_remove(store: PolicyStore) -> None:
    (change,) = _apply(store, "remove", "lookup-records", WHICH)
    assert (change.new, change.old.vm_name) == (None, "blue2")
    assert change.old not in store.list("lookup-records")
    message = _refused(store, "remove", "lookup-records", WHICH)
    assert "there is none with customer_address 10.0.0.6" in message
    _apply(store, "add", "lookup-records", RECORD | {"customer_address": "10.0.0.6"})  # free for another MAC


def test_what_remove_refuses(store: PolicyStore) -> None:
    assert "which?" in _refused(store, "remove", "lookup-records", {})
    assert "does not say which" in _refused(store, "remove", "lookup-records", {"vm_name": "blue2"})
    assert "no field" in _refused(store, "remove", "lookup-records", {"name": "blue2"})
    message = _refused(store, "remove", "provider-routes", PROVIDER_ROUTE)
    assert "there are none at all" in message


# ---- applying ---------------------------------------------------------------------------------


def test_all_or_nothing(store: PolicyStore) -> None:
    """The second change fails: the first is undone, and the order of the objects is as it was."""
    gone = store.remove("lookup-records", {"customer_address": "10.0.0.5", "virtual_subnet_id": 5001})
    bad = store.add("lookup-records", RECORD)
    before = store.policy()
    with pytest.raises(BadInput, match="it is there already"):
        store.apply([*gone, *bad, *bad])
    assert store.policy() == before
    assert msgspec.json.encode(store.policy()) == msgspec.json.encode(before)
    store.apply([*gone, *bad])
    with pytest.raises(BadInput, match="changed meanwhile"):
        store.apply(gone)


def test_stale_changes_are_refused(store: PolicyStore) -> None:
    one = store.set("lookup-records", WHICH | {"context": "one"})
    other = store.set("lookup-records", WHICH | {"context": "other"})
    store.apply(one)
    with pytest.raises(BadInput, match="changed meanwhile"):
        store.apply(other)
    assert [each.context for each in store.list("lookup-records") if each.context] == ["one"]


def test_replace(store: PolicyStore) -> None:
    _apply(store, "add", "lookup-records", RECORD | {"rule": NAT})
    store.replace(policy(2))
    assert store.policy() == policy(2)
    _apply(store, "add", "lookup-records", RECORD | {"rule": NAT})


def test_changes_go_through_messagepack(store: PolicyStore) -> None:
    changes = [
        *store.add("lookup-records", RECORD),
        *store.set("customer-routes", {"virtual_subnet_id": 5001, "metric": 1}),
        *store.remove("provider-addresses", {"virtual_subnet_id": 5001}),
        *store.add("provider-routes", PROVIDER_ROUTE),
    ]
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(changes))
    assert decode_changes(sent) == changes
