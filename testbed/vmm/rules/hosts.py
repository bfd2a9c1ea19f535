"""Hosts: registration, tokens, removal."""

from __future__ import annotations

import hashlib

from testbed.vmm.files import host_token
from testbed.vmm.model import Host, NewHost, Registration
from testbed.vmm.refusals import Conflict, Malformed, Missing
from testbed.vmm.rules import policy
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import HOSTS, PREPARATIONS, PROVIDER_ADDRESSES, PROVIDER_ROUTES, VMS


def hash_token(token: str) -> str:
    """What is stored of a token. It is random and long, so a plain hash does."""
    return hashlib.sha256(token.encode()).hexdigest()


def existing(reader: Reader, name: str) -> Host:
    """The host called ``name``."""
    if host := reader.get(HOSTS, name):
        return host
    raise Missing(f"there is no host {name!r}", "use one that GET /v1/hosts lists")


def register(tx: Transaction, order: NewHost) -> Registration:
    """A new host and its token: "NAME.SECRET", so that one look-up finds whose it should be."""
    if tx.get(HOSTS, order.name):
        remedy = "use the token it was given, or remove the host first"
        raise Conflict(f"host {order.name} is registered already", remedy)
    token = order.token or host_token(order.name)
    if not token.startswith(f"{order.name}."):
        raise Malformed(f"host {order.name}: this is no token of its", "write it as NAME.SECRET")
    tx.put(HOSTS, Host(order.name, tx.time, hash_token(token)))
    tx.event("host", order.name, order.name, change="registered")
    return Registration(order.name, token)


def remove(tx: Transaction, name: str) -> None:
    """Remove a host without VMs; its token is worth nothing from now on."""
    host = existing(tx, name)
    if tx.exists(VMS, host=name):
        raise Conflict(f"host {name} has VMs", "migrate or remove them first")
    if coming := tx.select(PREPARATIONS, host=name):
        raise Conflict(f"host {name} is prepared for VM {coming[0].vm}", "cancel that migration first")
    for address in tx.select(PROVIDER_ADDRESSES, host=name):
        policy.drop_provider_address(tx, address)
    for route in tx.select(PROVIDER_ROUTES, host=name):
        policy.drop_provider_route(tx, route)
    tx.delete(HOSTS, host)
    tx.event("host", name, name, change="removed")
    tx.reset(name)
