"""Finds extensions by name, checks their settings, makes them. Nothing is imported until one is named."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from testbed.errors import BadInput
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.stack import ORDER
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan

GROUP = "testbed.extensions"

# Those of this package, which may lie in a folder without the metadata of an installed distribution.
SHIPPED = {
    "acl": "testbed.extensions.acl:Acl",
    "capture": "testbed.extensions.capture:Capture",
    "conformance-forwarding": "testbed.conformance.forwarding:ForwardingProbe",
    "payload-filter": "testbed.extensions.payload_filter:PayloadFilter",
    "port-security": "testbed.extensions.port_security:PortSecurity",
}


def available() -> dict[str, list[EntryPoint]]:
    """Every extension there is: by name, those who claim it (one, or a package must go)."""
    found = {name: [EntryPoint(name, value, GROUP)] for name, value in SHIPPED.items()}
    for point in sorted(entry_points(group=GROUP), key=lambda each: (each.name, each.value)):
        claims = found.setdefault(point.name, [])
        if point.value not in [each.value for each in claims]:
            claims.append(point)
    return dict(sorted(found.items()))


def find(name: str) -> type[Extension]:
    """The class of the extension ``name``. Raises BadInput: unknown, ambiguous, or its code is no extension.

    The message starts with what is wrong; the caller says where.
    """
    points = available()
    if name not in points:
        raise BadInput(f'unknown extension "{name}"; available: {", ".join(points)}')
    if len(points[name]) > 1:
        values = " and ".join(point.value for point in points[name])
        raise BadInput(f'extension "{name}" is ambiguous: {values}; uninstall all packages but one')
    (point,) = points[name]
    try:
        found = point.load()
    except Exception as error:
        raise BadInput(
            f'extension "{name}": {point.value} cannot be imported: {type(error).__name__}: {error}; '
            "correct or uninstall its package"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Extension) and found.kind in ORDER):
        raise BadInput(
            f'extension "{name}": {point.value} is no subclass of Extension with a kind of '
            f"{', '.join(ORDER)}; correct or uninstall its package"
        )
    return found


def settings_for(kind: type[Extension], settings: dict[str, Any]) -> Any:
    """An instance of the class's Settings. Raises msgspec.ValidationError."""
    return msgspec.convert(settings, kind.Settings)


def load(plans: Sequence[ExtensionPlan], events: EventLog) -> list[Extension]:
    """The extensions of a host, ready to be put into its switch, in the given order. Raises BadInput."""
    return [_make(plan, events) for plan in plans]


def _make(plan: ExtensionPlan, events: EventLog) -> Extension:
    kind = find(plan.name)
    try:
        return kind(plan.name, settings_for(kind, plan.settings), events)
    except msgspec.ValidationError as error:
        raise BadInput(f'extension "{plan.name}": settings: {error}; correct the settings') from error
    except Exception as error:  # a user's code
        raise BadInput(
            f'extension "{plan.name}" cannot be made: {type(error).__name__}: {error}; '
            "correct its code or its settings"
        ) from error
