"""Another machine on a switch: a kernel of its own, in a network namespace of its own."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute

from testbed.namespaces import in_netns, new_netns

_INTERFACE = "eth0"


@contextmanager
def machine_on(fabric: int, switch: str, address: str) -> Iterator[str]:
    """A machine with ``address`` ("192.168.0.9/20") at a new port of the bridge ``switch``; its MAC.

    ``fabric``: descriptor of the bridge's network namespace. Machine and port go with the block.
    """
    port = f"m{secrets.token_hex(4)}"
    netns = new_netns()
    try:
        with in_netns(fabric), IPRoute() as ip:
            bridge = ip.link_lookup(ifname=switch)[0]
            ip.link("add", ifname=port, kind="veth", peer={"ifname": _INTERFACE, "net_ns_fd": netns})
            index = ip.link_lookup(ifname=port)[0]
            try:
                ip.link("set", index=index, master=bridge, state="up")
                yield _configure(netns, address)
            finally:
                ip.link("del", index=index)
    finally:
        os.close(netns)


def _configure(netns: int, address: str) -> str:
    interface = ipaddress.ip_interface(address)
    with in_netns(netns), IPRoute() as ip:
        index = ip.link_lookup(ifname=_INTERFACE)[0]
        ip.link("set", index=index, state="up")
        # no duplicate detection (IFA_F_NODAD, 2): it is there at once
        flags = {"flags": 2} if interface.version == 6 else {}
        ip.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags)
        return str(ip.get_links(index)[0].get("address"))
