"""The command line's way to a lab's VMM: a real one answers, or nobody does, or something else."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.vmm import running
from testbed import channel
from testbed.errors import BadInput, LabError
from testbed.lab import vmm_client
from testbed.lab.vmm_client import VmmClient


@pytest.fixture
def client(tmp_path: Path) -> Iterator[VmmClient]:
    folder = tmp_path / ("a-long-name" * 12)  # longer than a Unix socket's address may be
    with running(folder, "--unix", str(folder / "vmm.sock")):
        made = VmmClient(folder)
        yield made
        made.close()


def test_orders_and_questions(client: VmmClient) -> None:
    made = client.post("/networks", {"name": "blue", "rdid": "{00000000-0000-0000-0000-00000000b1e0}"})
    assert client.get("/networks") == [made]
    assert client.get("/vms", host=None) == []
    assert client.delete(f"/networks/{made['rdid']}") in (None, made)
    assert client.get("/networks") == []


def test_a_refusal_has_the_reason_and_the_connection_goes_on(client: VmmClient) -> None:
    with pytest.raises(BadInput, match=r"^vmm: .*blue9.*: ") as told:
        client.get("/vms/blue9")
    assert told.value.exit_code == 2
    with pytest.raises(BadInput, match="vmm: "):
        client.post("/networks", {"nonsense": 1})
    assert client.get("/networks") == []


def test_a_connection_that_the_vmm_has_ended_meanwhile_is_made_anew(tmp_path: Path) -> None:
    """As it does with one that is idle for some seconds."""
    (tmp_path / "admin-token").write_text("x" * 32)
    listener = channel.listen(tmp_path / "vmm.sock")
    listener.setblocking(True)

    def serve() -> None:
        for _ in range(2):
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = VmmClient(tmp_path)
    assert client.get("/vms") == []
    assert client._connection
    assert client._connection.sock
    assert select.select([client._connection.sock], [], [], 10)[0]  # the end is there
    assert client.get("/vms") == []
    thread.join(10)
    client.close()
    listener.close()


def test_a_stream_has_what_was_and_what_comes(client: VmmClient) -> None:
    network = {"name": "blue", "rdid": "{00000000-0000-0000-0000-00000000b1e0}"}
    client.post("/networks", network)
    lines = client.lines("/events/stream", after=0)
    assert next(lines)["kind"] == "network"
    client.post("/pools", {"name": "pa", "prefix": "192.168.0.0/24"})
    client.post("/networks", {**network, "name": "red", "rdid": network["rdid"].replace("b1e0", "00ed")})
    told = next(line for line in lines if line.get("kind") == "network")
    assert told["object"] == "red"
    lines.close()  # type: ignore[attr-defined]


def test_a_vmm_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("x" * 32)
    with pytest.raises(LabError, match=r"the VMM does not answer .*see `testbed logs`"):
        VmmClient(tmp_path).get("/status")


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[None]:
    """Something that is no VMM."""
    (folder / "admin-token").write_text("x" * 32)
    with channel.listen(folder / "vmm.sock") as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.recv(65536)
                connection.sendall(answer)
                if answer:
                    connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"nonsense\r\n\r\n", LabError, "does not answer"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n{]}", LabError, "vmm: HTTP status 500"),
        (b"HTTP/1.1 404 Oh\r\nContent-Length: 2\r\n\r\n{}", BadInput, "vmm: HTTP status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1,", LabError, "does not answer"),
    ],
)
def test_what_is_no_answer(tmp_path: Path, answer: bytes, error: type[Exception], words: str) -> None:
    with answering(tmp_path, answer):
        client = VmmClient(tmp_path)
        with pytest.raises(error, match=words):
            client.get("/status")
        client.close()


def test_silence_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmm_client, "TIMEOUT_SECONDS", 0.2)
    with answering(tmp_path, b""), pytest.raises(LabError, match="does not answer"):
        VmmClient(tmp_path).get("/status")
