"""Errors as the API answers them: {"error": {"what", "remedy"}} with a 4xx, and nothing changed."""

from __future__ import annotations

import sqlite3
import sys
import traceback
from typing import Any

from litestar import MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec
from msgspec import Struct

from testbed.errors import BadInput
from testbed.vmm.refusals import Holder, Refused

AnyRequest = Request[Any, Any, State]


class Error(Struct, frozen=True, omit_defaults=True):
    """what: the place and what is wrong. remedy: what to do. holder: who has a learned address."""

    what: str
    remedy: str
    holder: Holder | None = None


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is an error."""

    error: Error


_DESCRIPTIONS = {
    400: "Malformed",
    401: "No token, or none that is known",
    403: "Another host's, or the administrator's alone",
    404: "What the path names is not there",
    409: "It contradicts what is there",
    410: "The revision is unknown",
    413: "The body is too large",
    422: "Well formed, but it names what is not there or not allowed",
    503: "The store can't be written",
}
_REMEDIES = {
    400: "send what /schema/openapi.json describes",
    404: "use a path of /schema/openapi.json",
    405: "use a method of /schema/openapi.json",
    413: "send less than 1 MiB",
}


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors of a route, for its description; what any route can answer comes by itself."""
    every = {400, 401, 403, 503, *statuses}
    return {
        status: ResponseSpec(ErrorBody, generate_examples=False, description=_DESCRIPTIONS[status])
        for status in sorted(every)
    }


def answer(status: int, error: Error) -> Response[ErrorBody]:
    """An error as a response."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Response(ErrorBody(error), status_code=status, media_type=MediaType.JSON, headers=headers)


def refused(_request: AnyRequest, error: Refused) -> Response[ErrorBody]:
    """A rule stands against the order."""
    return answer(error.status, Error(error.what, error.remedy, error.holder))


def bad_input(_request: AnyRequest, error: BadInput) -> Response[ErrorBody]:
    """A policy object is not valid: messages of testbed.wnv.objects end in the remedy."""
    what, _, remedy = str(error).rpartition(": ")
    return answer(422, Error(what, remedy))


def http_error(_request: AnyRequest, error: HTTPException) -> Response[ErrorBody]:
    """What Litestar refuses by itself: body, parameters, path, method."""
    what = error.detail
    if isinstance(error.extra, list):
        parts = [f"{each.get('key', 'body')}: {each.get('message')}" for each in error.extra]
        what = "; ".join(parts) or what
    remedy = _REMEDIES.get(error.status_code, _REMEDIES[400])
    return answer(error.status_code, Error(what, remedy))


def too_deep(_request: AnyRequest, _error: RecursionError) -> Response[ErrorBody]:
    """Brackets in brackets in brackets."""
    return answer(400, Error("the body is nested too deeply", _REMEDIES[400]))


def too_large(_request: AnyRequest, _error: OverflowError) -> Response[ErrorBody]:
    """A number that SQLite has no room for."""
    return answer(400, Error("a number is too large", _REMEDIES[400]))


def store_error(_request: AnyRequest, error: sqlite3.Error) -> Response[ErrorBody]:
    """The disk is full or broken, or (IntegrityError) the schema itself stands against the order."""
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, sqlite3.IntegrityError):
        return answer(409, Error("the order contradicts what is there", "look at it and try again"))
    return answer(503, Error(f"the store can't be written ({error})", "mend the VMM's disk, then try again"))


def defect(_request: AnyRequest, error: Exception) -> Response[ErrorBody]:
    """A defect of the VMM: its log has the traceback, the answer has not."""
    traceback.print_exception(error, file=sys.stderr)
    return answer(500, Error("the VMM failed", "see its log"))


HANDLERS: dict[type[Exception] | int, Any] = {
    Refused: refused,
    BadInput: bad_input,
    HTTPException: http_error,
    RecursionError: too_deep,
    OverflowError: too_large,
    sqlite3.Error: store_error,
    Exception: defect,
}
