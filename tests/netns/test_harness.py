"""The search for leftovers finds them: each kind is left behind here on purpose."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import labs, machine, whole_machine
from support.cli import SOURCE, TWO_HOSTS, Cli
from support.machine import Snapshot
from testbed.namespaces import in_netns, new_netns
from testbed.nic.bpf import loader

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, leaves_nothing: None) -> Iterator[None]:
    """What is left on purpose does not go away: no need to wait for it."""
    with monkeypatch.context() as patch:
        patch.setattr(machine, "SETTLE_SECONDS", 0.0)
        yield


@pytest.fixture
def before() -> Snapshot:
    return machine.snapshot()


def orphan(*command: str, **more: object) -> int:
    """Start a process whose parent ends at once; its id. It says when it is ready by one line."""
    script = 'setsid "$@" & echo $!; exit 0'
    with subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, **more) as shell:  # type: ignore[call-overload]
        assert shell.stdout
        said = {shell.stdout.readline(), shell.stdout.readline()}  # in either order
        assert b"ready\n" in said
    return int((said - {b"ready\n"}).pop())


SLEEP = "echo ready; exec sleep 60 >/dev/null"


def kill(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_nothing_is_found_where_nothing_is(before: Snapshot, tmp_path: Path) -> None:
    assert machine.leaks(before, tmp_path) == []


def test_an_orphan_that_holds_a_namespace(before: Snapshot, tmp_path: Path) -> None:
    pid = orphan("unshare", "--net", "sh", "-c", SLEEP)
    try:
        assert [line for line in machine.leaks(before, tmp_path) if f"process {pid} is left" in line]
    finally:
        kill(pid)
    assert machine.leaks(before, tmp_path) == []


@pytest.mark.parametrize(
    ("command", "where", "found"),
    [
        (["sh", "-c", SLEEP, "{folder}/x"], {}, None),  # replaced by exec: only the sleep's own words count
        (["sh", "-c", "echo ready; exec tail -f {folder}/x >/dev/null"], {}, "cmdline"),
        (["sh", "-c", SLEEP], {"env": {"PATH": os.environ["PATH"], "X": "{folder}/state"}}, "environ"),
        (["sh", "-c", SLEEP], {"cwd": "{folder}"}, "is in"),
        (["unshare", "--mount", "sh", "-c", f"mount -t tmpfs x {{folder}}/dir; {SLEEP}"], {}, "a mount of"),
    ],
)
def test_a_process_that_names_the_folder(
    tmp_path: Path, command: list[str], where: dict[str, object], found: str | None
) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "dir").mkdir()
    filled = [word.replace("{folder}", str(tmp_path)) for word in command]
    more: dict[str, object] = {}
    for key, value in where.items():
        more[key] = (
            {name: text.replace("{folder}", str(tmp_path)) for name, text in value.items()}
            if isinstance(value, dict)
            else str(tmp_path)
        )
    pid = orphan(*filled, **more)
    try:
        # nobody's child, for once: what a daemon started for the test
        traces = machine._traces(tmp_path, frozenset())
        assert bool([line for line in traces if found and found in line and str(pid) in line]) is bool(
            found
        ), traces
        assert machine._traces(tmp_path, frozenset({pid})) == []
    finally:
        kill(pid)


def test_a_descriptor_of_a_namespace(before: Snapshot, tmp_path: Path) -> None:
    descriptor = new_netns()
    try:
        (found,) = machine.leaks(before, tmp_path)
        assert "held by a descriptor" in found
    finally:
        os.close(descriptor)


def test_what_is_new_on_the_whole_machine(tmp_path: Path) -> None:
    """Beside what others do meanwhile."""
    before = whole_machine.snapshot()
    names = {"a namespace": "", "an eBPF program": "", "a mount": "", "a file": ""}
    with contextlib.ExitStack() as back:
        descriptor = new_netns()
        back.callback(os.close, descriptor)
        names["a namespace"] = f"namespace: {os.readlink(f'/proc/self/fd/{descriptor}')} is left"
        (program,) = loader.load("echo", "echo")
        back.callback(os.close, program)
        info = Path(f"/proc/self/fdinfo/{program}").read_text()
        number = next(line.split()[1] for line in info.splitlines() if line.startswith("prog_id:"))
        names["an eBPF program"] = f"eBPF program: {number} is left"
        subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path)], check=True)
        back.callback(subprocess.run, ["umount", str(tmp_path)], check=True)
        names["a mount"] = f"mount: {tmp_path} (tmpfs) is left"
        file = Path("/dev/shm") / f"testbed-{os.getpid()}"
        file.touch()
        back.callback(file.unlink)
        names["a file"] = f"in /dev/shm: {file.name} is left"
        found = whole_machine.added(before, whole_machine.snapshot())
        assert {kind: name in found for kind, name in names.items()} == dict.fromkeys(names, True)
    gone = whole_machine.added(before, whole_machine.snapshot())
    assert [kind for kind, name in names.items() if name in gone and kind != "an eBPF program"] == []


def test_a_named_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tmp_path / "names"
    names.mkdir()
    monkeypatch.setattr(machine, "_NAMES", str(names))
    before = machine.snapshot()
    (names / "left").touch()
    (found,) = machine.leaks(before, tmp_path)
    assert "left has a name in" in found


@pytest.mark.parametrize(
    "change", ["link add left type bridge", "address add 192.0.2.1/32 dev lo", "link set lo mtu 1400"]
)
def test_a_change_of_the_root_network(tmp_path: Path, change: str) -> None:
    root = new_netns()  # stands in for it
    try:
        with in_netns(root):
            before = machine.snapshot()
            assert machine.leaks(before, tmp_path) == []
            subprocess.run(["ip", *change.split()], check=True)
            (found,) = machine.leaks(before, tmp_path)
            assert "the root network namespace has changed" in found
    finally:
        os.close(root)


def test_a_traceback_in_a_log_and_a_folder_of_a_lab(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    lab = labs.Lab(cli, name)
    assert lab.boot() == []
    assert lab.faults() == []
    with (cli.state / "labs" / name / "logs" / "host1.log").open("a") as log:
        log.write("Traceback (most recent call last):\n")
    (fault,) = lab.faults()
    assert "logged a traceback" in fault
    assert labs.state_left(cli.state) == [f"lab folder {name} is left"]
    assert labs.tear_down(cli) == [f"lab folder {name} is left"]
    assert labs.state_left(cli.state) == []


def test_a_drop_without_a_good_reason(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    lab = labs.Lab(cli, name)
    assert lab.boot() == []
    alien = "ff" * 6 + "02000000000a" + "88b5" + "00" * 46  # neither IP nor ARP
    send = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0));"
        f"s.send(bytes.fromhex('{alien}'))"
    )
    cli.output(name, "blue1", sys.executable, "-c", send)
    (fault,) = lab.faults()
    assert fault.startswith("host1 blue1:eth0: 1 packets dropped: ")
    reason = fault.rpartition(" ")[2]
    assert lab.faults([reason]) == []
    cli.ok("down", name)


def test_drops_are_counted_from_the_boot_on() -> None:
    boot = {("host1", "nic1", "no-port"): 4}
    assert labs.unexpected_drops(boot, boot, labs.ALWAYS) == []
    (found,) = labs.unexpected_drops(boot, {("host1", "nic1", "no-port"): 5}, labs.ALWAYS)
    assert found == "host1 nic1: 1 packets dropped: no-port"


LEAVING = """
import subprocess
import pytest
from support import machine
machine.SETTLE_SECONDS = 0.0
CHILDREN = []

@pytest.mark.{mark}
def test_leaves_a_process():
    CHILDREN.append(subprocess.Popen(["sleep", "60"]))

@pytest.fixture(scope="session", autouse=True)
def end():
    yield
    for child in CHILDREN:
        child.kill()
        child.wait()
"""


@pytest.mark.parametrize(("mark", "code"), [("e2e", 1), ("netns", 1), ("may_drop", 0)])
def test_a_test_that_leaves_something_fails(tmp_path: Path, mark: str, code: int) -> None:
    (tmp_path / "test_leaving.py").write_text(LEAVING.format(mark=mark))
    words = [
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        SOURCE / "pyproject.toml",
        "--rootdir",
        tmp_path,
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *words,
            "--basetemp",
            tmp_path / "tmp",
            tmp_path / "test_leaving.py",
        ],
        env={**os.environ, "PYTHONPATH": f"{SOURCE / 'tests'}:{SOURCE}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("is left: sleep (sleep 60)" in done.stdout) is bool(code), done.stdout
