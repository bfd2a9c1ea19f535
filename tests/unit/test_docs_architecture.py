"""docs/architecture.md and the README say what the code says: path, drop reasons, import rules."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.host.diagnostics import Diagnostics
from testbed.switch.drops import Drop
from testbed.switch.pipeline import PIPELINES, STAGES

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


# ---- the path of a packet -----------------------------------------------------------------


def paths(document: Path) -> list[tuple[str, ...]]:
    """The paths of a packet that a document draws."""
    lines = document.read_text().splitlines()
    return [tuple(line.split(" -> ")) for line in lines if line.startswith("port -> ")]


def test_the_paths_are_the_pipelines() -> None:
    assert paths(ARCHITECTURE) == [*PIPELINES.values()]
    assert paths(ROOT / "README.md") == [PIPELINES["in-switch"]]


def test_every_stage_is_described_in_its_place() -> None:
    part = section(ARCHITECTURE.read_text(), "The path of a packet")
    rows = re.findall(r"^\| `([a-z-]+)` \|", part, re.MULTILINE)
    assert rows == [*STAGES]


# ---- drop reasons -------------------------------------------------------------------------


def test_every_drop_reason_is_explained_and_no_other() -> None:
    part = section(ARCHITECTURE.read_text(), "Drop reasons")
    rows = re.findall(r"^\| `([a-z-]+)` \| \S", part, re.MULTILINE)
    assert sorted(rows) == sorted(Drop)


# ---- requests to a host -------------------------------------------------------------------


def test_every_request_for_diagnostics_is_explained_and_no_other() -> None:
    part = section(ARCHITECTURE.read_text(), "Processes of a host")
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \| \S", part, re.MULTILINE)
    explained = [request for row in rows for request in re.findall(r"`([a-z-]+)`", row)]
    nothing: Any = None
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert sorted(explained) == sorted(Diagnostics(loop, nothing, nothing, list).answers)


# ---- imports ------------------------------------------------------------------------------


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file; those for type checkers alone too."""
    package = module(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


IMPORTS = {module(path): set(imports(path)) for path in sorted((ROOT / "testbed").rglob("*.py"))}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offenders(importers: tuple[str, ...], imported: tuple[str, ...], *, outside: bool = False) -> list[str]:
    """Who of ``importers`` (or, with ``outside``, who but them) imports any of ``imported``."""
    return [
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        if within(name, *importers) is not outside
        for target in sorted(targets)
        if within(target, *imported)
    ]


def test_the_reader_of_imports_sees_them() -> None:
    assert "testbed.switch.pipeline" in IMPORTS["testbed.switch.datapath"]
    assert "docker" in IMPORTS["testbed.engines.docker.client"]  # inside a function
    assert "pyroute2" in IMPORTS["testbed.wiring.fabric"]


def test_packets_import_nothing_of_ours_but_themselves() -> None:
    foreign = [
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        if within(name, "testbed.packets")
        for target in sorted(targets)
        if within(target, "testbed") and not within(target, "testbed.packets")
    ]
    assert foreign == []


def test_the_topology_knows_nothing_of_labs() -> None:
    above = ("testbed.engines", "testbed.lab", "testbed.wiring", "testbed.host", "testbed.cli")
    assert offenders(("testbed.topology",), above) == []


def test_only_engines_import_docker() -> None:
    assert offenders(("testbed.engines",), ("docker",), outside=True) == []


def test_only_wiring_perf_and_doctor_import_pyroute2() -> None:
    allowed = ("testbed.wiring", "testbed.perf", "testbed.doctor")
    assert offenders(allowed, ("pyroute2",), outside=True) == []


def test_wiring_and_engines_do_not_know_each_other() -> None:
    assert offenders(("testbed.wiring",), ("testbed.engines", "testbed.lab")) == []
    assert offenders(("testbed.engines",), ("testbed.wiring", "testbed.lab")) == []


def test_conformance_is_above_the_lab() -> None:
    above = ("testbed.cli", "testbed.conformance", "testbed.testing", "testbed.suites", "testbed.matrix")
    assert offenders(above, ("testbed.conformance",), outside=True) == []
    # it builds its frames by itself: a fault of the codecs must not agree with itself
    assert offenders(("testbed.conformance",), ("testbed.packets", "testbed.wnv", "testbed.host")) == []


def test_what_tests_are_written_with_is_above_everything_but_the_command_line() -> None:
    above = ("testbed.testing", "testbed.suites", "testbed.pytest_plugin")
    users = ("testbed.cli", "testbed.matrix", "testbed.evidence")
    assert offenders((*above, *users), above, outside=True) == []
    codecs = ("testbed.packets", "testbed.wnv", "testbed.host")
    assert offenders(("testbed.testing", "testbed.suites"), codecs) == []


def test_only_plants_reach_into_the_switch_to_break_it() -> None:
    allowed = ("testbed.plants", "testbed.lab.build", "testbed.host.main", "testbed.cli", "testbed.testing")
    allowed += ("testbed.evidence",)
    assert offenders(allowed, ("testbed.plants",), outside=True) == []


def test_only_the_vmm_knows_its_framework() -> None:
    vmm = ("testbed.vmm",)
    assert offenders(vmm, ("litestar", "uvicorn"), outside=True) == []
    inside = ("testbed.vmm.api", "testbed.vmm.rules", "testbed.vmm.store", "testbed.vmm.main")
    assert offenders(vmm, inside, outside=True) == []
    assert offenders(vmm, ("testbed.engines", "testbed.lab", "testbed.host", "testbed.cli", "docker")) == []


def test_results_know_no_lab() -> None:
    above = (
        "testbed.cli",
        "testbed.lab",
        "testbed.engines",
        "testbed.wiring",
        "testbed.perf",
        "testbed.host",
    )
    assert offenders(("testbed.results",), above) == []


def test_nobody_imports_the_command_line() -> None:
    assert offenders(("testbed.cli", "testbed.__main__"), ("testbed.cli",), outside=True) == []


def test_the_host_process_stays_lean() -> None:
    code = "import json, sys, testbed.host.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    loaded = set(json.loads(done.stdout))
    assert "testbed.switch.datapath" in loaded
    assert loaded & {"pyroute2", "docker", "rich", "click", "yaml", "jinja2", "iperf3"} == set()
