# shellcheck shell=bash
# Sourced by testbed.sh and run-tests.sh: makes .venv beside them and installs what is missing.
#
#   set_up        what the command needs
#   set_up test   and what `testbed test` needs
#   set_up dev    and what the test suite of this repository needs
#
# Done work is remembered in .venv/.stamp-*, keyed by the contents of what it was made from. Everything said
# goes to stderr. .venv/.unfinished is there while .venv is being changed: it is made anew after an interrupt.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$here/.venv"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

lacks() { # exit code 4: this machine lacks something
    say "$*"
    exit 4
}

may_have_docker() { [[ -S ${DOCKER_SOCKET:-/var/run/docker.sock} || -n ${DOCKER_HOST:-} ]]; }

# Contents, and the folder: a virtual environment does not survive being moved.
key() {
    { printf '%s\n' "$here" "$@"
      cd "$here" && cat pyproject.toml hatch_build.py images/machine-packages.txt scripts/setup.sh \
          testbed/nic/bpf/*.c testbed/nic/bpf/compiler.py testbed/dashboard/bundle.py
    } | sha256sum
}

complete() { # STAMP KEY
    local source
    [[ -f $1 && $(<"$1") == "$2" && -x $venv/bin/testbed && -x $venv/bin/python && ! -e $venv/.unfinished ]] || return 1
    [[ -f $here/testbed/dashboard/page/vega.js ]] || return 1
    for source in "$here"/testbed/nic/bpf/*.c; do
        [[ -f ${source%.c}.o ]] || return 1
    done
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    lacks "Python 3.11 or newer is missing; install: python3"
}

# Packages of machine-packages.txt whose proof is not found; words: the ONLY columns that apply.
missing_packages() {
    local package proof only libraries words=" $* "
    libraries=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)
    while read -r package proof only; do
        [[ -z $package || $package == \#* ]] && continue
        [[ -n $only && $words != *" $only "* ]] && continue
        case $proof in
            lib:*) [[ $libraries == *"${proof#lib:} "* ]] ;;
            /*) [[ -e $proof ]] ;;
            *) PATH="$PATH:/usr/sbin:/sbin" command -v -- "$proof" >/dev/null ;;
        esac || printf '%s ' "$package"
    done <"$here/images/machine-packages.txt"
}

install_packages() {
    local missing
    missing=$(missing_packages "$@")
    [[ -z $missing ]] && return
    if ! command -v apt-get >/dev/null || [[ $EUID -ne 0 ]]; then
        lacks "missing on this machine, by Debian's names: ${missing% }; install them, or run this as root where apt is"
    fi
    say "installing Debian packages: $missing"
    # runlevel 1: without systemd, packages start no service of their own (openvswitch-switch has one)
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    # shellcheck disable=SC2086 # a list of words
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >&2 </dev/null \
        || lacks "apt-get cannot install: $missing"
    missing=$(missing_packages "$@")
    if [[ -n ${missing/python3-venv /} ]]; then
        lacks "installed, but still not found: $missing"
    fi
}

install_python_packages() { # EXTRA or nothing
    local python=$1 extra=$2
    if [[ ! -x $venv/bin/python || -e $venv/.unfinished ]]; then
        say "making $venv"
        mkdir -p "$venv"
        touch "$venv/.unfinished"
        rm -f "$venv"/.stamp-*
        "$python" -m venv --clear "$venv" >&2 || lacks "$python cannot make a virtual environment"
    fi
    touch "$venv/.unfinished"
    say "installing Python packages"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$here${extra:+[$extra]}" >&2 || lacks "pip cannot install the Python packages"
    rm "$venv/.unfinished"
}

set_up() {
    local extra=${1:-} words="" python stamp now
    may_have_docker && words="docker"
    stamp="$venv/.stamp${extra:+-$extra}${words:+-$words}"
    now=$(key "$extra" "$words")
    complete "$stamp" "$now" && return
    exec 9<"$here" # a lock on the folder itself needs no file
    flock -w 1800 9 || lacks "another set-up holds the lock on $here"
    if complete "$stamp" "$now"; then # the other one did it
        exec 9<&-
        return
    fi
    python=$(find_python)
    "$python" -c 'import ensurepip' 2>/dev/null || words+=" venv"
    # shellcheck disable=SC2086 # a list of words
    install_packages $words $extra
    install_python_packages "$python" "$extra"
    if may_have_docker; then
        "$venv/bin/testbed" image build >&2 9<&- || say "the node image could not be built now; up will try again"
    fi
    printf '%s\n' "$now" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    exec 9<&-
}
