"""Two guests on two hosts with a fabric between them, of namespaces: the shape that all baselines share.

::

    guest eth0 ==veth== vm0 [ the baseline ] nic1 ==veth== p0
    ------- guest ----+------------ host ------------------ +  [bridge tor1]
    guest eth0 ==veth== vm0 [ the baseline ] nic1 ==veth== p1      fabric

Fair means: same guest MTU, so the same inner MSS; the same gso_max_size, and the same features on
both ends of a cable (:mod:`testbed.nic.features`). What a tunnel's outer headers take more than ours
is given to the underlay instead of being taken from the guests.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import Any, Self

from testbed.errors import BadInput, LabError, MachineLacks
from testbed.namespaces import in_netns, new_netns
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, guest_features, set_features
from testbed.topology.schema import Wire

GSO_MAX_SIZE = 65000  # as our guests': the outer IPv4 length must still fit
LOWEST_MTU = 1280  # RFC 8200 section 5; the kernel refuses IPv6 addresses below
_IFA_F_NODAD = 0x02  # linux/if_addr.h


class KernelLab(ABC):
    """Use it in a ``with`` block, which builds it. Errors: BadInput (mtu), LabError, MachineLacks.

    Its namespaces have no names: only this process's descriptors hold them, so they are gone when it
    closes the lab or ends in whatever way.

    ``client``, ``server``: descriptors of the guests' namespaces; ``hosts``, ``fabric``: of the
    others. ``fabric_ports``: names of the switch ports. ``mtu``: the guests', bytes of IP packet.
    ``guest_lso``: guests hand over super-packets. ``coalesces``: the hosts' NICs join frames.
    """

    name = ""  # of the path that it is
    overhead = 0  # what a guest's IP packet grows by, bytes
    interface = "eth0"  # of the guests
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
        if not LOWEST_MTU <= mtu <= 65535 - self.overhead:
            limits = f"from {LOWEST_MTU} to {65535 - self.overhead}"
            raise BadInput(f"the baseline {self.name}: mtu is {mtu}: must be {limits}")
        self.mtu = mtu
        self.wire: Wire = wire
        self.gso_max_size = gso_max_size
        self._guest_lso = guest_lso
        self._coalesces = coalesces
        self._open: list[int] = []

    @property
    def client(self) -> int:
        """Namespace of the guest that sends."""
        return self._open[3]

    @property
    def server(self) -> int:
        """Namespace of the guest that receives."""
        return self._open[4]

    @property
    def hosts(self) -> tuple[int, int]:
        """Namespaces of the client's and the server's host."""
        return self._open[1], self._open[2]

    @property
    def fabric(self) -> int:
        """Namespace of the fabric bridge."""
        return self._open[0]

    def server_address(self, version: int = 4) -> str:
        """The server guest's IPv4 (4) or IPv6 (6) address."""
        return self.guest_addresses(1)[version == 6][0]

    def guest_addresses(self, index: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """(address, prefix length) of IPv4 and IPv6 of guest 0 or 1."""
        return (f"10.0.0.{5 + index}", 24), (f"fd00::{5 + index}", 64)

    def cpu_seconds(self) -> float:
        """CPU time of the baseline's processes so far; the kernel's own has none."""
        return 0.0

    def __enter__(self) -> Self:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            self._open += [new_netns() for _ in range(3)]
            self._open += self.guest_namespaces()
            self._build()
        except NetlinkError as error:
            self.close()
            if error.code == errno.EOPNOTSUPP:
                raise MachineLacks(f"this kernel lacks vxlan, veth or bridge: {error}") from None
            raise LabError(f"the baseline {self.name} cannot be built: {error}") from None
        except PermissionError as error:
            self.close()
            raise MachineLacks(f"the baseline {self.name} needs root: {error}") from None
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

    def guest_namespaces(self) -> list[int]:
        """Descriptors of the guests' namespaces, which become this lab's own."""
        return [new_netns(), new_netns()]

    @abstractmethod
    def build_host(self, ip: Any, index: int) -> None:
        """Join vm0 and nic1 in the namespace of host 0 or 1, in which the caller is; nic1 is up."""

    def _build(self) -> None:
        from pyroute2 import IPRoute

        with in_netns(self.fabric), IPRoute() as ip:
            self._build_fabric(ip)
        for index, host in enumerate(self.hosts):
            with in_netns(host), IPRoute() as ip:
                self._build_ends(ip, index)
                self.build_host(ip, index)
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
                set_features(self.interface, guest_features(lso=self._guest_lso))

    def _build_fabric(self, ip: Any) -> None:
        mtu = self.mtu + self.overhead
        ip.link("add", ifname="tor1", kind="bridge")
        bridge = index_of(ip, "tor1")
        for port, host in zip(self.fabric_ports, self.hosts, strict=True):
            nic = {"ifname": "nic1", "net_ns_fd": host, "mtu": mtu}
            ip.link("add", ifname=port, kind="veth", mtu=mtu, peer=nic)
            ip.link("set", index=index_of(ip, port), master=bridge, state="up")
        ip.link("set", index=bridge, state="up")

    def _build_ends(self, ip: Any, index: int) -> None:
        ip.link("set", index=index_of(ip, "nic1"), state="up")
        guest = {
            "ifname": self.interface,
            "net_ns_fd": (self.client, self.server)[index],
            "mtu": self.mtu,
            "address": guest_mac(index),
        }
        ip.link("add", ifname="vm0", kind="veth", mtu=self.mtu, peer=guest)

    def _build_guest(self, ip: Any, index: int) -> None:
        device = index_of(ip, self.interface)
        ip.link("set", index=index_of(ip, "lo"), state="up")
        ip.link("set", index=device, gso_max_size=self.gso_max_size, state="up")
        pairs = zip(self.guest_addresses(index), self.guest_addresses(1 - index), strict=True)
        for (address, length), (peer, _) in pairs:
            ip.addr("add", index=device, address=address, prefixlen=length, flags=_IFA_F_NODAD)
            ip.neigh("add", dst=peer, lladdr=guest_mac(1 - index), ifindex=device, state="permanent")


def guest_mac(index: int) -> str:
    """Of guest 0 or 1."""
    return f"02:00:00:00:01:{index:02x}"


def bridge(ip: Any, *ports: str) -> None:
    """Make the bridge br0 of these interfaces, and set all of it up."""
    ip.link("add", ifname="br0", kind="bridge")
    made = index_of(ip, "br0")
    for port in ports:
        ip.link("set", index=index_of(ip, port), master=made, state="up")
    ip.link("set", index=made, state="up")


def index_of(ip: Any, name: str) -> int:
    """Index of the interface ``name`` in the namespace of ``ip``."""
    (index,) = ip.link_lookup(ifname=name)
    return int(index)
