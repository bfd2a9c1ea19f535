"""How fast it should be: goals for the ratio to a baseline, from a YAML file."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from testbed.errors import BadInput
from testbed.results.model import Setting

FILE = Path(__file__).parent / "goals.yaml"
_MAX_BYTES = 1 << 20


class Goal(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the settings are such, our metric divided by the baseline's is at_least or at_most so much."""

    title: str
    metric: str
    baseline: str
    where: dict[str, Setting]
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("it needs one of at_least and at_most")

    def concerns(self, settings: dict[str, Setting]) -> bool:
        """Whether it is about runs with these settings."""
        return all(name in settings and _same(settings[name], value) for name, value in self.where.items())


def _same(one: Setting, other: Setting) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)  # True == 1


def load(path: Path = FILE) -> list[Goal]:
    """The goals of a file. Raises BadInput where it is none of goals."""
    import yaml

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise BadInput(f"{path}: is larger than {_MAX_BYTES} bytes, no file of goals")
    try:
        return msgspec.convert(yaml.safe_load(data), list[Goal])
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"{path}: {error}; see docs/dashboard.md") from None
