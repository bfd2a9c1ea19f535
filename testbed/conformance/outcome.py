"""How a check ends when it does not return evidence."""

from __future__ import annotations


class Failed(Exception):
    """The statement does not hold; the text is the evidence against it."""


class NotShown(Exception):
    """The lab has nobody on whom the statement could be shown; the text says what is missing."""


def expect(holds: object, evidence: str) -> None:
    """Raise :class:`Failed` with ``evidence`` unless ``holds`` is true."""
    if not holds:
        raise Failed(evidence)
