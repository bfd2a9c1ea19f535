"""Who asks: the administrator, or a host. Tokens are never logged and compared in constant time.

A host may use the routes below its own /v1/hosts/{host} that are marked so; all else is the
administrator's. What no handler has marked is the administrator's too.
"""

from __future__ import annotations

import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp
from msgspec import Struct

from testbed.vmm.refusals import Forbidden, Unauthenticated
from testbed.vmm.rules.hosts import hash_token
from testbed.vmm.store.database import Store
from testbed.vmm.store.tables import HOSTS

OWN_HOST = {"own_host": True}  # opt of the routes that a host may use for itself
OPEN = {"open": True, "exclude_from_auth": True}  # opt of the routes that need no token
_NOBODY = hash_token("")  # compared with when there is no such host, so that time tells nothing

Connection = ASGIConnection[Any, Any, Any, State]


class Identity(Struct, frozen=True):
    """host: which one; None is the administrator."""

    host: str | None


class Authentication(AbstractAuthenticationMiddleware):
    """Find out whose a bearer token is."""

    def __init__(self, app: ASGIApp, store: Store, admin_hash: str) -> None:
        super().__init__(app, exclude=["^/schema"])
        self._store = store
        self._admin_hash = admin_hash

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """The identity of who asks. Raises Unauthenticated."""
        scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the request has no token", "send Authorization: Bearer TOKEN")
        given = hash_token(token.strip())
        is_admin = hmac.compare_digest(given, self._admin_hash)
        host = self._store.get(HOSTS, token.partition(".")[0])
        is_host = hmac.compare_digest(given, host.token_hash if host else _NOBODY)
        if is_admin:
            return AuthenticationResult(Identity(None), None)
        if host is not None and is_host:
            return AuthenticationResult(Identity(host.name), None)
        raise Unauthenticated("the token is unknown", "use the administrator's, or the host's own")


def authorize(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard of every route below /v1. Raises Forbidden."""
    if handler.opt.get("open"):
        return
    identity: Identity = connection.user
    if identity.host is None:
        return
    if not handler.opt.get("own_host"):
        raise Forbidden("this is the administrator's alone", "use the administrator's token")
    if connection.path_params.get("host") != identity.host:
        raise Forbidden("this is another host's", f"use paths below /v1/hosts/{identity.host}")
