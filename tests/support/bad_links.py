"""Bad teams and cables, as support.bad_topologies has the rest."""

OF_LINKS = {
    # teams
    "standby that leaves nobody": (
        "{name: nic2}]",
        "{name: nic2}], team: {primary: nic2, standby: nic2}",
        "F:13: hosts[0].team.standby: leaves no member that is active; name another NIC",
    ),
    "standby with a partner": (
        "host2, nics: [{name: nic1}]",
        "host2, nics: [{name: nic1}], team: {mode: Static, standby: nic1}",
        "F:14: hosts[1].team.standby: Static has no standby members; leave it out",
    ),
    "partner on two switches": (
        "{name: nic2}]",
        "{name: nic2}], team: {mode: Lacp}",
        "F:13: hosts[0].team.mode: Lacp is with one switch, not with tor1, tor2; put all its cables on one",
    ),
    "flowlet gap": (
        "{name: nic2}]",
        "{name: nic2}], team: {flowlet-gap: long}",
        "F:13: hosts[0].team.flowlet-gap: 'long' is no time up to 10s; write it like 5ms or 200us",
    ),
    # cables
    "rate": (
        '"host1:nic1", tor1]',
        '"host1:nic1", tor1]\n    rate: fast',
        "F:23: links[0].rate: 'fast' is no rate; write it like 200mbit",
    ),
    "loss": (
        '"host1:nic1", tor1]',
        '"host1:nic1", tor1]\n    to-host: {loss: 2}',
        "F:23: links[0].to-host.loss: '2.0' is no part of frames; write it like 1% or 0.01",
    ),
    "jitter": (
        '"host1:nic1", tor1]',
        '"host1:nic1", tor1]\n    from-host: {jitter: 1ms}',
        "F:22: links[0]: from-host: jitter is more than the delay that it varies; set a longer delay",
    ),
    "fault of a trunk": (
        "[tor1, tor2]",
        "[tor1, tor2]\n    loss: 1%",
        "F:26: links[3].loss: is for the cables of hosts; a link of two switches has none",
    ),
}
