"""A lab's VMM in tests: asked through the product's own client, beside what its hosts hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.labs import Lab
from testbed.lab.lab import Lab as Opened
from testbed.topology.plan import HostPolicy

SECONDS = 20.0


@contextmanager
def opened(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """The lab as the command line has it."""
    monkeypatch.setenv("TESTBED_STATE_DIR", str(lab.cli.state))
    with Opened.open(lab.name) as found:
        yield found


def vmm_process(lab: Lab) -> int:
    """The serving process of the VMM: the one with the most memory."""
    processes = lab.cli.inspect(lab.name)["vmm"]["processes"]
    return int(max(processes, key=lambda process: process["pss_bytes"])["pid"])


def table(lab: Opened, host: str) -> dict[str, list[dict[str, Any]]]:
    """What a host holds, by kind, in order."""
    kinds = [field.replace("_", "-") for field in HostPolicy.__struct_fields__]
    return {kind: _sorted(lab.ask(host, "policy", verb="list", object=kind)["objects"]) for kind in kinds}


def owners_table(lab: Opened, host: str) -> dict[str, list[dict[str, Any]]]:
    """What the VMM would tell the host if it began from scratch, as ``table`` has it."""
    policy = lab.vmm().get(f"/hosts/{host}/policy")
    return {field.replace("_", "-"): _sorted(policy[field]) for field in HostPolicy.__struct_fields__}


def _sorted(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = ("unusable", "unsynchronized", "address_state")  # the host's own remarks
    bare = [{key: value for key, value in each.items() if key not in told} for each in objects]
    return sorted(bare, key=lambda each: [str(value) for value in each.values()])


def wait_equal(lab: Opened) -> None:
    """Return once every host holds just what the VMM would tell it from scratch."""
    end = time.monotonic() + SECONDS
    for host in lab.plan.hosts:
        while (mine := table(lab, host.name)) != (wanted := owners_table(lab, host.name)):
            assert time.monotonic() < end, (host.name, mine, wanted)
            time.sleep(0.02)


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, 9)
