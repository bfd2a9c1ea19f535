"""The application: routes, authentication, errors and the description of it all."""

from __future__ import annotations

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

import testbed
from testbed.vmm.api import events, hosts, networks, policy, vms
from testbed.vmm.api.auth import Authentication, authorize
from testbed.vmm.api.description import Description, operation_id
from testbed.vmm.api.errors import HANDLERS
from testbed.vmm.contests import Contests
from testbed.vmm.distribution import Hub
from testbed.vmm.reports import Reports
from testbed.vmm.store.database import Store

LARGEST_BODY = 1024 * 1024  # bytes
ROUTERS = (networks.ROUTER, hosts.ROUTER, vms.ROUTER, policy.ROUTER, events.ROUTER)


def build(store: Store, hub: Hub, admin_hash: str) -> Litestar:
    """The API of a store. admin_hash: of the administrator's token (rules.hosts.hash_token)."""
    reports = Reports()
    contests = Contests(store, hub, reports)
    return Litestar(
        route_handlers=[Router("/v1", route_handlers=ROUTERS, guards=[authorize])],
        dependencies={
            "store": Provide(lambda: store, sync_to_thread=False),
            "hub": Provide(lambda: hub, sync_to_thread=False),
            "contests": Provide(lambda: contests, sync_to_thread=False),
            "reports": Provide(lambda: reports, sync_to_thread=False),
        },
        middleware=[DefineMiddleware(Authentication, store=store, admin_hash=admin_hash)],
        exception_handlers=HANDLERS,
        request_max_body_size=LARGEST_BODY,
        openapi_config=OpenAPIConfig(
            title="testbed VMM",
            version=testbed.__version__,
            path="/schema",
            render_plugins=[Description()],
            operation_id_creator=operation_id,
            use_handler_docstrings=True,
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
        logging_config=None,  # what goes wrong goes to standard error
        debug=False,
    )
