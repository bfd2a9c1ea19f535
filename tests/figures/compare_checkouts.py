"""Is one checkout as fast as another? Both beside the kernel's VXLAN, in turns.

    python tests/figures/compare_checkouts.py OLD NEW --wire aggregated

OLD and NEW are checkouts; both run 4host at the same time with this interpreter, and are measured in
blocks of pairs, one checkout after the other. Printed: the ratio to VXLAN of each, and of NEW to OLD
(ratio to VXLAN against ratio to VXLAN, in the order they were measured). Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from statistics_of import shown


def testbed(checkout: Path, state: Path, *words: str) -> Any:
    """Run a verb of a checkout; its JSON."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "TESTBED_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "testbed", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(words)}: {done.stderr}")
    return json.loads(done.stdout) if done.stdout.startswith("{") else None


def ratios(result: Any) -> list[float]:
    """Ours to VXLAN's, pair by pair."""
    runs = result["runs"]
    pairs = [runs[i : i + 2] for i in range(0, len(runs), 2)]
    speeds = [{run["path"]: run["gigabits_per_second"] for run in pair} for pair in pairs]
    return [speed["wnv"] / speed["vxlan"] for speed in speeds]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--wire", default="aggregated", choices=["aggregated", "frames"])
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5, help="in each block")
    given = parser.parse_args()
    checkouts = {"old": given.old.resolve(), "new": given.new.resolve()}
    found: dict[str, list[float]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        states = {name: Path(folder) / name for name in checkouts}
        for name, checkout in checkouts.items():
            testbed(checkout, states[name], "up", "topologies/4host.yaml", "--engine", "namespaces")
        try:
            for block in range(given.blocks):
                for name in ("old", "new") if block % 2 == 0 else ("new", "old"):
                    words = ["bench", "4host", "--baseline", "vxlan", "--wire", given.wire, "--seconds", "1"]
                    words += ["--repeat", str(given.pairs), "-f", "json"]
                    found[name] += ratios(testbed(checkouts[name], states[name], *words))
        finally:
            for name, checkout in checkouts.items():
                testbed(checkout, states[name], "down", "4host")
    for name, values in found.items():
        print(f"{name} to VXLAN, wire {given.wire}: {shown(values)}")
    print("new to old:", shown([new / old for old, new in zip(found["old"], found["new"], strict=True)]))


if __name__ == "__main__":
    main()
