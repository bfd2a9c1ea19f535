"""Routes of hosts: registration, reports, the watch, learned addresses."""

from __future__ import annotations

import time
from typing import Annotated

from litestar import Response, Router, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from testbed.topology.plan import HostPolicy
from testbed.vmm.api.auth import OWN_HOST
from testbed.vmm.api.errors import errors
from testbed.vmm.api.parts import TheContests, TheHub, TheReports, TheStore
from testbed.vmm.distribution import policy_json
from testbed.vmm.model import (
    Changes,
    Host,
    HostView,
    KeepAlive,
    Learned,
    LearnedAddress,
    LearnedResult,
    NewHost,
    Probe,
    Probed,
    Registration,
    Report,
    Reset,
)
from testbed.vmm.refusals import Gone
from testbed.vmm.rules import hosts, learning
from testbed.vmm.rules.served import networks_of
from testbed.vmm.store.tables import HOSTS, LEARNED

LINES = "application/x-ndjson"
# gt=-1 and not ge=0, which Litestar leaves out of its description
Revision = Annotated[
    int | None,
    QueryParameter(gt=-1, le=2**63 - 1, description="the last one the host has applied; none: a snapshot"),
]
StoreId = Annotated[str | None, QueryParameter(description="the store of which the revision is")]


def _view(store: TheStore, hub: TheHub, reports: TheReports, host: Host) -> HostView:
    reported, report = reports.last(host.name)
    networks = networks_of(store, host.name)
    return HostView(host.name, host.registered, networks, hub.watching(host.name), reported, report)


@get("/hosts", responses=errors(), sync_to_thread=False)
def list_hosts(store: TheStore, hub: TheHub, reports: TheReports) -> list[HostView]:
    """All hosts."""
    return [_view(store, hub, reports, host) for host in store.select(HOSTS)]


@post("/hosts", responses=errors(409, 413), sync_to_thread=False)
def register_host(store: TheStore, data: JSONBody[NewHost]) -> Registration:
    """Register a host; the answer has its token, which is not shown again."""
    with store.change() as tx:
        return hosts.register(tx, data)


@get("/hosts/{host:str}", responses=errors(404), opt=OWN_HOST, sync_to_thread=False)
def get_host(store: TheStore, hub: TheHub, reports: TheReports, host: FromPath[str]) -> HostView:
    """A host, and what it reported last."""
    return _view(store, hub, reports, hosts.existing(store, host))


@delete("/hosts/{host:str}", responses=errors(404, 409), sync_to_thread=False)
def remove_host(store: TheStore, reports: TheReports, host: FromPath[str]) -> None:
    """Remove a host without VMs."""
    with store.change() as tx:
        hosts.remove(tx, host)
    reports.forget(host)


@get(
    "/hosts/{host:str}/policy",
    responses={
        200: ResponseSpec(HostPolicy, generate_examples=False, description="The policy"),
        **errors(404),
    },
    opt=OWN_HOST,
    sync_to_thread=False,
)
def get_policy(store: TheStore, host: FromPath[str]) -> Response[bytes]:
    """A host's whole policy."""
    hosts.existing(store, host)
    return Response(policy_json(store, host), media_type="application/json")


@get(
    "/hosts/{host:str}/watch",
    responses={
        200: ResponseSpec(
            Reset | Changes | KeepAlive | Probe,
            generate_examples=False,
            description="A line each",
            media_type=LINES,
        ),
        **errors(404, 410),
    },
    opt=OWN_HOST,
)
async def watch(
    store: TheStore, hub: TheHub, host: FromPath[str], revision: Revision = None, store_id: StoreId = None
) -> Stream:
    """Follow what concerns the host, from a revision on.

    Without a revision, when the log no longer reaches back to it, and whenever the host's set of
    networks changes, comes a snapshot.
    """
    hosts.existing(store, host)
    begin = hub.resume_point(revision, store_id)
    return Stream(hub.watch(host, begin), media_type=LINES)


@post(
    "/hosts/{host:str}/report",
    status_code=204,
    responses=errors(404, 410, 413),
    opt=OWN_HOST,
    sync_to_thread=False,
)
def report_host(store: TheStore, reports: TheReports, host: FromPath[str], data: JSONBody[Report]) -> None:
    """Say how far the host is, and the state of its PAs; a change of a PA's state is an event."""
    hosts.existing(store, host)
    if data.revision > store.revision:
        raise Gone(
            f"revision {data.revision} is unknown, the last one is {store.revision}",
            "watch without a revision, and begin anew",
        )
    changed = reports.changed(host, data)
    if changed:
        with store.change() as tx:
            for item in changed:
                tx.event(
                    "provider-address",
                    item.provider_address,
                    host,
                    state=item.state,
                    vsid=item.virtual_subnet_id,
                )
    reports.keep(host, data, time.time())


@get("/hosts/{host:str}/learned", responses=errors(404), opt=OWN_HOST, sync_to_thread=False)
def list_learned(store: TheStore, host: FromPath[str]) -> list[LearnedAddress]:
    """The addresses learned of the host's VMs."""
    hosts.existing(store, host)
    return store.select(LEARNED, host=host)


@post(
    "/hosts/{host:str}/learned",
    status_code=200,
    responses=errors(404, 409, 413, 422),
    opt=OWN_HOST,
    sync_to_thread=False,
)
def learn_address(
    store: TheStore, contests: TheContests, host: FromPath[str], data: JSONBody[Learned]
) -> LearnedResult:
    """Report an address that a VM of the host uses; the VMM decides on it."""
    hosts.existing(store, host)
    return contests.learn(host, data)


@delete(
    "/hosts/{host:str}/learned",
    status_code=200,
    responses=errors(404, 409, 422),
    opt=OWN_HOST,
    sync_to_thread=False,
)
def age_address(
    store: TheStore, host: FromPath[str], vsid: FromQuery[int], mac: FromQuery[str], ca: FromQuery[str]
) -> LearnedResult:
    """Report that a VM has given a learned address up, or does not answer for it any more."""
    hosts.existing(store, host)
    with store.change() as tx:
        return learning.age(tx, host, vsid, mac, ca)


@post(
    "/hosts/{host:str}/probed",
    status_code=204,
    responses=errors(404, 413),
    opt=OWN_HOST,
    sync_to_thread=False,
)
def probed_address(
    store: TheStore, contests: TheContests, host: FromPath[str], data: JSONBody[Probed]
) -> None:
    """Answer a probe line of the watch: whether the host's VM has the address still."""
    hosts.existing(store, host)
    contests.probed(host, data)


ROUTER = Router(
    "/",
    route_handlers=[
        list_hosts,
        register_host,
        get_host,
        remove_host,
        get_policy,
        watch,
        report_host,
        list_learned,
        learn_address,
        age_address,
        probed_address,
    ],
    tags=["hosts"],
)
