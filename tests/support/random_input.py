"""Settings of property tests: the same examples in every run, so that a failure is anybody's to repeat."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

repeatable = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
