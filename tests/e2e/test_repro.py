"""Bundles of failed tests as users meet them: all that there is to know, no token, the same failure again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import TWO_HOSTS, Cli
from testbed.evidence import bundle
from testbed.evidence.bundle import Bundle
from testbed.evidence.ring import SNAPLEN

pytestmark = pytest.mark.e2e
SECONDS = 120.0
LEAKY = """
import pytest
from testbed.vmm import files

pytestmark = pytest.mark.topology("2host")


def test_leaks(lab, vm, capture):
    folder = lab.lab.folder("vmm")
    told = (folder / files.ADMIN_TOKEN).read_text().strip()
    hosts = [file.read_text().strip() for file in (folder / files.HOST_TOKENS).glob("*")]
    (lab.lab.ref.directory / "logs" / "blue1.log").write_text(f"before {hosts[0]} after")
    blue1, blue2 = vm("blue1"), vm("blue2")
    frame = blue1.frame(blue2, hosts[1].encode() + bytes(900))
    with capture("vm:blue2") as seen:
        seen.wait("vm:blue2", hosts[1].encode(), lambda: blue1.send(frame))
    open(r"SEEN", "w").write(" ".join([told, *hosts]))
    assert False, f"told {told}"
"""


def only(folder: Path) -> Path:
    (found,) = folder.glob(f"*{bundle.SUFFIX}")
    return found


def planted(cli: Cli, folder: Path) -> Path:
    """A bundle of a test that fails for a plant."""
    words = ("--suite", "mtu", "--plant", "headers-forgotten", "--engine", cli.engine, "-n", 1)
    done = cli.run("test", TWO_HOSTS, *words, "--evidence", folder, "-f", "json", seconds=SECONDS)
    assert done.returncode == 1, done.stderr.decode()
    told = json.loads(done.stdout)
    bundles = {each["name"]: each["bundle"] for each in told["tests"] if each["outcome"] == "failed"}
    assert [each["bundle"] for each in told["tests"] if each["outcome"] == "passed" and each["bundle"]] == []
    return Path(bundles["test_one_byte_more[ipv4]"])


def test_all_that_there_is_to_know(each_cli: Cli, tmp_path: Path) -> None:
    file = planted(each_cli, tmp_path / "kept")
    found = bundle.read(file)
    assert found.manifest.missing == {}
    assert (found.manifest.id, found.manifest.engine) == ("mtu::test_one_byte_more[ipv4]", each_cli.engine)
    kinds = {name.partition("/")[0] for name in found.files}
    assert {"topology.yaml", "plan.json", "machine.json", "inspect.json", "counters.json"} <= kinds
    assert {"policy", "events.json", "logs", "captures", "failure.txt"} <= kinds
    assert {"policy/host1.json", "policy/vmm.json", "logs/host2.log"} <= {*found.files}
    events = json.loads(found.text("events.json"))["events"]
    assert {each["source"] for each in events} == {"host1", "host2"}
    assert events == sorted(events, key=lambda each: each["time"])
    assert "was told an MTU of 1500" in found.text("failure.txt")
    assert "{{" not in found.text("topology.yaml")
    checked_captures(found)
    told = each_cli.json("repro", file)
    assert told["test"] == found.manifest.id
    assert told["files"] == {name: len(data) for name, data in found.files.items()}
    assert "headers-forgotten" in each_cli.ok("repro", file)


def checked_captures(found: Bundle) -> None:
    """The packet whose length the test is about, cut, at its VM."""
    names = {name for name in found.files if name.startswith("captures/")}
    points = ("cable-host1-nic1", "cable-host2-nic1", "vm-blue1", "vm-blue2")
    assert names == {f"captures/{point}.pcapng" for point in points}
    data = found.files["captures/vm-blue1.pcapng"]
    assert SNAPLEN.to_bytes(4, sys.byteorder) + (1459 + 14).to_bytes(4, sys.byteorder) in data


def test_the_same_failure_again_and_the_same_lab(cli: Cli, tmp_path: Path) -> None:
    file = planted(cli, tmp_path / "kept")
    done = cli.run("repro", file, "--rerun", "-f", "json", seconds=SECONDS)
    assert done.returncode == 1, done.stderr.decode()
    told = json.loads(done.stdout)
    assert [(each["name"], each["outcome"]) for each in told["tests"]] == [
        ("test_one_byte_more[ipv4]", "failed")
    ]
    assert cli.names() == []
    lab = cli.json("repro", file, "--shell", "--name", "again", seconds=SECONDS)
    assert lab["name"] == "again"
    assert cli.json("check", "again")["ok"]
    cli.ok("down", "again")
    good = healthy(file, tmp_path)
    assert "it does not fail here" in cli.ok("repro", good, "--rerun", seconds=SECONDS)


def healthy(file: Path, folder: Path) -> Path:
    """The bundle as if it were of a fault that is mended."""
    found = bundle.read(file)
    fields = {name: getattr(found.manifest, name) for name in found.manifest.__struct_fields__}
    path = folder / f"mended{bundle.SUFFIX}"
    bundle.write(path, bundle.Manifest(**{**fields, "plant": ""}), found.files)
    return path


def test_no_token_is_in_it_and_throughput_is_not_recorded(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    for name in ("test_leaky.py", "throughput.py"):
        (tmp_path / name).write_text(LEAKY.replace("SEEN", str(seen)))
        folder = tmp_path / f"kept-{name}"
        env = {**cli.env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        plugins = ("testbed.pytest_plugin", "testbed.pytest_plugin.evidence", "no:cacheprovider")
        words = [word for plugin in plugins for word in ("-p", plugin)]
        words += [f"--testbed-engine={cli.engine}", f"--testbed-evidence={folder}", name]
        command = [sys.executable, "-P", "-m", "pytest", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 1, done.stdout
        found = bundle.read(only(folder))
        tokens = [each.encode() for each in seen.read_text().split()]
        assert len(tokens) == 3
        assert [name for name, data in found.files.items() if any(each in data for each in tokens)] == []
        assert b"before *" in found.files["logs/blue1.log"]
        assert "told (a token)" in found.text("failure.txt")
        captures = [data for name, data in found.files.items() if name.startswith("captures/")]
        assert bool(captures) is (name == "test_leaky.py")
        assert name == "throughput.py" or any(b"*" * len(tokens[2]) in data for data in captures)
    said = cli.refused(2, "repro", only(folder), "--rerun")
    assert "is a test file of somebody's own" in said


def test_what_is_wrong_is_told(cli: Cli, tmp_path: Path) -> None:
    assert "No such file" in cli.refused(2, "repro", tmp_path / "none")
    file = tmp_path / "bad"
    file.write_bytes(b"\x28\xb5\x2f\xfdnonsense")
    assert "damaged" in cli.refused(2, "repro", file, "--rerun")
    assert "say one of them" in cli.refused(2, "repro", file, "--rerun", "--shell")
    assert "--name is for" in cli.refused(2, "repro", file, "--name", "x")
