"""NIC profiles: files in YAML, those of ``testbed/nic/profiles`` by name and a user's own by path.

A file has the keys ``supports`` and ``enabled`` (lists of :data:`testbed.nic.offloads.TASKS`; default of
the second: all that is supported, but rss where vmq is) and ``description``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from testbed.errors import BadInput
from testbed.nic.offloads import Offloads, Task, exclusive, made_of
from testbed.topology import document
from testbed.topology.schema import Nic

DEFAULT = "modern"
FOLDER = Path(__file__).parents[1] / "nic" / "profiles"
_MAX_BYTES = 1 << 16


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile's file says."""

    supports: tuple[Task, ...]
    enabled: tuple[Task, ...] | None = None
    description: str = ""


def names() -> list[str]:
    """The profiles that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


class Profiles:
    """Profiles by what a topology file calls them. ``folder``: where paths begin."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Profile] = {}

    def get(self, name: str) -> Profile:
        """A profile. Raises BadInput: unknown, unreadable, or not of a profile's form."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def offloads(self, nic: Nic) -> Offloads:
        """What a NIC supports and has enabled. Raises BadInput."""
        profile = self.get(nic.profile)
        supported, enabled = made_of(profile.supports, _enabled(profile), nic.supports)
        return Offloads(supported, enabled).changed(nic.offloads)

    def _read(self, name: str) -> Profile:
        own = "/" in name or name.endswith((".yaml", ".yml"))
        path = self._folder / name if own else FOLDER / f"{name}.yaml"
        if not own and name not in names():
            raise BadInput(f"unknown NIC profile {name!r}: one of {', '.join(names())}, or a file's path")
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode()
            data = document.parse(text).data()
            profile = msgspec.convert(data, Profile)
        except OSError as error:
            raise BadInput(f"NIC profile {name}: {error.strerror}") from None
        except (document.YamlError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise BadInput(f"NIC profile {name}: {error}") from None
        _check(name, profile)
        return profile


def _enabled(profile: Profile) -> tuple[Task, ...]:
    if profile.enabled is not None:
        return profile.enabled
    both = {"rss", "vmq"} <= {*profile.supports}
    return tuple(task for task in profile.supports if not (both and task == "rss"))


def _check(name: str, profile: Profile) -> None:
    if missing := [task for task in _enabled(profile) if task not in profile.supports]:
        raise BadInput(f"NIC profile {name}: enables {', '.join(missing)}, which it does not support")
    if fault := exclusive(_enabled(profile)):
        raise BadInput(f"NIC profile {name}: {fault}")
