"""Statements about forwarding: where a VM's packet goes, and where it never goes."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from testbed.conformance import cast, frames, oracle, probes
from testbed.conformance.checks_wire import free_pas, machine, sent
from testbed.conformance.observe import Capture
from testbed.conformance.outcome import Failed, NotShown, expect
from testbed.conformance.scene import Guest, Scene

WRONG_MAC = frames.mac("02:de:ad:be:ef:01")
OUTSIDE = "203.0.113.9"  # RFC 5737


def by_address(scene: Scene) -> str:
    """18: a destination MAC that nobody has."""
    one, other = cast.remote(scene)
    mark = probes.token()
    frame = probes.packet(one, other, mark, destination_mac=WRONG_MAC)
    row = oracle.decode(sent(scene, one, other, frame, mark), "eth.dst")[0]
    wanted = frames.mac_text(other.mac)
    expect(row["eth.dst"][-1] == wanted, f"inner destination MAC {row['eth.dst'][-1]}, not {wanted}")
    return (
        f"{scene.name}: {one.name} sent to {frames.mac_text(WRONG_MAC)} and {other.address()}; on the "
        f"{scene.cable(one.host).label} inner eth.dst {wanted} (tshark), {other.name} got it"
    )


def not_ip(scene: Scene) -> str:
    """19: an experimental EtherType, and a frame with an LLC header."""
    one, other = cast.remote(scene)
    mark = probes.token()
    strange = [
        frames.ethernet(other.mac, one.mac, frames.TYPE_EXPERIMENTAL, mark + bytes(40)),
        frames.ethernet(other.mac, one.mac, 43, b"\x42\x42\x03" + mark + bytes(24)),
    ]
    with Capture(*scene.cables(), other.place) as capture:
        probes.fence(capture, one, other)
        before = scene.dropped(one.host, "not-ip")
        probes.send(one.place, *strange)
        probes.fence(capture, one, other)
        places = [place.label for place in (*scene.cables(), other.place) if capture.holding(place, mark)]
    expect(not places, f"a frame that is no IP was seen at {', '.join(places)}")
    counted = scene.dropped(one.host, "not-ip") - before
    expect(counted == 2, f"{one.host} counted {counted} of 2 frames as not-ip")
    return f"{scene.name}: 2 frames (0x88b5, LLC) of {one.name}: on no cable, not-ip +2 at {one.host}"


def local(scene: Scene) -> str:
    """20: two VMs on one host."""
    one, other = cast.local(scene)
    far = next(
        (each for each in scene.guests if each.vsid == one.vsid and each.host != one.host and 4 in each.ca),
        None,
    )
    if far is None:
        raise NotShown(f"{one.name} has nobody of its subnet on another host")
    mark = probes.token()
    with Capture(*scene.cables(), other.place, far.place) as capture:
        frame = probes.packet(one, other, mark)
        capture.wait(other.place, mark, lambda: probes.send(one.place, frame), what=f"a packet of {one.name}")
        probes.fence(capture, one, far)  # it crosses the cable after whatever was to cross it before
        places = [place.label for place in scene.cables() if capture.holding(place, mark)]
    expect(not places, f"a packet between two VMs of {one.host} was seen at {', '.join(places)}")
    return f"{scene.name}: {one.name} -> {other.name} on {one.host}: arrived, on no cable"


def routed(scene: Scene) -> str:
    """21: between two subnets of a network, and towards another network."""
    one, other = cast.routed(scene)
    mark = probes.token()
    file = sent(scene, one, other, probes.routed_packet(scene, one, other.address(), mark), mark)
    vsid = int(oracle.decode(file, "gre.key")[0]["gre.key"][0], 0) >> 8
    expect(vsid == other.vsid, f"{one.name} -> {other.name} went with VSID {vsid}, not {other.vsid}")
    foreign = cast.stranger(scene, other.network)
    _never(scene, foreign, other)
    return (
        f"{scene.name}: {one.name} ({one.vsid}) -> {other.name} on the {scene.cable(one.host).label} with "
        f"VSID {vsid} (tshark); {foreign.name} of {foreign.network} did not reach {other.address()}"
    )


def _never(scene: Scene, foreign: Guest, target: Guest) -> None:
    """A packet of another routing domain reaches no VM of the target's, by gateway or by MAC."""
    mark = probes.token()
    inner = frames.tcp_reset(foreign.address(), target.address(), mark)
    tries = [
        probes.routed_packet(scene, foreign, target.address(), mark),
        frames.ethernet(target.mac, foreign.mac, frames.TYPE_IPV4, inner),
    ]
    friend = next(
        (
            each
            for each in scene.guests
            if each.vsid == foreign.vsid and each.host != foreign.host and 4 in each.ca
        ),
        None,
    )
    if friend is None:
        raise NotShown(f"{foreign.name} has nobody of its subnet on another host")
    theirs = [each.place for each in scene.guests if each.network == target.network]
    with Capture(friend.place, *theirs) as capture:
        probes.send(foreign.place, *tries)
        probes.fence(capture, foreign, friend)
        reached = [place.label for place in theirs if capture.holding(place, mark)]
    expect(not reached, f"a packet of {foreign.name} reached {', '.join(reached)} of {target.network}")


def twins(scene: Scene) -> str:
    """22: equal CAs as they are; equal PAs by a policy that gives both tenants the same ones."""
    first, second = cast.twins(scene)
    for (one, other), (_, wrong) in ((first, second), (second, first)):
        _apart(scene, one, other, wrong)
    hosts = first[0].host, first[1].host
    pas = [scene.pa(host, first[0].vsid) for host in hosts]
    with ExitStack() as changes:
        for host, guest, pa in ((hosts[0], second[1], pas[1]), (hosts[1], second[0], pas[0])):
            record = {"customer_address": guest.address(), "virtual_subnet_id": guest.vsid}
            changes.enter_context(scene.changed(host, "lookup-records", "set", **record, provider_address=pa))
        for (one, other), (_, wrong) in ((first, second), (second, first)):
            _same_pas(scene, one, other, wrong, pas)
    return (
        f"{scene.name}: {first[0].name} and {second[0].name} both send {first[0].address()} -> "
        f"{first[1].address()}: each reaches its own; so do NVGRE packets with both VSIDs from {pas[0]} to "
        f"{pas[1]} put on the {scene.cable(hosts[1]).label}"
    )


def _apart(scene: Scene, one: Guest, other: Guest, wrong: Guest) -> None:
    mark = probes.token()
    frame = probes.packet(one, other, mark)
    with Capture(other.place, wrong.place) as capture:
        capture.wait(other.place, mark, lambda: probes.send(one.place, frame), what=f"a packet of {one.name}")
        probes.wire_fence(scene, capture, *_pair_at(scene, wrong))
        expect(not capture.holding(wrong.place, mark), f"{wrong.name} got a packet of {one.name}")


def _same_pas(scene: Scene, one: Guest, other: Guest, wrong: Guest, pas: list[str]) -> None:
    """Only the VSID differs: each tenant's frame comes to its own VM."""
    mark = probes.token()
    macs = (scene.nic_mac(other.host), scene.nic_mac(one.host))
    frame = frames.nvgre(macs, (pas[1], pas[0]), other.vsid, probes.packet(one, other, mark))
    cable = scene.cable(other.host)
    with Capture(other.place, wrong.place) as capture:
        capture.wait(
            other.place, mark, lambda: probes.send(cable, frame), what=f"a packet with VSID {other.vsid}"
        )
        again = frames.nvgre(macs, (pas[1], pas[0]), wrong.vsid, probes.packet(one, other, mark + b"!"))
        probes.send(cable, again)  # the other tenant's VSID, this one's MAC: nobody's
        probes.wire_fence(scene, capture, *_pair_at(scene, wrong))
        expect(not capture.holding(wrong.place, mark), f"{wrong.name} got what has VSID {other.vsid}")
        expect(not capture.holding(other.place, mark + b"!"), f"{other.name} got what has VSID {wrong.vsid}")


def _pair_at(scene: Scene, guest: Guest) -> cast.Pair:
    """Somebody elsewhere in the guest's subnet, and the guest."""
    for one in scene.guests:
        if one.vsid == guest.vsid and one.host != guest.host and 4 in one.ca:
            return one, guest
    raise NotShown(f"{guest.name} has nobody of its subnet on another host")


def default_route(scene: Scene) -> str:
    """23: an address that no subnet has."""
    gateway = next((guest for guest in scene.guests if guest.is_gateway), None)
    if gateway is None:
        raise NotShown(f"{scene.name} has no gateway VM")
    one = next(
        each
        for each in scene.guests
        if each.network == gateway.network
        and each.vsid != gateway.vsid
        and each.host != gateway.host
        and 4 in each.ca
    )
    mark = probes.token()
    row = oracle.decode(
        sent(scene, one, gateway, probes.routed_packet(scene, one, OUTSIDE, mark), mark),
        "ip.dst",
        "gre.key",
        "eth.dst",
    )[0]
    found = (row["ip.dst"][0], int(row["gre.key"][0], 0) >> 8, row["eth.dst"][-1])
    wanted = (scene.pa(gateway.host, gateway.vsid), gateway.vsid, frames.mac_text(gateway.mac))
    expect(found == wanted, f"PA, VSID and inner MAC {found}, not the gateway's {wanted}")
    return (
        f"{scene.name}: {one.name} -> {OUTSIDE} came to {gateway.name}; on the {scene.cable(one.host).label} "
        f"to PA {found[0]}, VSID {found[1]}, inner MAC {found[2]} (tshark)"
    )


def metrics(scene: Scene) -> str:
    """24: a second default route, and two routes to a far PA, better and worse than the first."""
    return f"{scene.name}: {_customer_metrics(scene)}; {_provider_metrics(scene)}"


def _customer_metrics(scene: Scene) -> str:
    gateway = next((guest for guest in scene.guests if guest.is_gateway), None)
    if gateway is None:
        raise NotShown(f"{scene.name} has no gateway VM")
    one, other = cast.remote(scene)
    route = {
        "routing_domain_id": scene.rdid(one.vsid),
        "virtual_subnet_id": other.vsid,
        "destination_prefix": "0.0.0.0/0",
        "next_hop": other.address(),
    }
    for metric, taker in ((10, other), (400, gateway)):  # the planned one has 255
        mark = probes.token()
        frame = probes.routed_packet(scene, one, OUTSIDE, mark)
        with scene.changed(one.host, "customer-routes", "add", **route, metric=metric):
            try:
                sent(scene, one, taker, frame, mark)
            except Failed as error:
                raise Failed(
                    f"a second default route, to {other.name} with metric {metric}: {error}"
                ) from None
    return (
        f"default routes of metric 255 to {gateway.name} and 10 to {other.name}: {other.name} got it; "
        f"with 400 {gateway.name} did"
    )


def _provider_metrics(scene: Scene) -> str:
    one, other = cast.remote(scene)
    cable = scene.cable(one.host)
    near, far = free_pas(scene, 2), "198.51.100.7"
    record = {"customer_address": other.address(), "virtual_subnet_id": other.vsid}
    for good in (0, 1):
        with ExitStack() as changes:
            router = changes.enter_context(machine(scene, one.host, near[good]))
            for number, next_hop in enumerate(near):
                changes.enter_context(
                    scene.changed(
                        one.host,
                        "provider-routes",
                        "add",
                        destination_prefix="198.51.100.0/24",
                        next_hop=next_hop,
                        metric=5 if number == good else 50,
                    )
                )
            changes.enter_context(
                scene.changed(one.host, "lookup-records", "set", **record, provider_address=far)
            )
            mark = probes.token()
            frame = probes.packet(one, other, mark)
            with Capture(cable) as capture:  # only the better next hop answers ARP
                seen = capture.wait(
                    cable,
                    mark,
                    partial(probes.send, one.place, frame),
                    what=f"a packet by way of {near[good]}, metric 5",
                )
            found = frames.mac_text(seen[:6])
            expect(found == router, f"by way of {found}, not of {near[good]} at {router}")
    return (
        f"provider routes of metric 5 and 50 to {far}: the one of 5 was taken, whichever of {near} it led to"
    )
