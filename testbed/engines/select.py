"""Which engine: by name, or the best that this machine has."""

from __future__ import annotations

from testbed.engines.base import Engine
from testbed.errors import BadInput, MachineLacks

NAMES = ("auto", "docker", "namespaces")


def by_name(name: str) -> Engine:
    """The engine of an existing lab, or one asked for by name."""
    if name == "docker":
        from testbed.engines.docker.engine import DockerEngine

        return DockerEngine()
    if name == "namespaces":
        from testbed.engines.namespaces.engine import NamespacesEngine

        return NamespacesEngine()
    raise BadInput(f"unknown engine {name!r}: one of {', '.join(NAMES)}")


def choose(name: str) -> tuple[Engine, str]:
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
        return by_name("docker"), "asked for"
    if name != "auto":
        raise BadInput(f"unknown engine {name!r}: one of {', '.join(NAMES)}")
    if answers:
        return by_name("docker"), "a Docker Engine answers"
    return by_name("namespaces"), f"no Docker Engine answers: {why}"
