"""The live view and the metrics of whole labs: they tell what happens, and survive what happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.cli import TWO_HOSTS, Cli, counters
from support.labs import Lab
from support.waiting import until
from testbed.lab.activity import activity
from testbed.lab.lab import Lab as Opened
from testbed.lab.watch import Watch

pytestmark = pytest.mark.e2e
SECONDS = 30.0


def ping(lab: Lab, count: int) -> None:
    lab.cli.output(lab.name, "blue1", "ping", "-c", count, "-i", "0.02", "-W", "2", "10.0.0.6")


@contextlib.contextmanager
def watching(lab: Lab, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Iterator[Watch]:
    monkeypatch.setenv("TESTBED_STATE_DIR", str(lab.cli.state))
    with Watch(lab.name, **more) as watch:
        yield watch


def test_rates_are_those_of_what_was_sent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(lab, monkeypatch) as watch:
        before = watch.sample()
        ping(lab, 40)
        found = activity(before, watch.sample())
    assert (found.state, found.problems) == ("running", ())
    vms = {row.object: row for row in found.vms}
    assert {row.state for row in found.vms} == {"running"}
    seconds = found.seconds
    for vm in (vms["blue1"], vms["blue2"]):
        assert vm.out_packets is not None
        assert vm.in_packets is not None
        assert 39 <= vm.out_packets * seconds < 80
        assert 39 <= vm.in_packets * seconds < 80
    sent = {
        host: sum(row.out_packets or 0 for row in found.cables if row.host == host)
        for host in ("host1", "host2")
    }
    assert all(each * seconds >= 39 for each in sent.values()), found.cables
    assert {row.state for row in found.cables} == {"up"}
    assert {row.state for row in found.team} == {"Active"}


def test_metrics_are_the_counters(lab: Lab) -> None:
    ping(lab, 2)
    before = counters(lab.cli, lab.name, "port")
    text = lab.cli.ok("metrics", lab.name, "--once")
    after = {each["object"]: each["fields"] for each in counters(lab.cli, lab.name, "port")}
    families = {family.name: family for family in text_string_to_metric_families(text)}
    told = {each.labels["port"]: each for each in families["testbed_port_from_vm_packets"].samples}
    assert {*told} == {*after}
    for each in before:
        low, high = each["fields"]["from_vm_packets"], after[each["object"]]["from_vm_packets"]
        assert low <= told[each["object"]].value <= high
    assert told["blue1:eth0"].value > 0
    assert told["blue1:eth0"].labels["vsid"] == "5001"
    assert [each.value for each in families["testbed_host_up"].samples] == [1.0] * 4
    assert [each.value for each in families["testbed_vm_up"].samples] == [1.0] * 8
    assert all(each.value == 1.0 for each in families["testbed_cable_up"].samples)


def test_scrapes_at_the_same_time_are_answered(lab: Lab) -> None:
    server = lab.cli.start("metrics", "--port", 0)
    with lab.cli.ended(server):
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert url.startswith("http://127.0.0.1:")
        with ThreadPoolExecutor(6) as pool:
            answers = [*pool.map(scrape, [url] * 6)]
        for kind, text in answers:
            assert kind == "text/plain; version=0.0.4; charset=utf-8"
            assert f'testbed_lab_up{{lab="{lab.name}"}} 1.0' in text
        server.send_signal(signal.SIGINT)
        assert server.wait(SECONDS) == 0
        assert server.stderr is not None
        assert server.stderr.read() == b""


def scrape(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_bad_usage_is_refused(cli: Cli) -> None:
    assert "no lab called 'nope'" in cli.refused(2, "top", "nope")
    assert "no lab called 'nope'" in cli.refused(2, "metrics", "nope")
    assert cli.ok("metrics", "--once") == ""  # there is no lab
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = cli.refused(2, "metrics", "--port", taken.getsockname()[1])
    assert "choose another --port" in said


# ---- hosts and labs that go -----------------------------------------------------------------


class Screen:
    """A verb in a terminal of 80 x 24. ``text``: all that it has written, with its control sequences."""

    def __init__(self, cli: Cli, *words: object) -> None:
        self.master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(terminal)
        streams = {"stdin": terminal, "stdout": terminal, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(cli.argv(*words), env={**cli.env, "TERM": "xterm"}, **streams)
        self.terminal = terminal
        self.text = ""

    def wait_for(self, words: str) -> None:
        """Until it has written this since the last call."""
        end = time.monotonic() + SECONDS
        while words not in self.text:
            assert time.monotonic() < end, (words, self.text[-4000:])
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 1 << 16).decode(errors="replace")
        self.text = ""

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)
        os.close(self.master)
        os.close(self.terminal)


@contextlib.contextmanager
def in_terminal(cli: Cli, *words: object) -> Iterator[Screen]:
    screen = Screen(cli, *words)
    try:
        yield screen
    finally:
        screen.close()


def control(cli: Cli, name: str, host: str) -> int:
    found = next(each for each in cli.inspect(name)["hosts"] if each["name"] == host)
    return next(int(each["pid"]) for each in found["processes"] if each["role"] == "control")


def test_the_view_survives_its_hosts_and_its_lab(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    stopped, killed = control(cli, name, "host1"), control(cli, name, "host2")
    with in_terminal(cli, "top", name, "--interval", 0.2) as screen:
        screen.wait_for("hosts 2/2  VMs 2/2")
        os.kill(stopped, signal.SIGSTOP)
        screen.wait_for("host1: no answer within 2 s")
        os.kill(stopped, signal.SIGCONT)
        screen.wait_for("hosts 2/2")
        os.kill(killed, signal.SIGKILL)
        screen.wait_for("host2: it does not run")
        screen.press("7")
        screen.wait_for("CPU ")
        text = cli.ok("metrics", name, "--once")
        assert f'testbed_host_up{{host="host2",lab="{name}"}} 0.0' in text
        assert f'testbed_host_up{{host="host1",lab="{name}"}} 1.0' in text
        cli.ok("down", name)
        screen.wait_for("ended")
        cli.up(TWO_HOSTS, "--name", name)
        screen.wait_for("hosts 2/2")
        screen.press("q")
        assert screen.process.wait(SECONDS) == 0
        assert screen.process.stderr is not None
        assert screen.process.stderr.read() == b""
        assert termios.tcgetattr(screen.terminal) == screen.before
    cli.ok("down", name)


def test_a_vm_that_has_ended_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    monkeypatch.setenv("TESTBED_STATE_DIR", str(cli.state))
    with Watch(name) as watch, Opened.open(name) as inside:
        assert watch.sample().vms == {"blue1": True, "blue2": True}
        inside.engine.stop(inside.ref, ["blue2"])
        until(lambda: watch.sample().vms == {"blue1": True, "blue2": False}, "it still runs")
        found = activity(None, watch.sample())
    assert found.problems == ("VMs that do not run: blue2",)
    cli.ok("down", name)


def test_a_host_that_does_not_answer_can_be_asked_for_long(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that nobody accepts fill its queue: that must not hold up whoever asks."""
    name = cli.up(TWO_HOSTS)["name"]
    monkeypatch.setenv("TESTBED_STATE_DIR", str(cli.state))
    monkeypatch.setattr("testbed.lab.watch._ANSWER_SECONDS", 0.02)
    pid = control(cli, name, "host1")
    with Watch(name) as watch:
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(40):
                assert watch.sample().down.get("host1", "").startswith("no answer")
        finally:
            os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + SECONDS
        while watch.sample().down:
            assert time.monotonic() < end
    cli.ok("down", name)


def test_json_goes_on_until_the_lab_ends(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    process = cli.start("top", name, "-f", "json", "--interval", 0.1)
    with cli.ended(process):
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [each["state"] for each in first] == ["running"] * 3
        assert [row["object"] for row in first[0]["vms"]] == ["blue1", "blue2"]
        cli.ok("down", name)
        last = [json.loads(line) for line in process.stdout][-1]
        assert process.wait(SECONDS) == 3
        assert process.stderr is not None
        said = process.stderr.read().decode()
        words = {"ended": f"no lab called {name}", "dead": f"{name} has died"}  # dead: `down` was at work
        assert words[last["state"]] in said
        assert "Traceback" not in said


def test_one_table_in_a_pipe(lab: Lab) -> None:
    for words in (("top", lab.name, "--interval", 0.1), ("top", lab.name, "--once", "--interval", 0.1)):
        lines = lab.cli.ok(*words).splitlines()
        assert sum("drops/s" in line for line in lines) == 1
        assert sum(line.split()[:1] == ["blue1"] for line in lines) == 1
    two = lab.cli.ok("top", lab.name, "--count", 2, "--interval", 0.1, "--view", "team")
    assert two.count("flows, RTT") == 2
    found = lab.cli.json("top", lab.name, "--once", "--interval", 0.1)
    assert found["lab"] == lab.name
