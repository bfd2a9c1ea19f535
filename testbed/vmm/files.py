"""What is in a VMM's folder, and the tokens made for it. Imports nothing large: ``up`` uses it too."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

STORE = "vmm.sqlite"
ADMIN_TOKEN = "admin-token"  # noqa: S105 - a file's name
HOST_TOKENS = "host-tokens"  # a folder: one file for each host of a loaded Plan
PLAN = "plan.json"  # what a lab's VMM begins with
SOCKET = "vmm.sock"  # where a lab's VMM answers the command line
_SECRET = 32  # bytes


def admin_token() -> str:
    """A new token for the administrator."""
    return secrets.token_urlsafe(_SECRET)


def host_token(name: str) -> str:
    """A new token for a host: "NAME.SECRET", so that one look-up finds whose it should be."""
    return f"{name}.{secrets.token_urlsafe(_SECRET)}"


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and for the owner's eyes from the first byte."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
