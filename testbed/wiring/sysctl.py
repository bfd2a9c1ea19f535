"""Network sysctls of the network namespace the calling thread is in."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/proc/sys/net")


def write(values: dict[str, int]) -> None:
    """Set values by their path below net/. One that this kernel lacks is passed over.

    One that stands already is not written again: "all" would take back what interfaces have of their own.
    """
    for name, value in values.items():
        try:
            if (_NET / name).read_text().strip() != str(value):
                (_NET / name).write_text(str(value))
        except FileNotFoundError:
            continue


def read(name: str) -> int:
    """A value by its path below net/."""
    return int((_NET / name).read_text())


# A namespace whose interfaces are the testbed's hardware: its kernel must not speak on them.
SILENT = {
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
    "bridge/bridge-nf-call-arptables": 0,
    "bridge/bridge-nf-call-iptables": 0,
    "bridge/bridge-nf-call-ip6tables": 0,
}

# A node that passes nothing on between its networks, whatever the machine does.
NO_ROUTER = {"ipv4/ip_forward": 0}

# A VM has IPv6 whatever the container engine decided, and an address of it may go without taking its
# subnet's other addresses along, as is usual where systemd sets it.
GUEST = {
    "ipv4/conf/all/promote_secondaries": 1,
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/lo/disable_ipv6": 0,
}


def speaking_ipv6(interface: str) -> dict[str, int]:
    """IPv6 for this interface of a silent namespace, with the addresses that it is given and no others."""
    return {
        f"ipv6/conf/{interface}/accept_ra": 0,
        f"ipv6/conf/{interface}/addr_gen_mode": 1,  # IN6_ADDR_GEN_MODE_NONE
        f"ipv6/conf/{interface}/disable_ipv6": 0,
    }


def announcing_ipv6(*, on: bool) -> dict[str, int]:
    """Whether the kernel tells all nodes of each new IPv6 address (RFC 4861 section 7.2.6)."""
    return {"ipv6/conf/all/ndisc_notify": int(on), "ipv6/conf/default/ndisc_notify": int(on)}


def fast_neighbor_discovery(interface: str) -> dict[str, int]:
    """Real DAD, done in about 50 ms instead of 2 s (``timers: fast``)."""
    return {
        f"ipv6/neigh/{interface}/retrans_time_ms": 50,
        f"ipv6/conf/{interface}/router_solicitations": 0,
        f"ipv6/conf/{interface}/router_solicitation_delay": 0,
    }
