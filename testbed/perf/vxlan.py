"""The baseline: the kernel's own VXLAN in the same shape of lab as ours.

::

    guest eth0 ==veth== vm0 [bridge br0] vxlan0        nic1 ==veth== p0
    ------- guest ----+------------- host ------------------------ +  [bridge tor1]
    guest eth0 ==veth== vm0 [bridge br0] vxlan0        nic1 ==veth== p1      fabric

Fair means: same guest MTU, so the same inner MSS. VXLAN's outer headers take 50 bytes where
NVGRE's take 42, so the baseline's underlay is given those 8 bytes more (1508 for a guest MTU of
1458) instead of taking them from its guests. The same gso_max_size, and the same features on both
ends of a cable (:mod:`testbed.nic.features`). The outer UDP checksum is zero, which RFC 7348
section 5 asks for and which NVGRE, having none, corresponds to. Peers are static: a forwarding
entry and a neighbour entry each, nothing is learned.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Self

from testbed.errors import BadInput, LabError, MachineLacks
from testbed.namespaces import in_netns, new_netns
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, guest_features, set_features
from testbed.topology.schema import Wire

OVERHEAD = 50  # inner Ethernet 14 + VXLAN 8 + UDP 8 + IPv4 20: what a guest's IP packet grows by
DESTINATION_PORT = 4789  # RFC 7348 section 5
GSO_MAX_SIZE = 65000  # as our guests': the outer IPv4 length must still fit
LOWEST_MTU = 1280  # RFC 8200 section 5; the kernel refuses IPv6 addresses below
HIGHEST_MTU = 65535 - OVERHEAD
_VNI = 5001
_IFA_F_NODAD = 0x02  # linux/if_addr.h


def _guest_mac(index: int) -> str:
    return f"02:00:00:00:01:{index:02x}"


def _guest_addresses(index: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """(address, prefix length) of IPv4 and IPv6 of guest 0 or 1."""
    return (f"10.0.0.{5 + index}", 24), (f"fd00::{5 + index}", 64)


def _outer_address(index: int) -> str:
    return f"192.168.0.{1 + index}"


class VxlanLab:
    """Two guests on two hosts and a fabric bridge, in five network namespaces without names.

    Only this process's descriptors hold the namespaces, so they are gone when it closes the lab or
    ends in whatever way. Use it in a ``with`` block, which builds it. Errors: BadInput (mtu),
    LabError, MachineLacks.

    ``client``, ``server``: descriptors of the guests' namespaces; ``hosts``, ``fabric``: of the
    others. ``fabric_ports``: names of the switch ports. ``mtu``: the guests', bytes of IP packet.
    ``guest_lso``: guests hand over super-packets. ``coalesces``: the hosts' NICs join frames.
    """

    fabric_ports = ("p0", "p1")

    def __init__(
        self,
        *,
        mtu: int = 1458,
        wire: Wire = "frames",
        gso_max_size: int = GSO_MAX_SIZE,
        guest_lso: bool = True,
        coalesces: bool = True,
    ) -> None:
        if not LOWEST_MTU <= mtu <= HIGHEST_MTU:
            raise BadInput(f"the VXLAN baseline: mtu is {mtu}: must be from {LOWEST_MTU} to {HIGHEST_MTU}")
        self.mtu = mtu
        self.wire: Wire = wire
        self.gso_max_size = gso_max_size
        self._guest_lso = guest_lso
        self._coalesces = coalesces
        self._open: list[int] = []

    @property
    def client(self) -> int:
        """Namespace of the guest that sends."""
        return self._open[0]

    @property
    def server(self) -> int:
        """Namespace of the guest that receives."""
        return self._open[1]

    @property
    def hosts(self) -> tuple[int, int]:
        """Namespaces of the client's and the server's host."""
        return self._open[2], self._open[3]

    @property
    def fabric(self) -> int:
        """Namespace of the fabric bridge."""
        return self._open[4]

    def server_address(self, version: int = 4) -> str:
        """The server guest's IPv4 (4) or IPv6 (6) address."""
        return _guest_addresses(1)[version == 6][0]

    def __enter__(self) -> Self:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            for _ in range(5):
                self._open.append(new_netns())
            self._build()
        except NetlinkError as error:
            self.close()
            if error.code == errno.EOPNOTSUPP:
                raise MachineLacks(f"this kernel lacks vxlan, veth or bridge: {error}") from None
            raise LabError(f"the VXLAN baseline cannot be built: {error}") from None
        except PermissionError as error:
            self.close()
            raise MachineLacks(f"the VXLAN baseline needs root: {error}") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the namespaces and everything in them. May be called more than once."""
        while self._open:
            os.close(self._open.pop())

    def _build(self) -> None:
        from pyroute2 import IPRoute

        with in_netns(self.fabric), IPRoute() as ip:
            self._build_fabric(ip)
        for index, host in enumerate(self.hosts):
            with in_netns(host), IPRoute() as ip:
                self._build_host(ip, index)
        for index, guest in enumerate((self.client, self.server)):
            with in_netns(guest), IPRoute() as ip:
                self._build_guest(ip, index)
        # last: GRO works only when both ends are up and the fabric's end has its TSO off
        for port, host in zip(self.fabric_ports, self.hosts, strict=True):
            with in_netns(self.fabric):
                set_features(port, CABLE_FABRIC[self.wire if self._coalesces else "frames"])
            with in_netns(host):
                set_features("nic1", {**CABLE_HOST[self.wire], "rx-gro": self._coalesces})
        for guest in (self.client, self.server):
            with in_netns(guest):
                set_features("eth0", guest_features(lso=self._guest_lso))

    def _build_fabric(self, ip: Any) -> None:
        mtu = self.mtu + OVERHEAD
        ip.link("add", ifname="tor1", kind="bridge")
        bridge = _index(ip, "tor1")
        for port, host in zip(self.fabric_ports, self.hosts, strict=True):
            nic = {"ifname": "nic1", "net_ns_fd": host, "mtu": mtu}
            ip.link("add", ifname=port, kind="veth", mtu=mtu, peer=nic)
            ip.link("set", index=_index(ip, port), master=bridge, state="up")
        ip.link("set", index=bridge, state="up")

    def _build_host(self, ip: Any, index: int) -> None:
        ip.link("set", index=_index(ip, "nic1"), state="up")
        ip.addr("add", index=_index(ip, "nic1"), address=_outer_address(index), prefixlen=24)
        ip.link("add", ifname="br0", kind="bridge")
        bridge = _index(ip, "br0")
        ip.link(
            "add",
            ifname="vxlan0",
            kind="vxlan",
            mtu=self.mtu,
            vxlan_id=_VNI,
            vxlan_local=_outer_address(index),
            vxlan_group=_outer_address(1 - index),
            vxlan_port=DESTINATION_PORT,
            vxlan_learning=0,
            vxlan_udp_csum=0,
        )
        guest = {
            "ifname": "eth0",
            "net_ns_fd": (self.client, self.server)[index],
            "mtu": self.mtu,
            "address": _guest_mac(index),
        }
        ip.link("add", ifname="vm0", kind="veth", mtu=self.mtu, peer=guest)
        for port in ("vm0", "vxlan0"):
            ip.link("set", index=_index(ip, port), master=bridge, state="up")
        ip.link("set", index=bridge, state="up")
        ip.fdb(
            "add", ifindex=_index(ip, "vxlan0"), lladdr=_guest_mac(1 - index), dst=_outer_address(1 - index)
        )

    def _build_guest(self, ip: Any, index: int) -> None:
        eth0 = _index(ip, "eth0")
        ip.link("set", index=_index(ip, "lo"), state="up")
        ip.link("set", index=eth0, gso_max_size=self.gso_max_size, state="up")
        for (address, length), (peer, _) in zip(
            _guest_addresses(index), _guest_addresses(1 - index), strict=True
        ):
            ip.addr("add", index=eth0, address=address, prefixlen=length, flags=_IFA_F_NODAD)
            ip.neigh("add", dst=peer, lladdr=_guest_mac(1 - index), ifindex=eth0, state="permanent")


def _index(ip: Any, name: str) -> int:
    """Index of the interface ``name`` in the namespace of ``ip``."""
    (index,) = ip.link_lookup(ifname=name)
    return int(index)
