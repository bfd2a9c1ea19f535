"""A switch's extensions in their order, contained: whatever they do, the switch goes on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from testbed.errors import BadInput, LabError
from testbed.switch.drops import Drop
from testbed.switch.extensions.api import Deny, Extension, Forward, Frame, Kind, SwitchPort
from testbed.switch.packet import Denied, Packet, Verdict
from testbed.switch.port import Port
from testbed.switch.state import SwitchState

ORDER: tuple[Kind, ...] = ("capture", "filter", "forwarding")  # at ingress; reversed at egress
ERROR = "extension-error"  # the event
_SECONDS_BETWEEN_EVENTS = 1.0

Found = TypeVar("Found")


class NotADecision(Exception):
    """An extension returned something else than Deny, Forward or None."""


class Stack:
    """Runs the extensions of one switch. Inside a kind they keep the order in which they are given."""

    def __init__(self, extensions: Sequence[Extension], state: SwitchState) -> None:
        self.extensions = tuple(extensions)
        self._state = state
        self._ingress = sorted(extensions, key=lambda each: ORDER.index(each.kind))
        self._egress = sorted(extensions, key=lambda each: -ORDER.index(each.kind))
        self._noted: dict[str, float] = {}  # when the latest event of an extension was noted
        self._suppressed: dict[str, int] = {}
        self._ignored: set[str] = set()  # capture extensions whose decisions were complained of

    # ---- packets --------------------------------------------------------------------------

    def ingress(self, packet: Packet, frame: Frame) -> Verdict:
        """What the extensions say to a packet that has come in; a Forward is put into the packet."""
        for extension in self._ingress:
            decision = self._ask(extension, extension.ingress, packet, frame)
            if isinstance(decision, Drop):
                return decision
            if isinstance(decision, Deny):
                return Denied(f"{extension.name}:{decision.reason}")
            if isinstance(decision, Forward) and not self._direct(packet, decision.destinations):
                return Denied(f"{extension.name}:no-destination")
        return None

    def egress(self, packet: Packet, frame: Frame) -> str | None:
        """Why the copy of a packet for ``frame.destination`` is dropped, or None."""
        for extension in self._egress:
            decision = self._ask(extension, extension.egress, packet, frame)
            if isinstance(decision, Drop):
                return decision
            if isinstance(decision, Deny):
                return f"{extension.name}:{decision.reason}"
        return None

    def _ask(
        self, extension: Extension, question: Callable[[Frame], object], packet: Packet, frame: Frame
    ) -> Deny | Forward | Drop | None:
        """An extension's decision, as far as it may decide; EXTENSION_CRASHED in place of an exception."""
        try:
            if packet.cacheable and extension.scope_of(frame) != "flow":
                packet.cacheable = False
            decision = question(frame)
            if decision is None:
                return None
            if not isinstance(decision, Deny | Forward):
                raise NotADecision(f"{type(decision).__name__} is no decision; return Deny, Forward or None")
            if extension.kind == "capture":
                self._ignore(extension)
                return None
            if isinstance(decision, Deny):
                return decision
            return self._checked(extension, decision, frame)
        except (Exception, SystemExit) as error:
            packet.cacheable = False  # the next packet may fare better
            self._note(extension.name, error)
            return Drop.EXTENSION_CRASHED

    def _checked(self, extension: Extension, decision: Forward, frame: Frame) -> Forward | None:
        """A Forward without what can't be obeyed, or None."""
        name = extension.name
        if extension.kind != "forwarding" or frame.destination:
            self._note(name, "Forward is for forwarding extensions at ingress; not obeyed")
            return None
        if frame.native_forwarding or frame.vsid:
            self._note(name, f"HNV forwards packets of VSID {frame.vsid}; Forward not obeyed")
            return None
        known = {port.name for port in self._state.ports_of(0)} | self._state.uplinks.keys()
        if unknown := [each for each in decision.destinations if each not in known]:
            self._note(name, f"Forward to {unknown[0]!r}, which is no NIC and no port with VSID 0; left out")
        return Forward(tuple(each for each in decision.destinations if each in known))

    def _direct(self, packet: Packet, destinations: tuple[str, ...]) -> bool:
        """Set a VSID-0 packet's destinations, never back where it came from; False when none is left."""
        state, source = self._state, packet.source
        packet.directed = True
        packet.ports = tuple(
            port for port in state.ports_of(0) if port.name in destinations and port is not source
        )
        packet.to_wire = isinstance(source, Port) and any(each in state.uplinks for each in destinations)
        return bool(packet.ports or packet.to_wire)

    # ---- ports, and what control asks ------------------------------------------------------

    def attach_port(self, port: Port) -> None:
        """Tell the extensions of a port."""
        known = SwitchPort(port.name, port.mac, port.vsid)
        for extension in self.extensions:
            self._contained(extension, partial(extension.attach_port, known))

    def detach_port(self, name: str) -> None:
        """Tell the extensions that a port has gone."""
        for extension in self.extensions:
            self._contained(extension, partial(extension.detach_port, name))

    def counters(self) -> dict[str, dict[str, int]]:
        """Each extension's counters, by its name; of one that crashes none."""
        return {each.name: self._contained(each, each.counters) or {} for each in self.extensions}

    def query(self, name: str) -> Any:
        """What the extension ``name`` shows. Raises BadInput (there is none) or LabError (it crashed)."""
        for extension in self.extensions:
            if extension.name == name:
                try:
                    return extension.query()
                except (Exception, SystemExit) as error:
                    self._note(name, error)
                    raise LabError(f"extension {name} crashed: {_last_line(error)}") from None
        here = ", ".join(each.name for each in self.extensions) or "none"
        raise BadInput(f"no extension {name} on this host; it has: {here}")

    def _contained(self, extension: Extension, call: Callable[[], Found]) -> Found | None:
        try:
            return call()
        except (Exception, SystemExit) as error:
            self._note(extension.name, error)
            return None

    # ---- events ---------------------------------------------------------------------------

    def _ignore(self, extension: Extension) -> None:
        if extension.name not in self._ignored:
            self._ignored.add(extension.name)
            self._state.events.add(ERROR, extension.name, error="decisions of capture extensions are ignored")

    def _note(self, name: str, error: BaseException | str) -> None:
        """At most one event per second and extension; the next one tells how many were left out."""
        now = monotonic()
        if now - self._noted.get(name, -_SECONDS_BETWEEN_EVENTS) < _SECONDS_BETWEEN_EVENTS:
            self._suppressed[name] = self._suppressed.get(name, 0) + 1
            return
        self._noted[name] = now
        text = error if isinstance(error, str) else _last_line(error)
        self._state.events.add(ERROR, name, error=text, suppressed=self._suppressed.pop(name, 0))


def _last_line(error: BaseException) -> str:
    """The last line of an exception's traceback, with the place where it was raised."""
    line = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, NotADecision) or not (places := traceback.extract_tb(error.__traceback__)[1:]):
        return line
    return f"{line} ({places[-1].filename}:{places[-1].lineno})"
