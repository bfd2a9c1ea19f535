"""The parts of the VMM that handlers are given."""

from __future__ import annotations

from typing import TypeAlias

from litestar.di import NamedDependency

from testbed.vmm.contests import Contests
from testbed.vmm.distribution import Hub
from testbed.vmm.reports import Reports
from testbed.vmm.store.database import Store

TheStore: TypeAlias = NamedDependency[Store]
TheHub: TypeAlias = NamedDependency[Hub]
TheContests: TypeAlias = NamedDependency[Contests]
TheReports: TypeAlias = NamedDependency[Reports]
