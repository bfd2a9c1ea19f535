"""Pictures of a running lab show what is wrong with it; the page works in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from support import graphs
from support.browser import Browser, browser
from support.cli import TOPOLOGIES, Cli
from testbed.graph import page
from testbed.graph.build import build
from testbed.graph.model import CableState

pytestmark = pytest.mark.e2e
VM = "#view a[aria-label^='VM blue1']"
FADED = "return [...document.querySelectorAll('#view .dim')].length"


def test_a_running_lab_shows_what_is_wrong_with_it(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TOPOLOGIES / "team.yaml", may_drop=("tx-refused", "pa-unreachable")) as lab:
        before = cli.ok("graph", lab.name, "--format", "svg")
        assert "link down" not in before
        assert "rate=" not in before
        cli.ok("link", lab.name, "host1:nic1", "down")
        cli.ok("link", lab.name, "host2:nic2", "set", "rate=200mbit", "--way", "to-host")
        cli.ok("team", lab.name, "host2", "fail", "nic1")
        svg = cli.ok("graph", lab.name, "--format", "svg")
        assert svg.count(">link down<") == 1
        assert svg.count(">\N{DOWNWARDS ARROW} rate=200mbit<") == 1
        assert svg.count(">failed: administrative<") == 1
        assert (svg.count('class="edge bad"'), svg.count('class="edge warn"')) == (1, 1)
        told = cli.json("graph", lab.name)
        assert told["engine"] == "namespaces"
        assert {vm["state"] for host in told["hosts"] for vm in host["vms"]} == {"good"}
        assert [host["nics"][0]["state"] for host in told["hosts"]] == ["bad", "bad"]
        assert "nic1 -- tor1:p1 (failed: no-carrier, link down)" in cli.ok("graph", lab.name)
        cli.ok("link", lab.name, "host1:nic1", "up")
        cli.ok("link", lab.name, "host2:nic2", "clear")
        cli.ok("team", lab.name, "host2", "restore", "nic1")
    assert "no lab called" in cli.refused(2, "graph", lab.name)


# ---- in a browser -------------------------------------------------------------------------


@pytest.fixture
def shown(tmp_path: Path, leaves_nothing: None) -> Iterator[Browser]:
    """The page of a 4host, one of whose cables is down, as one sees it at a desk."""
    plan = graphs.plan("4host")
    down = CableState(False, {})
    text = page.write(build(plan, graphs.live(plan, cables={"host1:nic1": down})))
    with browser(tmp_path) as found:
        found.screen(1400, 860)
        found.open(graphs.page(tmp_path, text))
        yield found
        assert found.complaints() == []
        assert found.run("return performance.getEntriesByType('resource').length") == 0


def test_details_are_shown_of_what_is_clicked(shown: Browser) -> None:
    assert not shown.find("#details").is_displayed()
    shown.find(VM).click()
    assert shown.find("#details h2").text.split() == ["VM", "blue1"]
    assert "00:15:5d" in shown.find("#details dl").text
    assert shown.all("#view a.selected") == [shown.find(VM)]
    (host,) = [each for each in shown.all(".related button") if "host1" in each.text]
    host.click()
    assert "host1" in shown.find("#details h2").text
    assert len(shown.all("#view .edge.near")) == 2
    cable = next(each for each in shown.all(".related button") if "host1:nic1" in each.text)
    cable.click()
    assert "link down" in shown.find("#details .badge.bad").text
    shown.find("#close").click()
    assert not shown.find("#details").is_displayed()


def test_the_search_filters(shown: Browser) -> None:
    search = shown.find("#search")
    search.send_keys("red3")
    assert shown.find("#count").text == "1 found"
    assert [entry.text for entry in shown.all("#results li")] == ["VM red3"]
    assert not shown.all("#view a[aria-label^='VM red3'].dim")
    assert shown.all("#view a[aria-label^='VM blue3'].dim")
    search.send_keys(Keys.ENTER)
    assert "red3" in shown.find("#details h2").text
    search.send_keys(Keys.ESCAPE)
    assert shown.run(FADED) == 0
    search.send_keys("link down")
    assert {entry.text for entry in shown.all("#results li")} == {
        "NIC host1:nic1",
        "cable host1:nic1 - tor1",
    }


def test_a_virtual_subnet_is_highlighted(shown: Browser) -> None:
    chip = shown.find('.chip[data-vsid="5002"]')
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    names = "return [...document.querySelectorAll('#view a[aria-label^=\"VM \"]')].filter("
    names += "(each) => !each.closest('.dim')).map((each) => each.getAttribute('aria-label'))"
    assert shown.run(names) == ["VM blue4"]
    chip.click()
    assert shown.run(FADED) == 0


def test_keys_are_enough(shown: Browser) -> None:
    view = shown.find("#view")
    box = "return document.querySelector('#view svg').getAttribute('viewBox')"
    before = shown.run(box)
    view.send_keys("+")
    larger = shown.run(box)
    assert float(larger.split()[2]) < float(before.split()[2])
    view.send_keys(Keys.ARROW_RIGHT)
    assert float(shown.run(box).split()[0]) > float(larger.split()[0])
    view.send_keys("0")
    assert shown.run(box) == before
    view.send_keys("/")
    assert shown.run("return document.activeElement.id") == "search"
    shown.run("document.querySelector(arguments[0]).focus()", VM)
    shown.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert "blue1" in shown.find("#details h2").text
    shown.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not shown.find("#details").is_displayed()
    labels = "return [...document.querySelectorAll('#view a')].every((each) => each.tabIndex === 0"
    assert shown.run(f"{labels} && each.getAttribute('aria-label'))")


def test_it_is_dark_and_fits_a_phone(shown: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    card = "return getComputedStyle(document.querySelector('#view .node text')).fill"
    day = shown.run(ground), shown.run(card)
    shown.dark()
    assert all(now != then for now, then in zip((shown.run(ground), shown.run(card)), day, strict=True))
    shown.screen(390, 844, phone=True)
    shown.driver.refresh()
    assert shown.run("return document.documentElement.scrollWidth") == 390
    unit = "const svg = document.querySelector('#view svg'); return svg.getScreenCTM().a"
    assert shown.run(unit) >= 0.8  # pixels to a point: its smallest text is 9 points
    shown.run(
        "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))", VM
    )
    sheet = shown.find("#details").rect
    assert (sheet["x"], sheet["width"]) == (0, 390)
    part = shown.run("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", VM)
    assert part <= sheet["y"]


@pytest.mark.parametrize("plan", [graphs.hostile(), graphs.renamed()], ids=["values", "names"])
def test_what_is_said_is_text(tmp_path: Path, leaves_nothing: None, plan: Any) -> None:
    with browser(tmp_path) as found:
        found.open(graphs.page(tmp_path, page.write(build(plan))))
        found.find("#search").send_keys("window.struck")
        found.find("#results button").click()
        assert "<script>window.struck=1</script>" in found.find("#details").text
        assert found.run("return window.struck === undefined")
        assert found.complaints() == []
