"""dashboard: kept measurements as a web page."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from testbed.cli.results import results_file, results_option
from testbed.errors import BadInput


@click.command()
@results_option
@click.option(
    "--port",
    default=8008,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Where to serve on 127.0.0.1; 0: any free one.",
)
@click.option("--export", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write it there.")
@click.option(
    "--goals", type=click.Path(path_type=Path), metavar="FILE", help="What should be reached; default: ours."
)
@click.pass_context
def dashboard(
    context: click.Context, store: Path | None, port: int, folder: Path | None, goals: Path | None
) -> None:
    """Show the results in a browser: served until Ctrl-C, or as a folder that needs no server."""
    from testbed.dashboard import goals as goals_file
    from testbed.dashboard import site

    if folder and context.get_parameter_source("port") is ParameterSource.COMMANDLINE:
        raise BadInput("--port is for a served page; with --export nothing is served")
    wanted = goals_file.load(goals or goals_file.FILE)
    path = results_file(store)
    if folder:
        size = site.export(site.Site(path, wanted, served=False), folder)
        click.echo(f"{folder / 'index.html'}: {size / 1e6:.1f} MB with all that it needs")
        return
    from testbed.dashboard.serve import Live, Server

    with Server(Live(path, wanted), port) as server:
        click.echo(f"{server.url} shows {path}; Ctrl-C ends it")
        server.serve_forever()


COMMANDS = (dashboard,)
