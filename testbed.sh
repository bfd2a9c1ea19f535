#!/usr/bin/env bash
# testbed.sh ARGUMENTS...: the `testbed` command; the first time it installs what is missing.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/setup.sh"
set_up
exec "$venv/bin/testbed" "$@"
