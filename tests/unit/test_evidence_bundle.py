"""testbed.evidence.bundle: what is written is read again; whatever else comes is refused with the reason."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from testbed.errors import BadInput
from testbed.evidence import bundle
from testbed.evidence.bundle import Manifest

FILES = {"failure.txt": b"1 != 2", "captures/vm-blue1.pcapng": bytes(range(256)) * 500}


def manifest(**more: Any) -> Manifest:
    fields = {"format": bundle.FORMAT, "testbed": "0.1.0", "suite": "mtu", "name": "test_x", "file": "mtu.py"}
    fields |= {"lab": "l", "topology": "t", "engine": "namespaces", "plant": "", "created": 1.0}
    return Manifest(**{**fields, "python": "3", "kernel": "6", **more})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.repro.tar.zst"
    bundle.write(path, manifest(), FILES)
    return path


def packed(path: Path, members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None]) -> Path:
    """A bundle made by somebody with other ideas; ``change`` is called for each member but the manifest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name != bundle.MANIFEST:
                change(member)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()))
    return path


def refused(path: Path, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as found:
        bundle.read(path)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)


def good(data: dict[str, bytes], **more: Any) -> dict[str, bytes]:
    """Members with a manifest that lists them."""
    entries = {
        name: bundle.Entry(len(text), bundle.hashlib.sha256(text).hexdigest()) for name, text in data.items()
    }
    return {bundle.MANIFEST: msgspec.json.encode(manifest(files=entries, **more)), **data}


def test_what_is_written_is_read(file: Path) -> None:
    found = bundle.read(file)
    assert found.files == FILES
    assert found.manifest.id == "mtu::test_x"
    assert [*file.parent.iterdir()] == [file]


def test_cut_at_any_place(file: Path) -> None:
    data = file.read_bytes()
    for size in (*range(0, 60, 7), *range(60, len(data) - 4, len(data) // 40)):
        file.write_bytes(data[:size])
        refused(file, "cut short|no bundle|missing")


def test_any_byte_flipped_is_noticed_or_harmless(file: Path) -> None:
    data = file.read_bytes()
    numbers = random.Random(8)
    for _ in range(200):
        place = numbers.randrange(len(data))
        changed = bytearray(data)
        changed[place] ^= 1 << numbers.randrange(8)
        file.write_bytes(changed)
        with contextlib.suppress(BadInput):
            assert bundle.read(file).files == FILES


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a/b/c", ".ssh", "a//b", "a\nb", "\x1b[31m", "a/", "-rf", "ä"]
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a", good({name: b"x"}), lambda _: None)
    refused(path, "is no name of a bundle's file|no plain file")
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]
)
def test_what_is_no_plain_file(tmp_path: Path, kind: bytes) -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/shadow", 0

    refused(packed(tmp_path / "a", good({"x": b""}), change), "is no plain file")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 1 << 18)
    refused(packed(tmp_path / "a", good({"x": bytes(1 << 20)}), lambda _: None), "too large files")
    many = {f"x{number}": bytes(1 << 17) for number in range(8)}
    path = packed(tmp_path / "a", good(many), lambda _: None)
    assert path.stat().st_size < 5000
    refused(path, "unpacks to more than 262144 bytes")
    monkeypatch.setattr(bundle, "MAX_PACKED_BYTES", 100)
    refused(path, "larger than any bundle")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    refused(
        packed(tmp_path / "a", good({f"x{number}": b"" for number in range(5)}), lambda _: None), "too many"
    )


def test_a_newer_version_is_named(tmp_path: Path) -> None:
    text = b'{"format": 99, "testbed": "7.1", "what": "ever"}'
    refused(
        packed(tmp_path / "a", {bundle.MANIFEST: text}, lambda _: None), "written by testbed '7.1' in a newer"
    )


def test_what_is_not_as_listed(tmp_path: Path) -> None:
    members = good({"x": b"1"})
    path = tmp_path / "a"
    refused(packed(path, {**members, "y": b""}, lambda _: None), "y is not on its list")
    refused(packed(path, {**members, "x": b"2"}, lambda _: None), "x is not what was written")
    refused(packed(path, {bundle.MANIFEST: members[bundle.MANIFEST]}, lambda _: None), "x is missing")
    refused(packed(path, {"x": b"1"}, lambda _: None), "manifest.json is missing or damaged")
    refused(packed(path, {bundle.MANIFEST: b"[]"}, lambda _: None), "missing or damaged")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a"
    refused(path, "No such file")
    path.write_bytes(b"")
    refused(path, "no bundle")
    path.write_bytes(b"PK\x03\x04")
    refused(path, "no bundle")
    path.write_bytes(zstandard.ZstdCompressor().compress(b"no tar"))
    refused(path, "damaged")
    refused(tmp_path, "Is a directory")
