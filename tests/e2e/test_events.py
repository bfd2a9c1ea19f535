"""`testbed events` and `capture --events` on running labs: what is done to them is on one time line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.labs import Lab
from support.waiting import until

pytestmark = pytest.mark.e2e
SECONDS = 30.0
NOBODY = "10.0.0.99"


class Following:
    """``events --follow -f json`` as it goes on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, kind: str, name: str = "", count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The events of a kind and object that have these fields, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [
                each
                for each in [*self.events]
                if each["kind"] == kind
                and name in ("", each["object"])
                and fields.items() <= each["fields"].items()
            ]

        until(lambda: len(found()) >= count, f"no {kind} {name} {fields}")
        return found()

    def end(self) -> None:
        """End it as a user would."""
        self.process.send_signal(signal.SIGINT)
        self.ended()

    def ended(self) -> None:
        """It has ended well."""
        assert self.process.wait(SECONDS) == 0
        self._reader.join()
        assert self.process.stderr
        assert self.process.stderr.read() == b""

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))


@contextmanager
def following(lab: Lab, *words: object) -> Iterator[Following]:
    process = lab.cli.start("events", lab.name, "--follow", "-f", "json", *words)
    try:
        yield (found := Following(process))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        found._reader.join(10)
        for stream in (process.stdout, process.stderr):
            assert stream
            stream.close()


def lose(lab: Lab) -> None:
    """blue1 sends 40 packets a second to an address that nobody has."""
    neighbor = ["ip", "neigh", "replace", NOBODY, "lladdr", "00:15:5d:00:00:99", "dev", "eth0"]
    lab.cli.output(lab.name, "blue1", *neighbor)
    lab.cli.inside(lab.name, "blue1", "ping", "-q", "-c", 60, "-i", "0.025", "-W", 1, NOBODY)


def record(verb: str) -> tuple[object, ...]:
    key = ("--virtual-subnet-id", 5001, "--customer-address", "10.0.0.77")
    more = (
        ("--mac-address", "00:15:5d:00:00:77", "--provider-address", "192.168.0.2") if verb == "add" else ()
    )
    return ("lookup-records", verb, *key, *more)


def test_what_is_done_to_a_lab_is_on_one_time_line(
    cli: Cli, running: Callable[..., Any], tmp_path: Path
) -> None:
    allowed = ("tx-refused", "pa-unreachable", "no-uplink", "no-port")
    with running(cli, TWO_HOSTS, may_drop=allowed) as lab, following(lab) as line:
        line.wait_for("provider-address", count=2, state="Preferred")  # the past comes first
        cli.ok("link", lab.name, "host1:nic1", "down")
        line.wait_for("link", "nic1", state="down")
        cli.ok("link", lab.name, "host1:nic1", "up")
        line.wait_for("link", "nic1", state="up")
        cli.ok("policy", lab.name, *record("add"))
        line.wait_for("policy", "lookup-records", change="added", customer_address="10.0.0.77")
        assert {each["host"] for each in line.wait_for("policy-change", count=2, added=1)} == {
            "host1",
            "host2",
        }
        cli.output(lab.name, "blue1", "ip", "addr", "add", "10.0.0.50/24", "dev", "eth0")
        (learned,) = [
            each
            for each in line.wait_for("customer-address", reason="Added", ca="10.0.0.50", count=2)
            if each["source"] == "vmm"
        ]
        assert learned["host"] == "host1"
        lose(lab)
        (began,) = line.wait_for("drops", state="began", reason="no-lookup-record")
        assert (began["host"], began["object"], began["fields"]["vsid"]) == ("host1", "blue1:eth0", 5001)
        assert began["fields"]["rate"] >= 10
        (ended,) = line.wait_for("drops", state="ended", reason="no-lookup-record")
        assert began["fields"]["packets"] <= ended["fields"]["packets"] <= 60
        cli.ok("migrate", lab.name, "blue1", "--to", "host2")
        line.wait_for("vm", "blue1", change="migrated", source="host1")
        line.wait_for("port", "blue1:eth0", change="handed-over")
        line.wait_for("port", "blue1:eth0", change="arrived")
        line.end()
        told = [each for each in line.events if each["source"] != "notice"]
        assert told == line.events  # nothing was lost, nobody was away
        times = [each["time"] for each in told]
        assert times == sorted(times)
        again = cli.json("events", lab.name)
        assert again["lost"] == 0
        assert [each["id"] for each in again["events"]][: len(told)] == [each["id"] for each in told]
        assert len({each["id"] for each in told}) == len(told)
        links = cli.json("events", lab.name, "--kind", "link", "--host", "host1")["events"]
        assert [each["fields"]["state"] for each in links] == ["down", "up"]
        since = str(links[1]["time"])
        assert cli.refused(2, "events", lab.name, "--since", since)  # no form that people write
        assert "no host 'host9'" in cli.refused(2, "events", lab.name, "--host", "host9")
        lines = cli.ok("events", lab.name, "host1", "--kind", "link").splitlines()
        assert [text.split()[2:] for text in lines] == [
            [each["id"], "host1", "link", "nic1", each["fields"]["state"]] for each in links
        ]


def test_a_host_that_dies_is_told_and_following_goes_on_until_the_lab_ends(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    with following(Lab(cli, name), "--since", "1h") as line:
        line.wait_for("provider-address", count=2, state="Preferred")
        cli.output(name, "host2", "pkill", "-KILL", "tb-control")  # of its PID namespace
        (away,) = line.wait_for("away", "host2")
        assert away["source"] == "notice"
        cli.ok("link", name, "host1:nic1", "down")
        line.wait_for("link", "nic1", state="down")
        found = cli.json("events", name)["events"]
        assert [each["object"] for each in found if each["kind"] == "away"] == ["host2"]
        cli.ok("down", name)
        line.ended()
    assert line.events[-1]["kind"] == "lab-ended"


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_a_capture_has_events_among_its_packets(
    cli: Cli, running: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "x.pcapng"
    with running(cli, TWO_HOSTS) as lab:
        words = ("vm:*", "host1:wnv", "--events", "--bpf", "icmp", "-w", file)
        process = cli.start("capture", lab.name, *words)
        with cli.ended(process):
            assert process.stderr
            assert process.stderr.readline().startswith(b"capturing at 3 points")
            cli.output(lab.name, "blue1", "ping", "-c", 1, "-W", 2, "10.0.0.6")
            cli.ok("policy", lab.name, *record("add"))
            cli.output(lab.name, "blue1", "ping", "-c", 1, "-W", 2, "10.0.0.6")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
            said = process.stderr.read().decode()
        known = {each["id"]: each for each in cli.json("events", lab.name)["events"]}
    assert "3 events" in said
    fields = ("frame.interface_name", "frame.time_epoch", "_ws.col.Info", "frame.comment")
    asked = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(file), "-T", "fields", *asked],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [text.split("\t") for text in done.stdout.splitlines()]
    times = [float(row[1]) for row in rows]
    assert times == sorted(times)
    events = [row for row in rows if row[0] == "events"]
    ids = [row[3].removeprefix("event ").partition(":")[0] for row in events]
    assert [known[each]["kind"] for each in ids] == ["policy", "policy-change", "policy-change"]
    for row, number in zip(events, ids, strict=True):
        assert abs(float(row[1]) - known[number]["time"]) < 1e-5
        assert known[number]["kind"] in row[2]
    names = [row[0] for row in rows]
    first, last = names.index("events"), len(names) - 1 - names[::-1].index("events")
    assert {"vm:blue1", "vm:blue2", "host1:wnv"} <= {*names[:first]}
    assert {"vm:blue1", "vm:blue2", "host1:wnv"} <= {*names[last:]}
