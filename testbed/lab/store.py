"""What this machine remembers of its labs: one folder per lab below the state folder.

::

    <state>/lock
    <state>/labs/<name>/lab.json     LabRecord
    <state>/labs/<name>/plan.json    the Plan as it is running
    <state>/labs/<name>/nodes/<host>/control.sock
    <state>/<kind>-<random>/         scratch of a run; locked for as long as its process lives

Names are taken and folders removed under the lock. A folder is complete (its record written) by the
time the lock is let go, so one without a record was left by a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from testbed.engines.base import LabRef
from testbed.errors import BadInput, LabError, MachineLacks
from testbed.processes import ProcessId
from testbed.topology import plan as plans

_RECORD, _PLAN = "lab.json", "plan.json"
SCRATCH = ("conformance", "matrix", "repro", "test")  # kinds of scratch folders


class LabRecord(Struct, frozen=True):
    """A lab. owner: the process that builds it; ready: it was completed. phases: seconds of each.

    lasting: it outlives its owner; else it is garbage once that is dead.
    """

    id: str
    name: str
    engine: str
    topology: str
    owner: ProcessId
    created: float
    ready: bool = False
    phases: dict[str, float] = {}
    plant: str = ""  # a fault in the switch of every host (testbed.plants), for tests of tests
    lasting: bool = True


def state_path() -> Path:
    """Where labs are remembered: $TESTBED_STATE_DIR or /run/testbed; it need not exist yet."""
    return Path(os.environ.get("TESTBED_STATE_DIR") or "/run/testbed")


def state_dir() -> Path:
    """Where labs are remembered. Made if missing."""
    folder = state_path()
    try:
        (folder / "labs").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise MachineLacks(
            f"the state folder {folder} can't be made: {error.strerror}; run as root"
        ) from error
    return folder


@contextlib.contextmanager
def locked() -> Iterator[Path]:
    """Hold the state folder's lock; yields the folder of labs."""
    folder = state_dir()
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder / "labs"


def reserve(
    base: str, name: str | None, engine: str, topology: str, plant: str = "", *, lasting: bool = True
) -> LabRecord:
    """Take a name and make the lab's folder: ``name``, or ``base``, ``base-2`` and so on.

    Raises BadInput when ``name`` is taken.
    """
    with locked() as labs:
        taken = set(os.listdir(labs))
        if name in taken:
            raise BadInput(f"a lab called {name} exists: take another --name, or `testbed down {name}` first")
        chosen = name or next(each for each in _candidates(base) if each not in taken)
        record = LabRecord(
            id=secrets.token_hex(6),
            name=chosen,
            engine=engine,
            topology=topology,
            owner=ProcessId.own(),
            created=time.time(),
            plant=plant,
            lasting=lasting,
        )
        (labs / chosen).mkdir()
        save(record)
    return record


def _candidates(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def directory(name: str) -> Path:
    """Folder of the lab called ``name``. Raises BadInput for what can't be a lab's name."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise BadInput(f"{name!r} can't be the name of a lab")
    return state_dir() / "labs" / name


def ref(record: LabRecord) -> LabRef:
    """What an engine needs to know of the lab."""
    return LabRef(record.id, record.name, directory(record.name))


def save(record: LabRecord) -> None:
    """Write a lab's record."""
    _write(directory(record.name) / _RECORD, msgspec.json.encode(record))


def load(name: str) -> LabRecord:
    """The record of the lab called ``name``. Raises BadInput when there is none."""
    try:
        data = (directory(name) / _RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        known = ", ".join(record.name for record in load_all()) or "none"
        raise BadInput(f"there is no lab called {name!r} (running: {known})") from None
    return msgspec.json.decode(data, type=LabRecord)


def load_all() -> list[LabRecord]:
    """The records of all labs, by age."""
    records = filter(None, map(record_in, (state_dir() / "labs").iterdir()))
    return sorted(records, key=lambda record: record.created)


def record_in(folder: Path) -> LabRecord | None:
    """The record of the lab whose folder it is, of this state folder or another, if it has one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=LabRecord)
    return None


def save_plan(name: str, plan: plans.Plan) -> None:
    """Remember the Plan that runs."""
    _write(directory(name) / _PLAN, plans.encode(plan))


def load_plan(name: str) -> plans.Plan:
    """The Plan that runs. Raises LabError when the lab was never complete."""
    try:
        return plans.decode((directory(name) / _PLAN).read_bytes())
    except FileNotFoundError:
        raise LabError(f"{name} is not complete: it is being built, or `testbed gc` removes it") from None


def plan_stamp(name: str) -> int:
    """Another one means that another Plan was saved; 0: there is none."""
    try:
        return (directory(name) / _PLAN).stat().st_mtime_ns
    except OSError:
        return 0


def forget(record: LabRecord) -> None:
    """Remove a lab's folder, if it is still this lab's."""
    with locked() as labs:
        folder = labs / record.name
        with contextlib.suppress(BadInput, msgspec.DecodeError):
            if load(record.name).id == record.id:
                shutil.rmtree(folder, ignore_errors=True)


def remove_unrecorded() -> list[str]:
    """Remove folders whose maker was killed before it could write the record; their names."""
    removed = []
    with locked() as labs:
        for folder in labs.iterdir():
            if not (folder / _RECORD).exists():
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder.name)
    return removed


@contextlib.contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """A folder for the ``with`` block, removed at its end; ``kind`` is one of :data:`SCRATCH`.

    Its lock ends with this process, however that ends, which is how others know that it is in use.
    """
    with locked() as labs:
        folder = labs.parent / f"{kind}-{secrets.token_hex(3)}"  # short: sockets may lie below it
        folder.mkdir(mode=0o700)
        held = _hold(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def remove_abandoned(clear: Callable[[Path], object]) -> list[str]:
    """Remove scratch folders whose processes are dead, after ``clear`` of each; their names."""
    with locked() as labs:
        found = [each for kind in SCRATCH for each in labs.parent.glob(f"{kind}-*")]
        abandoned = [(each, held) for each in found if (held := _hold(each)) is not None]
    for folder, held in abandoned:
        try:
            clear(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)
    return [folder.name for folder, _ in abandoned]


def _hold(folder: Path) -> int | None:
    """A descriptor with the folder's lock; None while another process has that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write(path: Path, data: bytes) -> None:
    """Replace a file's content in one step."""
    scratch = path.with_suffix(".new")
    scratch.write_bytes(data)
    scratch.replace(path)
