"""The store's schema, version by version: a store of an older one is brought up when it is opened.

What was released is never edited; a new version is appended. The number of versions a file has gone
through is its ``user_version``.
"""

from __future__ import annotations

_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE networks (rdid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, data BLOB NOT NULL) STRICT;
CREATE TABLE subnets (
    vsid INTEGER PRIMARY KEY, rdid TEXT NOT NULL REFERENCES networks, data BLOB NOT NULL) STRICT;
CREATE INDEX subnets_of_network ON subnets (rdid);
CREATE TABLE pools (
    name TEXT PRIMARY KEY, purpose TEXT NOT NULL, vsid INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX pools_of_subnet ON pools (vsid);
CREATE TABLE pool_addresses (
    pool TEXT NOT NULL REFERENCES pools, address TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
    revision INTEGER NOT NULL, position BLOB NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (pool, address)) STRICT, WITHOUT ROWID;
CREATE INDEX pool_addresses_in_order ON pool_addresses (pool, position);
CREATE INDEX pool_addresses_of_owner ON pool_addresses (owner);
CREATE TABLE hosts (name TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE vms (
    name TEXT PRIMARY KEY, host TEXT NOT NULL REFERENCES hosts, data BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX vms_of_host ON vms (host);
CREATE TABLE ports (
    port TEXT PRIMARY KEY, vm TEXT NOT NULL REFERENCES vms, host TEXT NOT NULL REFERENCES hosts,
    rdid TEXT NOT NULL, vsid INTEGER NOT NULL, mac TEXT NOT NULL UNIQUE, data BLOB NOT NULL) STRICT;
CREATE INDEX ports_of_vm ON ports (vm);
CREATE INDEX ports_of_host ON ports (host, rdid, vsid);
CREATE INDEX ports_of_subnet ON ports (vsid);
CREATE TABLE lookup_records (
    virtual_subnet_id INTEGER NOT NULL REFERENCES subnets, customer_address TEXT NOT NULL,
    mac_address TEXT NOT NULL, outside TEXT UNIQUE, data BLOB NOT NULL,
    PRIMARY KEY (virtual_subnet_id, customer_address, mac_address)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX lookup_records_one_mac ON lookup_records (virtual_subnet_id, customer_address)
    WHERE customer_address NOT IN ('0.0.0.0', '::');
CREATE INDEX lookup_records_of_mac ON lookup_records (mac_address, virtual_subnet_id);
CREATE TABLE learned (
    vsid INTEGER NOT NULL, ca TEXT NOT NULL, mac TEXT NOT NULL, host TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (vsid, ca, mac),
    FOREIGN KEY (vsid, ca, mac) REFERENCES lookup_records) STRICT, WITHOUT ROWID;
CREATE INDEX learned_of_host ON learned (host);
CREATE TABLE customer_routes (
    routing_domain_id TEXT NOT NULL REFERENCES networks,
    virtual_subnet_id INTEGER NOT NULL REFERENCES subnets,
    destination_prefix TEXT NOT NULL, next_hop TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (routing_domain_id, virtual_subnet_id, destination_prefix, next_hop)) STRICT, WITHOUT ROWID;
CREATE TABLE provider_addresses (
    host TEXT NOT NULL REFERENCES hosts, virtual_subnet_id INTEGER NOT NULL REFERENCES subnets,
    provider_address TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (host, virtual_subnet_id)) STRICT, WITHOUT ROWID;
CREATE INDEX provider_addresses_by_address ON provider_addresses (provider_address);
CREATE TABLE provider_routes (
    host TEXT NOT NULL REFERENCES hosts, destination_prefix TEXT NOT NULL, next_hop TEXT NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (host, destination_prefix, next_hop)) STRICT, WITHOUT ROWID;
CREATE TABLE changes (
    scope TEXT NOT NULL, revision INTEGER NOT NULL, data BLOB,
    PRIMARY KEY (scope, revision)) STRICT, WITHOUT ROWID;
CREATE INDEX changes_by_revision ON changes (revision);
CREATE TABLE events (
    revision INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (revision, number)) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('store', lower(hex(randomblob(16)))), ('revision', 0), ('log-start', 0);
"""

_VERSION_2 = """
CREATE TABLE preparations (
    vm TEXT PRIMARY KEY REFERENCES vms, host TEXT NOT NULL REFERENCES hosts, data BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE INDEX preparations_of_host ON preparations (host);
CREATE VIEW served AS
    SELECT host, rdid, vsid FROM ports WHERE rdid != ''
    UNION ALL
    SELECT preparations.host, rdid, vsid FROM preparations JOIN ports USING (vm) WHERE rdid != '';
CREATE TABLE plans (name TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
"""

VERSIONS = (_VERSION_1, _VERSION_2)
