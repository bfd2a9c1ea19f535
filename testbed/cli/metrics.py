"""metrics: what labs count, for Prometheus."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import click

PORT = 9885


@click.command()
@click.argument("names", nargs=-1)
@click.option("--port", metavar="N", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--address", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Tell the latest results of this file too.",
)
@click.option("--once", is_flag=True, help="Print the metrics instead of serving them.")
def metrics(names: tuple[str, ...], port: int, address: str, results: Path | None, once: bool) -> None:
    """Serve the counters of labs to Prometheus: of those that are named, or of all.

    Each scrape reads the labs once. Ends with Ctrl-C.
    """
    from testbed.lab import store
    from testbed.metrics.exporter import Exporter, Source
    from testbed.metrics.labs import Labs
    from testbed.metrics.results import Results
    from testbed.results.store import reading

    for name in names:
        store.load(name)  # raises where there is none
    sources: list[Source] = [Labs(dict.fromkeys(names))]
    if results is not None:
        with reading(results):  # raises what is wrong with it
            sources.append(Results(results))
    with contextlib.closing(Exporter(sources)) as exporter:
        if once:
            click.echo(exporter.text(), nl=False)
            return
        with exporter.served(address, port) as bound, contextlib.suppress(KeyboardInterrupt):
            shown = f"[{address}]" if ":" in address else address
            click.echo(f"http://{shown}:{bound}/metrics")
            threading.Event().wait()


COMMANDS = (metrics,)
