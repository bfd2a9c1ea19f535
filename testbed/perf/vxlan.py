"""The baseline ``vxlan``: the kernel's own tunnel.

VXLAN's outer headers take 50 bytes where NVGRE's take 42, so the baseline's underlay is given those 8
bytes more (1508 for a guest MTU of 1458) instead of taking them from its guests. The outer UDP checksum
is zero, which RFC 7348 section 5 asks for and which NVGRE, having none, corresponds to. Peers are static:
a forwarding entry and a neighbour entry each, nothing is learned.
"""

from __future__ import annotations

from typing import Any

from testbed.perf.kernel import KernelLab, bridge, guest_mac, index_of

OVERHEAD = 50  # inner Ethernet 14 + VXLAN 8 + UDP 8 + IPv4 20
DESTINATION_PORT = 4789  # RFC 7348 section 5
HIGHEST_MTU = 65535 - OVERHEAD
VNI = 5001


def outer_address(index: int) -> str:
    """IPv4 of host 0 or 1 on the fabric, in a /24."""
    return f"192.168.0.{1 + index}"


class VxlanLab(KernelLab):
    """Bridges joined by VXLAN."""

    name = "vxlan"
    overhead = OVERHEAD

    def build_host(self, ip: Any, index: int) -> None:
        """A bridge of the guest's port and the tunnel."""
        ip.addr("add", index=index_of(ip, "nic1"), address=outer_address(index), prefixlen=24)
        ip.link(
            "add",
            ifname="vxlan0",
            kind="vxlan",
            mtu=self.mtu,
            vxlan_id=VNI,
            vxlan_local=outer_address(index),
            vxlan_group=outer_address(1 - index),
            vxlan_port=DESTINATION_PORT,
            vxlan_learning=0,
            vxlan_udp_csum=0,
        )
        bridge(ip, "vm0", "vxlan0")
        tunnel = index_of(ip, "vxlan0")
        ip.fdb("add", ifindex=tunnel, lladdr=guest_mac(1 - index), dst=outer_address(1 - index))
