"""Why an order is refused: one sentence of what is wrong, one of what to do, and an HTTP status.

A refused order has changed nothing: it is raised inside the order's transaction, which is rolled back.
"""

from __future__ import annotations

from msgspec import Struct

from testbed.errors import BadInput


class Holder(Struct, frozen=True):
    """The lookup record that stands against a learned address."""

    customer_address: str
    virtual_subnet_id: int
    mac_address: str
    provider_address: str
    type: str


class Refused(BadInput):
    """Base. what: the place and what is wrong with it. remedy: what to do instead."""

    status = 400

    def __init__(self, what: str, remedy: str, holder: Holder | None = None) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy
        self.holder = holder


class Malformed(Refused):
    """Not of the form that is asked for."""


class Unauthenticated(Refused):
    """No token, or none that is known."""

    status = 401


class Forbidden(Refused):
    """Another host's, or the administrator's alone."""

    status = 403


class Missing(Refused):
    """What the path names does not exist."""

    status = 404


class Conflict(Refused):
    """It contradicts what is there."""

    status = 409


class Gone(Refused):
    """A revision that the VMM does not know."""

    status = 410


class Unusable(Refused):
    """Well formed, but it names what is not there or not allowed: an address outside its subnet."""

    status = 422
