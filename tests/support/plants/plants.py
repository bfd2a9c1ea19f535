"""Deliberate faults, each of which one statement must find."""

from __future__ import annotations

import plants_learning  # noqa: F401
import plants_nics  # noqa: F401
import plants_switch  # noqa: F401
import plants_teams  # noqa: F401
import plants_wnv  # noqa: F401
from planting import FOUND_BY, PLANTS

__all__ = ["FOUND_BY", "PLANTS"]
