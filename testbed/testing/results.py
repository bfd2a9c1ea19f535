"""What came of a run of suites: for people, for programs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

Outcome = Literal["passed", "failed", "flake", "skipped"]


class Result(Struct):
    """A test. flake: it failed, and passed when it was run again. text: why it failed or was skipped."""

    suite: str
    name: str
    outcome: Outcome
    seconds: float = 0.0
    text: str = ""
    bundle: str = ""  # the file with what is kept of a failure

    @property
    def id(self) -> str:
        """As it is shown."""
        return f"{self.suite}::{self.name}"


class Results(Struct):
    """All tests of a run, in the order in which they ended. seconds: by the clock."""

    tests: list[Result] = []
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing has failed, flakes included."""
        return not self.of("failed", "flake")

    def of(self, *outcomes: Outcome) -> list[Result]:
        """The tests with one of these outcomes."""
        return [each for each in self.tests if each.outcome in outcomes]

    def add(self, event: dict[str, Any]) -> None:
        """A phase of a test, from :mod:`testbed.pytest_plugin.report`."""
        file, _, name = event["id"].partition("::")
        suite = file.rpartition("/")[2].removesuffix(".py").replace("_", "-")
        outcome: Outcome = (
            "flake" if event.get("flake") and event["outcome"] == "failed" else event["outcome"]
        )
        new = Result(
            suite,
            name,
            outcome,
            event.get("seconds", 0.0),
            event["text"] if outcome != "passed" else "",
            event.get("bundle", ""),
        )
        for index, known in enumerate(self.tests):
            if known.id == new.id:  # its teardown has failed, too, or after all
                text = "\n".join(filter(None, [known.text, new.text]))
                bundle = known.bundle or new.bundle
                self.tests[index] = msgspec.structs.replace(new, text=text, bundle=bundle)
                return
        self.tests.append(new)

    def by_suite(self) -> list[dict[str, Any]]:
        """Numbers and seconds of each suite: {"suite", "passed", "failed", "flake", "skipped", "seconds"}."""
        rows: dict[str, dict[str, Any]] = {}
        for each in self.tests:
            empty = {"suite": each.suite, "passed": 0, "failed": 0, "flake": 0, "skipped": 0, "seconds": 0.0}
            row = rows.setdefault(each.suite, empty)
            row[each.outcome] += 1
            row["seconds"] = round(row["seconds"] + each.seconds, 3)
        return list(rows.values())

    def plain(self) -> dict[str, Any]:
        """{"ok", "seconds", "suites": [...], "tests": [a Result each]}."""
        tests = msgspec.to_builtins(self.tests)
        return {"ok": self.ok, "seconds": self.seconds, "suites": self.by_suite(), "tests": tests}
