"""The exporter: sources of metrics, read anew for each scrape, as text and over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from testbed.errors import BadInput
from testbed.metrics.families import Families


class Source(Protocol):
    """Where metrics come from. Two sources have no family in common."""

    def collect(self, families: Families) -> None:
        """Add what there is now. What is missing is left out; only defects are raised."""

    def close(self) -> None:
        """Give up what is open."""


class Exporter(Collector):
    """Some sources as one registry. Scrapes that come at the same time are served one after another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """One collection of all sources."""
        families = Families()
        with self._lock:
            for source in self._sources:
                source.collect(families)
        yield from families

    def text(self) -> str:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    @contextmanager
    def served(self, address: str, port: int) -> Iterator[int]:
        """Answer scrapes for the ``with`` block; yields the port, chosen by the kernel for 0.

        Raises BadInput when the address cannot be had.
        """
        try:
            server, thread = start_http_server(port, address, self._registry)
        except OSError as error:
            remedy = "choose another --port or --address"
            raise BadInput(f"can't listen at {address}, port {port}: {error.strerror}; {remedy}") from None
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()
