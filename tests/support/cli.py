"""The ``testbed`` command as users run it: a process of its own, with a state folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import testbed

SOURCE = Path(testbed.__file__).parent.parent
TOPOLOGIES = SOURCE / "topologies"
FOUR_HOSTS = SOURCE / "topologies" / "4host.yaml"
TWO_HOSTS = SOURCE / "topologies" / "2host.yaml"
SECONDS = 90.0  # deadline of a command


class Cli:
    """``testbed`` with its own state folder. engine: the one that :meth:`up` asks for."""

    def __init__(self, state: Path, engine: str = "namespaces") -> None:
        self.state = state
        self.engine = engine
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
        own = {key: value for key, value in os.environ.items() if not key.startswith("TESTBED_")}
        self.env = {**own, "TESTBED_STATE_DIR": str(state), "PYTHONPATH": path}

    def argv(self, *words: object) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "testbed", *map(str, words)]

    def run(
        self, *words: object, stdin: bytes = b"", seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end, whatever its exit code."""
        return subprocess.run(
            self.argv(*words), env=self.env, input=stdin, capture_output=True, timeout=seconds, check=False
        )

    def start(self, *words: object, **more: Any) -> subprocess.Popen[bytes]:
        """Start a verb in the background; its output is kept unless ``more`` says otherwise."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.argv(*words), env=self.env, **{**streams, **more})

    def ok(self, *words: object, **more: Any) -> str:
        """Standard output of a verb that must succeed."""
        done = self.run(*words, **more)
        assert done.returncode == 0, (
            f"testbed {words}: exit {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        )
        return done.stdout.decode()

    def refused(self, code: int, *words: object, **more: Any) -> str:
        """Standard error of a verb that must end with ``code``; never a traceback."""
        done = self.run(*words, **more)
        said = done.stderr.decode()
        assert done.returncode == code, f"testbed {words}: exit {done.returncode}, not {code}\n{said}"
        assert "Traceback" not in said, said
        return said

    def json(self, *words: object, **more: Any) -> Any:
        """What a verb prints for programs."""
        return json.loads(self.ok(*words, "-f", "json", **more))

    # ---- labs -----------------------------------------------------------------------------

    def up(self, file: Path, *options: object, **more: Any) -> dict[str, Any]:
        """Bring a lab up with this engine; what ``inspect`` shows of it."""
        found: dict[str, Any] = self.json("up", file, "--engine", self.engine, *options, **more)
        return found

    def inspect(self, name: str) -> dict[str, Any]:
        """What ``inspect`` shows."""
        found: dict[str, Any] = self.json("inspect", name)
        return found

    def inside(
        self, name: str, node: str, *command: object, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a node."""
        return self.run("exec", name, node, "--", *command, **more)

    def output(self, name: str, node: str, *command: object, **more: Any) -> str:
        """Standard output of a command in a node that must succeed."""
        return self.ok("exec", name, node, "--", *command, **more)

    def names(self) -> list[str]:
        """Names of the labs in the state folder, read without the product's help."""
        folder = self.state / "labs"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @contextmanager
    def ended(self, process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is killed at the end of the block, if it still runs."""
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


def counters(cli: Cli, name: str, kind: str) -> list[dict[str, Any]]:
    """The counters of one kind, of all hosts."""
    return [each for each in cli.json("counters", name)["counters"] if each["kind"] == kind]


def drops(cli: Cli, name: str) -> dict[tuple[str, str, str], int]:
    """Packets dropped so far, by host, port or NIC, and reason (of all stages and VSIDs)."""
    found: dict[tuple[str, str, str], int] = {}
    for each in counters(cli, name, "drop"):
        key = each["host"], each["object"], each["fields"]["reason"]
        found[key] = found.get(key, 0) + each["fields"]["packets"]
    return found
