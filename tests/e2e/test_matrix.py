"""`testbed matrix` as users run it: several labs at once, results as files, nothing left behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.cli import TWO_HOSTS, Cli
from support.matrices import written
from support.waiting import until

pytestmark = pytest.mark.e2e
SECONDS = 200.0
SMALL = "topology: [2host]\nengine: [namespaces]\nnic: [modern, r2]\nsuites: [mtu]"


def left(cli: Cli) -> list[str]:
    """Folders of cells that are still there."""
    return [path.name for path in cli.state.glob("matrix-*")]


def test_cells_run_and_what_came_of_them_is_kept(cli: Cli, tmp_path: Path) -> None:
    file, out = written(tmp_path, SMALL), tmp_path / "out"
    told = cli.json("matrix", file, "--output", out, "-n", 2, seconds=SECONDS)
    assert told["ok"]
    assert [each["outcome"] for each in told["cells"]] == ["passed", "passed"]
    assert json.loads((out / "results.json").read_text())["cells"] == told["cells"]
    suites = ET.parse(out / "junit.xml").getroot()
    assert {suite.get("name") for suite in suites} == {
        "2host.namespaces.nic-modern.mtu",
        "2host.namespaces.nic-r2.mtu",
    }
    assert len(suites.findall(".//testcase")) == sum(len(each["tests"]) for each in told["cells"]) > 0
    assert "nic-r2.mtu` | ✅ passed" in (out / "summary.md").read_text()
    assert left(cli) == []


def test_a_lab_that_cannot_be_built_is_no_failed_test(cli: Cli, tmp_path: Path) -> None:
    text = TWO_HOSTS.read_text().replace("    vnics:", "    exec: ['{{ command }}']\n    vnics:", 1)
    (tmp_path / "lab.yaml").write_text(text)
    file = written(
        tmp_path, "topology: [lab]\nengine: [namespaces]\ncommand: ['true', 'false']\nsuites: [mtu]"
    )
    out = tmp_path / "out"
    said = cli.refused(3, "matrix", file, "--output", out, seconds=SECONDS)
    assert "error: lab.namespaces.command-false.mtu" in said
    data = json.loads((out / "results.json").read_text())
    found = {each["cell"].split(".")[2]: each for each in data["cells"]}
    assert found["command-true"]["outcome"] == "passed"
    assert (found["command-false"]["outcome"], found["command-false"]["exit"]) == ("error", 3)
    assert found["command-false"]["text"]
    assert left(cli) == []


def test_a_failed_test_has_its_bundle(cli: Cli, tmp_path: Path) -> None:
    """A VM takes another MTU than was decided."""
    wrong = "    exec: ['ip link set eth0 mtu 1400']\n    vnics:"
    (tmp_path / "lab.yaml").write_text(TWO_HOSTS.read_text().replace("    vnics:", wrong, 1))
    file, out = written(tmp_path, "topology: [lab]\nengine: [namespaces]\nsuites: [mtu]"), tmp_path / "out"
    done = cli.run("matrix", file, "--output", out, seconds=SECONDS)
    assert done.returncode == 1, done.stderr.decode()
    (cell,) = json.loads((out / "results.json").read_text())["cells"]
    assert cell["outcome"] == "failed"
    bundle = next(Path(each["bundle"]) for each in cell["tests"] if each["name"].startswith("test_kernels"))
    assert bundle.parent == out / "cells" / cell["cell"]
    assert cli.json("repro", bundle)["test"] == "mtu::test_kernels_have_the_mtu_that_was_decided"
    assert f"`testbed repro {bundle.name} --rerun`" in (out / "summary.md").read_text()


def test_a_cell_that_takes_too_long_is_ended(cli: Cli, tmp_path: Path) -> None:
    text = TWO_HOSTS.read_text().replace("    vnics:", "    exec: ['sleep 100']\n    vnics:", 1)
    (tmp_path / "lab.yaml").write_text(text)
    file = written(tmp_path, "topology: [lab]\nengine: [namespaces]", "name: m\nseconds: 10\n")
    out = tmp_path / "out"
    cli.refused(1, "matrix", file, "--output", out, seconds=SECONDS)
    (cell,) = json.loads((out / "results.json").read_text())["cells"]
    assert cell["outcome"] == "timeout"
    assert "after 10 s" in cell["text"]
    assert cell["took"] < 60, "it was not ended, it has come to its end"
    assert left(cli) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    file, out = written(tmp_path, SMALL), tmp_path / "out"
    process = cli.start("matrix", file, "--output", out, "-n", 2)
    with cli.ended(process):
        until(lambda: len(list(cli.state.glob("matrix-*/*/labs/*/plan.json"))) == 2, "no two labs", SECONDS)
        process.send_signal(number)
        assert process.wait(SECONDS) == 128 + number
    assert left(cli) == []
    data = json.loads((out / "results.json").read_text())
    assert len(data["not_run"]) == 2
    assert not data["ok"]


def test_lists_and_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path, SMALL)
    names = [each["cell"] for each in cli.json("matrix", file, "--list")]
    line = cli.ok("matrix", file, "--list", "-f", "github")
    assert [each["cell"] for each in json.loads(line)["include"]] == names
    assert [each["cell"] for each in cli.json("matrix", file, "--list", "--shard", "2/2")] == names[1:]
    assert [each["cell"] for each in cli.json("matrix", file, "--list", "--cell", "*.nic-r2.*")] == names[1:]
    for words, reason in (
        (("--format", "github"), "use it with --list"),
        (("--cell", "none"), "no such cell; see"),
        (("--shard", "3"), "write it as I/N"),
        (("-n", "0"), "use auto, or 1 to 64"),
    ):
        assert reason in cli.refused(2, "matrix", file, *words)
    assert "raise --memory" in cli.refused(4, "matrix", file, "--memory", 100)
