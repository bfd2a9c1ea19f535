"""The OpenAPI document: routes from Litestar, the structs' schemas from msgspec, which checks them.

Litestar describes structs too, but without what they refuse (unknown fields) and with holes where a
constraint stands on a tuple.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import Method
from msgspec import Struct

from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord, ProviderAddress, ProviderRoute
from testbed.vmm import model, refusals
from testbed.vmm.api import errors, networks

_REFERENCE = "#/components/schemas/{name}"
_HERE = {
    each.__name__: each
    for module in (model, refusals, errors, networks)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Struct) and each is not Struct
}
_POLICY = {
    each.__name__: each for each in (CustomerRoute, HostPolicy, LookupRecord, ProviderAddress, ProviderRoute)
}


class Description(JsonRenderPlugin):
    """Serves the document at /schema/openapi.json."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(document(openapi_schema))


def document(generated: dict[str, Any]) -> dict[str, Any]:
    """Litestar's document with msgspec's schemas, and patterns as OpenAPI has them."""
    components = generated["components"]
    wanted = [struct for name, struct in (_HERE | _POLICY).items() if name in components["schemas"]]
    _, schemas = msgspec.json.schema_components(wanted, ref_template=_REFERENCE)
    whole = {**generated, "components": {**components, "schemas": {**components["schemas"], **schemas}}}
    result: dict[str, Any] = _portable(whole)
    return result


def operation_id(handler: HTTPRouteHandler, _method: Method, _path: Any) -> str:
    """The handler's name: each is unique."""
    return handler.handler_name


def _portable(value: Any) -> Any:
    r"""Patterns in ECMAScript's syntax, which knows no \A and no \Z."""
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _portable(item) for key, item in value.items()}
    if isinstance(pattern := result.get("pattern"), str):
        result["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    return result
