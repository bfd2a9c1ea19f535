"""A VM's adapters: TAP device, addresses, routes."""

from __future__ import annotations

import ipaddress
import os
import time
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from testbed.errors import LabError
from testbed.namespaces import in_netns
from testbed.nic.features import adapter_features, set_features
from testbed.topology.plan import Timers, VmPlan, VnicPlan
from testbed.wiring import sysctl, tap

# A super-packet and the 42 bytes of NVGRE must fit the outer IPv4 total length.
GSO_MAX_SIZE = 65000
_RTN_LOCAL = 2
_IFA_F_TENTATIVE, _IFA_F_DADFAILED = 0x40, 0x08


def create_adapters(netns: int, vm: VmPlan) -> list[tuple[VnicPlan, list[int]]]:
    """The VM's NICs, down and without addresses; with each the descriptors of its queues."""
    with in_netns(netns):
        sysctl.write(sysctl.GUEST)
        sysctl.write(sysctl.announcing_ipv6(on=vm.announce))
        queues = [(vnic, _open_queues(vnic)) for vnic in vm.vnics]
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")
            for vnic, _ in queues:
                index = ip.link_lookup(ifname=vnic.interface)[0]
                ip.link("set", index=index, address=vnic.mac, mtu=vnic.mtu, gso_max_size=GSO_MAX_SIZE)
    return queues


def _open_queues(vnic: VnicPlan) -> list[int]:
    """What the adapter supports is a property of the device, what is enabled a setting in the guest."""
    able, wanted = vnic.offloads.possible, vnic.offloads.in_use
    queues = tap.open_queues(vnic.interface, vnic.queues, lso=able.lso, checksum=able.tx_checksum)
    if (able.lso, able.tx_checksum) != (wanted.lso, wanted.tx_checksum):
        try:
            set_features(vnic.interface, adapter_features(lso=wanted.lso, checksum=wanted.tx_checksum))
        except BaseException:
            for queue in queues:
                os.close(queue)
            raise
    return queues


def configure(netns: int, vm: VmPlan, timers: Timers) -> None:
    """Boot the VM's network: adapters up, addresses, default routes of the first adapter."""
    with in_netns(netns), IPRoute() as ip:
        for position, vnic in enumerate(vm.vnics):
            if timers == "fast":
                sysctl.write(sysctl.fast_neighbor_discovery(vnic.interface))
            index = ip.link_lookup(ifname=vnic.interface)[0]
            ip.link("set", index=index, state="up")
            versions = set()  # a gateway is no use without an address of its family
            for text in vnic.addresses:
                address = ipaddress.ip_interface(text)
                versions.add(address.version)
                ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            for gateway in vnic.gateways if position == 0 else ():
                version = ipaddress.ip_address(gateway).version
                if version not in versions:
                    continue
                default = "0.0.0.0/0" if version == 4 else "::/0"
                ip.route("add", dst=default, gateway=gateway, oif=index)


def change_addresses(netns: int, old: VnicPlan, new: VnicPlan) -> None:
    """Give an adapter the addresses of ``new`` and take those of ``old`` away that it is to have no more."""
    with in_netns(netns), IPRoute() as ip:
        index = ip.link_lookup(ifname=new.interface)[0]
        have = _addresses_of(ip, index)
        for text in new.addresses:
            if text not in have:
                address, _, length = text.partition("/")
                ip.addr("add", index=index, address=address, prefixlen=int(length))
        for text in set(old.addresses) - {*new.addresses}:
            if text in have:
                address, _, length = text.partition("/")
                ip.addr("del", index=index, address=address, prefixlen=int(length))


def _addresses_of(ip: Any, index: int) -> set[str]:
    return {f"{entry.get('address')}/{entry['prefixlen']}" for entry in ip.get_addr(index=index)}


def addresses(netns: int) -> dict[str, list[dict[str, Any]]]:
    """Live addresses by interface: [{"address": "10.0.0.5/24", "tentative", "duplicate"}], without ``lo``."""
    found: dict[str, list[dict[str, Any]]] = {}
    with in_netns(netns), IPRoute() as ip:
        names = {link["index"]: link.get("ifname") for link in ip.get_links() if link["index"] != 1}
        for name in names.values():
            found[name] = []
        for entry in ip.get_addr():
            if entry["index"] not in names:
                continue
            flags = entry.get("flags") or 0
            found[names[entry["index"]]].append(
                {
                    "address": f"{entry.get('address')}/{entry['prefixlen']}",
                    "tentative": bool(flags & _IFA_F_TENTATIVE),
                    "duplicate": bool(flags & _IFA_F_DADFAILED),
                }
            )
    return found


def route(netns: int, address: str, interface: str = "") -> tuple[str, str, str]:
    """How a guest reaches an address: interface, gateway ("": on its link), source address.

    ``interface``: by no other than this. Raises LabError without a route, and for its own address.
    """
    with in_netns(netns), IPRoute() as ip:
        index = {"oif": ip.link_lookup(ifname=interface)[0]} if interface else {}
        try:
            found = ip.route("get", dst=address, **index)[0]
        except NetlinkError as error:
            raise LabError(f"no route to {address}: {os.strerror(error.code)}") from None
        if found["type"] == _RTN_LOCAL:
            raise LabError(f"{address} is its own address")
        name = str(ip.get_links(found.get("oif"))[0].get("ifname"))
        return name, str(found.get("gateway") or ""), str(found.get("prefsrc") or "")


def wait_until_settled(netns: int, vm: VmPlan, deadline: float) -> None:
    """Return once no address of the VM is tentative. ``deadline`` is on the monotonic clock."""
    while True:
        entries = [entry for found in addresses(netns).values() for entry in found]
        if duplicate := [entry["address"] for entry in entries if entry["duplicate"]]:
            raise LabError(f"{vm.name}: another machine has {', '.join(duplicate)}")
        tentative = [entry["address"] for entry in entries if entry["tentative"]]
        if not tentative:
            return
        if time.monotonic() > deadline:
            raise LabError(f"{vm.name}: still tentative: {', '.join(tentative)}")
        time.sleep(0.01)  # a poll with a deadline
