"""Statements about policy objects and about what a VM's boot decides."""

from __future__ import annotations

import errno
from typing import Any

from testbed.conformance import cast, probes
from testbed.conformance.checks_wire import free_pas, machine
from testbed.conformance.labs import OWN
from testbed.conformance.observe import Capture
from testbed.conformance.outcome import Failed, NotShown, expect
from testbed.conformance.scene import Guest, Scene, poll
from testbed.errors import BadInput
from testbed.topology import plan_from_file
from testbed.wiring import neighbors

RESERVED = (0, 1, 0xFFF, 0xFFFFFF)
USABLE = (0x1000, 0xFFFFFE)
OUTER = {4: 42, 6: 62}  # outer IP header, GRE, inner Ethernet
DAD_SECONDS = 8.0


def reserved_vsids(scene: Scene) -> str:
    """4: records, ports and topology files with VSIDs that nobody may use, and the outermost good ones."""
    host, one = scene.plan.hosts[0].name, next(each for each in scene.guests if each.vsid)
    before = _objects(scene, host, "lookup-records")
    for vsid in RESERVED:
        reason = _refusal(
            scene, host, "policy", object="lookup-records", verb="add", fields=_record(scene, vsid)
        )
        expect(reason, f"{host} took a lookup record of VSID {vsid}")
        if vsid:  # 0 takes a port out of its subnet
            expect(_refusal(scene, one.host, "set-port", name=one.port, vsid=vsid), f"a port got VSID {vsid}")
            expect(_topology_refusal(scene, vsid), f"a topology with VSID {vsid} is valid")
    expect(
        _objects(scene, host, "lookup-records") == before, f"a refused change altered the policy of {host}"
    )
    for vsid in USABLE:
        refused = _refusal(
            scene,
            host,
            "policy",
            object="lookup-records",
            verb="add",
            fields=_record(scene, vsid),
            check=True,
        )
        expect(not refused, f"{host} refused VSID {vsid}: {refused}")
        expect(not _topology_refusal(scene, vsid), f"a topology with VSID {vsid} is refused")
    return (
        f"{scene.name}: records of {', '.join(map(str, RESERVED))} refused at {host}, nothing changed; "
        f"ports and topology files too; {USABLE[0]} and {USABLE[1]} are taken"
    )


def _record(scene: Scene, vsid: int) -> dict[str, Any]:
    pa = scene.plan.hosts[0].policy.provider_addresses[0].provider_address
    return {
        "customer_address": "10.99.0.1",
        "virtual_subnet_id": vsid,
        "mac_address": "02:00:00:00:00:99",
        "provider_address": pa,
    }


def _objects(scene: Scene, host: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scene.lab.ask(host, "policy", object=kind, verb="list")["objects"]
    return found


def _refusal(scene: Scene, host: str, op: str, **fields: Any) -> str:
    """Why a host refuses a request as bad input, or ""."""
    try:
        scene.lab.ask(host, op, **fields)
    except BadInput as error:
        return str(error)
    return ""


def _topology_refusal(scene: Scene, vsid: int) -> str:
    """Why a topology in which this VSID stands is refused, or ""."""
    text = (OWN / "ipv6-jumbo.yaml").read_text()
    file = scene.folder / f"vsid-{vsid}.yaml"
    file.write_text(text.replace("vsid: 5001", f"vsid: {vsid}"))
    try:
        plan_from_file(file, {})
    except BadInput as error:
        return str(error)
    return ""


def reduced_mtu(scene: Scene) -> str:
    """11: the guests' kernels' MTU, before and after changes, and the longest packet on its way."""
    one, other = cast.remote(scene)
    if scene.plan.fabric.pa_mtu != 1500 or ":" in scene.pa(one.host, one.vsid):
        raise NotShown(f"{scene.name} has no 1500-byte IPv4 PA network")
    for guest in (one, other):
        _expect_mtu(guest, 1458, "after boot")
    _full_size(scene, one, other, 1458)
    record = {**_record(scene, one.vsid), "customer_address": _free(one)}
    with scene.changed(one.host, "lookup-records", "add", **record):
        _expect_mtu(one, 1458, "after a change of policy")
    before = scene.lab.ask(one.host, "set-port", name=one.port, vsid=0)["before"]
    try:
        _expect_mtu(one, 1458, "without its VSID")
    finally:
        scene.lab.ask(one.host, "set-port", name=one.port, vsid=before)
    _expect_mtu(one, 1458, "with its VSID again")
    migration = _migrated(scene, one, other.host)
    return (
        f"{scene.name}: the kernels of {one.name} and {other.name} have 1458, a DF packet of 1458 is a frame "
        f"of 1514 on the {scene.cable(one.host).label}; kept when policy and VSID change{migration}"
    )


def _migrated(scene: Scene, guest: Guest, target: str) -> str:
    """What a live migration leaves of the MTU, for evidence; needs a VMM."""
    from testbed.lab import migrate

    if scene.plan.vmm is None:
        return "; not migrated, as the lab has no VMM"
    vm = guest.port.partition(":")[0]
    migrate.migrate(scene.lab, vm, target)
    try:
        _expect_mtu(guest, 1458, f"after a migration to {target}")
    finally:
        migrate.migrate(scene.lab, vm, guest.host)
    return f", and when {vm} migrates to {target}"


def _free(one: Guest) -> str:
    import ipaddress

    return str(ipaddress.ip_address(one.address()) + 111)


def _expect_mtu(guest: Guest, wanted: int, when: str) -> None:
    found = neighbors.mtu(guest.netns, guest.interface)
    expect(found == wanted, f"{guest.name} has an MTU of {found} {when}, not {wanted}")


def _full_size(scene: Scene, one: Guest, other: Guest, mtu: int) -> None:
    """The guest's kernel sends a packet of ``mtu`` bytes with DF; it arrives, as one frame on the cable."""
    mark = probes.token()
    cable = scene.cable(one.host)
    payload = mark + bytes(mtu - 28 - len(mark))

    def ask() -> None:
        try:
            probes.datagram(one, other.address(), payload, may_fragment=False)
        except OSError as error:
            why = "too long" if error.errno == errno.EMSGSIZE else error.strerror
            raise Failed(f"the kernel of {one.name} does not send {mtu} bytes: {why}") from error

    with probes.sink(other), Capture(cable, other.place) as capture:
        capture.wait(other.place, mark, ask, what=f"a packet of {mtu} bytes")
        lengths = {len(data) for data in capture.holding(cable, mark)}
    version = 6 if ":" in scene.pa(one.host, one.vsid) else 4
    wanted = 14 + OUTER[version] + mtu
    expect(lengths == {wanted}, f"frames of {lengths} bytes on the {cable.label}, not of {wanted}")


def unreduced_mtu(features: Scene, jumbo: Scene) -> str:
    """12: a legacy adapter, a port that gets its VSID after boot, adapters above jumbo frames."""
    legacy, late = features.guest("legacy"), features.guest("late")
    _expect_mtu(features.guest("blue1"), 1458, "beside a legacy adapter")
    _expect_mtu(legacy, 1500, "as a legacy adapter")
    _expect_mtu(late, 1500, "with VSID 0")
    vsid = features.guest("blue1").vsid
    features.lab.ask(late.host, "set-port", name=late.port, vsid=vsid)
    try:
        _expect_mtu(late, 1500, f"with VSID {vsid} given after boot")
    finally:
        features.lab.ask(late.host, "set-port", name=late.port, vsid=0)
    one, other = cast.remote(jumbo)
    for guest in (one, other):
        _expect_mtu(guest, 1500, f"over a PA network of {jumbo.plan.fabric.pa_mtu}")
    _full_size(jumbo, one, other, 1500)
    return (
        f"features: legacy 1500, late 1500 with VSID {vsid} given after boot; {jumbo.name} (pa_mtu "
        f"{jumbo.plan.fabric.pa_mtu}): {one.name} and {other.name} 1500, a DF packet of 1500 arrives whole"
    )


def address_states(scene: Scene) -> str:
    """36: the lab's own PAs, a new one, and one that another machine has already."""
    for host in scene.plan.hosts:
        for each in _objects(scene, host.name, "provider-addresses"):
            expect(
                each["address_state"] == "Preferred",
                f"{host.name}: {each['provider_address']} is {each['address_state']}",
            )
    host = scene.plan.hosts[0]
    used = {each.virtual_subnet_id for each in host.policy.provider_addresses}
    vsid = next(
        (s.vsid for network in scene.plan.networks for s in network.subnets if s.vsid not in used), None
    )
    if vsid is None:
        raise NotShown(f"{host.name} has a provider address for every VSID")
    fresh, taken = free_pas(scene, 2)
    told = []
    with machine(scene, host.name, taken):
        for address, last in ((fresh, "Preferred"), (taken, "Duplicate")):
            states = _states_of_new(scene, host.name, address, vsid, last)
            expect(
                states == ["Tentative", last],
                f"{address} of {host.name} went {' -> '.join(states) or 'nowhere'}",
            )
            told.append(f"{address} {' -> '.join(states)}")
    return (
        f"{scene.name}: all PAs Preferred; new ones at {host.name}: {', '.join(told)} (events), the latter "
        "the address of another machine's kernel"
    )


def _states_of_new(scene: Scene, host: str, address: str, vsid: int, last: str) -> list[str]:
    """The states that the host told of a new PA, until it is ``last`` or the time is up."""
    length = scene.host(host).policy.provider_addresses[0].prefix_length
    fields = {"provider_address": address, "prefix_length": length, "virtual_subnet_id": vsid}

    def told() -> list[str]:
        events = scene.events(host, "provider-address")
        return [each["fields"]["state"] for each in events if each["object"] == address]

    with scene.changed(host, "provider-addresses", "add", **fields):
        poll(lambda: told()[-1:] == [last], DAD_SECONDS)
        found = told()
        listed = {
            each["provider_address"]: each["address_state"]
            for each in _objects(scene, host, "provider-addresses")
        }
        expect(
            listed.get(address) == found[-1], f"{address} is listed as {listed.get(address)}, told as {found}"
        )
    return found
