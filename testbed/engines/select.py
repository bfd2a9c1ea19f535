"""Which engine: by name, or the best that this machine has."""

from __future__ import annotations

from collections.abc import Callable

from testbed.engines.base import Engine
from testbed.errors import BadInput, MachineLacks

Progress = Callable[[str], None]

NAMES = ("auto", "docker", "namespaces")


def by_name(name: str, progress: Progress = lambda _: None) -> Engine:
    """The engine of an existing lab, or one asked for by name; ``progress`` is told of long steps."""
    if name == "docker":
        from testbed.engines.docker.engine import DockerEngine

        return DockerEngine(progress)
    if name == "namespaces":
        from testbed.engines.namespaces.engine import NamespacesEngine

        return NamespacesEngine()
    raise BadInput(f"unknown engine {name!r}: one of {', '.join(NAMES)}")


def choose(name: str, progress: Progress) -> tuple[Engine, str]:
    """The engine for a new lab, and in words why it was taken.

    Raises MachineLacks when docker is asked for and does not answer.
    """
    if name == "namespaces":
        return by_name(name), "asked for"
    from testbed.engines.docker.client import available

    answers, why = available()
    if name == "docker":
        if not answers:
            raise MachineLacks(
                f"the docker engine does not answer: {why}; start it, or use --engine namespaces"
            )
        return by_name("docker", progress), "asked for"
    if name != "auto":
        raise BadInput(f"unknown engine {name!r}: one of {', '.join(NAMES)}")
    if answers:
        return by_name("docker", progress), "a Docker Engine answers"
    return by_name("namespaces"), f"no Docker Engine answers: {why}"
