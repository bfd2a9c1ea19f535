"""What the node image is built from, and the search for a Docker Engine; no engine is needed."""

from __future__ import annotations

import socket
import subprocess
import sys
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from docker.errors import APIError

import testbed
from testbed.engines.docker import client, image
from testbed.errors import LabError, MachineLacks
from testbed.nic.bpf import compiler

FILES: image.Files = {
    "Dockerfile": (0o644, b"FROM x"),
    "images/node/packages.txt": (0o644, b"python3"),
    "testbed/__init__.py": (0o644, b"x = 1"),
    "topologies/4host.yaml": (0o644, b"name: 4host"),
}


@pytest.mark.parametrize(
    "change",
    [
        {"Dockerfile": (0o644, b"FROM y")},
        {"testbed/__init__.py": (0o755, b"x = 1")},
        {"testbed/new.py": (0o644, b"")},
    ],
)
def test_hash_follows_names_modes_and_contents(change: image.Files) -> None:
    assert image.context_hash(FILES | change) != image.context_hash(FILES)


def test_hash_sees_where_a_file_ends() -> None:
    two: image.Files = {"a": (0o644, b"x"), "b": (0o644, b"y")}
    one: image.Files = {"a": (0o644, b"xb\x00644\x00y")}
    assert image.context_hash(one) != image.context_hash(two)


def test_hash_leaves_topologies_out() -> None:
    changed = FILES | {"topologies/4host.yaml": (0o644, b"name: other")}
    assert image.context_hash(changed) == image.context_hash(FILES)


def test_context_holds_what_the_dockerfile_copies() -> None:
    names = set(image.context_files())
    assert {
        "Dockerfile",
        "pyproject.toml",
        "images/node/packages.txt",
        "images/node/testbed",
        "testbed/__init__.py",
        "testbed/nic/bpf/nic.o",
    } <= names
    assert not [name for name in names if "__pycache__" in name or "/." in name or "_data/" in name]


def test_context_is_the_same_bytes_for_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "a-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "notes.txt").write_bytes(b"not a wheel")
    once, again = image._context(FILES, tmp_path), image._context(FILES, tmp_path)
    assert once.getvalue() == again.getvalue()
    with tarfile.open(fileobj=once) as tar:
        assert set(tar.getnames()) == {
            *FILES,
            "images",
            "images/node",
            "testbed",
            "topologies",
            "wheels",
            "wheels/a-1.0-py3-none-any.whl",
        }


class _Images:
    """A Docker Engine with node images: tag -> age in seconds; "busy" is in use."""

    def __init__(self, ages: dict[str, float]) -> None:
        self.ages = ages
        self.pruned: list[object] = []

    def images(self, name: str) -> list[dict[str, object]]:
        return [{"RepoTags": [tag]} for tag in self.ages if tag.startswith(f"{name}:")] + [{"RepoTags": None}]

    def inspect_image(self, tag: str) -> dict[str, object]:
        tagged = datetime.now(UTC) - timedelta(seconds=self.ages[tag])
        return {"Created": "2020-01-01T00:00:00Z", "Metadata": {"LastTagTime": tagged.isoformat()}}

    def remove_image(self, tag: str) -> None:
        if tag.endswith("busy"):
            response = requests.Response()
            response.status_code = 409
            raise APIError("in use", response=response)
        del self.ages[tag]

    def prune_images(self, filters: object) -> None:
        self.pruned.append(filters)


def test_old_node_images_go_but_not_recent_or_busy_ones() -> None:
    names = {"now": 9000.0, "old": 9000.0, "recent": 60.0, "busy": 9000.0}
    engine = _Images({f"testbed-node:{name}": age for name, age in names.items()} | {"other:old": 9000.0})
    image._remove_old(engine, "testbed-node:now")  # type: ignore[arg-type]
    assert set(engine.ages) == {"testbed-node:now", "testbed-node:recent", "testbed-node:busy", "other:old"}
    assert len(engine.pruned) == 1


def test_a_package_without_ebpf_objects_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "testbed"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("Dockerfile", "pyproject.toml"):
        (tmp_path / name).touch()
    monkeypatch.setattr(testbed, "__file__", str(package / "__init__.py"))
    with pytest.raises(LabError, match=r"python3 -m testbed\.nic\.bpf\.compiler"):
        image.context_files()


def test_a_missing_compiler_is_named_with_its_packages() -> None:
    with pytest.raises(MachineLacks, match="clang llvm libbpf-dev linux-libc-dev"):
        compiler._tool("clang-of-nowhere")


def test_a_program_that_does_not_compile_leaves_no_object(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int nonsense(\n")
    with pytest.raises(compiler.TestbedError, match=r"bad\.c"):
        compiler.objects(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.c"]


def test_no_socket_is_told_without_importing_docker(tmp_path: Path) -> None:
    code = (
        "import sys; from testbed.engines.docker.engine import available; print(available());"
        "sys.exit('docker' in sys.modules or 'requests' in sys.modules)"
    )
    path = tmp_path / "absent.sock"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"DOCKER_HOST": f"unix://{path}", "PYTHONPATH": str(Path(testbed.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == f"(False, 'no Docker Engine: {path} does not exist')\n"
    assert done.returncode == 0, done.stderr


def test_an_engine_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    answers, why = client.available()
    assert not answers
    assert "unix:// only" in why
    with pytest.raises(MachineLacks, match="--engine namespaces"):
        client.connect()


@pytest.mark.parametrize(
    ("reply", "answers", "why"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nOK", True, "a Docker Engine answers"),
        (b"HTTP/1.0 503 Busy\r\n\r\n", False, "is no Docker Engine"),
        (None, False, "does not answer within"),
    ],
)
def test_what_answers_at_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes | None, answers: bool, why: str
) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setattr(client, "ANSWER_DEADLINE", 2.0 if reply else 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1024)
                if reply:
                    peer.sendall(reply)
                else:
                    peer.recv(1)  # until the other side gives up

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = client.available()
        thread.join(5)
    assert found[0] is answers
    assert why in found[1]
