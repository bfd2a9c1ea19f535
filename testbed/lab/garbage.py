"""Find and remove what dead processes left: half-built labs, labs whose nodes are gone, containers."""

from __future__ import annotations

from testbed.engines.select import by_name
from testbed.lab import build, store


def collect(*, unfinished_only: bool = False) -> list[str]:
    """Remove garbage; a line for each thing removed.

    Garbage is a lab that is not complete and whose builder is dead, and (unless
    ``unfinished_only``) a complete lab of which nothing runs any more, and containers that belong
    to this state folder and to no lab in it.
    """
    removed = [f"folder {name}" for name in store.remove_unrecorded()]
    for record in store.load_all():
        if not record.ready:
            dead = not record.owner.alive()
            why = "its builder died"
        else:
            dead = not unfinished_only and not by_name(record.engine).alive(store.ref(record))
            why = "nothing of it runs"
        if dead:
            build.down(record.name)
            removed.append(f"lab {record.name} ({why})")
    if not unfinished_only:
        removed += _containers()
    return removed


def _containers() -> list[str]:
    from testbed.engines.docker.client import available

    if not available()[0]:
        return []
    from testbed.engines.docker.engine import DockerEngine

    engine = DockerEngine()
    with store.locked():  # so that no new lab's containers can be taken for leftovers
        ids = engine.leftovers({record.id for record in store.load_all()}, store.state_dir())
        engine.remove_leftovers(ids)
    return [f"container {container[:12]}" for container in ids]
