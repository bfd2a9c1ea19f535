"""``python -m testbed.vmm.node DIRECTORY``: the VMM as a node of a lab runs it, kept alive.

``DIRECTORY`` has ``plan.json`` and the tokens that ``up`` made; the VMM keeps its store there and
answers the command line on ``vmm.sock``, hosts on the management network. Should the process die, it
is started again: the node stays, and with it its place in the network.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from testbed.processes import name_process
from testbed.topology.management import PORT
from testbed.vmm.files import PLAN, SOCKET

_SHORTEST_LIFE = 1.0  # seconds; one that ends earlier is not started again at once


class Keeper:
    """Forks the server, and again when a signal has killed it. An exit by itself ends the node."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._child = 0
        self._ending = False

    def run(self) -> int:
        """The server's exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        while True:
            began = time.monotonic()
            self._child = os.fork()
            if self._child == 0:
                os._exit(_serve(self._directory))
            _, status = os.waitpid(self._child, 0)
            code = os.waitstatus_to_exitcode(status)
            if self._ending or code >= 0:
                return max(code, 0)
            print(f"the VMM was killed by signal {-code}: starting it again", file=sys.stderr, flush=True)
            time.sleep(max(0.0, _SHORTEST_LIFE - (time.monotonic() - began)))

    def _end(self, number: int, _: FrameType | None) -> None:
        self._ending = True
        if self._child:
            os.kill(self._child, number)


def _serve(directory: Path) -> int:
    """In the child: the server is imported here, so that the keeper stays small."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    try:
        from testbed.vmm.main import main

        code = main(
            [
                f"--directory={directory}",
                f"--listen=0.0.0.0:{PORT}",
                f"--unix={directory / SOCKET}",
                f"--plan={directory / PLAN}",
            ]
        )
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    name_process("tb-vmm-keeper")
    return Keeper(Path(arguments[0])).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
