"""The dashboard in a real browser: from a folder without a server, and served."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from support.browser import Browser, browser
from support.cli import SOURCE, Cli
from support.made_up_results import history, write
from support.waiting import until

pytestmark = pytest.mark.e2e

VIEWS = {"overview": 0, "history": 2, "offloads": 4, "queues": 2, "teams": 1, "starts": 2, "compare": 1}
"""Pictures by the plotting library in each view."""
BARS = """
return [...arguments[0].querySelectorAll('.mark-rect path')].map((bar) => bar.getBoundingClientRect().width)
"""
SHARES = "return [...arguments[0].querySelectorAll('tbody td:last-child')].map((cell) => cell.textContent)"
MANY = 5000
PHONE = (390, 844)


def run_testbed(*arguments: object) -> str:
    command = [sys.executable, "-m", "testbed", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten commits, the last of which is slower."""
    return write(tmp_path_factory.mktemp("results") / "results.db", history(340, slower_at_the_end=1.15))


@pytest.fixture(scope="module")
def page(results: Path) -> Path:
    run_testbed("dashboard", "--results", results, "--export", results.parent / "site")
    return results.parent / "site" / "index.html"


@pytest.fixture
def chromium(tmp_path: Path, leaves_nothing: None) -> Iterator[Browser]:
    """A screen of a desk, light; no complaint may be left at the end."""
    with browser(tmp_path / "browser") as made:
        made.screen(1280, 900)
        made.dark(on=False)
        yield made
        assert made.complaints() == []


def show(chromium: Browser, page: Path | str, view: str = "overview") -> None:
    chromium.open("about:blank")
    chromium.open(f"{page.as_uri() if isinstance(page, Path) else page}#{view}")
    settled(chromium)


def settled(chromium: Browser) -> None:
    """The view is there, and each of its pictures was scrolled to and is drawn."""
    chromium.until("return document.getElementById('main').getAttribute('aria-busy') === 'false'", "a view")
    chromium.until(
        "const missing = [...document.querySelectorAll('.drawing')]"
        "  .find((each) => !each.dataset.drawn && each.parentElement.checkVisibility());"
        "missing?.scrollIntoView();"
        "return !missing",
        "pictures",
    )


def choose(chromium: Browser, control: str, text: str) -> None:
    Select(chromium.find(f'[data-choice="{control}"]')).select_by_visible_text(text)
    settled(chromium)


def test_pictures_are_drawn(chromium: Browser, page: Path) -> None:
    for view, figures in VIEWS.items():
        show(chromium, page, view)
        assert len(chromium.all("figure")) == figures, view
        _drawn(chromium)


def _drawn(chromium: Browser) -> None:
    for place in chromium.all(".drawing"):
        marks = chromium.run(
            "return arguments[0].querySelectorAll('.mark-symbol path, .mark-rect path').length", place
        )
        wide = chromium.run("return arguments[0].querySelector('svg').getBoundingClientRect().width", place)
        assert marks >= 4
        assert wide > 300


def test_overview_answers_at_once(chromium: Browser, page: Path) -> None:
    show(chromium, page)
    fast, slower, newest = (each.text for each in chromium.all(".verdict"))
    assert "2 missed" in fast
    assert re.search(r"Yes, \d+ regressions", slower)
    assert "340 runs on 10 commits" in newest
    assert [each.text for each in chromium.all(".goal .badge")] == ["✗ missed", "✗ missed", "✓ reached"]
    assert "NIC modern" in chromium.find("tbody tr").text


def test_filters_filter(chromium: Browser, page: Path) -> None:
    show(chromium, page, "history")
    before = chromium.find("figure tbody tr").get_attribute("textContent")
    assert "NIC modern" in chromium.find("figcaption").text
    choose(chromium, "NIC", "r2")
    assert "NIC r2, wire aggregated" in chromium.find("figcaption").text
    assert chromium.find("figure tbody tr").get_attribute("textContent") != before
    choose(chromium, "metric", "RTT load p50")
    assert "RTT load p50" in chromium.find("figcaption").text
    choose(chromium, "kind", "start")
    assert "start total" in chromium.find("figcaption").text
    assert chromium.all('[data-choice="NIC"]') == []


def test_a_link_shows_the_same(chromium: Browser, page: Path) -> None:
    show(chromium, page, "history")
    choose(chromium, "wire", "frames")
    choose(chromium, "axis", "time")
    told = chromium.find("figcaption").text
    address = chromium.driver.current_url
    chromium.open("about:blank")
    chromium.open(address)
    settled(chromium)
    assert chromium.find("figcaption").text == told
    assert Select(chromium.find('[data-choice="axis"]')).first_selected_option.text == "time"


def test_a_filter_of_rows(chromium: Browser, page: Path) -> None:
    show(chromium, page, "compare")
    rows = len(chromium.all(".stack tbody tr"))
    chromium.find("input[type=checkbox]").click()
    settled(chromium)
    changed = [each.get_attribute("textContent") for each in chromium.all(".stack tbody tr td:last-child")]
    assert 0 < len(changed) < rows
    assert "no change" not in changed


def test_a_pair_without_a_server_is_medians_only(chromium: Browser, page: Path) -> None:
    show(chromium, page, "compare")
    Select(chromium.find('[data-choice="base"]')).select_by_index(5)
    chromium.until("return document.querySelector('.note') !== null", "the note")
    assert "testbed results compare batch=" in chromium.find(".note").text
    assert "regression" not in chromium.find(".stack").text


def test_point_tells_commit_and_spread(chromium: Browser, page: Path) -> None:
    show(chromium, page, "history")
    where = chromium.run(
        "const box = document.querySelector('.drawing svg').getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]"
    )
    chromium.driver.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": where[0], "y": where[1]}
    )
    chromium.until("return document.querySelector('#vg-tooltip-element.visible') !== null", "a tooltip")
    told = chromium.find("#vg-tooltip-element").text
    assert re.search(r"commit\W+[0-9a-f]{8}", told)
    assert re.search(r"95 % interval\W+[\d.]+ to [\d.]+", told)


@pytest.mark.parametrize("form", ["SVG", "PNG"])
def test_pictures_can_be_taken_away(chromium: Browser, page: Path, tmp_path: Path, form: str) -> None:
    chromium.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    show(chromium, page, "history")
    chromium.find(f'[aria-label^="Save as {form}"]').click()
    chromium.until("return document.getElementById('said').textContent.includes('is saved')", "saving")
    target = tmp_path / f"history-throughput-ratio.{form.lower()}"
    _arrived(target)
    data = target.read_bytes()
    assert data.startswith(b"<svg" if form == "SVG" else b"\x89PNG")
    assert len(data) > 5000


def _arrived(target: Path) -> None:
    until(lambda: target.exists() and target.stat().st_size > 0, f"{target.name} is downloaded")


@pytest.mark.parametrize("view", ["overview", "history", "compare"])
def test_keyboard_reaches_everything(chromium: Browser, page: Path, view: str) -> None:
    show(chromium, page, view)
    chromium.run("scrollTo(0, 0); document.activeElement.blur()")
    wanted = chromium.run(
        "return [...document.querySelectorAll('a[href], button, select, input, summary, [tabindex=\"0\"]')]"
        "  .filter((each) => each.checkVisibility()).map((each, at) => (each.dataset.at = at))"
    )
    reached = set()
    for _ in range(len(wanted) + 2):
        chromium.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(chromium.run("return Number(document.activeElement.dataset.at ?? -1)"))
        hidden = chromium.run("return getComputedStyle(document.activeElement).outlineStyle === 'none'")
        assert not hidden or chromium.run("return document.activeElement === document.body")
    assert {*wanted} <= reached


def test_keyboard_keeps_its_place_in_a_filter(chromium: Browser, page: Path) -> None:
    show(chromium, page, "history")
    chromium.find('[data-choice="NIC"]').send_keys("r")
    chromium.until("return document.activeElement.dataset.choice === 'NIC'", "the focus")
    settled(chromium)
    assert "NIC r2" in chromium.find("figcaption").text


@pytest.mark.parametrize("dark", [False, True])
def test_phone_scrolls_down_only(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.screen(*PHONE, phone=True)
    chromium.dark(on=dark)
    for view in VIEWS:
        show(chromium, page, view)
        widths = chromium.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [PHONE[0]] * 2, view
        tables = chromium.run(
            "return [...document.querySelectorAll('.scroll')].filter((each) => each.querySelector('.stack'))"
            ".filter((each) => each.scrollWidth > each.clientWidth).length"
        )
        assert tables == 0, view


CONTRAST = """
const light = (colour) => {
  const channels = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
  return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
};
const ground = (each) => {
  const colour = getComputedStyle(each).backgroundColor;
  return colour === 'rgba(0, 0, 0, 0)' && each.parentElement ? ground(each.parentElement) : colour;
};
return [...document.querySelectorAll('main *, header *')]
  .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((each) => each.checkVisibility())
  .filter((each) => !each.closest('svg') && !ground(each).startsWith('color('))
  .map((each) => {
    const [one, other] = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
    return [(one + 0.05) / (other + 0.05), each.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.dark(on=dark)
    for view in ("overview", "offloads", "compare"):
        show(chromium, page, view)
        assert chromium.run(CONTRAST) == [], view


def test_dark_mode_is_followed_while_the_page_is_open(chromium: Browser, page: Path) -> None:
    show(chromium, page, "history")
    line = "document.querySelector('.drawing .mark-line path').getAttribute('stroke')"
    before = chromium.run(f"return {line}")
    chromium.dark()
    chromium.until(f"return {line} && {line} !== {before!r}", "other colours")
    assert chromium.run("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"


def test_results_without_runs_say_what_to_do(chromium: Browser, tmp_path: Path) -> None:
    write(tmp_path / "results.db", [])
    run_testbed("dashboard", "--results", tmp_path / "results.db", "--export", tmp_path / "site")
    for view in VIEWS:
        show(chromium, tmp_path / "site" / "index.html", view)
        assert re.search(r"testbed bench NAME|record-start|docs/results.md", chromium.find("main").text), view


@pytest.fixture
def measured(leaves_nothing: None, tmp_path: Path) -> Path:
    """The page of one real turn: eight streams between teams of two NICs with two queues each."""
    cli = Cli(tmp_path / "state")
    results = tmp_path / "results.db"
    name = cli.up(SOURCE / "topologies" / "team.yaml", "--set", "processors=2", "--results", results)["name"]
    try:
        once = ("--seconds", 1, "--warm-up", 0, "--repeat", 1, "--no-latency")
        again = cli.ok("results", "record-start", name, "--results", results)
        assert "was there already" in again
        cli.ok("bench", name, *once, "--streams", 8, "--results", results)
    finally:
        cli.ok("down", name)
    run_testbed("dashboard", "--results", results, "--export", tmp_path / "site")
    return tmp_path / "site" / "index.html"


def test_what_was_really_measured_is_drawn(chromium: Browser, measured: Path) -> None:
    show(chromium, measured, "queues")
    assert "host2/nic" in chromium.find("main").text
    for place in chromium.all("figure"):
        bars = chromium.run(BARS, place)
        shares = [float(each.removesuffix(" %")) for each in chromium.run(SHARES, place)]
        assert sum(shares) == pytest.approx(100, abs=0.1)
        assert [each / max(bars) for each in bars] == pytest.approx(
            [each / max(shares) for each in shares], abs=0.02
        )
    show(chromium, measured, "teams")
    assert "team SwitchIndependent/Dynamic" in chromium.find("figcaption").text
    assert re.findall(r"host\d/nic\d", chromium.find(".drawing").text) == ["host1/nic1", "host1/nic2"]
    lines = [each.get_attribute("d") for each in chromium.all(".drawing .mark-line path")]
    assert len(lines) == 2
    assert all(line and "L" in line for line in lines), lines
    show(chromium, measured, "starts")
    assert "nodes\nwiring\nhosts\nvms\nready" in chromium.all(".drawing")[1].text


def test_thousands_of_runs_are_there_in_a_moment(chromium: Browser, tmp_path: Path) -> None:
    write(tmp_path / "results.db", history(MANY))
    run_testbed("dashboard", "--results", tmp_path / "results.db", "--export", tmp_path / "site")
    page = tmp_path / "site" / "index.html"
    show(chromium, page)
    # the browser reports a paint some frames after it: on a busy machine later than the page is made
    timed = "performance.getEntriesByName('first-contentful-paint')"
    chromium.until(f"return {timed}.length", "a first paint")
    paint = chromium.run(f"return {timed}[0].startTime")
    shown = chromium.run("return performance.getEntriesByName('shown')[0].startTime")
    size = (page.parent / "data.js").stat().st_size
    print(f"first paint {paint:.0f} ms, overview {shown:.0f} ms, data.js {size} bytes")
    assert max(paint, shown) < 3000
    assert f"{MANY:,} runs" in chromium.find("header").text
    show(chromium, page, "history?last=all")
    assert len(chromium.all("figure")) == 2


@pytest.fixture
def address(results: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "testbed", "dashboard", "--results", str(results), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"(http://127\.0\.0\.1:\d+/) shows", process.stdout.readline())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()
            process.wait(10)


def test_served_page_compares_any_two(chromium: Browser, address: str) -> None:
    show(chromium, address, "compare")
    Select(chromium.find('[data-choice="base"]')).select_by_index(5)
    settled(chromium)
    assert re.search(r"✗ \d+ regressions beyond 5 %", chromium.find("main").text)
    assert chromium.all(".note") == []
    assert len(chromium.all(".stack .bar svg")) > 50


def test_served_page_is_not_for_other_sites(address: str) -> None:
    with urlopen(address, timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] is None
