"""Whom it is about: both ends, what their hosts say of themselves, what the owner of the policy knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.channel import Message
from testbed.errors import BadInput, LabError
from testbed.lab.lab import Lab
from testbed.lab.trace import Start, started_at
from testbed.topology.plan import VmPlan, VnicPlan


class End(NamedTuple):
    """A VM's adapter, and its address ("" if it has none that fits)."""

    vm: VmPlan
    vnic: VnicPlan
    address: str

    @property
    def host(self) -> str:
        """Where the VM runs."""
        return self.vm.host

    @property
    def start(self) -> Start:
        """As traces have it."""
        return Start(self.vm, self.vnic)


class Case:
    """target: None where no VM has the address. What hosts say is asked once.

    Questions leave here what later ones need. cut_off: hosts without the VMM; vmm_error: why the VMM is of no
    use, or "". separated: by design; design: a sentence on what else is meant to fail. lossy: a cable loses
    frames; narrow: the link that has a small MTU. by_mac: a record without an address leads to an end.
    beyond: the ports to which packets for no VM's address go. works: the guests reach each other; untold:
    they do not, and where it was lost is not known.
    """

    def __init__(self, lab: Lab, source: End, target: End | None, address: str) -> None:
        self.lab = lab
        self.source, self.target, self.address = source, target, address
        self.cut_off: set[str] = set()
        self.vmm_error = ""
        self.separated = False
        self.design = ""
        self.works: bool | None = None
        self.lossy = self.by_mac = False
        self.beyond = self.narrow = ""
        self.untold = False
        self._told: dict[tuple[str, str], Any] = {}

    @property
    def ends(self) -> list[End]:
        """Source and, if there is one, target."""
        return [self.source] if self.target is None else [self.source, self.target]

    @property
    def hosts(self) -> list[str]:
        """The hosts of the ends, each once."""
        return [*dict.fromkeys(end.host for end in self.ends)]

    @property
    def ways(self) -> list[tuple[End, End]]:
        """There and back."""
        return [] if self.target is None else [(self.source, self.target), (self.target, self.source)]

    def status(self, host: str) -> Message:
        """What a host says of itself."""
        found: Message = self._once("status", host, lambda: self.lab.ask(host, "status"))
        return found

    def policy(self, host: str, kind: str) -> list[dict[str, Any]]:
        """The policy objects of a kind that a host has now."""

        def ask() -> Any:
            return self.lab.ask(host, "policy", verb="list", object=kind)["objects"]

        found: list[dict[str, Any]] = self._once(kind, host, ask)
        return found

    def live_port(self, end: End) -> dict[str, Any] | None:
        """The switch port of an end as its host has it: name, mac, vsid."""
        ports: list[dict[str, Any]] = self.status(end.host)["ports"]
        return next((each for each in ports if each["name"] == end.vnic.port), None)

    def intended_vsid(self, end: End) -> int:
        """The VSID by the VMM, or by the Plan where there is none or it is away."""
        if self.lab.plan.vmm is not None and not self.vmm_error:
            try:
                return int(self.lab.vmm().get(f"/ports/{end.vnic.port}")["vsid"])
            except (LabError, BadInput):
                pass  # a port of which the VMM knows nothing, such as one of VSID 0
        return end.vnic.vsid

    def provider_addresses(self, host: str, vsid: int) -> list[dict[str, Any]]:
        """A host's PAs of a VSID: address, prefix_length, state."""
        return [each for each in self.status(host)["provider_addresses"] if each["vsid"] == vsid]

    def preferred(self, host: str, vsid: int) -> str:
        """The host's PA of a VSID that is in use, or ""."""
        found = self.provider_addresses(host, vsid)
        return next((str(each["address"]) for each in found if each["state"] == "Preferred"), "")

    def _once(self, what: str, host: str, ask: Any) -> Any:
        if (what, host) not in self._told:
            self._told[what, host] = ask()
        return self._told[what, host]


def opened(lab: Lab, source: str, to: str) -> Case:
    """The case that ``--from`` and ``--to`` name: adapters, or an IP address. Raises BadInput."""
    try:
        wanted = str(ipaddress.ip_address(to))
    except ValueError:
        wanted = ""
    ours = _named(lab, source, "--from")
    theirs = _owners(lab, wanted) if wanted else _named(lab, to, "--to")
    pairs = [(own, other) for own in ours for other in theirs]
    if any(own.vnic.port == other.vnic.port for own, other in pairs):
        raise BadInput(f"--to {to} is {source} itself: name another VM, or an address of one")
    pairs.sort(key=lambda pair: pair[0].vnic.network != pair[1].vnic.network)  # stable: the first that fit
    own, other = pairs[0] if pairs else (ours[0], None)
    address, own_address = _addresses(lab, own, other, wanted)
    source_end = End(own.vm, own.vnic, own_address)
    return Case(lab, source_end, other and End(other.vm, other.vnic, address), address)


def _named(lab: Lab, name: str, option: str) -> list[Start]:
    """The adapters that a name means: one, or all of a VM."""
    first = started_at(lab, name, option)
    return [first] if ":" in name else [Start(first.vm, vnic) for vnic in first.vm.vnics]


def _owners(lab: Lab, address: str) -> list[Start]:
    """The adapters that are to have an address or, if there is none, that have it."""
    everybody = [Start(vm, vnic) for vm in lab.plan.vms for vnic in vm.vnics]
    planned = [each for each in everybody if address in _bare(each.vnic.addresses)]
    return planned or [each for each in everybody if address in _live(lab, each)]


def _addresses(lab: Lab, own: Start, other: Start | None, wanted: str) -> tuple[str, str]:
    """The address of the other end and the own one that fits it."""
    ours = [*_candidates(lab, own)]
    theirs = [wanted] if wanted or other is None else [*_candidates(lab, other)]
    pairs = [(there, here) for there in theirs for here in ours if (":" in there) == (":" in here)]
    pairs.sort(key=lambda pair: ":" in pair[0])
    return pairs[0] if pairs else (next(iter(theirs), ""), next(iter(ours), ""))


def _candidates(lab: Lab, start: Start) -> Iterator[str]:
    yield from _bare(start.vnic.addresses) or _live(lab, start)


def live_addresses(lab: Lab, start: Start) -> list[dict[str, Any]]:
    """What the guest's adapter has: "address", "tentative", "duplicate". Raises LabError."""
    from testbed.wiring import guest

    return guest.addresses(lab.netns(start.vm.name)).get(start.vnic.interface, [])


def _live(lab: Lab, start: Start) -> list[str]:
    try:
        found = _bare(each["address"] for each in live_addresses(lab, start))
    except LabError:  # the VM is down, which is found in its turn
        return []
    return [each for each in found if not ipaddress.ip_address(each).is_link_local]


def _bare(addresses: Any) -> list[str]:
    return [text.partition("/")[0] for text in addresses]
