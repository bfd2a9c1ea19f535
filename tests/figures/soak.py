"""All suites many times in a row, through the command line: no failure, no flake, nothing left behind.

    python tests/figures/soak.py [--runs 10] [--engine namespaces] [--topology 4host] [--suite NAME] [--alone]

Prints a line for each run: seconds, outcomes, what is left. Ends with exit code 1 if a test failed or
was a flake, or if anything was left. --alone: nobody else uses this machine meanwhile, so that whatever is
new on it counts: namespaces, mounts, links, containers, networks, eBPF programs, files in /run, /dev/shm
and /tmp. Without it, only what carries the runs' own marks counts, and what is new in the machine's own
network. Bundles of failures go to ./testbed-evidence.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import labs, machine, whole_machine  # noqa: E402
from support.cli import Cli  # noqa: E402

SECONDS = 1200.0  # deadline of a run
SETTLE_SECONDS = 20.0  # the kernel ends namespaces and programs in its own time
OUTCOMES = ("passed", "failed", "flake", "skipped")


def main() -> int:
    """The runs; the exit code."""
    asked = _asked()
    machine.become_subreaper()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        cli = Cli(folder / "state", asked.engine)
        cli.env["TMPDIR"] = str(folder / "tmp")
        Path(cli.env["TMPDIR"]).mkdir()
        machine.docker_objects()  # whatever a first question leaves in this process is there before
        for number in range(1, asked.runs + 1):
            bad += not _run(cli, asked, folder, f"run {number} of {asked.runs}")
    print(f"{asked.runs} runs, {bad} not clean")
    return 1 if bad else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--engine", default="namespaces")
    parser.add_argument("--topology", default="4host")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--alone", action="store_true")
    return parser.parse_args()


def _run(cli: Cli, asked: argparse.Namespace, folder: Path, what: str) -> bool:
    """One run of all suites; whether it was clean."""
    before = machine.snapshot()
    whole = whole_machine.snapshot() if asked.alone else {}
    began = time.monotonic()
    words = [
        "test",
        asked.topology,
        "--engine",
        asked.engine,
        "--evidence",
        Path("testbed-evidence").absolute(),
    ]
    words += [word for suite in asked.suite for word in ("--suite", suite)]
    done = cli.run(*words, "-f", "json", seconds=SECONDS)
    seconds = time.monotonic() - began
    left = [*machine.leaks(before, folder), *labs.state_left(cli.state)]
    left += [f"{path} is left" for path in Path(cli.env["TMPDIR"]).iterdir()]
    if asked.alone:
        left += machine.settled(lambda: whole_machine.added(whole, whole_machine.snapshot()), SETTLE_SECONDS)
    tests: list[dict[str, Any]] = json.loads(done.stdout)["tests"] if done.returncode in (0, 1) else []
    counts = {outcome: sum(each["outcome"] == outcome for each in tests) for outcome in OUTCOMES}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{what}: {seconds:.1f} s; {told}; {len(left) or 'nothing'} left", flush=True)
    for each in tests:
        if each["outcome"] != "passed":
            print(f"  {each['suite']}::{each['name']}: {each['outcome']}: {each['text']} {each['bundle']}")
    if not tests:
        print(f"  exit code {done.returncode}\n{done.stderr.decode()}")
    for line in left:
        print(f"  {line}")
    return done.returncode == 0 and not left


if __name__ == "__main__":
    sys.exit(main())
