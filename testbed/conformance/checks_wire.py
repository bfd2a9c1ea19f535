"""Statements about the wire: what tshark reads on a cable, and what a host does with bad packets from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.conformance import cast, frames, oracle, probes
from testbed.conformance.observe import Capture, Place
from testbed.conformance.outcome import Failed, NotShown, expect
from testbed.conformance.scene import Guest, Scene
from testbed.wiring import neighbors
from testbed.wiring.machine import machine_on

GRE_FIELDS = ("gre.flags_and_version", "gre.proto", "gre.key")
CONTROL_FIELDS = ("arp.opcode", "igmp.type", "icmpv6.type", "icmp.type")  # of the PA network itself
TRANSFER_BYTES = 200_000
FLOWS = 12


def _number(text: str) -> int:
    return int(text, 0)


def _key(row: oracle.Row) -> int:
    keys = row["gre.key"]
    if len(keys) != 1:
        raise Failed(f"a packet has {len(keys)} GRE keys")
    return _number(keys[0])


def sent(scene: Scene, one: Guest, other: Guest, frame: bytes, token: bytes) -> Path:
    """Send ``frame`` out of ``one`` until it is at ``other``; its capture on the cable of ``one``'s host.

    Raises Failed where it does not arrive.
    """
    cable = scene.cable(one.host)
    with Capture(cable, other.place) as capture:
        capture.wait(
            other.place, token, lambda: probes.send(one.place, frame), what=f"the packet of {one.name}"
        )
        return capture.save(cable, scene.folder, token)


def _rows(file: Path, *fields: str) -> list[oracle.Row]:
    rows = oracle.decode(file, *fields)
    if not rows:
        raise Failed(f"tshark finds no packet in {file.name}")
    return rows


def header(scene: Scene) -> str:
    """1: all that the hosts of a pair send while the guests' kernels ping and use TCP."""
    one, other = cast.remote(scene)
    cables = [scene.cable(one.host), scene.cable(other.host)]
    from_hosts = {scene.nic_mac(guest.host) for guest in (one, other)}
    versions = [version for version in (4, 6) if version in one.ca and version in other.ca]
    with Capture(*cables) as capture:
        for version in versions:
            expect(probes.ping(one, other.address(version)), f"no answer to a ping of {other.name}")
            got = probes.transfer(one, other, TRANSFER_BYTES, version)
            expect(got == TRANSFER_BYTES, f"{got} of {TRANSFER_BYTES} bytes arrived by TCP")
        files = [
            capture.save(cable, scene.folder, lambda seen: seen.data[6:12] in from_hosts) for cable in cables
        ]
    count = sum(_check_headers(file) for file in files)
    expect(count > 10, f"only {count} NVGRE packets on the cables")
    return (
        f"{scene.name}: ping and TCP {one.name} <-> {other.name}, {cables[0].label} and {cables[1].label}: "
        f"{count} packets, all IP protocol 47, GRE 0x2000, 0x6558 (tshark)"
    )


def _check_headers(file: Path) -> int:
    """How many NVGRE packets hosts have sent, by a capture. Raises Failed on any other IP packet."""
    count = 0
    for row in oracle.decode(file, "ip.proto", "ipv6.nxt", *CONTROL_FIELDS, *GRE_FIELDS):
        if not row["gre.proto"]:
            expect(any(row[field] for field in CONTROL_FIELDS), f"a host sent what is no NVGRE: {row}")
            continue
        protocols = {*row["ip.proto"][:1], *row["ipv6.nxt"][:1]}  # one of them is the outer header's
        flags, kind = (_number(row[field][0]) for field in GRE_FIELDS[:2])
        found = f"IP protocol {'/'.join(protocols)}, GRE {flags:#06x}, type {kind:#06x}"
        expect("47" in protocols and (flags, kind) == (0x2000, 0x6558), f"tshark finds {found}")
        count += 1
    return count


def key(scene: Scene) -> str:
    """2: one packet of several flows in each virtual subnet that has a remote pair."""
    told = []
    for one, other in _pair_of_each_vsid(scene):
        keys = _keys_of_flows(scene, one, other)
        vsids, low = {each >> 8 for each in keys}, {each & 0xFF for each in keys}
        expect(len(keys) == FLOWS, f"{one.name} -> {other.name}: {len(keys)} of {FLOWS} packets on the cable")
        expect(vsids == {one.vsid}, f"{one.name} -> {other.name}: key >> 8 is {vsids}, not {one.vsid}")
        expect(len(low) > 1 or not scene.host(one.host).flow_entropy, f"one FlowID for {FLOWS} flows: {low}")
        where = scene.cable(one.host).label
        told.append(f"{one.name} -> {other.name} on {where}: VSID {one.vsid}, {len(low)} FlowIDs")
    return f"{scene.name}: {FLOWS} flows each, gre.key by tshark: {'; '.join(told)}"


def _keys_of_flows(scene: Scene, one: Guest, other: Guest) -> list[int]:
    """The GRE keys of one packet of each of FLOWS flows, which differ in their TCP ports."""
    mark = probes.token()
    out = [probes.packet(one, other, mark, ports=(2000 + number, 9)) for number in range(FLOWS)]
    cable = scene.cable(one.host)
    with Capture(cable, other.place) as capture:
        probes.fence(capture, one, other)
        probes.send(one.place, *out)
        probes.fence(capture, one, other)
        file = capture.save(cable, scene.folder, mark)
    return [_key(row) for row in _rows(file, "gre.key")]


def _pair_of_each_vsid(scene: Scene) -> list[cast.Pair]:
    found: dict[int, cast.Pair] = {}
    for one in scene.guests:
        for other in scene.guests:
            if (
                one.vsid == other.vsid
                and one.host != other.host
                and 4 in one.ca
                and 4 in other.ca
                and one.vsid
            ):
                found.setdefault(one.vsid, (one, other))
    if not found:
        raise NotShown(f"{scene.name} has no two VMs of one subnet on different hosts")
    return list(found.values())


def flow_id(scene: Scene) -> str:
    """3: eight flows of five packets from a host with entropy and from one without."""
    told = []
    for entropy in (True, False):
        one, other = next(
            pair
            for pair in (cast.remote(scene), cast.remote(scene)[::-1])
            if scene.host(pair[0].host).flow_entropy is entropy
        )
        ids = [_flow_ids(scene, one, other, 3000 + 10 * number) for number in range(8)]
        unsteady = [each for each in ids if len(each) != 1]
        expect(not unsteady, f"{one.host}: a flow has several FlowIDs: {unsteady}")
        distinct = {each for flow in ids for each in flow}
        if entropy:
            expect(len(distinct) > 1, f"{one.host}: eight flows have one FlowID: {distinct}")
        else:
            expect(distinct == {0}, f"{one.host} has flow_entropy false, its FlowIDs are {distinct}")
        told.append(
            f"{scene.cable(one.host).label} ({'with' if entropy else 'without'} entropy): {sorted(distinct)}"
        )
    return f"{scene.name}: 8 flows of 5 packets, one FlowID each; {'; '.join(told)}"


def _flow_ids(scene: Scene, one: Guest, other: Guest, port: int) -> set[int]:
    mark = probes.token()
    frame = probes.packet(one, other, mark, ports=(port, 9))
    cable = scene.cable(one.host)
    with Capture(cable, other.place) as capture:
        probes.fence(capture, one, other)
        probes.send(one.place, *[frame] * 5)
        probes.fence(capture, one, other)
        file = capture.save(cable, scene.folder, mark)
    keys = [_key(row) for row in oracle.decode(file, "gre.key")]
    expect(len(keys) == 5, f"{len(keys)} of 5 packets of {one.name} are on the {cable.label}")
    return {each & 0xFF for each in keys}


def untag(scene: Scene) -> str:
    """5: a frame of a VM with an 802.1Q tag."""
    one, other = cast.remote(scene)
    mark = probes.token()
    file = sent(scene, one, other, probes.packet(one, other, mark, vlan=7), mark)
    for row in _rows(file, "vlan.id", "eth.type", "gre.proto"):
        expect(row["gre.proto"] and not row["vlan.id"], f"tshark finds VLAN {row['vlan.id']} on the cable")
    cable = scene.cable(one.host).label
    return f"{scene.name}: {one.name} sent VLAN 7; on the {cable} no tag (tshark), {other.name} got the frame"


def tagged_from_wire(scene: Scene) -> str:
    """6: NVGRE put on a cable whose inner frame has a tag."""
    one, other = cast.remote(scene)
    mark = probes.token()
    frame = probes.carried(scene, one, other, probes.packet(one, other, mark, vlan=7))
    delivered, counted = put_on_wire(scene, one, other, frame, mark, "inner-tagged")
    expect(not delivered, f"{other.name} got a frame whose inner frame was tagged")
    expect(counted == 1, f"{other.host} counted {counted} packets as inner-tagged, not 1")
    return (
        f"{scene.name}: tagged inner frame put on the {scene.cable(other.host).label}: not at {other.name}, "
        f"inner-tagged +1 at {other.host}"
    )


def put_on_wire(
    scene: Scene, one: Guest, other: Guest, frame: bytes, mark: bytes, reason: str
) -> tuple[bool, int]:
    """Whether a frame put on the cable of ``other``'s host came to ``other``; by how much a count grew."""
    with Capture(other.place) as capture:
        probes.wire_fence(scene, capture, one, other)
        before = scene.dropped(other.host, reason)
        probes.send(scene.cable(other.host), frame)
        probes.wire_fence(scene, capture, one, other)
        delivered = bool(capture.holding(other.place, mark))
    return delivered, scene.dropped(other.host, reason) - before


def no_fcs(scene: Scene) -> str:
    """7: lengths of what is carried, short and long frames, even and odd."""
    one, other = cast.remote(scene)
    seen = []
    for length in (0, 1, 700, 1301):
        mark = probes.token()
        frame = probes.packet(one, other, mark + bytes(length))
        file = sent(scene, one, other, frame, mark)
        for row in _rows(file, "frame.len", "ip.len", "ipv6.plen", "gre.proto", "eth.trailer", "eth.fcs"):
            inner_ip = 20 + 20 + len(mark) + length
            outer = 14 + (20 if not row["ipv6.plen"] else 40) + 8 + 14
            found, wanted = int(row["frame.len"][0]), outer + inner_ip
            expect(found == wanted, f"{found} bytes on the cable, not {outer} and the packet's {inner_ip}")
            expect(int(row["ip.len"][-1]) == inner_ip, f"inner length {row['ip.len'][-1]}, not {inner_ip}")
            expect(not row["eth.trailer"] and not row["eth.fcs"], f"tshark finds a trailer: {row}")
            seen.append(found)
    return (
        f"{scene.name}: {one.name} -> {other.name}, frames of {', '.join(map(str, seen))} bytes on the "
        f"{scene.cable(one.host).label}: headers and inner packet only, no trailer (tshark)"
    )


def outer_macs(scene: Scene) -> str:
    """8: a PA on the link, and one behind a router, another machine on the PA network."""
    one, other = cast.remote(scene)
    mark = probes.token()
    nic = frames.mac_text(scene.nic_mac(one.host))
    row = _rows(sent(scene, one, other, probes.packet(one, other, mark), mark), "eth.src", "eth.dst")[0]
    wanted = (nic, frames.mac_text(scene.nic_mac(other.host)))
    found = (row["eth.src"][0], row["eth.dst"][0])
    expect(found == wanted, f"outer MACs {found} (source, destination), not {wanted}")
    router, router_mac = behind_router(scene, one, other)
    expect(router[0] == nic, f"outer source MAC {router[0]} to an off-link PA, not {nic}")
    expect(router[1] == router_mac, f"outer destination MAC {router[1]} to an off-link PA, not {router_mac}")
    return (
        f"{scene.name}: {scene.cable(one.host).label}: {wanted[0]} -> {wanted[1]}, the NICs of {one.host} "
        f"and {other.host}; to a PA behind a router -> {router_mac}, the router's (tshark)"
    )


def behind_router(scene: Scene, one: Guest, other: Guest) -> tuple[tuple[str, str], str]:
    """Outer MACs (source, destination) of a packet to an off-link PA; the MAC of the router."""
    pa = scene.pa(one.host, one.vsid)
    if ":" in pa:
        raise NotShown(f"{scene.name} has IPv6 provider addresses")
    router, far = free_pas(scene, 1)[0], "198.51.100.7"
    mark = probes.token()
    record = {"customer_address": other.address(), "virtual_subnet_id": other.vsid}
    with (
        machine(scene, one.host, router) as router_mac,
        scene.changed(
            one.host, "provider-routes", "add", destination_prefix="198.51.100.0/24", next_hop=router
        ),
        scene.changed(one.host, "lookup-records", "set", **record, provider_address=far),
    ):
        frame = probes.packet(one, other, mark)
        cable = scene.cable(one.host)
        with Capture(cable) as capture:
            capture.wait(cable, mark, lambda: probes.send(one.place, frame), what=f"a packet to the PA {far}")
            file = capture.save(cable, scene.folder, mark)
        row = _rows(file, "eth.src", "eth.dst", "ip.dst")[0]
        expect(row["ip.dst"][0] == far, f"outer destination {row['ip.dst'][0]}, not {far}")
        return (row["eth.src"][0], row["eth.dst"][0]), router_mac


def bridge_of(scene: Scene, host: str) -> Place:
    """The switch to which the host's active NIC is wired."""
    cable = scene.cable(host)
    for each in scene.plan.fabric.cables:
        if each.interface == cable.interface:
            return Place(each.switch, cable.netns, each.switch_interface)
    raise NotShown(f"{cable.label} has no switch")


def free_pas(scene: Scene, count: int) -> list[str]:
    """Unused addresses of the PA network, its highest ones."""
    import ipaddress

    own = [pa for host in scene.plan.hosts for pa in host.policy.provider_addresses]
    network = ipaddress.ip_interface(f"{own[0].provider_address}/{own[0].prefix_length}").network
    used = {pa.provider_address for pa in own}
    found: list[str] = []
    address = int(network.broadcast_address) - 1
    while len(found) < count:
        text = str(type(network.network_address)(address))
        if text not in used:
            found.append(text)
        address -= 1
    return found


@contextmanager
def machine(scene: Scene, host: str, pa: str) -> Iterator[str]:
    """Another machine on the switch of ``host``'s NIC: a kernel of its own has ``pa``. Its MAC."""
    bridge = bridge_of(scene, host)
    length = scene.host(host).policy.provider_addresses[0].prefix_length
    with machine_on(bridge.netns, bridge.interface, f"{pa}/{length}") as mac:
        yield mac


def fragments(scene: Scene) -> str:
    """9: datagrams longer than the MTU, a guest that believes in a larger MTU, fragments from the wire."""
    one, other = cast.remote(scene)
    cable = scene.cable(one.host)
    size = neighbors.mtu(one.netns, one.interface)
    with probes.sink(other), Capture(cable, other.place) as capture:
        mark = probes.token()
        capture.wait(
            other.place,
            mark,
            lambda: probes.datagram(one, other.address(), mark + bytes(5 * size)),
            what="a long datagram",
        )
        told = _too_long(scene, capture, one, other, size)
        probes.fence(capture, one, other)
        file = capture.save(cable, scene.folder, lambda seen: not seen.outgoing)
    rows = oracle.decode(file, "frame.len", "frame.protocols", "ip.flags.mf", "ip.frag_offset")
    for row in rows:
        expect(not _is_fragment(row), f"an outer fragment on the {cable.label}: {row}")
        longest = scene.plan.fabric.pa_mtu + 14
        expect(int(row["frame.len"][0]) <= longest, f"a frame of {row['frame.len'][0]} bytes")
    return (
        f"{scene.name}: {len(rows)} packets of {one.host} on the {cable.label}, none a fragment (tshark); "
        f"{told}; {_fragment_from_wire(scene, one, other)}"
    )


def _is_fragment(row: oracle.Row) -> bool:
    """Whether the outer packet is a fragment, of IPv4 or IPv6."""
    layers = row["frame.protocols"][0].split(":")
    outer = layers[: layers.index("gre")] if "gre" in layers else layers
    if "ipv6" in outer:
        return "ipv6.fraghdr" in outer
    return row["ip.flags.mf"][:1] in (["1"], ["True"]) or row["ip.frag_offset"][:1] not in (["0"], [])


def _too_long(scene: Scene, capture: Capture, one: Guest, other: Guest, size: int) -> str:
    """A guest that believes in the MTU of the PA network is told by ICMP what fits into NVGRE."""
    mark = probes.token()
    too_large = scene.plan.fabric.pa_mtu
    neighbors.set_mtu(one.netns, one.interface, too_large)
    try:
        known = probes.learns_path_mtu(one, other.address(), mark + bytes(too_large - 28 - len(mark)))
    finally:
        neighbors.set_mtu(one.netns, one.interface, size)
    expect(known, f"{one.name} sent {too_large} bytes with DF and was not told that this is too long")
    expect(not capture.holding(other.place, mark), f"{other.name} got a packet of {too_large} bytes")
    return f"a DF packet of {too_large} bytes ended in the switch and the guest's kernel learned the MTU"


def _fragment_from_wire(scene: Scene, one: Guest, other: Guest) -> str:
    if ":" in scene.pa(other.host, other.vsid):
        return "IPv6 PAs: no fragment sent"
    mark = probes.token()
    frame = probes.carried(scene, one, other, probes.packet(one, other, mark), frames.MORE_FRAGMENTS)
    before = sum(scene.drops(other.host).values())
    delivered, _ = put_on_wire(scene, one, other, frame, mark, "")
    expect(not delivered, f"{other.name} got what an outer fragment carried")
    counted = sum(scene.drops(other.host).values()) - before
    expect(counted >= 1, f"{other.host} did not count the fragment")
    return f"a fragment put on the {scene.cable(other.host).label} was dropped and counted"


def families(*scenes: Scene) -> str:
    """10: a packet of each customer family over each provider family."""
    told = []
    for scene in scenes:
        one, other = cast.remote(scene, 4, 6)
        for version in (4, 6):
            mark = probes.token()
            file = sent(scene, one, other, probes.packet(one, other, mark, version=version), mark)
            row = _rows(file, "frame.protocols")[0]
            layers = [each for each in row["frame.protocols"][0].split(":") if each in ("ip", "ipv6", "gre")]
            expect(probes.ping(one, other.address(version)), f"{scene.name}: no ping over IPv{version}")
            told.append(f"{layers[-1]} in {layers[0]}")
    mixes: Iterable[str] = ("ip in ip", "ipv6 in ip", "ip in ipv6", "ipv6 in ipv6")
    expect(sorted(told) == sorted(mixes), f"tshark finds {told}")
    names = " and ".join(scene.name for scene in scenes)
    return f"{names}: frame.protocols by tshark: {', '.join(told)}; pings answered"
