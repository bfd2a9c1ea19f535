"""What documents say, as the tests compare it with the code."""

from __future__ import annotations

import re

from support.cli import SOURCE

TESTING = (SOURCE / "docs" / "testing.md").read_text()


def example() -> str:
    """The test file that docs/testing.md shows."""
    (found,) = re.findall(r"```python\n(.*?)```", TESTING, re.DOTALL)
    return str(found)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading of docs/testing.md, without its head; no backquotes."""
    part = TESTING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]
