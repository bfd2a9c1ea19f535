"""Fixtures of tests in network namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed.namespaces import new_netns


@pytest.fixture
def netns() -> Iterator[int]:
    """An empty network namespace."""
    made = new_netns()
    yield made
    os.close(made)
