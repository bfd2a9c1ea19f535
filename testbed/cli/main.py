"""Entry point of the ``testbed`` command."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

import click

from testbed import __version__
from testbed.cli import (
    bench,
    capture,
    conformance,
    dashboard,
    diagnose,
    events,
    explain,
    files,
    graph,
    labs,
    link,
    machine,
    matrix,
    measure,
    metrics,
    migrate,
    nic,
    nodes,
    policy,
    repro,
    results,
    team,
    test,
    top,
    trace,
    vm,
    vmm,
    vnic,
)
from testbed.errors import TestbedError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130


CONTEXT = {"auto_envvar_prefix": "TESTBED", "help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="testbed")
def cli() -> None:
    """A data centre of Hyper-V hosts with NVGRE network virtualization, on this machine.

    Exit codes: 0 done; 1 a check failed; 2 bad usage or topology file; 3 the lab could not be
    built; 4 this machine lacks something.
    """


for module in (
    labs,
    nodes,
    policy,
    repro,
    vm,
    vmm,
    vnic,
    nic,
    team,
    trace,
    link,
    diagnose,
    explain,
    migrate,
    capture,
    measure,
    bench,
    events,
    top,
    metrics,
    results,
    dashboard,
    conformance,
    test,
    files,
    graph,
    machine,
    matrix,
):
    for command in module.COMMANDS:
        cli.add_command(command)


_AGAIN = 0.005  # seconds until an interrupt that was swallowed strikes again
_received: list[int] = []  # signals that end the command


def _end(number: int, _: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _unraisable(lost: UnraisableHookArgs) -> None:
    """An interrupt that struck in a callback of the interpreter's own, which swallows it: strike again."""
    if _received and issubclass(lost.exc_type, KeyboardInterrupt | SystemExit):
        signal.signal(signal.SIGALRM, lambda *_: _end(_received[0], None))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        sys.__unraisablehook__(lost)


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    sys.unraisablehook = _unraisable
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # so that a lab half built is rolled back
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        _run()
    except Exception:
        if not _received:
            raise
        # an event loop of a library's, stopped by the signal, may have made another error of it
        click.echo("testbed: interrupted", err=True)
        sys.exit(128 + _received[0])


def _run() -> None:
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("testbed: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except TestbedError as error:
        if _received:
            raise
        click.echo(f"testbed: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone; nothing to tell anyone
        sys.exit(1)


if __name__ == "__main__":
    main()
