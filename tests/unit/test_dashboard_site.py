"""The dashboard's folder and its server; goals from files; the plotting library."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.made_up_results import history, write
from testbed.dashboard import bundle, goals, site
from testbed.dashboard.goals import Goal
from testbed.dashboard.serve import Live, Server
from testbed.errors import BadInput, LabError, MachineLacks

RUNS = 70


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write(tmp_path / "results.db", history(RUNS))


@pytest.fixture
def server(results: Path) -> Iterator[Server]:
    with Server(Live(results, []), 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


def asked(server: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    address, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(address), port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def data(text: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(text.removeprefix(b"window.DASHBOARD = ").removesuffix(b";\n"))
    return found


def test_export_has_all_that_the_page_asks_for(results: Path, tmp_path: Path) -> None:
    made = site.Site(results, goals.load(), served=False)
    size = site.export(made, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    page = (tmp_path / "out" / "index.html").read_text()
    assert {"index.html", "style.css", "vega.js", "data.js", "classes"} <= names
    assert all(part.partition('"')[0] in names for part in page.split('<script defer src="')[1:])
    assert {path.stem for path in (tmp_path / "out" / "classes").iterdir()} == {*made.details}
    assert size < 3_000_000
    assert made.index.compared is not None
    assert "://" not in page


def test_export_again_leaves_nothing_of_before(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    site.export(site.Site(results, [], served=False), folder)
    (folder / "classes" / "old.js").write_text("")
    site.export(site.Site(results, [], served=False), folder)
    assert not (folder / "classes" / "old.js").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "results.db"}


def test_export_leaves_what_others_wrote(results: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    made = site.Site(results, [], served=False)
    for folder, word in (
        (tmp_path / "mine", "no dashboard"),
        (results, "no dashboard"),
        (tmp_path / "no" / "out", "no folder"),
    ):
        with pytest.raises(BadInput, match=word):
            site.export(made, folder)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "results.db"}


def test_no_results_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such results file"):
        site.Site(tmp_path / "none.db", [], served=False)


def test_results_without_runs_are_a_page(tmp_path: Path) -> None:
    made = site.Site(write(tmp_path / "results.db", []), [], served=False)
    site.export(made, tmp_path / "out")
    assert made.index.compared is None


def test_server_gives_the_page_and_details(server: Server) -> None:
    status, body = asked(server, "/")
    assert (status, b"<!doctype html>" in body) == (200, True)
    assert asked(server, "/", method="HEAD") == (200, b"")
    status, body = asked(server, "/data.js")
    classes = data(body)["classes"]
    assert isinstance(classes, list)
    assert asked(server, f"/classes/{classes[0]['id']}.js")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/classes/none.js", "/../site.py", "/classes/../../data.py", "/%2e%2e/site.py", "/classes/"],
)
def test_server_gives_nothing_else(server: Server, path: str) -> None:
    assert asked(server, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:80"])
def test_server_answers_under_its_own_name_only(server: Server, host: str) -> None:
    assert asked(server, "/data.js", host=host)[0] == 403


def test_server_compares_two_batches_as_results_does(server: Server, results: Path) -> None:
    first, second, *_ = server.live.site().index.batches
    status, body = asked(server, f"/compare?base={first.id}&new={second.id}")
    exported = site.Site(results, [], served=False).index
    assert status == 200
    found = json.loads(body)
    assert (found["base"], found["new"]) == (first.id, second.id)
    assert len(found["rows"]) > 50
    assert exported.compared_batches == (second.id, exported.batches[2].id)


@pytest.mark.parametrize("query", ["base=x&new=y", "", "base=&new="])
def test_server_refuses_a_batch_that_is_not_there(server: Server, query: str) -> None:
    status, body = asked(server, f"/compare?{query}")
    assert (status, "no batch" in json.loads(body)["error"]) == (400, True)


def test_server_reads_a_file_that_grew(server: Server, results: Path) -> None:
    before = server.live.site()
    assert server.live.site() is before
    write(results, list(history(RUNS + 3))[RUNS:])
    runs = data(asked(server, "/data.js")[1])["runs"]
    assert isinstance(runs, dict)
    assert len(runs["id"]) == RUNS + 3


def test_server_tells_of_a_file_that_went(server: Server, results: Path) -> None:
    results.unlink()
    status, body = asked(server, "/data.js")
    assert (status, "no such results file" in json.loads(body)["error"]) == (400, True)


def test_port_that_is_taken(server: Server) -> None:
    with pytest.raises(LabError, match="--port"):
        Server(server.live, server.server_address[1])


def test_our_goals_are_goals() -> None:
    assert len(goals.load()) == 3


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("- title: x\n  metric: throughput\n  baseline: vxlan\n  where: {}\n", "one of at_least and at_most"),
        ("- [", "goals.yaml"),
        ("title: x", "array"),
        ("- titel: x", "titel"),
        ("- title: x\n  metric: t\n  baseline: v\n  where: {nic: [1]}\n  at_least: 1\n", "where"),
        ("\x00", "goals.yaml"),
    ],
)
def test_bad_goals_are_told(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=word) as told:
        goals.load(path)
    assert str(path) in str(told.value)


def test_goals_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        goals.load(tmp_path / "none.yaml")


def test_true_is_not_one() -> None:
    goal = msgspec.convert(
        {"title": "", "metric": "m", "baseline": "b", "where": {"lso": True}, "at_most": 1}, Goal
    )
    assert goal.concerns({"lso": True})
    assert not goal.concerns({"lso": 1})


def test_plotting_library_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    text = bundle.require().read_text()
    assert bundle.is_right(text)
    assert not bundle.is_right(text.replace("vegaEmbed", "vegaEmbad", 1))
    assert "Redistributions in binary form" in text


def test_plotting_library_that_was_never_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "FILE", tmp_path / "vega.js")
    with pytest.raises(MachineLacks, match="pip install"):
        bundle.require()
