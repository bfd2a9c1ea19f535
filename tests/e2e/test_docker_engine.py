"""The docker engine by itself: containers without any wiring."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.engines.base import LabRef, Node, NodeSpec
from testbed.engines.docker import image
from testbed.engines.docker.engine import STATE, DockerEngine, available
from testbed.errors import LabError

pytestmark = pytest.mark.e2e

STAY = "exec sleep infinity"


@pytest.fixture(scope="module")
def engine() -> DockerEngine:
    answers, why = available()
    if not answers:
        assert "TESTBED_REQUIRE_DOCKER" not in os.environ, why
        pytest.skip(why)
    return DockerEngine(print)


@pytest.fixture
def lab(engine: DockerEngine, tmp_path: Path) -> Iterator[LabRef]:
    ref = LabRef(secrets.token_hex(6), "engine-test", tmp_path / "labs")
    ref.directory.mkdir()
    yield ref
    engine.destroy(ref)
    assert engine._containers(ref) == []


def node(lab: LabRef, name: str, script: str | None = None, **more: str) -> NodeSpec:
    """A vm (or ``role``) that runs a shell script."""
    command = ("sh", "-c", script) if script else None
    return NodeSpec(name, more.get("role", "vm"), str(lab.directory), more.get("image"), command)  # type: ignore[arg-type]


def inside(opened: Node, *command: str) -> str:
    """Output of a command in all namespaces of a node."""
    entered = ["nsenter", "--target", str(opened.pid), "--net", "--uts", "--mount", "--pid", *command]
    done = subprocess.run(entered, env=opened.env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until_ended(engine: DockerEngine, lab: LabRef) -> None:
    """Wait until nothing of the lab runs."""
    end = time.monotonic() + 20
    while engine.alive(lab):
        assert time.monotonic() < end, "the node still runs"
        time.sleep(0.05)


def test_nodes_have_namespaces_of_their_own_and_ipv6(engine: DockerEngine, lab: LabRef) -> None:
    engine.start(lab, [node(lab, "a"), node(lab, "b", STAY)])
    assert engine.alive(lab)
    with engine.open(lab, "a") as a, engine.open(lab, "b") as b:
        spaces = {os.readlink(f"/proc/{who}/ns/net") for who in ("self", a.pid, b.pid)}
        assert len(spaces) == 3
        assert inside(a, "hostname") == "a\n"
        assert inside(b, "ip", "-o", "link").count("\n") == 1  # lo alone
        for scope in ("all", "default"):
            assert inside(a, "cat", f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6") == "0\n"
        assert a.env
        assert "/usr/bin" in a.env["PATH"]
        assert inside(a, "sh", "-c", "cat /proc/1/comm") == "tini\n"


def test_node_image_has_the_tools_and_the_package(engine: DockerEngine, lab: LabRef) -> None:
    engine.start(lab, [node(lab, "a")])
    with engine.open(lab, "a") as a:
        tools = ("ip", "ping", "arping", "tcpdump", "iperf3", "dnsmasq", "dhclient", "ethtool", "testbed")
        for tool in tools:
            assert inside(a, "sh", "-c", f"command -v {tool}").strip()
        loads = (
            "import iperf3, msgspec, yaml, jinja2, pyroute2, docker, click, rich, testbed; iperf3.Client()"
        )
        inside(a, "python3", "-c", loads)
        inside(a, "python3", "-c", "from testbed.engines.docker import image; image.context_files()")
        inside(
            a,
            "sh",
            "-c",
            "ip link set lo up && timeout 5 ping -c1 -W2 ::1 && timeout 5 ping -c1 -W2 127.0.0.1",
        )


def test_a_host_sees_its_folder_and_opens_packet_sockets(engine: DockerEngine, lab: LabRef) -> None:
    packet_socket = (
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW).setsockopt(1, 33, 1 << 22)"
    )
    script = (
        f"python3 -c '{packet_socket}' > /run/testbed/mark 2>&1 && echo fine >> /run/testbed/mark; {STAY}"
    )
    engine.start(lab, [node(lab, "host1", script, role="host")])
    end, mark = time.monotonic() + 20, lab.directory / "mark"
    while not (mark.exists() and mark.read_text().endswith("\n")):
        assert time.monotonic() < end, "the host wrote nothing into its folder"
        time.sleep(0.05)
    assert mark.read_text() == "fine\n"


def test_log_is_read_and_followed_to_the_end(engine: DockerEngine, lab: LabRef) -> None:
    script = f"echo first; echo second >&2; until [ -e {STATE}/go ]; do sleep 0.05; done; echo late; {STAY}"
    engine.start(lab, [node(lab, "a", script, role="host"), node(lab, "b")])
    end = time.monotonic() + 20
    while sorted(b"".join(engine.logs(lab, "a", follow=False)).split()) != [b"first", b"second"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    following = engine.logs(lab, "a", follow=True)
    seen = next(following)
    (lab.directory / "go").touch()
    while b"late" not in seen:
        seen += next(following)
    engine.stop(lab, ["a", "nobody"])
    assert list(following) == []  # it ends with the node
    assert engine.alive(lab)
    with pytest.raises(LabError, match="no container for a"):
        engine.open(lab, "a")


def test_destroy_is_idempotent_and_start_adds_nodes(engine: DockerEngine, lab: LabRef) -> None:
    engine.start(lab, [node(lab, "a")])
    engine.start(lab, [node(lab, "b")])
    assert {c["Labels"]["testbed.node"] for c in engine._containers(lab)} == {"a", "b"}
    with engine.open(lab, "b") as b:
        engine.destroy(lab)
        assert not Path(f"/proc/{b.pid}").exists()
    engine.destroy(lab)
    assert not engine.alive(lab)


def test_an_ended_node_is_told_with_its_last_lines(engine: DockerEngine, lab: LabRef) -> None:
    engine.start(lab, [node(lab, "a", "echo last words; exit 3")])
    until_ended(engine, lab)
    with pytest.raises(LabError, match=r"(?s)code 3.*last words"):
        engine.open(lab, "a")


def test_an_image_whose_command_ends_at_once_is_refused(engine: DockerEngine, lab: LabRef) -> None:
    own = image.ensure(engine._client, print)
    with pytest.raises(LabError, match=r"set `command:` of a"):
        engine.start(lab, [node(lab, "a", "echo bye", image=own)])
    engine.start(lab, [node(lab, "b", STAY, image=own)])
    with engine.open(lab, "b") as b:
        assert b.pid > 1


def test_an_image_that_is_nowhere_is_one_clear_error(engine: DockerEngine, lab: LabRef) -> None:
    with pytest.raises(LabError, match=r"image localhost:1/nothing/here is not on this machine"):
        engine.start(lab, [node(lab, "a"), node(lab, "b", image="localhost:1/nothing/here")])
    assert engine._containers(lab) == []


def nowhere(*_: object) -> bool:
    return False


def test_leftovers_are_those_of_this_state_folder_without_a_lab(engine: DockerEngine, lab: LabRef) -> None:
    if os.fork() == 0:  # the owner: gone after it started a node
        DockerEngine().start(lab, [node(lab, "a")])
        os._exit(0)
    assert os.wait()[1] == 0
    state = lab.directory.parent
    assert engine.leftovers(lambda found, folder: (found, folder) == (lab.id, lab.directory), state) == []
    assert engine.leftovers(nowhere, state / "other") == []
    found = engine.leftovers(nowhere, lab.directory)
    assert found == [container["Id"] for container in engine._containers(lab)]
    assert len(found) == 1
    engine.remove_leftovers(found)
    engine.remove_leftovers(found)  # somebody else was quicker
    assert engine.leftovers(nowhere, lab.directory) == []
