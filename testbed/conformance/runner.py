"""Runs statements and tells the verdict on each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from testbed.conformance import oracle
from testbed.conformance.labs import Labs, Progress
from testbed.conformance.outcome import Failed, NotShown
from testbed.conformance.statements import DEFAULT, FEATURES, STATEMENTS, TOPOLOGY, Statement
from testbed.engines.base import Engine
from testbed.errors import BadInput, MachineLacks

Verdict = Literal["pass", "fail", "chosen"]
Check = Callable[..., str]


class Result(Struct, frozen=True):
    """What was found about a statement."""

    number: int
    text: str
    source: str
    verdict: Verdict
    evidence: str


def chosen_statements(numbers: Collection[int]) -> tuple[Statement, ...]:
    """The statements of these numbers, all of them where there are none. Raises BadInput."""
    known = {statement.number for statement in STATEMENTS}
    if unknown := sorted(set(numbers) - known):
        raise BadInput(f"there is no statement {unknown[0]}: {min(known)} to {max(known)}")
    return tuple(each for each in STATEMENTS if not numbers or each.number in numbers)


def run(topology: Path | None, numbers: Collection[int], engine: Engine, progress: Progress) -> list[Result]:
    """The verdicts on the statements of these numbers (none: all). The labs are gone when it returns.

    Raises BadInput, MachineLacks, and LabError where a lab cannot be built.
    """
    statements = chosen_statements(numbers)
    oracle.require()
    with Labs(topology, engine, progress) as labs:
        return [_judge(statement, labs, progress) for statement in statements]


def _judge(statement: Statement, labs: Labs, progress: Progress) -> Result:
    progress(f"statement {statement.number}")
    verdict, evidence = _try(statement, labs)
    return Result(statement.number, statement.text, statement.source, verdict, evidence)


def _try(statement: Statement, labs: Labs) -> tuple[Verdict, str]:
    """On the statement's labs; one for the user's topology may be shown on our own instead."""
    tries = [statement.labs]
    if statement.labs == (TOPOLOGY,):
        tries += [(DEFAULT,), (FEATURES,)]
    lacking = []
    for names in tries:
        scenes = [labs.scene(name) for name in names]
        try:
            evidence = _check(statement)(*scenes)
        except NotShown as error:
            lacking.append(str(error))
        except Failed as error:
            return "fail", str(error)
        except MachineLacks:
            raise
        except Exception as error:  # a check that breaks must not hide the other verdicts
            return "fail", f"{type(error).__name__}: {error}"
        else:
            return (
                ("chosen", f"{evidence}. Chosen: {statement.choice}")
                if statement.choice
                else ("pass", evidence)
            )
    return "fail", f"no lab could show it: {'; '.join(dict.fromkeys(lacking))}"


def _check(statement: Statement) -> Check:
    module, _, function = statement.check.partition(".")
    found: Any = getattr(importlib.import_module(f"testbed.conformance.{module}"), function)
    return found  # type: ignore[no-any-return]
