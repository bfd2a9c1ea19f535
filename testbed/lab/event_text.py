"""An event in one line."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from testbed.lab.event_sources import LabEvent

_FIRST = ("change", "state", "reason")  # fields whose value says the most, without their names


def line(event: LabEvent) -> str:
    """``time id host kind object what``, in columns that fit most names."""
    when = datetime.fromtimestamp(event.time).astimezone()
    stamp = f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03}"
    return f"{stamp} {event.id:<11} {event.host or '-':<8} {summary(event)}".rstrip()


def short(event: LabEvent) -> str:
    """``host kind object what``, without columns."""
    return " ".join(f"{event.host or '-'} {summary(event)}".split())


def summary(event: LabEvent) -> str:
    """``kind object what``."""
    return f"{event.kind:<16} {event.object:<16} {what(event.fields)}".rstrip()


def what(fields: dict[str, Any]) -> str:
    """The fields that have a value, the most telling one first."""
    first = [str(fields[key]) for key in _FIRST if fields.get(key)]
    rest = [
        f"{key}={_plain(value)}"
        for key, value in fields.items()
        if key not in _FIRST and value not in ("", None, [], {})
    ]
    return " ".join([*first, *rest])


def _plain(value: Any) -> str:
    """An object of the policy: its values only."""
    if isinstance(value, dict):
        return "(" + " ".join(str(each) for each in value.values() if each not in ("", None)) + ")"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
