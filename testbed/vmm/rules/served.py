"""Which networks and subnets a host serves: those of its VMs, and of VMs that are prepared to come.

It is told their policy and has a PA for each of their subnets (the store's view ``served``).
"""

from __future__ import annotations

from testbed.vmm.store.database import Reader


def networks_of(reader: Reader, host: str) -> tuple[str, ...]:
    """The RDIDs that a host serves, in order."""
    query = "SELECT DISTINCT rdid FROM served WHERE host = ? ORDER BY rdid"
    return tuple(rdid for (rdid,) in reader.connection.execute(query, [host]))


def serves_network(reader: Reader, host: str, rdid: str) -> bool:
    """Whether a host is told of a network."""
    query = "SELECT EXISTS (SELECT 1 FROM served WHERE host = ? AND rdid = ?)"
    return bool(reader.connection.execute(query, [host, rdid]).fetchone()[0])


def serves_subnet(reader: Reader, host: str, vsid: int) -> bool:
    """Whether a host needs a PA for a subnet."""
    query = "SELECT EXISTS (SELECT 1 FROM served WHERE host = ? AND vsid = ?)"
    return bool(reader.connection.execute(query, [host, vsid]).fetchone()[0])
