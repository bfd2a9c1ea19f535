"""A running lab as a test sees it, and who in it fits a part."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.lab.lab import Lab
from testbed.testing.host import Host
from testbed.testing.vm import Vm
from testbed.testing.watch import Watch

Pair = tuple[Vm, Vm]


class LiveLab:
    """``lab``: the product's own object, for what has no name here. ``exclusive``: this test's alone.

    variables: those of its topology's template; None: it was running before.
    """

    def __init__(self, lab: Lab, *, exclusive: bool, variables: dict[str, str] | None = None) -> None:
        self.lab = lab
        self.exclusive = exclusive
        self.variables = variables

    @property
    def name(self) -> str:
        """The lab's name, as every verb takes it."""
        return self.lab.record.name

    @property
    def engine(self) -> str:
        """Its engine: docker or namespaces."""
        return self.lab.record.engine

    @property
    def hosts(self) -> list[Host]:
        """All hosts."""
        return [Host(self.lab, host.name) for host in self.lab.plan.hosts]

    @property
    def vms(self) -> list[Vm]:
        """All adapters of all VMs."""
        return [Vm(self.lab, vm, vnic) for vm in self.lab.plan.vms for vnic in vm.vnics]

    def vm(self, name: str) -> Vm:
        """The VM called so (its first adapter), or the adapter ("blue1:eth1"). Fails the test if none is."""
        for each in self.vms:
            if name in (each.name, each.node, each.port):
                return each
        pytest.fail(f"{self.name} has no VM {name!r}: one of {', '.join(each.name for each in self.vms)}")

    def host(self, name: str) -> Host:
        """The host called so. Fails the test if none is."""
        for each in self.hosts:
            if each.name == name:
                return each
        pytest.fail(f"{self.name} has no host {name!r}: one of {', '.join(map(str, self.hosts))}")

    def capture(self, *points: str, **options: Any) -> Watch:
        """Frames at points while a ``with`` block runs; options: vsid, ca, bpf, snaplen. Raises BadInput."""
        return Watch(self.lab, points, **options)

    # ---- who fits -------------------------------------------------------------------------

    def pairs(self, fits: Callable[[Vm, Vm], bool], what: str, *, version: int = 4) -> list[Pair]:
        """Ordered pairs of adapters that fit and have addresses. Skips the test, for lack of ``what``."""
        usable = [each for each in self.vms if not each.is_gateway and each.has(version)]
        found = [pair for pair in itertools.permutations(usable, 2) if fits(*pair)]
        if not found:
            pytest.skip(f"{self.lab.plan.name} has no {what} with IPv{version} addresses")
        return found

    def require(self, holds: object, what: str) -> None:
        """Skip the test, with ``what`` is missing, unless it holds."""
        if not holds:
            pytest.skip(f"{self.lab.plan.name} has {what}")

    # ---- for tests with a lab of their own --------------------------------------------------

    @contextlib.contextmanager
    def added_vm(self, host: str, vsid: int, *, learn: bool = False) -> Iterator[Vm]:
        """A new VM with addresses of the pools, for the ``with`` block; needs an exclusive lab with a VMM.

        ``learn``: it has no address, and is to take one by itself.
        """
        from testbed.lab import vms

        assert self.exclusive, "say @pytest.mark.topology(exclusive=True): this changes the lab"
        self.require(self.lab.plan.vmm, "no VMM, which would tell the hosts of a new VM")
        name = f"added-{secrets.token_hex(3)}"
        vms.add(self.lab, name, host, vsid, (), learn=learn)
        try:
            yield self.vm(name)
        finally:
            vms.remove(self.lab, name)
