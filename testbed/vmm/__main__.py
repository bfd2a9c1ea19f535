"""``python -m testbed.vmm --directory DIR --listen ADDRESS:PORT``: the VMM process."""

import sys

from testbed.vmm.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
