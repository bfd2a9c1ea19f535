"""The VMM as a process: its start and end, tokens, and streams over real connections."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from support.vmm import ROOT, Process, plan_4host, running, start
from testbed.topology.plan import HostPolicy, encode
from testbed.vmm.replica import Replica
from testbed.wnv.policy import PolicyStore


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_bytes(encode(plan_4host()))
    return path


@pytest.fixture
def vmm(tmp_path: Path, plan: Path) -> Iterator[Process]:
    with running(tmp_path / "vmm", "--plan", str(plan)) as process:
        yield process


def token(vmm: Process, host: str) -> str:
    return (vmm.directory / "host-tokens" / host).read_text().strip()


def news(stream: HTTPResponse) -> dict[str, Any]:
    """The next line that is no keep-alive."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        line = stream.readline()
        assert line, "the stream has ended"
        message: dict[str, Any] = json.loads(line)
        if message["type"] != "keep-alive":
            return message
    raise AssertionError("nothing but keep-alives")


def migrate(vmm: Process, vm: str, host: str) -> None:
    assert vmm.call("POST", f"/v1/vms/{vm}/migrate", {"host": host})[0] == 200


# ---- start and end -----------------------------------------------------------------------------


def test_files_are_the_owners_alone(vmm: Process) -> None:
    assert stat.S_IMODE(vmm.directory.stat().st_mode) == 0o700
    files = [path for path in vmm.directory.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"admin-token", "vmm.sqlite", "host1", "host4"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_restart_keeps_tokens_and_state(tmp_path: Path, plan: Path) -> None:
    with running(tmp_path / "vmm", "--plan", str(plan)) as vmm:
        before = vmm.admin, token(vmm, "host1"), vmm.call("GET", "/v1/vms")
        vmm.call("POST", "/v1/pools/5001-ipv4/allocate", {"owner": "x"})
    with running(tmp_path / "vmm", "--plan", str(plan)) as vmm:  # the store is not empty: no load
        assert (vmm.admin, token(vmm, "host1"), vmm.call("GET", "/v1/vms")) == before
        assert vmm.call("GET", "/v1/status")[1]["revision"] == 2
        assert vmm.call("GET", "/v1/hosts/host1", token=token(vmm, "host1"))[0] == 200


def test_the_administrators_token_from_the_environment(tmp_path: Path) -> None:
    vmm = start(tmp_path / "vmm", TESTBED_VMM_ADMIN_TOKEN="from-the-environment")
    try:
        assert vmm.call("GET", "/v1/vms", token="from-the-environment")[0] == 200
        assert not (vmm.directory / "admin-token").exists()
    finally:
        vmm.process.terminate()
        assert vmm.process.wait(30) == 0
        assert vmm.process.stdout is not None
        vmm.process.stdout.close()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--listen", "nowhere"], 3, "can't listen on 'nowhere'"),
        (["--listen", "127.0.0.1:99999"], 3, "can't listen on '127.0.0.1:99999'"),
        (["--listen", "192.0.2.1:1"], 3, "give ADDRESS:PORT of this node"),
        (["--listen", "127.0.0.1:0", "--plan", "nothing.json"], 2, "nothing.json: "),
        (["--listen", "127.0.0.1:0", "--plan", __file__], 2, "give a Plan in JSON"),
    ],
)
def test_a_start_that_can_not_be(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "testbed.vmm", "--directory", str(tmp_path / "vmm"), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_vmm_in_the_same_folder_is_refused(vmm: Process) -> None:
    command = [sys.executable, "-m", "testbed.vmm", "--listen", "127.0.0.1:0", "--directory"]
    command.append(str(vmm.directory))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, "another VMM uses this store" in done.stderr) == (3, True)


def test_no_token_is_in_the_log(vmm: Process) -> None:
    secrets = [vmm.admin, token(vmm, "host1")]
    vmm.call("GET", "/v1/hosts", token=secrets[1])
    vmm.call("GET", "/v1/hosts", token=secrets[1] + "x")
    vmm.call("POST", "/v1/vms", {"name": 1})
    log = (vmm.directory.parent / "vmm.log").read_text()
    assert not any(secret in log for secret in secrets)


def test_the_process_stays_lean() -> None:
    code = "import sys, testbed.vmm.main; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.replace("'", " ").replace("[", " ").replace(",", " ").split())
    assert "litestar" in loaded
    assert loaded & {"pyroute2", "docker", "rich", "jinja2", "pydantic", "httpx", "scapy"} == set()


def test_answers_wait_for_no_delayed_ack(vmm: Process) -> None:
    """A delayed ACK of Linux is 40 ms at least; each request but the first would wait for one."""
    connection = HTTPConnection(vmm.host, vmm.port, timeout=30)
    headers = {"Authorization": f"Bearer {token(vmm, 'host1')}"}
    times = []
    for _ in range(21):
        begin = time.monotonic()
        connection.request("GET", "/v1/hosts/host1", headers=headers)
        connection.getresponse().read()
        times.append(time.monotonic() - begin)
    connection.close()
    assert sorted(times)[10] < 0.035


# ---- streams -----------------------------------------------------------------------------------


def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(vmm: Process) -> None:
    with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream:
        assert stream.headers["Content-Type"] == "application/x-ndjson"
        first = news(stream)
        assert first["type"] == "reset"
        assert first["policy"] == vmm.call("GET", "/v1/hosts/host1/policy")[1]
        assert vmm.call("GET", "/v1/hosts/host1")[1]["watching"] is True
        migrate(vmm, "blue3", "host2")
        line = news(stream)
        assert (line["type"], line["after"], line["revision"]) == ("changes", 1, 2)
        pas = {(each["old"]["provider_address"], each["new"]["provider_address"]) for each in line["changes"]}
        hosts = vmm.call("GET", "/v1/provider-addresses")[1]
        pa = {each["host"]: each["provider_address"] for each in hosts if each["virtual_subnet_id"] == 5001}
        assert len(pas) == 1
        assert next(iter(pas))[1] == pa["host2"]


def test_a_host_whose_networks_change_begins_anew(vmm: Process) -> None:
    with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream:
        assert {5001, 6001} <= vsids(news(stream))
        migrate(vmm, "red1", "host2")  # host1's only one of red
        without = news(stream)
        assert (without["type"], 6001 in vsids(without)) == ("reset", False)
        migrate(vmm, "red2", "host3")  # red changes, and host1 is not told
        migrate(vmm, "red1", "host1")
        assert 6001 in vsids(news(stream))


def vsids(reset: dict[str, Any]) -> set[int]:
    return {each["virtual_subnet_id"] for each in reset["policy"]["lookup_records"]}


def test_a_host_resumes_where_it_was(vmm: Process) -> None:
    replica, table = Replica(), PolicyStore(HostPolicy())

    def follow(stream: HTTPResponse, until: int) -> None:
        while replica.revision is None or replica.revision < until:
            found = replica.feed(stream.readline())
            if isinstance(found, HostPolicy):
                table.replace(found)
            elif isinstance(found, list):
                table.apply(found)

    with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream:
        follow(stream, 1)
    for host in ("host1", "host2", "host1"):
        migrate(vmm, "blue3", host)
    path = f"/v1/hosts/host1/watch?revision={replica.revision}&store_id={replica.store}"
    revision = vmm.call("GET", "/v1/status")[1]["revision"]
    with vmm.stream(path, token(vmm, "host1")) as stream:
        follow(stream, revision)
    fresh = Replica()
    with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream:
        policy = fresh.feed(stream.readline())
    assert isinstance(policy, HostPolicy)
    assert set(table.policy().lookup_records) == set(policy.lookup_records)
    assert set(table.policy().provider_addresses) == set(policy.provider_addresses)


def test_a_revision_of_another_store_is_a_snapshot(vmm: Process) -> None:
    with vmm.stream("/v1/hosts/host1/watch?revision=77&store_id=other", token(vmm, "host1")) as stream:
        assert news(stream)["type"] == "reset"


def test_a_newer_stream_of_a_host_ends_its_older_one(vmm: Process) -> None:
    with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as older:
        news(older)
        with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as newer:
            news(newer)
            assert older.read() == b""
            migrate(vmm, "blue3", "host2")
            assert news(newer)["type"] == "changes"


def test_the_stream_of_a_removed_host_ends(vmm: Process) -> None:
    made = vmm.call("POST", "/v1/hosts", {"name": "host9"})[1]["token"]
    with vmm.stream("/v1/hosts/host9/watch", made) as stream:
        assert news(stream)["policy"]["lookup_records"] == []
        assert vmm.call("DELETE", "/v1/hosts/host9")[0] == 204
        assert stream.read() == b""


def test_events_can_be_followed(vmm: Process) -> None:
    with vmm.stream("/v1/events/stream", vmm.admin) as stream:
        migrate(vmm, "blue3", "host2")
        seen = [json.loads(stream.readline()) for _ in range(3)]
    assert [each["kind"] for each in seen] == ["customer-address", "customer-address", "vm"]
    assert {each["revision"] for each in seen} == {2}
    assert seen[0]["fields"]["reason"] == "Moved"


def test_the_end_of_the_vmm_ends_the_streams(tmp_path: Path, plan: Path) -> None:
    with running(tmp_path / "vmm", "--plan", str(plan)) as vmm:
        with vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream:
            news(stream)
            vmm.process.terminate()
            assert stream.read() == b""  # ended as a stream ends: not cut
        assert vmm.process.wait(10) == 0


def test_a_host_that_does_not_read_holds_up_nobody(vmm: Process) -> None:
    with (
        vmm.stream("/v1/hosts/host2/watch", token(vmm, "host2")),  # never read
        vmm.stream("/v1/hosts/host1/watch", token(vmm, "host1")) as stream,
    ):
        news(stream)
        for host in ("host1", "host2") * 40:
            migrate(vmm, "blue3", host)
            assert news(stream)["type"] == "changes"
