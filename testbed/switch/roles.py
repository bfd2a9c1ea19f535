"""Who does what in a team while certain members work: pure, and the same for switch and control.

MACs (hnv.md section 10, T-mac): without a partner in the switch (SwitchIndependent) a MAC is on one port at a
time. What has an address of its own, a provider address or a VM of VSID 0, has a home, the member whose port
the fabric knows it at: the primary under an address hash, members by turns under HyperVPort and Dynamic.
A member that fails is spoken for by another one, under its MAC. With a partner every member may use
every MAC.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from testbed.topology.plan import TeamPlan

HASHES = ("TransportPorts", "IPAddresses", "MacAddresses")


class Roles:
    """macs: the members' by name, in the order of their binding. up: the members that work."""

    def __init__(self, plan: TeamPlan, macs: Mapping[str, bytes], up: Collection[str]) -> None:
        self.plan = plan
        self.macs = dict(macs)
        first = [plan.primary] if plan.primary in macs else []
        members = first + [name for name in macs if name != plan.primary]
        self.homes = [name for name in members if name != plan.standby] or members
        working = [name for name in members if name in up]
        self.working = frozenset(working)
        self.active = tuple(name for name in working if name in self.homes) or tuple(working)
        """The members that carry traffic, the primary first."""
        self._own = set(self.macs.values())

    @classmethod
    def alone(cls, name: str, mac: bytes) -> Roles:
        """Those of a single NIC."""
        return cls(TeamPlan(name), {name: mac}, (name,))

    def home(self, address: bytes) -> str:
        """The member at which the fabric is to know a PA (4 or 16 bytes) or the MAC of a VM of VSID 0."""
        if not self.homes:
            return ""
        if self.plan.has_partner or self.plan.algorithm in HASHES:
            return self.homes[0]
        return self.homes[int.from_bytes(address, "big") % len(self.homes)]

    @property
    def queue_mode(self) -> str:
        """How the members' VMQ queues add up (hnv.md section 10, T-vmq).

        Sum-of-Queues: a VM has its queue on one member; Min-Queues: on each the same.
        """
        split = not self.plan.has_partner and self.plan.algorithm not in HASHES
        return "Sum-of-Queues" if split else "Min-Queues"

    def home_mac(self, address: bytes) -> bytes:
        """The MAC of a PA, that of its home; empty without any NIC."""
        return self.macs.get(self.home(address), b"")

    def carrier(self, member: str) -> str | None:
        """The member that speaks for ``member`` now: itself if it works. None: no member works."""
        if member in self.active:
            return member
        return self.active[0] if self.active else None

    def speaker(self, address: bytes) -> str | None:
        """The member that speaks now for a PA, or for the MAC of a VM of VSID 0. None: no member works."""
        return self.carrier(self.home(address))

    def hears_groups(self, member: str) -> bool:
        """Whether a member takes broadcast and multicast: one does, or any if the switch sends one copy."""
        return self.plan.has_partner or (bool(self.homes) and member == self.carrier(self.homes[0]))

    def takes(self, member: str, mac: bytes) -> bool:
        """Whether a member is to take frames for a MAC of the team's."""
        if self.plan.has_partner:
            return mac in self._own
        return any(own == mac and self.carrier(name) == member for name, own in self.macs.items())

    def is_own(self, mac: bytes) -> bool:
        """Whether it is a member's."""
        return mac in self._own
