"""Figures of emulated NICs: queues and processors, and what NVGRE offload is worth.

    python tests/figures/nics.py [REPEAT]

Prints a JSON object: Mbit/s, medians of REPEAT (default 5) alternated runs. Ratios to the kernel's VXLAN:
``testbed bench LAB --baseline vxlan --nic PROFILE --wire WIRE [--guest-lso off]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from testbed.engines.select import by_name  # noqa: E402
from testbed.lab import build, nic  # noqa: E402
from testbed.lab.lab import Lab  # noqa: E402
from testbed.testing import streams  # noqa: E402
from testbed.topology import plan_from_file  # noqa: E402
from testbed.topology.profiles import Profiles  # noqa: E402
from testbed.topology.schema import Nic  # noqa: E402

SECONDS = 3.0
SOURCE, TARGET, PORT = "10.0.0.5", "10.0.0.6", 7100
QUEUES = 4
TABLE = tuple(position % QUEUES for position in range(128))
STREAMS = [queue for queue in range(QUEUES) for _ in range(2)]  # two flows for each queue


@contextlib.contextmanager
def lab(**variables: str) -> Iterator[Lab]:
    """Two hosts on namespaces, in a state folder of its own."""
    with tempfile.TemporaryDirectory() as state:
        os.environ["TESTBED_STATE_DIR"] = state
        file = ROOT / "topologies" / "2host.yaml"
        plan = plan_from_file(file, variables)
        made = build.up(plan, by_name("namespaces"), None, str(file), lambda _: None)
        try:
            yield made
        finally:
            made.close()
            build.down("2host")


def take(made: Lab, profile: str, table: tuple[int, ...] = (), **offloads: bool) -> None:
    """Make the NICs of both hosts of a profile, with some tasks switched."""
    wanted = Profiles(ROOT).offloads(Nic(name="nic", profile=profile)).changed(offloads)
    for host in ("host1", "host2"):
        nic.replace(made, host, "nic1", wanted)
        if table:
            nic.change(made, host, [], {}, {"table": list(table)})


def rate(made: Lab, sources: list[int]) -> float:
    """Mbit/s of TCP payload."""
    client, server = made.netns("blue1"), made.netns("blue2")
    return streams.run(client, server, TARGET, sources, port=PORT, seconds=SECONDS) * 8 / SECONDS / 1e6


def compare(cases: dict[str, Callable[[], float]], repeat: int) -> dict[str, float]:
    """Median of each case, run by turns."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeat):
        names = list(cases) if turn % 2 == 0 else list(reversed(cases))
        for name in names:
            found[name].append(cases[name]())
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def with_ratio(found: dict[str, float], above: str, below: str) -> dict[str, float]:
    return {**found, "ratio": round(found[above] / found[below], 2)}


def processors(repeat: int) -> dict[str, dict[str, float]]:
    """Eight streams, four processors of five per cent: one queue or four, with NVGRE offload and without."""
    sources = streams.ports_for(STREAMS, SOURCE, TARGET, PORT, TABLE)
    rss = {"rss": True, "vmq": False}
    with lab(processors="4", budget="5") as made:  # so little that two real cores carry four of them

        def case(profile: str, table: tuple[int, ...]) -> Callable[[], float]:
            def run() -> float:
                take(made, profile, table, **rss)
                return rate(made, sources)

            return run

        found = compare(
            {
                "r2-nvgre, 4 queues": case("r2-nvgre", TABLE),
                "r2-nvgre, 1 queue": case("r2-nvgre", (0,)),
                "r2, 4 queues": case("r2", TABLE),
                "r2, 1 queue": case("r2", (0,)),
            },
            repeat,
        )
    return {
        "RSS with NVGRE offload": with_ratio(found, "r2-nvgre, 4 queues", "r2-nvgre, 1 queue"),
        "RSS without": with_ratio(found, "r2, 4 queues", "r2, 1 queue"),
        "NVGRE offload": with_ratio(found, "r2-nvgre, 4 queues", "r2, 4 queues"),
    }


def coalescing(repeat: int) -> dict[str, float]:
    """One stream, no budget: everything offloaded, or nothing of NVGRE."""
    with lab() as made:

        def case(profile: str) -> Callable[[], float]:
            def run() -> float:
                take(made, profile)
                return rate(made, [20000])

            return run

        return with_ratio(compare({"modern": case("modern"), "r2": case("r2")}, repeat), "modern", "r2")


def main(repeat: int = 5) -> None:
    print(json.dumps({**processors(repeat), "one stream": coalescing(repeat)}, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
