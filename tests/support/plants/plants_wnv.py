"""Faults in forwarding, for neighbors, in replication and in the PA space."""

from __future__ import annotations

from typing import Any

from planting import answering, around, plant

# ---- forwarding ---------------------------------------------------------------------------


@plant(18)
def mac_not_rewritten() -> None:
    from testbed.wnv.forwarding import Forwarding

    def change(before: Any, forwarding: Any, packet: Any, record: Any) -> Any:
        verdict = before(forwarding, packet, record)
        if packet.tunnels:
            packet.macs = bytes(packet.frame[:12])
        return verdict

    around(Forwarding, "_to_record", change)


@plant(19)
def not_ip_flooded() -> None:
    from testbed.switch.drops import Drop
    from testbed.wnv.filter import WnvFilter

    def change(before: Any, stage: Any, packet: Any) -> Any:
        verdict = before(stage, packet)
        return stage._forwarding.flood(packet, b"\xff" * 4) if verdict is Drop.NOT_IP else verdict

    around(WnvFilter, "outbound", change)


@plant(20)
def local_by_wire() -> None:
    from testbed.wnv.forwarding import Forwarding

    def change(before: Any, forwarding: Any, packet: Any, record: Any) -> Any:
        verdict = before(forwarding, packet, record)
        packet.to_wire = packet.to_wire or bool(packet.ports)
        return verdict

    around(Forwarding, "_to_record", change)


@plant(21)
def vsid_of_the_sender() -> None:
    from testbed.wnv.forwarding import Forwarding

    around(
        Forwarding,
        "_tunnel",
        lambda before, forwarding, packet, vsid, pa: before(forwarding, packet, packet.vsid, pa),
    )


@plant(21)
def one_routing_domain() -> None:
    from testbed.wnv.tables import Tables

    def change(before: Any, tables: Any, vsid: int, address: bytes) -> Any:
        found = before(tables, vsid, address)
        return found or [route for table in tables._routes.values() for route in table.matches(address)]

    around(Tables, "customer_routes", change)
    answering(Tables, "knows_sender", True)


@plant(22)
def port_by_mac_alone() -> None:
    from testbed.switch.state import SwitchState

    def change(before: Any, state: Any, vsid: int, mac: bytes) -> Any:
        if vsid == 0:
            return before(state, vsid, mac)
        return next((port for port in state.ports.values() if port.mac == mac), None)

    around(SwitchState, "port_with_mac", change)


@plant(23)
def no_default_route() -> None:
    from testbed.wnv.routes import RouteTable

    around(
        RouteTable,
        "add",
        lambda before, table, prefix, route: before(
            table, prefix, route._replace(vsid=4242) if not prefix.length else route
        ),
    )


@plant(24)
def highest_metric() -> None:
    from testbed.wnv.routes import RouteTable

    around(RouteTable, "matches", lambda before, table, address: before(table, address)[::-1])


# ---- neighbors ----------------------------------------------------------------------------


@plant(25)
def wrong_mac() -> None:
    from testbed.wnv import neighbors

    def change(before: Any, message: Any, record: Any, *frame: Any) -> Any:
        wrong = record._replace(mac=b"\2\0\0\0\0\x42") if record and record.gateway else record
        return before(message, wrong, *frame)

    around(neighbors, "answer_arp", change)
    around(neighbors, "answer_nd", change)


@plant(25)
def gateway_answers_pings() -> None:
    from testbed.switch.drops import Drop
    from testbed.switch.packet import Reply
    from testbed.wnv.filter import WnvFilter

    def change(before: Any, stage: Any, packet: Any) -> Any:
        verdict = before(stage, packet)
        frame = bytes(packet.frame)
        if verdict is Drop.GATEWAY_ADDRESS and frame[23] == 1:
            return Reply(frame[6:12] + frame[:6] + frame[12:])
        return verdict

    around(WnvFilter, "outbound", change)


@plant(26)
def requests_flooded() -> None:
    from testbed.wnv import neighbors

    around(neighbors, "answer_arp", lambda *_: neighbors.Flood(b"\xff" * 4))


@plant(26)
def duplicates_not_found() -> None:
    from testbed.switch.drops import Drop
    from testbed.wnv import neighbors

    def change(before: Any, message: Any, record: Any, frame: Any) -> Any:
        return Drop.NEIGHBOR_CONSUMED if message.is_dad else before(message, record, frame)

    around(neighbors, "answer_nd", change)


@plant(27)
def unknown_flooded() -> None:
    from testbed.wnv.tables import Tables

    answering(Tables, "has_learners", True)


@plant(28)
def unknown_not_flooded() -> None:
    from testbed.wnv.tables import Tables

    answering(Tables, "has_learners", False)


@plant(29)
def unicast_answered_here() -> None:
    from testbed.wnv import neighbors

    answering(neighbors, "_answered_for", True)


@plant(30)
def broadcasts_pass_below_the_switch() -> None:
    from testbed.switch.drops import Drop
    from testbed.wnv.below import FilterBelow

    def change(before: Any, stage: Any, packet: Any) -> Any:
        verdict = before(stage, packet)
        return stage._forwarding.flood(packet, b"\xff" * 4) if verdict is Drop.FLOODED else verdict

    around(FilterBelow, "_decide", change)


# ---- replication, provider addresses ------------------------------------------------------


@plant(31)
def group_ignored() -> None:
    from testbed.wnv.tables import Tables

    answering(Tables, "group", None)


@plant(31)
def group_not_joined() -> None:
    from testbed.wnv.tables import Tables

    around(Tables, "groups", lambda before, tables, vsids: set())


@plant(32)
def copies_to_everybody() -> None:
    from testbed.wnv.tables import Tables

    def change(before: Any, tables: Any, vsid: int) -> Any:
        known = {pa for pas in tables._hosts.values() for pa in pas}
        return tuple(sorted(known - tables.own_pas))

    around(Tables, "remote_pas", change)


@plant(32)
def a_copy_for_each_vm() -> None:
    from testbed.wnv.tables import Tables

    around(Tables, "remote_pas", lambda before, tables, vsid: before(tables, vsid) * 2)


@plant(36)
def duplicates_used() -> None:
    from testbed.host.pa.addresses import Addresses

    answering(Addresses, "_lose", None)
