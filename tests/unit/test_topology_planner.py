"""From a topology to a Plan."""

import itertools
import re
from pathlib import Path

import msgspec
import pytest

from testbed.topology import plan_from_file
from testbed.topology.naming import InterfaceNames, assign_macs, vm_mtu
from testbed.topology.plan import (
    NOWHERE,
    CustomerRoute,
    ExtensionPlan,
    LookupRecord,
    Plan,
    ProviderAddress,
    decode,
    encode,
)
from testbed.topology.planner import build
from testbed.topology.schema import Topology

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def topology(hosts: int = 3, **changes: object) -> dict:
    """One network of two subnets; one VM of 5001 on each host but the last, which has one of 5002."""
    names = [f"host{i}" for i in range(1, hosts + 1)]
    value: dict = {
        "name": "lab",
        "networks": [
            {
                "name": "blue",
                "subnets": [
                    {"vsid": 5001, "prefixes": ["10.0.0.0/24", "FD00:0::/64"]},
                    {"vsid": 5002, "prefixes": ["10.0.1.0/24"], "gateways": ["10.0.1.254"]},
                ],
            },
            {"name": "red", "subnets": [{"vsid": 6001, "prefixes": ["10.0.0.0/24"]}]},
        ],
        "hosts": [{"name": name, "nics": [{"name": "nic1"}]} for name in names],
        "vms": [
            {"name": f"vm{i}", "host": name, "vnics": [{"vsid": 5001, "addresses": [f"10.0.0.{4 + i}"]}]}
            for i, name in enumerate(names[:-1], 1)
        ]
        + [{"name": "last", "host": names[-1], "vnics": [{"vsid": 5002, "addresses": ["10.0.1.5"]}]}],
        "fabric": {"switches": ["tor1"], "pa_pool": "192.0.2.0/24"},
        "links": [{"endpoints": [f"{name}:nic1", "tor1"]} for name in names],
    }
    return value | changes


def plan(value: dict, previous: Plan | None = None) -> Plan:
    return build(msgspec.convert(value, Topology), previous)


def macs(a_plan: Plan) -> dict[str, str]:
    found = {f"{host.name}/{nic.name}": nic.mac for host in a_plan.hosts for nic in host.nics}
    found |= {vnic.port: vnic.mac for vm in a_plan.vms for vnic in vm.vnics}
    return found | {str(s.vsid): s.gateway_mac for network in a_plan.networks for s in network.subnets}


def pas(a_plan: Plan) -> dict[tuple[str, int], str]:
    return {
        (host.name, pa.virtual_subnet_id): pa.provider_address
        for host in a_plan.hosts
        for pa in host.policy.provider_addresses
    }


def test_deterministic_and_lossless():
    assert plan(topology()) == plan(topology())
    assert decode(encode(plan(topology()))) == plan(topology())


def test_policy_of_a_host():
    result = plan(topology())
    policy = result.host("host1").policy
    mac = macs(result)
    rdid = result.networks[0].rdid
    assert policy.provider_addresses == (ProviderAddress("192.0.2.1", 24, 5001),)
    assert policy.lookup_records == (
        LookupRecord("10.0.0.1", 5001, mac["5001"], NOWHERE[4]),
        LookupRecord("10.0.0.5", 5001, mac["vm1:eth0"], "192.0.2.1", "vm1"),
        LookupRecord("10.0.0.6", 5001, mac["vm2:eth0"], "192.0.2.2", "vm2"),
        LookupRecord("fd00::1", 5001, mac["5001"], NOWHERE[4]),
        LookupRecord("10.0.1.5", 5002, mac["last:eth0"], "192.0.2.3", "last"),
        LookupRecord("10.0.1.254", 5002, mac["5002"], NOWHERE[4]),
    )
    assert policy.customer_routes == (
        CustomerRoute(rdid, 5001, "10.0.0.0/24", "0.0.0.0", 255),
        CustomerRoute(rdid, 5001, "fd00::/64", "::", 255),
        CustomerRoute(rdid, 5002, "10.0.1.0/24", "0.0.0.0", 255),
    )
    assert policy.provider_routes == ()


def test_a_host_knows_nothing_of_routing_domains_it_has_no_vm_of():
    value = topology()
    value["vms"].append(
        {"name": "red1", "host": "host1", "vnics": [{"vsid": 6001, "addresses": ["10.0.0.5"]}]}
    )
    result = plan(value)
    assert {r.virtual_subnet_id for r in result.host("host1").policy.lookup_records} == {5001, 5002, 6001}
    for name in ("host2", "host3"):
        policy = result.host(name).policy
        assert {r.virtual_subnet_id for r in policy.lookup_records} == {5001, 5002}
        assert {r.virtual_subnet_id for r in policy.customer_routes} == {5001, 5002}
    assert pas(result)["host1", 6001] != pas(result)["host1", 5001]


def test_a_gateway_is_no_machine():
    for pool, nowhere in (("192.0.2.0/24", "169.254.254.254"), ("fd00:a::/64", "fe80::254")):
        result = plan(topology(fabric={"switches": ["tor1"], "pa_pool": pool}))
        for host in result.hosts:
            gateways = [record for record in host.policy.lookup_records if not record.vm_name]
            assert len(gateways) == 3
            assert {record.provider_address for record in gateways} == {nowhere}


def test_a_vm_without_addresses_learns_them():
    value = topology()
    value["vms"][0]["vnics"][0]["addresses"] = []
    result = plan(value)
    learning = [record for record in result.hosts[2].policy.lookup_records if record.type == "L2Only"]
    assert [(r.customer_address, r.virtual_subnet_id, r.vm_name) for r in learning] == [
        ("0.0.0.0", 5001, "vm1"),
        ("::", 5001, "vm1"),
    ]
    assert {r.mac_address for r in learning} == {result.vm("vm1").vnics[0].mac}
    assert {r.provider_address for r in learning} == {pas(result)["host1", 5001]}


def test_the_way_out_of_a_network():
    value = topology()
    value["vms"][-1]["vnics"][0]["gateway"] = True
    result = plan(value)
    policy = result.hosts[0].policy
    wildcards = [record for record in policy.lookup_records if record.type == "GatewayWildcard"]
    assert [(r.customer_address, r.virtual_subnet_id, r.vm_name) for r in wildcards] == [
        ("0.0.0.0", 5002, "last")
    ]
    (rdid,) = {route.routing_domain_id for route in policy.customer_routes}
    assert CustomerRoute(rdid, 5002, "0.0.0.0/0", "10.0.1.5") in policy.customer_routes
    assert result.vm("last").vnics[0].gateways == ()
    assert result.vm("vm1").vnics[0].gateways == ("10.0.0.1", "fd00::1")


def test_multicast_of_a_subnet_goes_to_its_group():
    value = topology()
    value["networks"][0]["subnets"][0]["multicast"] = "239.000.0.1".replace("000", "0")
    records = plan(value).hosts[2].policy.lookup_records
    groups = [(r.customer_address, r.mac_address) for r in records if r.provider_address == "239.0.0.1"]
    assert groups == [("255.255.255.255", "ff:ff:ff:ff:ff:ff"), ("ff02::1", "33:33:00:00:00:01")]


def test_what_a_host_is_told_beside_its_policy():
    value = topology()
    value["hosts"][0] |= {
        "wnv": "below-switch",
        "flow_entropy": False,
        "extensions": ["capture", {"name": "acl", "settings": {"rules": []}}],
        "nics": [{"name": "nic1", "wnv_binding": True}],
    }
    first, second, _ = plan(value).hosts
    assert (first.wnv, first.flow_entropy, first.nics[0].wnv_binding) == ("below-switch", False, True)
    assert first.extensions == (ExtensionPlan("capture"), ExtensionPlan("acl", {"rules": []}))
    assert (second.wnv, second.flow_entropy, second.nics[0].wnv_binding) == ("in-switch", True, False)
    assert second.extensions == ()


def test_a_host_without_virtualised_vms_has_no_policy():
    value = topology()
    value["vms"] = [{"name": "a", "host": "host1", "vnics": [{"vsid": 0, "addresses": ["192.0.2.9/25"]}]}]
    result = plan(value)
    assert all(not host.policy.lookup_records and not host.policy.provider_addresses for host in result.hosts)
    (vnic,) = result.vm("a").vnics
    assert (vnic.addresses, vnic.gateways, vnic.network, vnic.mtu) == (("192.0.2.9/25",), (), "", 1500)


def test_adapters_of_a_vm():
    value = topology()
    value["vms"][0]["vnics"] = [
        {"vsid": 5001, "addresses": ["10.0.0.5", "FD00::0005"]},
        {"vsid": 5002, "mac": "02-AA-00-00-00-01"},
    ]
    first, second = plan(value).vm("vm1").vnics
    assert (first.interface, first.port, first.network) == ("eth0", "vm1:eth0", "blue")
    assert first.addresses == ("10.0.0.5/24", "fd00::5/64")
    assert first.gateways == ("10.0.0.1", "fd00::1")
    assert (second.interface, second.mac, second.gateways) == ("eth1", "02:aa:00:00:00:01", ("10.0.1.254",))


@pytest.mark.parametrize(
    ("pa_mtu", "pa_version", "vsid", "expected"),
    [
        (1500, 4, 5001, 1458),
        (1500, 6, 5001, 1438),
        (1500, 4, 0, 1500),
        (9000, 4, 5001, 1500),
        (9000, 6, 0, 9000),
        (1510, 4, 5001, 1468),
        (1400, 6, 5001, 1338),
    ],
)
def test_mtu(pa_mtu, pa_version, vsid, expected):
    assert vm_mtu(pa_mtu, pa_version, vsid) == expected


def test_mtu_of_a_legacy_adapter_is_not_reduced():
    assert vm_mtu(1500, 4, 5001, legacy=True) == 1500
    value = topology()
    value["vms"][0]["vnics"][0]["legacy"] = True
    result = plan(value)
    assert [result.vm(name).vnics[0].mtu for name in ("vm1", "vm2")] == [1500, 1458]
    assert (
        plan(topology(fabric={"switches": ["tor1"], "pa_pool": "fd00:a::/64"})).vm("vm1").vnics[0].mtu == 1438
    )


def test_queues_of_adapters():
    vnics = [{"vsid": 5001, "addresses": [], "queues": 4}, {"vsid": 0, "queues": 16}, {"vsid": 5001}]
    found = plan(topology(vms=[{"name": "vm1", "host": "host1", "vnics": vnics}])).vm("vm1")
    assert [vnic.queues for vnic in found.vnics] == [4, 16, 1]


def test_mtu_of_nics():
    value = topology(fabric={"switches": ["tor1"], "pa_mtu": 9000})
    assert {nic.mtu for host in plan(value).hosts for nic in host.nics} == {9000}


def test_rdid():
    value = topology()
    value["networks"][1]["rdid"] = "ABCDEF00-1111-2222-3333-444455556666"
    first, second = plan(value).networks
    assert second.rdid == "{abcdef00-1111-2222-3333-444455556666}"
    assert re.fullmatch(r"\{[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\}", first.rdid)
    assert plan(topology(name="other")).networks[0].rdid != first.rdid


def test_macs_are_unique_and_stay():
    few, many = macs(plan(topology(3))), macs(plan(topology(8)))
    assert len(set(many.values())) == len(many)
    assert all(re.fullmatch("00:15:5d(:[0-9a-f]{2}){3}", mac) for mac in many.values())
    assert {name: many[name] for name in few} == few
    assert macs(plan(topology(3, name="other"))) == few


def test_a_derived_mac_avoids_given_ones():
    value = topology()
    wanted = macs(plan(value))["vm1:eth0"]
    value["hosts"][2]["nics"][0]["mac"] = wanted.upper()
    result = macs(plan(value))
    assert result["host3/nic1"] == wanted
    assert result["vm1:eth0"] != wanted
    assert len(set(result.values())) == len(result)


def test_mac_collisions_are_resolved(monkeypatch):
    monkeypatch.setattr(
        "testbed.topology.naming._digest", lambda text: "0000" + ("01" if "#" not in text else text[-2:])
    )
    found = assign_macs(["b", "a"], ["00:15:5d:00:00:02"])
    assert found["a"] == "00:15:5d:00:00:01"
    assert found["b"].startswith("00:15:5d:00:00:")
    assert found["b"] != found["a"]


def test_pas_are_the_lowest_of_the_pool():
    result = plan(topology(3))
    assert pas(result) == {
        ("host1", 5001): "192.0.2.1",
        ("host2", 5001): "192.0.2.2",
        ("host3", 5002): "192.0.2.3",
    }


def test_pas_are_kept():
    before = plan(topology(4))
    value = topology(5)
    del value["hosts"][0], value["vms"][0], value["links"][0]  # host1 goes, host5 comes
    after = plan(value, before)
    old, new = pas(before), pas(after)
    assert {key: new[key] for key in new if key in old} == {key: old[key] for key in old if key in new}
    assert ("host3", 5001) in new
    assert new["host4", 5001] == "192.0.2.5"  # not host1's .1, which neighbours may still know
    assert len(set(new.values())) == len(new)
    assert pas(plan(value))["host2", 5001] == "192.0.2.1"  # without the previous Plan it is not


def test_a_freed_pa_is_taken_when_no_other_is_left():
    pool = {"switches": ["tor1"], "pa_pool": "192.0.2.0/30"}
    before = plan(topology(2, fabric=pool))
    value = topology(2, fabric=pool)
    value["vms"][0]["vnics"][0] = {"vsid": 6001}
    after = plan(value, before)
    assert pas(after) == {
        ("host1", 6001): pas(before)["host1", 5001],
        ("host2", 5002): pas(before)["host2", 5002],
    }


def test_pas_of_another_pool_are_not_kept():
    before = plan(topology())
    after = plan(topology(fabric={"switches": ["tor1"], "pa_pool": "198.51.100.0/29"}), before)
    assert sorted(pas(after).values()) == ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
    assert after.hosts[0].policy.provider_addresses[0].prefix_length == 29


def test_pool_is_used_to_its_last_address():
    value = topology(7, fabric={"switches": ["tor1"], "pa_pool": "192.0.2.0/29"})
    del value["vms"][0]
    assert sorted(pas(plan(value)).values()) == [f"192.0.2.{i}" for i in range(1, 7)]


def test_order_of_vms_does_not_matter_to_the_policy():
    value = topology()
    before = plan(value)
    value["vms"].reverse()
    assert [host.policy for host in plan(value).hosts] == [host.policy for host in before.hosts]


def fabric_of(
    switches: list[str], links: list[list[str]], hosts: int = 2, previous: Plan | None = None
) -> Plan:
    value = topology(hosts, fabric={"switches": switches}, links=[{"endpoints": ends} for ends in links])
    value["vms"] = []
    return plan(value, previous)


def interfaces(a_plan: Plan) -> list[str]:
    fabric = a_plan.fabric
    names = [switch.interface for switch in fabric.switches]
    names += [cable.interface for cable in fabric.cables]
    return names + [end.interface for trunk in fabric.trunks for end in trunk.ends]


def test_ports_are_numbered_in_the_order_of_links():
    result = fabric_of(
        ["tor1", "tor2"], [["host1:nic1", "tor1"], ["tor1", "tor2"], ["tor1", "host2:nic1"]]
    ).fabric
    assert [(c.host, c.nic, c.switch, c.switch_interface, c.port, c.interface) for c in result.cables] == [
        ("host1", "nic1", "tor1", "tor1", "p1", "tor1-p1"),
        ("host2", "nic1", "tor1", "tor1", "p3", "tor1-p3"),
    ]
    (trunk,) = result.trunks
    assert [(end.switch, end.port, end.interface) for end in trunk.ends] == [
        ("tor1", "p2", "tor1-p2"),
        ("tor2", "p1", "tor2-p1"),
    ]


def test_interface_names_fit_and_are_unique():
    long = [
        "top-of-rack-switch-number-1",
        "top-of-rack-switch-number-2",
        "tor",
        "tor-p1",
        "lo",
        "all",
        "exactly-15-char",
    ]
    links = [[f"host{i}:nic1", name] for i, name in enumerate(long, 1)]
    links += [list(pair) for pair in itertools.pairwise(long)]
    names = interfaces(fabric_of(long, links, hosts=len(long)))
    assert len(set(names)) == len(names) == 7 + 7 + 12
    assert all(re.fullmatch("[a-z0-9][a-z0-9-]{0,14}", name) for name in names)
    assert not {"lo", "all", "default"} & set(names)
    assert {"tor", "exactly-15-char"} <= set(names)


def test_interface_names_are_shortened_alike():
    first, again = InterfaceNames(), InterfaceNames()
    assert first.take("b" * 11, "-p12") == "b" * 11 + "-p12"
    assert re.fullmatch("b{5}-[0-9a-f]{5}-p12", first.take("b" * 12, "-p12"))
    assert re.fullmatch("b{9}-[0-9a-f]{5}", first.take("b" * 16))
    assert first.take("a" * 32, "-p12") == again.take("a" * 32, "-p12")
    assert first.take("a" * 32, "-p12") != again.take("b" * 32, "-p12")


def test_ports_and_interfaces_are_kept():
    before = fabric_of(["tor1", "tor2"], [["host1:nic1", "tor1"], ["host2:nic1", "tor1"], ["tor1", "tor2"]])
    links = [["host3:nic1", "tor1"], ["tor1", "host2:nic1"], ["tor2", "tor1"], ["host1:nic1", "tor2"]]
    after = fabric_of(["tor1-p2", "tor2", "tor1"], links, 3, before)  # as host2's kept port is called
    cables = {cable.host: cable for cable in after.fabric.cables}
    assert cables["host2"] == before.fabric.cables[1]
    assert after.fabric.trunks == before.fabric.trunks
    assert (cables["host3"].port, cables["host1"].port) == ("p1", "p2")  # freed by host1; next of tor2
    switches = {switch.name: switch.interface for switch in after.fabric.switches}
    assert (switches["tor1"], switches["tor2"]) == ("tor1", "tor2")
    assert len(set(interfaces(after))) == len(interfaces(after))


@pytest.mark.parametrize("hosts", [2, 3, 8, 32])
@pytest.mark.parametrize("vms_per_host", [1, 2, 5, 8])
def test_4host_scales(hosts, vms_per_host):
    values = {"hosts": str(hosts), "vms_per_host": str(vms_per_host)}
    result = plan_from_file(TOPOLOGIES / "4host.yaml", values)
    assert len(result.hosts) == hosts
    assert [sum(vm.host == host.name for vm in result.vms) for host in result.hosts] == [vms_per_host] * hosts
    for vm in result.vms:
        tenant = vm.name.rstrip("0123456789")
        (vnic,) = vm.vnics
        last = vm.host == f"host{hosts}"
        assert vnic.vsid == (6001 if tenant == "red" else 5002 if last else 5001)
        assert vnic.network == tenant
    addresses = {vm.name: vm.vnics[0].addresses for vm in result.vms}
    for vm in result.vms:
        if vm.name.startswith("blue") and vm.vnics[0].vsid == 5001:
            red = vm.name.replace("blue", "red")
            assert addresses[vm.name] == addresses.get(red, addresses[vm.name])


def test_4host():
    result = plan_from_file(TOPOLOGIES / "4host.yaml", {})
    assert result.name == "4host"
    assert [vm.name for vm in result.vms] == [
        f"{tenant}{i}" for i in range(1, 5) for tenant in ("blue", "red")
    ]
    assert [result.vm(f"blue{i}").vnics[0].vsid for i in range(1, 5)] == [5001, 5001, 5001, 5002]
    assert (
        result.vm("blue1").vnics[0].addresses
        == result.vm("red1").vnics[0].addresses
        == ("10.0.0.5/24", "fd00::5/64")
    )
    assert result.vm("blue4").vnics[0].addresses == ("10.0.1.8/24", "fd00:0:0:1::8/64")
    assert [vm.host for vm in result.vms] == [f"host{i}" for i in range(1, 5) for _ in range(2)]
    assert {cable.nic: cable.switch for cable in result.fabric.cables} == {"nic1": "tor1", "nic2": "tor2"}
    assert len(result.fabric.cables) == 8
    assert len(result.fabric.trunks) == 1
    assert len(pas(result)) == len(set(pas(result).values())) == 8
    assert {vnic.mtu for vm in result.vms for vnic in vm.vnics} == {1458}


def test_2host():
    result = plan_from_file(TOPOLOGIES / "2host.yaml", {})
    assert [vm.name for vm in result.vms] == ["blue1", "blue2"]
    assert [len(host.nics) for host in result.hosts] == [1, 1]
