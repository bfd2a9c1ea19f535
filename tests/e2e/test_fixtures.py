"""What the pytest plugin hands out, used by a test file of its own in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import SOURCE, Cli

pytestmark = pytest.mark.e2e
MARK = "import os\nimport pytest\npytestmark = pytest.mark.topology('2host')\n"
COMMANDS = """
def test_commands(vm, host, lab):
    blue1 = vm("blue1")
    assert blue1.run("hostname").stdout == "blue1\\n"
    assert blue1.run("cat", stdin="through").stdout == "through"
    assert blue1.run("sh", "-c", "exit 3", check=False).returncode == 3
    assert host("host1").run("hostname").stdout == "host1\\n"
    with pytest.raises(AssertionError, match="blue1: sh -c echo why; exit 4: exit 4\\nwhy"):
        blue1.run("sh", "-c", "echo why; exit 4")
    with pytest.raises(AssertionError, match="no end within 0.2 s"):
        blue1.run("sleep", 60, seconds=0.2)
    with pytest.raises(pytest.fail.Exception, match="no VM 'red1': one of blue1, blue2"):
        vm("red1")

def test_a_command_ends_with_the_process_that_started_it(vm, until):
    blue1 = vm("blue1")
    process = blue1.start("sleep", 4711)
    there = lambda: blue1.run("pgrep", "-f", "sleep 4711", check=False).returncode == 0
    until(there, "it has begun")
    process.kill()
    process.communicate()
    until(lambda: not there(), "it has ended")
"""
PACKETS = """
def test_packets(vm, capture, host):
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    blue1, blue2 = vm("blue1"), vm("blue2")
    mark = os.urandom(16)
    packet = Ether(dst=blue2.mac, src=blue1.mac) / IP(src=blue1.address(), dst=blue2.address()) / UDP() / mark
    with capture("vm:*", "cable:*", "host1:wnv") as seen:
        frame = seen.wait("vm:blue2", mark, lambda: blue1.send(packet), outgoing=False)
        assert frame.data == bytes(packet)
        on_cable = seen.frames("cable:host1/*", mark, outgoing=False)
        assert {each.nvgre.vsid for each in on_cable} == {5001}
        assert {each.nvgre.source for each in on_cable} <= host("host1").provider_addresses(5001)
        left = seen.count("vm:blue1", mark, outgoing=True)
        assert left == seen.count("host1:wnv", mark, outgoing=True) == len(on_cable)
        with pytest.raises(AssertionError, match="the frame was not seen at vm:blue1 within 0.1 s"):
            seen.wait("vm:blue1", os.urandom(16), seconds=0.1)

def test_frames_that_are_lost_fail_the_test(vm, capture):
    blue1 = vm("blue1")
    frame = blue1.frame(vm("blue2"), bytes(1000))
    with pytest.raises(AssertionError, match="faster than they were read: vm:blue1"), capture("vm:blue1"):
        for _ in range(20):
            blue1.send(*[frame] * 1000)
"""
SHARED = """
names = []
def test_one(lab): names.append(lab.name)
def test_two(lab): assert names == [lab.name]

@pytest.mark.topology("2host", exclusive=True)
def test_own(lab):
    assert names[0] != lab.name
    with lab.added_vm("host1", 5001) as new:
        assert new.ping(lab.vm("blue2"))
    assert new.name not in [each.name for each in lab.vms]

def test_only_a_lab_of_its_own_is_changed(lab):
    with pytest.raises(AssertionError, match="exclusive=True"), lab.added_vm("host1", 5001): pass
"""
CHANGED = """
import msgspec

def silent(topology):
    return msgspec.structs.replace(topology, learning=False)

@pytest.mark.topology("2host", change=silent)
def test_changed(lab):
    assert not any(host.plan.learning for host in lab.hosts)

def test_as_it_is(lab):
    assert all(host.plan.learning for host in lab.hosts)

@pytest.mark.topology("2host", exclusive=True)
def test_a_vm_without_addresses(lab):
    with lab.added_vm("host1", 5001, learn=True) as new:
        assert new.addresses() == []
        assert [each["type"] for each in lab.host("host2").lookup_records(5001, "0.0.0.0")] == ["L2Only"]
"""
SECRET = """
def test_it(lab):
    token = (lab.lab.folder("vmm") / "admin-token").read_text().strip()
    assert token == "another"
"""


def run(cli: Cli, folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_it.py"
    file.write_text(MARK + text)
    command = [sys.executable, "-P", "-m", "pytest", "-p", "testbed.pytest_plugin", "-p", "no:cacheprovider"]
    env = {**cli.env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [*command, f"--testbed-engine={cli.engine}", f"--rootdir={folder}", *words, str(file)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_commands_in_vms_and_hosts(each_cli: Cli, tmp_path: Path) -> None:
    done = run(each_cli, tmp_path, COMMANDS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("text", [PACKETS, SHARED, CHANGED], ids=["packets", "labs", "changed"])
def test_packets_and_labs(cli: Cli, tmp_path: Path, text: str) -> None:
    done = run(cli, tmp_path, text)
    assert done.returncode == 0, done.stdout
    assert cli.names() == []


def test_no_token_is_told(cli: Cli, tmp_path: Path) -> None:
    done = run(cli, tmp_path, SECRET, "-vv")
    assert done.returncode == 1
    assert "assert '(a token)' == 'another'" in done.stdout
    assert not re.search(r"[\w-]{43}", done.stdout), done.stdout
