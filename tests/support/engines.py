"""Marks of tests that are run with both engines."""

from __future__ import annotations

import pytest

DOCKER_IS_LONG = pytest.mark.parametrize(
    "engine",
    ["namespaces", pytest.param("docker", marks=pytest.mark.long)],
    indirect=True,
    scope="session",
)
"""What is tested lies in the switch, the same in both: with Docker's containers only with ``-m long``."""
