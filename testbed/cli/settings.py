"""Settings of a command line: ``lso=off``."""

from __future__ import annotations

from testbed.errors import BadInput

SWITCH = {"on": True, "true": True, "off": False, "false": False}


def split(text: str) -> tuple[str, str]:
    """Key and value. Raises BadInput."""
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise BadInput(f"{text!r} is no setting: write it like lso=off")
    return key, value


def switch_of(text: str) -> tuple[str, bool]:
    """Name and position of a switch. Raises BadInput."""
    key, value = split(text)
    if value not in SWITCH:
        raise BadInput(f"{key}={value}: expected on or off")
    return key, SWITCH[value]
