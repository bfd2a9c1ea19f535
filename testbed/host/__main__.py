"""``python -m testbed.host DIRECTORY``: the host process, as a container runs it."""

import sys
from pathlib import Path

from testbed.host.main import run

if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
