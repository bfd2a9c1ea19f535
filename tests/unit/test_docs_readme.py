"""The README keeps its promises; links of all documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.cli.main import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    path for folder in (".", "docs", "images", "topologies") for path in (ROOT / folder).glob("*.md")
)
QUICK_START = ["sudo ./testbed.sh up topologies/4host.yaml", "sudo ./run-tests.sh"]
# Words that tell of a workplace and not of the project.
FOREIGN = re.compile(r"/home/|/tmp/|/root/|\bTODO\b|\bFIXME\b")


def anchors(path: Path) -> set[str]:
    """The anchors that a Markdown viewer makes of a document's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_quick_start_is_two_commands() -> None:
    part = README.partition("\n## Quick start\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\w*\n(.*?)```", part, re.DOTALL)
    assert [block.splitlines() for block in blocks] == [QUICK_START]
    for command in QUICK_START:
        script = ROOT / command.split()[1]
        assert script.stat().st_mode & 0o100, f"{script} is not executable"


def test_commands_in_documents_exist() -> None:
    unknown = []
    for path in DOCUMENTS:
        for verb, rest in re.findall(r"`testbed ([a-z][a-z-]*)([^`\n]*)`", path.read_text()):
            command = cli.commands.get(verb)
            if command is None:
                unknown.append(f"{path.name}: testbed {verb}")
                continue
            options = {each for parameter in command.params for each in parameter.opts}
            asked = re.findall(r" (--[a-z]+[a-z-]*)", rest.partition(" -- ")[0])
            unknown += [f"{path.name}: testbed {verb} {option}" for option in asked if option not in options]
    assert unknown == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(
        r"`((?:testbed|tests|images|topologies|docs|scripts)/[\w./-]+\.(?:py|c|md|yaml|json|txt|sh))`",
        path.read_text(),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_speaks_of_a_workplace(path: Path) -> None:
    assert FOREIGN.findall(path.read_text()) == []


def test_every_document_can_be_found_from_the_readme() -> None:
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name})" not in README] == []
