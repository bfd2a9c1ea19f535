"""Find and remove what dead processes left: half-built labs, labs of which nothing runs, test runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from testbed.engines.select import by_name
from testbed.errors import BadInput
from testbed.lab import build, store
from testbed.lab.store import LabRecord

CLEAR_SECONDS = 60.0


def collect(*, unfinished_only: bool = False) -> list[str]:
    """Remove garbage; a line for each thing removed.

    Garbage is a lab that is not complete, or that does not outlive a test run, and whose owner is dead;
    scratch of a dead run, with the labs in it; and (unless ``unfinished_only``) a complete lab of which
    nothing runs any more, and containers that belong to this state folder and to no lab in it.
    """
    removed = [f"folder {name}" for name in store.remove_unrecorded()]
    removed += [f"scratch {name} (its run died)" for name in store.remove_abandoned(_clear_states)]
    for record in store.load_all():
        if why := why_dead(record, ask_engine=not unfinished_only):
            with contextlib.suppress(BadInput):  # somebody else was first
                build.down(record.name)
                removed.append(f"lab {record.name} ({why})")
    if not unfinished_only:
        removed += _containers()
    return removed


def why_dead(record: LabRecord, *, ask_engine: bool = True) -> str:
    """Why a lab is garbage; "" if it is not."""
    if not record.ready:
        return "" if record.owner.alive() else "its builder died"
    if not record.lasting and not record.owner.alive():
        return "its test run died"
    if ask_engine and not by_name(record.engine).alive(store.ref(record)):
        return "nothing of it runs"
    return ""


def clear(state: Path) -> None:
    """Take all labs of another state folder down, whoever owns them."""
    labs = state / "labs"
    if not labs.is_dir() or not any(labs.iterdir()):
        return
    env = {**os.environ, "TESTBED_STATE_DIR": str(state)}
    for words in (["down", "--all"], ["gc"]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = [sys.executable, "-P", "-m", "testbed", *words]
            subprocess.run(command, env=env, timeout=CLEAR_SECONDS, check=False, capture_output=True)


def _clear_states(scratch: Path) -> None:
    """Runs may have state folders of their own in their scratch: those of a matrix' cells."""
    for each in scratch.iterdir():
        clear(each)


def _containers() -> list[str]:
    from testbed.engines.docker.client import available

    if not available()[0]:
        return []
    from testbed.engines.docker.engine import DockerEngine

    engine = DockerEngine()
    with store.locked():  # so that no new lab's containers can be taken for leftovers
        ids = engine.leftovers(_is_there, store.state_dir())
        engine.remove_leftovers(ids)
    return [f"container {container[:12]}" for container in ids]


def _is_there(lab_id: str, folder: Path) -> bool:
    record = store.record_in(folder)
    return record is not None and record.id == lab_id
