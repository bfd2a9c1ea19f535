#!/usr/bin/env bash
# testbed.sh ARGUMENTS...: the `testbed` command; the first time it installs what is missing.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/setup.sh"
[[ ${1:-} == test ]] && extra=test || extra=
set_up "$extra"
TESTBED_PROGRAM=$0 exec "$venv/bin/testbed" "$@"
