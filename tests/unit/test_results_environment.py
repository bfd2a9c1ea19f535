"""testbed.results.environment: the fingerprint is complete, and stays the same where nothing has changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from testbed.results import environment
from testbed.results.environment import digest, fingerprint
from testbed.topology import plan_from_file

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def test_it_is_this_machine() -> None:
    found = fingerprint("2host", "ab", {"wire": "frames"}, ["iperf3"])
    release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    assert (found.kernel, found.cores) == (release, int(cores))
    assert found.cpu
    assert found.memory > 1 << 28
    assert found.settings == {"wire": "frames"}
    assert found.tools["iperf3"]


def git(folder: Path, *words: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", folder, *own, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_SOURCE", tmp_path)
    assert fingerprint("", "ab", {}).commit == ""
    git(tmp_path, "init", "-q")
    assert fingerprint("", "ab", {}).commit == ""  # nothing is committed yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "a")
    found = fingerprint("", "ab", {})
    assert (found.commit, found.modified) == (git(tmp_path, "rev-parse", "HEAD"), False)
    assert found.commit_time == float(git(tmp_path, "log", "-1", "--format=%ct"))
    (tmp_path / "a").write_text("2")
    assert fingerprint("", "ab", {}).modified


def test_a_topology_has_one_hash() -> None:
    one, again, other = (
        digest(plan_from_file(TOPOLOGIES / "4host.yaml", variables))
        for variables in ({}, {}, {"vms_per_host": "3"})
    )
    assert one == again != other
    assert digest(plan_from_file(TOPOLOGIES / "2host.yaml", {})) not in (one, other)


def test_what_counts_of_a_plan() -> None:
    plan = plan_from_file(TOPOLOGIES / "2host.yaml", {})
    assert digest(msgspec.structs.replace(plan, name="renamed")) == digest(plan)
    assert digest(msgspec.structs.replace(plan, learning=False)) != digest(plan)


class Before(Struct):
    a: int = 1
    b: int = 2


class After(Struct):
    a: int = 1
    b: int = 2
    c: int = 3
    d: dict[str, int] = {}


def test_a_new_key_at_its_default_changes_no_hash() -> None:
    assert digest(After(b=5)) == digest(Before(b=5)) != digest(Before())
    assert digest(After(b=5, d={"x": 1})) != digest(After(b=5))
