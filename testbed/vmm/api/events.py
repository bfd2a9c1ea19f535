"""Routes of events, and of the VMM itself."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream

import testbed
from testbed.vmm.api.auth import OPEN
from testbed.vmm.api.errors import errors
from testbed.vmm.api.hosts import LINES
from testbed.vmm.api.parts import TheHub, TheStore
from testbed.vmm.distribution import EVENTS_AT_ONCE
from testbed.vmm.model import Events, KeepAlive, LoggedEvent, Status

After = Annotated[int, QueryParameter(gt=-1, le=2**63 - 1, description="a revision: only what came after it")]
AtMost = Annotated[int, QueryParameter(ge=1, le=EVENTS_AT_ONCE, description="about how many")]


@get("/status", opt=OPEN, security=[{}], sync_to_thread=False)
def get_status(store: TheStore) -> Status:
    """That the VMM answers; needs no token."""
    return Status(testbed.__version__, store.revision)


@get("/events", responses=errors(410), sync_to_thread=False)
def list_events(store: TheStore, hub: TheHub, after: After = 0, limit: AtMost = 100) -> Events:
    """Events after a revision; those of one revision come together."""
    hub.resume_point(after, None)
    events = tuple(store.events(after, limit))
    revision = events[-1].revision if len(events) >= limit else store.revision
    return Events(events, revision, lost=after < store.log_start, first=store.log_start + 1)


@get(
    "/events/stream",
    responses={
        200: ResponseSpec(
            LoggedEvent | KeepAlive, generate_examples=False, description="A line each", media_type=LINES
        ),
        **errors(410),
    },
)
async def follow_events(hub: TheHub, after: After = 0) -> Stream:
    """Follow events from a revision on."""
    hub.resume_point(after, None)
    return Stream(hub.follow(after), media_type=LINES)


ROUTER = Router("/", route_handlers=[get_status, list_events, follow_events], tags=["events"])
