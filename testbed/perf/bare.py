"""The baseline ``bare``: VMs of a lab, joined by nothing but the kernel's bridges and cables like ours.

Each VM gets one more interface meanwhile, with addresses that are for benchmarks (RFC 2544 appendix C,
RFC 5180 section 8): what is measured is all but the switch and the tunnel.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from testbed.namespaces import in_netns
from testbed.perf.kernel import KernelLab, bridge


class BareLab(KernelLab):
    """client_netns, server_netns: descriptors of the VMs' network namespaces; they stay the caller's."""

    name = "bare"
    interface = "bench0"

    def __init__(self, client_netns: int, server_netns: int, **options: Any) -> None:
        super().__init__(**options)
        self._vms = client_netns, server_netns

    def guest_addresses(self, index: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """(address, prefix length) of IPv4 and IPv6 of guest 0 or 1."""
        return (f"198.18.0.{1 + index}", 30), (f"2001:2::{1 + index}", 64)

    def guest_namespaces(self) -> list[int]:
        """The VMs'."""
        return [os.dup(netns) for netns in self._vms]

    def build_host(self, ip: Any, index: int) -> None:
        """A bridge of the guest's port and the NIC."""
        bridge(ip, "vm0", "nic1")

    def close(self) -> None:
        """Free the namespaces, and take the interface out of the VMs before it goes by itself, later."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        for netns in self._open[1:3]:  # the other ends, which are certainly ours
            with contextlib.suppress(NetlinkError), in_netns(netns), IPRoute() as ip:
                for index in ip.link_lookup(ifname="vm0"):
                    ip.link("del", index=index)
        super().close()
