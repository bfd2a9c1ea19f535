"""Faults on purpose, for tests of the suites: a check that cannot fail is a defect.

A plant is a module here, ``NAME_WITH_UNDERSCORES.py``, whose first sentence says what is wrong, with
``SUITE``, the suite that must find it, and ``plant()``, which patches the host process. A host has one when
the file :data:`FILE` is in its folder as it starts; a host without that file imports none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "plant"


def names() -> list[str]:
    """All plants."""
    here = Path(__file__).parent
    return sorted(file.stem.replace("_", "-") for file in here.glob("*.py") if file.stem != "__init__")


def order(folder: Path, name: str) -> None:
    """The host of this folder is to start with a plant."""
    (folder / FILE).write_text(name)


def take(folder: Path) -> None:
    """Put in what was ordered. Called by a host process before it begins."""
    file = folder / FILE
    if file.exists():
        load(file.read_text()).plant()


def load(name: str) -> Any:
    """The module of a plant. Raises BadInput for a name that there is not."""
    import importlib

    from testbed.errors import BadInput

    if name not in names():
        raise BadInput(f"there is no plant {name!r}: one of {', '.join(names())}")
    return importlib.import_module(f"testbed.plants.{name.replace('-', '_')}")


def around(owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace ``owner.name``; ``change`` gets what was there, then the arguments."""
    before = getattr(owner, name)
    setattr(owner, name, lambda *args, **more: change(before, *args, **more))


def keep_records(stays: Callable[[Any, Any], bool]) -> None:
    """Have the switch keep a lookup record when its address gets another one and ``stays(old, new)``."""
    from testbed.wnv.policy import Change
    from testbed.wnv.tables import Tables

    def change(before: Any, tables: Any, changes: Any) -> None:
        kept: dict[Any, Any] = vars(tables).setdefault("kept", {})
        places: dict[Any, list[Any]] = {}  # by CA and VSID: what goes, what comes
        for each in changes:
            for at, record in enumerate((each.old, each.new)):
                if each.kind == "lookup-records" and record is not None and record.type != "L2Only":
                    place = record.customer_address, record.virtual_subnet_id
                    places.setdefault(place, [None, None])[at] = record
                elif record is not None:
                    before(tables, [Change(each.kind, *((record, None) if at == 0 else (None, record)))])
        for place, (old, new) in places.items():
            there = kept.pop(place, old)
            if there is not None and new is not None and stays(there, new):
                kept[place] = there
            else:
                before(tables, [Change("lookup-records", there, new)])

    around(Tables, "apply", change)
