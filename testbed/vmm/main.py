"""The VMM process: a store, its API, and a clean end."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from testbed import channel
from testbed.errors import BadInput, LabError, TestbedError
from testbed.processes import name_process
from testbed.signals import handled
from testbed.topology.plan import decode
from testbed.vmm import files
from testbed.vmm.api.app import build
from testbed.vmm.distribution import Hub
from testbed.vmm.model import Registration
from testbed.vmm.rules.hosts import hash_token
from testbed.vmm.rules.load import load
from testbed.vmm.store.database import Store

ENVIRONMENT = "TESTBED_VMM_ADMIN_TOKEN"
_SHORTEST_TOKEN = 16
_BACKLOG = 2048
_GRACE = 3  # seconds for requests in flight when the process is told to end


class VmmServer(uvicorn.Server):
    """uvicorn that says when it serves, and ends the streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT are a regular end: uvicorn would raise them again afterwards."""
        with handled(dict.fromkeys((signal.SIGTERM, signal.SIGINT), self.handle_exit)):
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does; from then on SIGTERM is heard and connections are answered."""
        await super().startup(sockets)
        for each in sockets or ():
            if each.family == socket.AF_UNIX:
                continue
            address, port = each.getsockname()[:2]
            print(f"listening on {f'[{address}]' if ':' in address else address}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then do as uvicorn does."""
        self._hub.close()
        await super().shutdown(sockets)


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    name_process("tb-vmm")
    try:
        return run(options.directory, options.listen, options.plan, options.pa_pool, options.unix)
    except TestbedError as error:
        print(f"vmm: {error}", file=sys.stderr)
        return error.exit_code


def run(
    directory: Path,
    listen: str,
    plan: Path | None = None,
    pa_pool: str | None = None,
    unix: Path | None = None,
) -> int:
    """Serve the store in a directory at "ADDRESS:PORT" (port 0: any) and a Unix socket, until told to end.

    Prints the address when connections are taken.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = Store(directory / files.STORE)
    try:
        admin_hash = hash_token(admin_token(directory))
        if plan is not None and store.revision == 0:
            _load(store, directory, plan, pa_pool)
        hub = Hub(store)
        config = uvicorn.Config(
            build(store, hub, admin_hash),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        with ExitStack() as stack:
            listeners = [stack.enter_context(_socket(listen))]
            if unix is not None:
                unix.unlink(missing_ok=True)  # the store's lock is held: it is a dead VMM's
                listeners.append(stack.enter_context(channel.listen(unix)))
            asyncio.run(VmmServer(config, hub).serve(sockets=listeners))
    finally:
        store.close()
    return 0


def admin_token(directory: Path) -> str:
    """The administrator's token: from the environment, else from its file, made at the first start."""
    path = directory / files.ADMIN_TOKEN
    token = os.environ.get(ENVIRONMENT, "").strip()
    if not token and path.exists():
        token = path.read_text().strip()
    elif not token:
        token = files.admin_token()
        files.write_private(path, token)
    if len(token) < _SHORTEST_TOKEN:
        raise BadInput(f"the administrator's token is short: give {_SHORTEST_TOKEN} characters or more")
    return token


def _load(store: Store, directory: Path, path: Path, pa_pool: str | None) -> None:
    try:
        plan = decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {error}: give a Plan in JSON") from error
    with store.change(bulk=True) as tx:
        registered = load(tx, plan, pa_pool=pa_pool, tokens=_tokens(directory / files.HOST_TOKENS))
        _write_tokens(directory / files.HOST_TOKENS, registered)  # before the store counts on them


def _tokens(folder: Path) -> dict[str, str]:
    """Hosts' tokens that somebody made beforehand."""
    return {path.name: path.read_text().strip() for path in folder.iterdir()} if folder.exists() else {}


def _write_tokens(folder: Path, registered: Sequence[Registration]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in registered:
        files.write_private(folder / each.name, each.token)


def _socket(listen: str) -> socket.socket:
    address, _, port = listen.rpartition(":")
    address = address.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # TCP by name: asyncio sets TCP_NODELAY on no other, and an answer would wait for a delayed ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
        listener.listen(_BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        raise LabError(f"can't listen on {listen!r}: {error}: give ADDRESS:PORT of this node") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed.vmm", description="The VMM of a lab.")
    parser.add_argument("--directory", type=Path, required=True, help="where store and tokens are")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT", help="port 0: any free one")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="a Unix socket to answer on, too")
    parser.add_argument("--plan", type=Path, help="fill an empty store from this Plan (JSON)")
    parser.add_argument("--pa-pool", help="prefix of the PA network; default: that of the Plan's PAs")
    return parser
