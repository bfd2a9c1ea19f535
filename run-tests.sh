#!/usr/bin/env bash
# run-tests.sh [PYTEST ARGUMENTS...]: installs what is missing, checks the code, runs the whole test suite.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/setup.sh"
set_up dev
cd "$here"
export PATH="$venv/bin:$PATH:/usr/sbin:/sbin"
ruff check .
ruff format --check .
mypy
exec pytest -n 2 "$@"
