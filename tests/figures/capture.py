"""Figures of captures: what they cost a stream of 1 Gbit/s.

    python tests/figures/capture.py [REPEAT]

Prints a JSON object: Mbit/s of one TCP stream over cables of 1 Gbit/s without a capture, with one at all
points whose VSID does not match, and with one of the stream itself (96 bytes of each packet). Medians of
REPEAT (default 5) runs by turns; ratio: the part of the first that the second has.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from nics import lab, rate  # noqa: E402

from testbed.lab import link  # noqa: E402
from testbed.lab.lab import Lab  # noqa: E402
from testbed.nic.faults import WAYS  # noqa: E402

CASES = {
    "nothing": None,
    "no match": ("*", "--vsid", "9999", "-w", "/dev/null"),
    "match": ("vm:*", "*:nic1", "cable:*", "--vsid", "5001", "-s", "96", "-w", "/dev/null"),
}
SECONDS = 20.0


@contextlib.contextmanager
def capturing(made: Lab, words: tuple[str, ...] | None) -> Iterator[None]:
    """A capture by the command line, if there is to be one."""
    if words is None:
        yield
        return
    command = [sys.executable, "-m", "testbed", "capture", made.record.name, *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            assert process.stderr.readline().startswith(b"capturing at")
            yield
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def main() -> None:
    """Measure and print."""
    repeat = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[float]] = {name: [] for name in CASES}
    with lab() as made:
        for host in ("host1", "host2"):
            link.change(made, f"{host}:nic1", WAYS, {"rate": "1gbit"})
        rate(made, [20000])
        for turn in range(repeat):
            for name in CASES if turn % 2 == 0 else reversed(CASES):
                with capturing(made, CASES[name]):
                    found[name].append(rate(made, [20000]))
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    print(json.dumps({**medians, "ratio": round(medians["no match"] / medians["nothing"], 3)}))


if __name__ == "__main__":
    main()
