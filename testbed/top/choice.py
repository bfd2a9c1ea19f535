"""What the user has chosen to see, changed key by key. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.lab.activity import Row, View
from testbed.top.columns import VIEWS, cells

SORTS = ("lab", "name", "out", "in", "drops")  # "lab": as in the topology file
HELP = (
    ("1-7, Tab, Left, Right", "view: VMs, cables, queues, team, drops, VSIDs, hosts"),
    ("s", f"sort: {', '.join(SORTS)}; lab: its own order"),
    ("r", "reverse the order"),
    ("/", "only rows with a text; Enter keeps it, Esc removes it"),
    ("p, Space", "pause, go on"),
    ("Up, Down, PgUp, PgDn, Home", "scroll"),
    ("h, ?", "this help"),
    ("q", "quit"),
)
_PAGE = 10


@dataclass
class Choice:
    """view, order, filter and place. typing: the keys go into the filter. done: the view is to end."""

    view: View = "vms"
    sort: str = "lab"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    top: int = 0
    done: bool = False

    def press(self, key: str) -> None:
        """A key: a character, or the name of another one ("up", "enter", "escape")."""
        if self.typing:
            self._type(key)
        elif self.help:
            self.help = False
            self.done = key == "q"
        elif key.isdecimal() and 1 <= int(key) <= len(VIEWS):
            self._show(VIEWS[int(key) - 1])
        elif key in ("tab", "right", "left", "back-tab"):
            step = 1 if key in ("tab", "right") else -1
            self._show(VIEWS[(VIEWS.index(self.view) + step) % len(VIEWS)])
        elif key in ("up", "down", "page-up", "page-down", "home"):
            self._scroll(key)
        else:
            self._command(key)

    def _command(self, key: str) -> None:
        if key == "q":
            self.done = True
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key in ("p", " "):
            self.paused = not self.paused
        elif key in ("h", "?"):
            self.help = True
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.filter = ""

    def _type(self, key: str) -> None:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.filter = False, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self.filter += key
        self.top = 0

    def _show(self, view: View) -> None:
        self.view, self.top = view, 0

    def _scroll(self, key: str) -> None:
        step = {"up": -1, "down": 1, "page-up": -_PAGE, "page-down": _PAGE, "home": -self.top}[key]
        self.top = max(0, self.top + step)

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are wanted, in the order that is wanted."""
        text = self.filter.lower()
        found = [row for row in rows if any(text in cell.lower() for cell in cells(self.view, row))]
        if self.sort == "name":
            found.sort(
                key=lambda row: (row.host, row.object) if self.view != "vms" else (row.object, row.host)
            )
        elif self.sort != "lab":
            found.sort(key=self._amount, reverse=True)
        return found[::-1] if self.reverse else found

    def _amount(self, row: Row) -> float:
        if self.sort == "drops":
            return row.drops or 0.0
        out = self.sort == "out"
        bits, packets = (row.out_bits, row.out_packets) if out else (row.in_bits, row.in_packets)
        return bits if bits is not None else packets or 0.0
