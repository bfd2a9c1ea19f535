"""What a topology file says that its cables do to frames."""

from __future__ import annotations

from testbed.errors import BadInput
from testbed.nic.faults import Faults, Way, changed
from testbed.topology.problems import Path, Problems
from testbed.topology.schema import Impairment, Link, Topology


def faults(link: Link, way: Way) -> Faults:
    """The faults of one direction: what the link says of both, and of this one. Raises BadInput."""
    of_way = link.to_host if way == "to-host" else link.from_host
    return changed(Faults(), _settings(link) | _settings(of_way))


def check_impairments(topology: Topology, problems: Problems) -> None:
    """Note every value that is none, at its place."""
    for i, link in enumerate(topology.links):
        here: Path = ("links", i)
        parts: list[tuple[Path, Impairment]] = [(here, link)]
        parts += [((*here, "to-host"), link.to_host), ((*here, "from-host"), link.from_host)]
        if ":" not in "".join(link.endpoints):
            for path, part in parts:
                for key in _settings(part):
                    problems.add((*path, key), "is for the cables of hosts; a link of two switches has none")
            continue
        good = [_check_words(path, part, problems) for path, part in parts]
        if all(good):
            _check_sense(here, link, problems)


def _check_words(path: Path, part: Impairment, problems: Problems) -> bool:
    good = True
    for key, text in _settings(part).items():
        try:
            changed(Faults(delay=1e9), {key: text})  # a delay, so that only the word itself is judged
        except BadInput as error:
            problems.add((*path, key), str(error))
            good = False
    return good


def _check_sense(path: Path, link: Link, problems: Problems) -> None:
    ways: tuple[Way, Way] = ("to-host", "from-host")
    for way in ways:
        try:
            faults(link, way)
        except BadInput as error:
            problems.add(path, f"{way}: {error}")
            return


def _settings(part: Impairment) -> dict[str, str]:
    said = {key.replace("_", "-"): getattr(part, key) for key in Impairment.__struct_fields__}
    return {
        key: ("on" if value else "off") if isinstance(value, bool) else str(value)
        for key, value in said.items()
        if value is not None
    }
