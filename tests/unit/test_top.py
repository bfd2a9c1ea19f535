"""testbed.top: keys, what they change, and a screen that always has the terminal's size."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console
from rich.screen import Screen

from support.samples import everything, reading
from testbed.cli import top
from testbed.lab.activity import Activity, Row, activity
from testbed.lab.sample import Sample
from testbed.top.choice import SORTS, Choice
from testbed.top.columns import TITLES, VIEWS, cells, headings, number
from testbed.top.keys import parse
from testbed.top.screen import draw

BEFORE = msgspec.structs.replace(everything(), readings={"host1": reading(0.0), "fabric": reading(0.0)})
SHOWN = activity(BEFORE, everything())


def lines(shown: Activity, choice: Choice, width: int = 80, height: int = 24) -> list[str]:
    """What a terminal of this size shows, without blanks at the ends of lines."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    for line in console.render_lines(Screen(draw(shown, choice, console)), pad=False):
        file.write("".join(segment.text for segment in line).rstrip() + "\n")
    return file.getvalue().splitlines()


def many(count: int) -> Activity:
    rows = tuple(Row(f"vm{n}", "host1", "running", "5001", out_bits=float(n)) for n in range(count))
    return msgspec.structs.replace(SHOWN, vms=rows)


def objects(found: list[str]) -> list[str]:
    return [line.split()[0] for line in found if line.startswith("vm")]


def test_keys_are_told_apart() -> None:
    assert parse("q\x1b[A\x1bOB\x1b[5~\t\x7f\r") == [
        "q",
        "up",
        "down",
        "page-up",
        "tab",
        "backspace",
        "enter",
    ]
    assert parse("\x1b") == ["escape"]
    assert parse("\x1b[15~x") == ["x"]  # F5 is nobody's


def test_views_are_chosen_by_number_and_by_turns() -> None:
    choice = Choice()
    seen = []
    for key in ("3", "tab", "left", "left", "7", "right", "left", "8", "0"):
        choice.press(key)
        seen.append(choice.view)
    assert seen == ["queues", "team", "queues", "cables", "hosts", "vms", "hosts", "hosts", "hosts"]


def test_a_filter_is_typed_kept_and_removed() -> None:
    choice = Choice()
    for key in ("/", "q", "v", "backspace", "s", "up"):
        choice.press(key)
    assert (choice.filter, choice.typing, choice.done) == ("qs", True, False)
    choice.press("enter")
    assert (choice.filter, choice.typing) == ("qs", False)
    choice.press("escape")
    assert choice.filter == ""
    for key in ("/", "x", "escape"):
        choice.press(key)
    assert (choice.filter, choice.typing) == ("", False)
    choice.filter = "VM1"
    assert [row.object for row in choice.of(many(12).vms)] == ["vm1", "vm10", "vm11"]


def test_the_order() -> None:
    rows = [
        Row("b", "host1", out_bits=1.0, in_packets=5.0, drops=0.0),
        Row("a", "host2", out_bits=9.0, in_packets=7.0, drops=2.0),
        Row("c", "host1", drops=1.0),
    ]
    choice, seen = Choice(), {}
    for _ in SORTS:
        seen[choice.sort] = "".join(row.object for row in choice.of(rows))
        choice.press("s")
    assert seen == {"lab": "bac", "name": "abc", "out": "abc", "in": "abc", "drops": "acb"}
    assert choice.sort == "lab"
    choice.press("r")
    assert [row.object for row in choice.of(rows)] == ["c", "a", "b"]


def test_pause_help_and_quit() -> None:
    choice = Choice()
    choice.press("p")
    assert choice.paused
    assert "paused" in lines(SHOWN, choice)[0]
    choice.press(" ")
    assert not choice.paused
    choice.press("?")
    assert any("PgUp" in line for line in lines(SHOWN, choice))
    choice.press("x")
    assert (choice.help, choice.done) == (False, False)
    choice.press("q")
    assert choice.done


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (200, 60)], ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_the_terminal(view: str, size: tuple[int, int]) -> None:
    choice = Choice()
    choice.press(str([*VIEWS].index(view) + 1))
    found = lines(SHOWN, choice, *size)
    assert len(found) == size[1]
    assert max(map(len, found)) <= size[0]
    assert found[0].startswith("team")
    assert found[-1].startswith("q quit")
    if size[0] >= 80:
        assert all(heading in "\n".join(found) for heading in headings(choice.view))
        for row in SHOWN.rows(choice.view)[:3]:
            assert any(line.startswith(row.object) for line in found), row


def test_an_80_by_24_terminal_has_room_for_numbers_of_any_size() -> None:
    row = Row(
        "blue12", "host12", "running", "5001", 123.4e9, 999e3, 20.4e9, 1.25e6, 12e3, {"rx-overrun": 12e3}
    )
    found = lines(msgspec.structs.replace(SHOWN, vms=(row,)), Choice())
    line = next(line for line in found if line.startswith("blue12"))
    assert line.split()[3:] == ["5001", "123G", "999k", "20.4G", "1.25M", "12.0k", "rx-overrun"]


def test_what_does_not_fit_is_counted_and_can_be_scrolled_to() -> None:
    choice = Choice()
    found = lines(many(50), choice)
    first = objects(found)
    assert first[0] == "vm0"
    assert (len(found), found[-1].split()[0], len(first)) == (24, "q", 17)
    assert any(line.strip() == f"{50 - len(first)} more" for line in found)
    for _ in range(10):
        choice.press("page-down")
    last = objects(lines(many(50), choice))
    assert last[-1] == "vm49"
    assert not any("more" in line for line in lines(many(50), choice))
    choice.press("home")
    assert objects(lines(many(50), choice)) == first


def test_problems_are_said() -> None:
    found = lines(SHOWN, Choice())
    assert "! host2: it does not run" in found
    found = lines(activity(SHOWN and everything(), Sample("team", 2.0, "ended")), Choice())
    assert "ended" in found[0]
    assert any(line.startswith("! there is no lab called team") for line in found)
    many_problems = msgspec.structs.replace(SHOWN, problems=tuple("abcdef"))
    assert "! and 4 more" in lines(many_problems, Choice())


def test_numbers() -> None:
    told = {
        None: "-",
        0.0: "0",
        0.44: "0.4",
        12.3: "12",
        999.4: "999",
        999.6: "1.00k",
        9.996e3: "10.0k",
        99.96e6: "100M",
        1.234e9: "1.23G",
        5e15: "5000T",
    }
    assert {value: number(value) for value in told} == told


def test_the_verb_offers_the_views_that_there_are() -> None:
    assert top.VIEWS == VIEWS
    assert {*TITLES} == {*VIEWS}
    for view in VIEWS:
        assert all(len(cells(view, row)) == len(headings(view)) for row in SHOWN.rows(view))
        assert SHOWN.rows(view), view
