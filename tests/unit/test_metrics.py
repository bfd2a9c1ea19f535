"""testbed.metrics: every counter in Prometheus' form, as documents and the dashboard name them."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from support import made_up_results as made_up
from support.results import run
from support.samples import counter, everything, reading, sample
from testbed.cli.metrics import PORT
from testbed.lab.sample import Sample
from testbed.metrics.exporter import Exporter
from testbed.metrics.families import HELP, Families
from testbed.metrics.labs import add_sample
from testbed.metrics.results import Results, add_runs
from testbed.results.metrics import RTT_LOAD_P50
from testbed.results.model import Sample as Measurement
from testbed.results.store import writing

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "examples" / "grafana"
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()


class Fixed:
    """A source that has one sample."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples

    def collect(self, families: Families) -> None:
        for each in self.samples:
            add_sample(families, each)
            families.add("gauge", "lab_read_seconds", {"lab": each.name}, 0.1)

    def close(self) -> None:
        pass


def exported(*samples: Sample) -> dict[str, Any]:
    """Families by name, of the text, read by the library's parser."""
    text = Exporter([Fixed(*samples)]).text()
    return {family.name: family for family in text_string_to_metric_families(text)}


class Measured:
    """A source that has a run."""

    def collect(self, families: Families) -> None:
        families.add("gauge", "results_up", {"file": "results.db"}, 1.0)
        started = made_up.run(1, made_up.start(random.Random(1)), {"engine": "docker"}, kind="start")
        trips = tuple(
            Measurement(RTT_LOAD_P50.name, 0.5, path, turn) for path in ("wnv", "vxlan") for turn in (0, 1)
        )
        bench = run(ratio=0.5, noise=0.0)
        bench = msgspec.structs.replace(
            bench, metrics=(*bench.metrics, RTT_LOAD_P50), samples=(*bench.samples, *trips)
        )
        add_runs(families, [bench, started])

    def close(self) -> None:
        pass


def exported_with_results() -> dict[str, Any]:
    text = Exporter([Fixed(everything()), Measured()]).text()
    return {family.name: family for family in text_string_to_metric_families(text)}


ALL = exported_with_results()


def values(family: Any) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(each.labels.items())): each.value for each in family.samples}


def names() -> Iterator[tuple[str, str]]:
    """Names of samples and their types."""
    for family in ALL.values():
        for each in family.samples:
            yield each.name, family.type


def test_every_kind_has_its_families_and_a_help_text() -> None:
    assert {name.removeprefix("testbed_") for name in ALL} == {*HELP}
    for family in ALL.values():
        assert family.documentation == HELP[family.name.removeprefix("testbed_")]


def test_what_only_grows_is_a_counter_and_called_total() -> None:
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in names())
    gauges = {name for name, kind in names() if kind == "gauge"}
    assert "testbed_team_member_flows" in gauges
    assert ("testbed_extension_value", "unknown") in {*names()}


def test_numbers_stand_under_their_labels() -> None:
    drops = values(ALL["testbed_drop_packets"])
    labels = {
        "lab": "team",
        "host": "host1",
        "object": "blue1:eth0",
        "vm": "blue1",
        "stage": "wnv",
        "vsid": "5001",
        "reason": "not-ip",
    }
    assert drops[tuple(sorted(labels.items()))] == 1.0
    queues = ALL["testbed_nic_queue_rx_packets"].samples
    assert {each.labels["queue"]: each.value for each in queues} == {"0": 0.0, "1": 1.0}
    assert {each.labels["host"]: each.value for each in ALL["testbed_host_up"].samples} == {
        "host1": 1.0,
        "host2": 0.0,
    }
    states = {each.labels["state"]: each.value for each in ALL["testbed_team_member_state"].samples}
    assert states == {"Active": 1.0, "Standby": 0.0, "Failed": 0.0}


def test_nothing_is_told_twice() -> None:
    for family in ALL.values():
        told = [(each.name, tuple(sorted(each.labels.items()))) for each in family.samples]
        assert len({*told}) == len(told), family.name


def test_words_with_quotes_and_line_ends_come_back_as_they_were() -> None:
    name = 'a "b" \\ c\nd'
    found = exported(sample(1.0, {"host1": reading(1.0, counter("extension", name, **{name: 3}))}))
    (told,) = found["testbed_extension_value"].samples
    assert (told.labels["extension"], told.labels["counter"], told.value) == (name, name, 3.0)


def test_a_kind_that_is_new_is_exported_all_the_same() -> None:
    families = Families()
    add_sample(families, sample(1.0, {"host1": reading(1.0, counter("flow-table", "t", **{"hit-count": 3}))}))
    found = {family.name: family for family in families}
    assert found["testbed_flow_table_hit_count"].samples[0].value == 3.0


def test_several_labs_share_the_families() -> None:
    other = msgspec.structs.replace(everything(), name="other")
    found = exported(everything(), other, Sample("gone", 1.0, "ended"))
    assert {each.labels["lab"]: each.value for each in found["testbed_lab_up"].samples} == {
        "team": 1.0,
        "other": 1.0,
        "gone": 0.0,
    }
    assert len(found["testbed_nic_rx_bytes"].samples) == 2 * len(ALL["testbed_nic_rx_bytes"].samples)


def test_each_scrape_reads_once() -> None:
    reads = []

    class Counting(Fixed):
        def collect(self, families: Families) -> None:
            reads.append(1)
            super().collect(families)

    exporter = Exporter([Counting(everything())])
    assert reads == []
    exporter.text()
    exporter.text()
    assert len(reads) == 2
    assert isinstance(exporter._registry, CollectorRegistry)


# ---- results --------------------------------------------------------------------------------


def results_of(path: Path) -> dict[str, Any]:
    families = Families()
    Results(path).collect(families)
    return {family.name: family for family in families}


def test_the_newest_batch_of_each_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    old, new = run(ratio=0.9, noise=0.0), run(ratio=0.5, noise=0.0, seed=2)
    start = run(kind="start", seed=0, baseline=False)
    with writing(path) as file:
        for each in (new, start, old):
            file.add(each)
    found = results_of(path)
    assert values(found["testbed_results_up"]) == {(("file", "results.db"),): 1.0}
    ratios = {each.labels["metric"]: each for each in found["testbed_result_ratio"].samples}
    assert ratios["throughput"].value == pytest.approx(0.5)
    assert ratios["throughput"].labels["baseline"] == "vxlan"
    assert [*ratios] == ["throughput"]  # nothing can be divided by a baseline of 0
    began = {each.labels["kind"]: each.value for each in found["testbed_result_timestamp_seconds"].samples}
    assert began == {"bench": new.started, "start": start.started}
    told = {
        each.labels["path"]: each.value
        for each in found["testbed_result_value"].samples
        if (each.labels["kind"], each.labels["metric"]) == ("bench", "throughput")
    }
    assert told["wnv"] == pytest.approx(0.5 * told["vxlan"])


def test_a_results_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    found = results_of(path)
    assert values(found["testbed_results_up"]) == {(("file", "results.db"),): 0.0}
    assert [*found] == ["testbed_results_up"]


def test_runs_with_the_same_labels_are_told_once() -> None:
    families = Families()
    add_runs(families, [run(seed=3), run(seed=1)])
    (told,) = next(each for each in families if each.name == "testbed_result_timestamp_seconds").samples
    assert told.value == run(seed=3).started


# ---- documents ------------------------------------------------------------------------------


def test_every_metric_is_described_and_no_other() -> None:
    rows = re.findall(r"^\| `(testbed_\w+)` \| (\w+) \| (.*?) \| \S", DOCUMENT, re.MULTILINE)
    described = {name: (kind, {*re.findall(r"`(\w+)`", labels)}) for name, kind, labels in rows}
    assert len(described) == len(rows)
    told = {
        each.name: ("untyped" if family.type == "unknown" else family.type, {*each.labels})
        for family in ALL.values()
        for each in family.samples
    }
    assert described == told


# ---- the dashboard --------------------------------------------------------------------------

DASHBOARD = json.loads((GRAFANA / "testbed.json").read_text())


def queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [
        *panels,
        *(each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"),
    ]


def test_the_dashboard_asks_for_metrics_that_there_are_by_labels_that_they_have() -> None:
    labels = {each.name: {*each.labels} for family in ALL.values() for each in family.samples}
    assert len(queries()) > 20
    for query in queries():
        asked = re.findall(r"testbed_\w+", query)
        assert asked, query
        assert {*asked} <= {*labels}, query
        words = re.findall(r"(\w+)(?:=~|!=|!~|=)\"", query)
        for by in re.findall(r"by \(([^)]*)\)", query):
            words += re.split(r", *", by)
        assert {*words} <= labels[asked[0]], query
        rated = re.findall(r"rate\((testbed_\w+)", query)
        assert all(name.endswith("_total") for name in rated), query
        assert {name for name in asked if name.endswith("_total")} <= {*rated}, query


def test_prometheus_finds_something_for_every_panel(tmp_path: Path) -> None:
    """Its own tool evaluates the queries over what the endpoint tells, five seconds apart."""
    if not shutil.which("promtool"):
        pytest.skip("prometheus is not installed")
    series = [
        {"series": each.name + "{" + ",".join(f"{k}={json.dumps(v)}" for k, v in each.labels.items()) + "}"}
        for family in ALL.values()
        for each in family.samples
    ]
    (lab,) = {each.labels["lab"] for each in ALL["testbed_lab_up"].samples}
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    meant = {"$__rate_interval": "30s", "$lab": lab, "$host": ".*"}
    checks = []
    for query in asked:
        for name, value in meant.items():
            query = query.replace(name, value)
        one = [{"labels": "{}", "value": 1}]
        checks.append({"expr": f"count({query}) > bool 0", "eval_time": "60s", "exp_samples": one})
    group = {
        "interval": "5s",
        "input_series": [{**each, "values": "1+1x20"} for each in series],
        "promql_expr_test": checks,
    }
    (tmp_path / "rules.yml").write_text("groups: []\n")
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [group]}))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "tests.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_legends_name_labels_that_are_left() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            named = {*re.findall(r"{{(\w+)}}", target["legendFormat"])}
            by = re.search(r"by \(([^)]*)\)", target["expr"])
            (metric,) = re.findall(r"testbed_\w+", target["expr"])
            family = ALL[metric.removesuffix("_total")]
            left = {*re.split(r", *", by[1])} if by else {*family.samples[0].labels}
            assert named <= left, target


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_the_example_scrapes_the_port_that_is_the_default() -> None:
    config = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{PORT}"]}]


@pytest.mark.parametrize("name", ["testbed.json", "prometheus.yml"])
def test_the_examples_are_named_in_the_document(name: str) -> None:
    assert f"examples/grafana/{name}" in DOCUMENT
