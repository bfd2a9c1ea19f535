"""metrics: what labs count, for Prometheus."""

from __future__ import annotations

COMMANDS = ()
