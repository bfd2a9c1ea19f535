"""The process between a test and its command in a node: enters the node, ends as the command ends."""

from __future__ import annotations

import os
import sys

from testbed.lab.execute import enter
from testbed.namespaces import die_with_parent


def main() -> None:
    """``PIDFD COMMAND...``, with the environment of the command."""
    die_with_parent(os.getppid())
    sys.exit(enter(int(sys.argv[1]), sys.argv[2:], dict(os.environ), with_us=True))
