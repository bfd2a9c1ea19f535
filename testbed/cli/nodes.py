"""exec, logs: inside a node."""

from __future__ import annotations

import os
import sys

import click

from testbed.errors import BadInput


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Accepted out of habit: input is always passed.")
@click.option("-t", "--tty", is_flag=True, help="Accepted out of habit: the terminal is the caller's.")
@click.argument("name")
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec_(name: str, node: str, command: tuple[str, ...], interactive: bool, tty: bool) -> None:
    """Run a command in a node (a host, a VM, or fabric); a shell without one.

    Standard input, output and the exit code are the command's own.
    """
    from testbed.lab import execute
    from testbed.lab.lab import Lab

    words = list(command[1:] if command[:1] == ("--",) else command)
    lab = Lab.open(name)
    sys.exit(execute.run(lab, node, words or [os.environ.get("SHELL", "/bin/sh")]))


@click.command()
@click.argument("name")
@click.argument("node", required=False)
@click.option("--follow", is_flag=True, help="Go on until the node ends.")
def logs(name: str, node: str | None, follow: bool) -> None:
    """Print the log of a node, or of all nodes."""
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        if node is not None and node not in lab.node_names():
            raise BadInput(f"{name} has no node {node!r}: one of {', '.join(lab.node_names())}")
        if follow and node is None:
            raise BadInput("--follow needs the name of a node")
        for each in [node] if node else lab.node_names():
            for chunk in lab.engine.logs(lab.ref, each, follow):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()


COMMANDS = (exec_, logs)
