"""Network sysctls of the network namespace the calling thread is in."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/proc/sys/net")


def write(values: dict[str, int]) -> None:
    """Set values by their path below net/. One that this kernel lacks is passed over."""
    for name, value in values.items():
        try:
            (_NET / name).write_text(str(value))
        except FileNotFoundError:
            continue


# A namespace whose interfaces are the testbed's hardware: its kernel must not speak on them.
SILENT = {
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
    "bridge/bridge-nf-call-arptables": 0,
    "bridge/bridge-nf-call-iptables": 0,
    "bridge/bridge-nf-call-ip6tables": 0,
}

# A VM has IPv6 whatever the container engine decided.
GUEST = {
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/lo/disable_ipv6": 0,
}


def fast_neighbor_discovery(interface: str) -> dict[str, int]:
    """Real DAD, done in about 50 ms instead of 2 s (``timers: fast``)."""
    return {
        f"ipv6/neigh/{interface}/retrans_time_ms": 50,
        f"ipv6/conf/{interface}/router_solicitations": 0,
        f"ipv6/conf/{interface}/router_solicitation_delay": 0,
    }
