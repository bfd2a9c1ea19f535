"""acl: rules in order, the first that matches decides; stateless and stateful, in both address spaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

from testbed.extensions import headers as ip
from testbed.extensions.connections import Connections, Segment, pa_segment, segment_of
from testbed.extensions.rules import Action, Matcher, Rule, Subject
from testbed.packets import ndp
from testbed.packets.nvgre import PROTOCOL_GRE
from testbed.switch.extensions.api import Decision, Deny, Extension, Frame, Scope
from testbed.telemetry import EventLog

_NEIGHBOR = (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT)


class Acl(Extension):
    """Allows and denies IP packets at the ports of VMs (CA) and NVGRE at the NIC (PA).

    ARP, and what takes its place in IPv6, passes: without it no rule would have anything to allow.
    """

    kind = "filter"
    scope: Scope = "flow"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """default, pa_default: for packets that no rule of their space matches. Idle times in seconds."""

        rules: list[Rule] = []
        default: Action = "allow"
        pa_default: Action = "allow"
        connections: Annotated[int, Meta(ge=1, le=1 << 20)] = 16384
        tcp_idle: Annotated[int, Meta(ge=1)] = 3600
        other_idle: Annotated[int, Meta(ge=1)] = 60

    def __init__(self, name: str, settings: Settings, events: EventLog) -> None:
        super().__init__(name, settings, events)
        matchers = [Matcher(rule, number) for number, rule in enumerate(settings.rules)]
        pairs = list(zip(settings.rules, matchers, strict=True))
        self._matchers = matchers
        self._ca = [matcher for rule, matcher in pairs if rule.space == "CA"]
        self._pa = [matcher for rule, matcher in pairs if rule.space == "PA"]
        self._stateful = any(rule.stateful for rule in settings.rules)
        self._connections = Connections(settings.connections, settings.tcp_idle, settings.other_idle)
        if self._stateful:
            self.scope = "packet"

    @classmethod
    def named_ports(cls, settings: Settings) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Those of every rule."""
        return [
            (("rules", i, "ports", j), name)
            for i, rule in enumerate(settings.rules)
            for j, name in enumerate(rule.ports)
        ]

    def scope_of(self, frame: Frame) -> Scope:
        """A fragment and an ICMPv6 message are told by more than addresses and ports."""
        if frame.space == "CA":
            headers = ip.parse(frame.inner)
            if headers is None or headers.fragment or headers.protocol not in (ip.TCP, ip.UDP):
                return "packet"
        return self.scope

    def ingress(self, frame: Frame) -> Decision:
        """From a VM (CA), or from the wire (PA)."""
        if frame.space == "PA":
            return self._judge_pa(frame, outgoing=False)
        return self._judge_ca(frame, frame.source, outgoing=True) if frame.source in self.ports else None

    def egress(self, frame: Frame) -> Decision:
        """To a VM (CA), or to the wire (PA)."""
        if frame.space == "PA":
            return self._judge_pa(frame, outgoing=True)
        port = frame.destination
        return self._judge_ca(frame, port, outgoing=False) if port in self.ports else None

    def counters(self) -> dict[str, int]:
        """Packets that each rule decided (of a cached flow only the first), and connections now."""
        hits = {matcher.name: matcher.hits for matcher in self._matchers}
        return {**hits, "connections": len(self._connections)} if self._stateful else hits

    def _judge_ca(self, frame: Frame, port: str, *, outgoing: bool) -> Decision:
        inner = frame.inner
        headers = ip.parse(inner)
        if headers is None or _is_neighbor(inner, headers):
            return None
        local, remote = headers.source, headers.destination
        local_port, remote_port = ip.ports(inner, headers) or (None, None)
        if not outgoing:
            local, remote, local_port, remote_port = remote, local, remote_port, local_port
        subject = Subject(
            port, outgoing, frame.vsid, headers.protocol, local, remote, local_port, remote_port
        )
        segment = segment_of(inner, headers, subject) if self._stateful else None
        return self._judge(subject, segment, self._ca, self.settings.default)

    def _judge_pa(self, frame: Frame, *, outgoing: bool) -> Decision:
        headers = ip.parse(frame.outer)
        if headers is None:
            return None
        local, remote = headers.source, headers.destination
        if not outgoing:
            local, remote = remote, local
        subject = Subject("", outgoing, frame.vsid, PROTOCOL_GRE, local, remote)
        segment = pa_segment(subject) if self._stateful else None
        return self._judge(subject, segment, self._pa, self.settings.pa_default)

    def _judge(
        self, subject: Subject, segment: Segment | None, matchers: list[Matcher], default: Action
    ) -> Decision:
        if segment is not None and self._connections.passes(segment):
            return None
        for matcher in matchers:
            if matcher.matches(subject):
                matcher.hits += 1
                if not matcher.allows:
                    return Deny(matcher.name)
                if matcher.stateful and segment is not None and not self._connections.open(segment):
                    return Deny("connections-full")
                return None
        return None if default == "allow" else Deny("default")


def _is_neighbor(frame: memoryview, headers: ip.Headers) -> bool:
    return headers.protocol == ip.ICMPV6 and ip.icmp_type(frame, headers) in _NEIGHBOR
