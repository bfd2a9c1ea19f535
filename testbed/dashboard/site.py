"""The page's files, and how they get into a folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from testbed.dashboard import bundle
from testbed.dashboard.data import THRESHOLD, Page, to_json
from testbed.dashboard.goals import Goal
from testbed.dashboard.model import Detail, Index
from testbed.errors import BadInput
from testbed.results.compare import Comparison, compare
from testbed.results.store import Results, reading

PAGE = Path(__file__).parent / "page"
MARK = ".testbed-dashboard"
"""A folder with this file was written by :func:`export`, and may be written again."""


class Site:
    """A results file as a page. files: what every page has; index and details: of these runs."""

    def __init__(self, path: Path, goals: Sequence[Goal], *, served: bool) -> None:
        self.script = bundle.require()
        with reading(path) as results:
            page = Page()
            for head in results.heads():
                run = results.load(head.id)
                if run is not None:
                    page.add(run)
            self.index: Index = page.index(path.name, goals, served=served)
            self.details: dict[str, Detail] = page.details
            self._names = page.names
            if not served:
                self._compare_newest(results)

    def data(self) -> bytes:
        """The text of data.js."""
        return b"window.DASHBOARD = " + to_json(self.index) + b";\n"

    def detail(self, name: str) -> bytes:
        """The text of classes/NAME.js. Raises KeyError for a class that is not there."""
        return b"window.DASHBOARD_DETAIL(" + to_json(name) + b", " + to_json(self.details[name]) + b");\n"

    def _compare_newest(self, results: Results) -> None:
        """Compare the newest batch that has something alike before it with the last such one."""
        pair: tuple[int, int] | None = None
        last: dict[int, int] = {}  # by class: the batch
        for of, batch in sorted(
            zip(self.index.runs.of, self.index.runs.batch, strict=True), key=itemgetter(1)
        ):
            other = last.get(of, batch)
            if other != batch and (pair is None or pair < (batch, other)):
                pair = (batch, other)
            last[of] = batch
        if pair:
            self.index.compared = self.compare(results, pair[1], pair[0])
            self.index.compared_batches = (self.index.batches[pair[1]].id, self.index.batches[pair[0]].id)

    def compare(self, results: Results, base: int, new: int) -> Comparison:
        """All metrics of two batches of the open file. Raises BadInput where they have nothing alike."""
        sides = [
            [run for name in self._members(batch) if (run := results.load(name)) is not None]
            for batch in (base, new)
        ]
        names = (self.index.batches[base].id, self.index.batches[new].id)
        return compare(sides[0], sides[1], names, threshold=THRESHOLD)

    def _members(self, batch: int) -> list[str]:
        return [name for name, each in zip(self._names, self.index.runs.batch, strict=True) if each == batch]


def fixed() -> list[Path]:
    """The files that do not depend on the runs."""
    return sorted(path for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js"))


def export(site: Site, folder: Path) -> int:
    """Write all of it into ``folder``, or nothing; returns the bytes.

    Raises BadInput for a folder that is no dashboard and not empty.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MARK).exists() or not any(folder.iterdir()))):
        raise BadInput(f"{folder}: is there, and no dashboard that was exported: name another folder")
    if not folder.absolute().parent.is_dir():
        raise BadInput(f"{folder}: there is no folder {folder.absolute().parent}")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as scratch:
        made = Path(scratch) / "new"
        _write(site, made)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        made.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(site: Site, folder: Path) -> None:
    (folder / "classes").mkdir(parents=True)
    (folder / MARK).write_text("")
    for path in fixed():
        shutil.copyfile(path, folder / path.name)
    (folder / "data.js").write_bytes(site.data())
    for name in site.details:
        (folder / "classes" / f"{name}.js").write_bytes(site.detail(name))
