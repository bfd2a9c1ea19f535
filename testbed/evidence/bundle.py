"""Bundles: ``NAME.repro.tar.zst``, a tar archive in Zstandard whose first entry lists all others.

A bundle comes from elsewhere. It is read into memory within limits and never unpacked; what is not on its
list, is too large, has a strange name or another content is a reason to refuse it as a whole.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from testbed.errors import BadInput, MachineLacks

FORMAT = 1
SUFFIX = ".repro.tar.zst"
MANIFEST = "manifest.json"
MAX_PACKED_BYTES = 64 << 20
MAX_BYTES = 256 << 20
MAX_FILES = 2000
_MAX_WINDOW = 1 << 27
_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878 section 3.1.1
_LEVEL = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9][A-Za-z0-9_.:-]*)?\Z")

Text = Annotated[str, Meta(max_length=4096)]


class Entry(Struct, frozen=True):
    """A file of a bundle."""

    size: int
    sha256: str


class Manifest(Struct, frozen=True):
    """What a bundle is. suite, name: the test; suite is "" for a user's own, which ``file`` has.

    seeds: of what cables do at random, by cable and direction. missing: what could not be had, and why.
    """

    format: int
    testbed: Text
    suite: Text
    name: Text
    file: Text
    lab: Text
    topology: Text
    engine: Text
    plant: Text
    created: float
    python: Text
    kernel: Text
    settings: dict[str, Text] = {}
    seeds: dict[str, int] = {}
    missing: dict[str, Text] = {}
    files: dict[str, Entry] = {}

    @property
    def id(self) -> str:
        """The test, as it is shown."""
        return f"{self.suite or self.file}::{self.name}"


class Bundle(Struct, frozen=True):
    """A bundle that has been read."""

    manifest: Manifest
    files: dict[str, bytes]

    def text(self, name: str) -> str:
        """A file's text, "" if it is not there."""
        return self.files.get(name, b"").decode(errors="replace")


def write(path: Path, manifest: Manifest, files: dict[str, bytes]) -> None:
    """Write a bundle, whole or not at all. Raises MachineLacks, OSError."""
    zstandard = _zstandard()
    entries = {name: Entry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    manifest = msgspec.structs.replace(manifest, files=entries)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {MANIFEST: msgspec.json.encode(manifest), **files}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), int(manifest.created)
            tar.addfile(member, io.BytesIO(data))
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(out.getvalue())
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(packed)
    scratch.replace(path)


def read(path: Path) -> Bundle:
    """The bundle in a file. Raises BadInput for whatever is wrong with it, MachineLacks."""
    zstandard = _zstandard()
    try:
        with path.open("rb") as file:
            _check_head(path, file)
            with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(file) as plain:
                files = _members(path, _Limited(path, plain))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError, OverflowError) as error:
        raise BadInput(f"{path}: cut short or damaged ({error}); get it again") from None
    manifest = _manifest(path, files.pop(MANIFEST, b""))
    _check(path, manifest, files)
    return Bundle(manifest, files)


def _zstandard() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MachineLacks("bundles need zstandard, which is missing: pip install 'testbed[test]'") from None
    return zstandard


def _check_head(path: Path, file: IO[bytes]) -> None:
    size = file.seek(0, io.SEEK_END)
    if size > MAX_PACKED_BYTES:
        raise BadInput(f"{path}: larger than any bundle ({size} bytes, at most {MAX_PACKED_BYTES})")
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise BadInput(f"{path}: no bundle; they are called NAME{SUFFIX} and written by a failed test")
    file.seek(0)


class _Limited(io.RawIOBase):
    """A stream that refuses to become too long."""

    def __init__(self, path: Path, stream: Any) -> None:
        self._path = path
        self._stream = stream
        self._left = MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        """As of any stream; tarfile always says how much. Raises BadInput."""
        data: bytes = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise BadInput(f"{self._path}: unpacks to more than {MAX_BYTES} bytes; this is no bundle of ours")
        return data


def _members(path: Path, stream: _Limited) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise BadInput(f"{path}: {member.name!r} is no plain file; this is no bundle of ours")
            if not _NAME.match(member.name) or member.name in files:
                raise BadInput(f"{path}: {member.name!r} is no name of a bundle's file; do not trust it")
            if len(files) >= MAX_FILES or member.size > MAX_BYTES:
                raise BadInput(f"{path}: too many or too large files; this is no bundle of ours")
            content = tar.extractfile(member)
            files[member.name] = content.read() if content else b""
    return files


def _manifest(path: Path, data: bytes) -> Manifest:
    class Version(Struct):
        format: int
        testbed: Text = "?"

    try:
        version = msgspec.json.decode(data, type=Version)
        if version.format > FORMAT:
            raise BadInput(
                f"{path}: written by testbed {version.testbed!a} in a newer form ({version.format}, this one "
                f"reads {FORMAT}); use that version"
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path}: {MANIFEST} is missing or damaged ({error}); get the bundle again") from None


def _check(path: Path, manifest: Manifest, files: dict[str, bytes]) -> None:
    if unknown := sorted(files.keys() - manifest.files.keys()):
        raise BadInput(f"{path}: {unknown[0]} is not on its list; do not trust it")
    for name, entry in manifest.files.items():
        data = files.get(name)
        if data is None:
            raise BadInput(f"{path}: cut short: {name} is missing; get it again")
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BadInput(f"{path}: {name} is not what was written; get it again")
