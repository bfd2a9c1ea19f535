"""docs/cli.md describes every verb, option and variable of the command tree and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from testbed import errors
from testbed.cli.main import INTERRUPTED, cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cli.md").read_text()


def verbs(group: click.Group, before: str = "testbed") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


VERBS = dict(verbs(cli))


def sections() -> dict[str, str]:
    """Text by the words of its heading: "testbed up FILE"."""
    parts = re.split(r"^## (testbed .*)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(verb: str) -> tuple[str, str]:
    found = [(heading, text) for heading, text in sections().items() if f"{heading} ".startswith(f"{verb} ")]
    assert len(found) == 1, f"{verb}: {len(found)} sections"
    return found[0]


def test_no_section_is_about_a_verb_that_is_gone() -> None:
    gone = [
        heading for heading in sections() if not any(f"{heading} ".startswith(f"{verb} ") for verb in VERBS)
    ]
    assert gone == []


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_stand_in_the_heading(verb: str) -> None:
    heading, _ = section(verb)
    for parameter in VERBS[verb].params:
        if isinstance(parameter, click.Argument):
            assert str(parameter.name).upper().removesuffix("S") in heading


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_described_and_no_other(verb: str) -> None:
    _, text = section(verb)
    rows = re.findall(r"^\| (`-.*?`) \| `(\w+)` \| \S", text, re.MULTILINE)
    described = {variable: set(re.findall(r"`(-[\w-]+)", options)) for options, variable in rows}
    prefix = re.sub(r"[ -]", "_", verb.upper())
    wanted = {
        f"{prefix}_{str(option.name).upper()}": set(option.opts)
        for option in VERBS[verb].params
        if isinstance(option, click.Option)
    }
    assert described == wanted


@pytest.mark.parametrize("verb", VERBS)
def test_choices_and_defaults_are_told(verb: str) -> None:
    _, text = section(verb)
    for option in VERBS[verb].params:
        if not isinstance(option, click.Option):
            continue
        row = next(line for line in text.splitlines() if f"`{option.opts[-1]}" in line)
        if isinstance(option.type, click.Choice):
            assert all(str(choice) in row for choice in option.type.choices), row
        if isinstance(option.default, int) and not option.is_flag:
            assert f"default {option.default}" in row


def test_exit_codes_are_those_of_the_errors() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    raised = {error.exit_code for error in errors.TestbedError.__subclasses__()}
    assert table == raised | {0, INTERRUPTED}


def test_the_variable_of_an_option_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_RENDER_SETTINGS", "hosts=3 vms_per_host=1")
    context = cli.make_context("testbed", ["render", "x.yaml"])
    render = VERBS["testbed render"]
    inner = render.make_context("render", ["x.yaml"], parent=context)
    assert inner.params["settings"] == ("hosts=3", "vms_per_host=1")
