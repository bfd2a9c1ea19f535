"""Plants: each finds what it patches; those that leave a lookup record where it was, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from support.switch import mac_of, policy
from testbed import plants
from testbed.topology.plan import LookupRecord
from testbed.wnv.policy import Change
from testbed.wnv.tables import Tables

KIND = "lookup-records"
OLD = LookupRecord("10.0.0.99", 5001, mac_of("blue1").hex(":"), "192.168.1.1", "blue1", type="Dynamic")
MOVED = msgspec.structs.replace(OLD, provider_address="192.168.1.2")
OTHERS = LookupRecord("10.0.0.99", 5001, mac_of("blue4").hex(":"), "192.168.1.2", "blue4", type="Dynamic")


def pa(tables: Tables) -> str:
    found = tables.records.get((5001, bytes((10, 0, 0, 99))))
    return ".".join(map(str, found.pa)) if found else ""


@pytest.mark.parametrize(
    ("name", "stays", "goes"),
    [("vm-left-behind", MOVED, OTHERS), ("cluster-address-stays", OTHERS, MOVED)],
)
def test_one_kind_of_change_is_ignored(
    monkeypatch: pytest.MonkeyPatch, name: str, stays: LookupRecord, goes: LookupRecord
) -> None:
    monkeypatch.setattr(Tables, "apply", Tables.apply)  # put back afterwards
    plants.load(name).plant()
    tables = Tables(policy(1), frozenset())
    tables.apply([Change(KIND, None, OLD)])
    assert pa(tables) == "192.168.1.1"
    tables.apply([Change(KIND, OLD, None), Change(KIND, None, stays)])
    assert pa(tables) == "192.168.1.1"
    tables.apply([Change(KIND, stays, OLD)])  # and back
    assert pa(tables) == "192.168.1.1"
    tables.apply([Change(KIND, OLD, None), Change(KIND, None, goes)])
    assert pa(tables) == "192.168.1.2"
    tables.apply([Change(KIND, goes, None)])
    assert pa(tables) == ""


def test_each_finds_what_it_patches() -> None:
    """In a process of their own, since they stay."""
    script = "from testbed import plants\nfor name in plants.names(): print(name); plants.load(name).plant()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == plants.names()
