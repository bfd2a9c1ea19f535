"""What one attempt found."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from testbed.errors import TestbedError

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}  # linux/capability.h
NO_KERNEL = "a kernel with {}"
ROOT = "run as root (sudo), in a container with the capabilities " + ", ".join(CAPABILITIES)


class Finding(Struct, frozen=True):
    """One thing that was tried. remedy: what to do about it where it is not ok."""

    name: str
    group: str
    ok: bool
    required: bool
    detail: str
    remedy: str


def attempt(
    name: str, group: str, trial: Callable[[], str], remedy: str, *, required: bool = False
) -> Finding:
    """The finding of a function that returns what it found or raises what is wrong."""
    try:
        ok, detail = True, trial()
    except Exception as error:  # whatever goes wrong is the finding
        ok, detail = False, _words(error)
    return Finding(name, group, ok, required, detail, remedy)


def _words(error: Exception) -> str:
    code = getattr(error, "code", None)  # a netlink error's errno
    if isinstance(error, TestbedError) or not str(error):
        return str(error) or type(error).__name__
    if isinstance(code, int):
        return os.strerror(abs(code))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
