"""Which provider addresses can be used, as `lookup-records` shows it (Unusable)."""

from __future__ import annotations

import ipaddress

from testbed.topology.plan import HostPolicy


class Usable:
    """``pa in usable``: each PA is looked at once, however many records name it."""

    def __init__(self, policy: HostPolicy, preferred: set[str]) -> None:
        """``preferred``: the host's own PAs that have passed duplicate address detection."""
        self._own = {each.provider_address for each in policy.provider_addresses}
        self._preferred = preferred
        self._reached = [
            ipaddress.ip_interface(f"{each.provider_address}/{each.prefix_length}").network
            for each in policy.provider_addresses
            if each.provider_address in preferred
        ]
        self._reached += [ipaddress.ip_network(each.destination_prefix) for each in policy.provider_routes]
        self._known: dict[str, bool] = {}

    def __contains__(self, pa: str) -> bool:
        if pa not in self._known:
            self._known[pa] = self._usable(pa)
        return self._known[pa]

    def _usable(self, pa: str) -> bool:
        if pa in self._own:
            return pa in self._preferred
        address = ipaddress.ip_address(pa)
        if address.is_link_local:
            return True  # a default gateway: nothing is sent to it
        if address.is_multicast:
            return any(ipaddress.ip_address(own).version == address.version for own in self._preferred)
        return any(address in network for network in self._reached)
