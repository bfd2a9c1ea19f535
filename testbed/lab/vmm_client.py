"""A lab's VMM as the command line reaches it: HTTP over the Unix socket in the node's folder."""

from __future__ import annotations

import http.client
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from testbed.errors import BadInput, LabError
from testbed.topology.management import VMM
from testbed.vmm import files

TIMEOUT_SECONDS = 15.0
JSON = "application/json"


class VmmClient:
    """Requests to a VMM as its administrator. ``folder``: the VMM node's own. timeout: seconds."""

    def __init__(self, folder: Path, timeout: float = TIMEOUT_SECONDS) -> None:
        self._folder = folder
        self._timeout = timeout
        self._connection: _UnixConnection | None = None

    def get(self, path: str, **params: Any) -> Any:
        """What a path below /v1 says now. Parameters that are None are left out."""
        return self._request("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        """Order something. Raises BadInput with the VMM's reason, and then nothing has changed."""
        return self._request("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        """As :meth:`post`."""
        return self._request("PUT", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """As :meth:`post`."""
        return self._request("PATCH", path, body)

    def delete(self, path: str, **params: Any) -> Any:
        """As :meth:`post`."""
        return self._request("DELETE", path, params=params)

    def lines(self, path: str, **params: Any) -> Iterator[Any]:
        """The lines of a stream as they come, until the VMM ends it."""
        connection = _UnixConnection(self._folder / files.SOCKET, self._timeout)
        try:
            with self._sent(connection, "GET", path, None, params) as response:
                while line := response.readline():
                    yield msgspec.json.decode(line)
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"the VMM's stream broke: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: Any = None, params: dict[str, Any] | None = None) -> Any:
        if self._connection is not None and self._connection.is_over():
            self.close()
        if self._connection is None:
            self._connection = _UnixConnection(self._folder / files.SOCKET, self._timeout)
        try:
            with self._sent(self._connection, method, path, body, params or {}) as response:
                data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise LabError(f"the VMM does not answer ({error}): see `testbed logs`") from error
        except BaseException:
            self.close()
            raise
        return msgspec.json.decode(data) if data else None

    def _sent(
        self,
        connection: _UnixConnection,
        method: str,
        path: str,
        body: Any,
        params: dict[str, Any],
    ) -> http.client.HTTPResponse:
        """The answer to a request, if it is a good one."""
        token = (self._folder / files.ADMIN_TOKEN).read_text().strip()
        query = urlencode({key: value for key, value in params.items() if value is not None})
        connection.request(
            method,
            f"/v1{path}" + (f"?{query}" if query else ""),
            None if body is None else msgspec.json.encode(body),
            {"Authorization": f"Bearer {token}", "Content-Type": JSON},
        )
        response = connection.getresponse()
        if response.status >= 400:
            raise _error(response.status, response.read())
        return response


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, whose path may be longer than an address has room for."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("vmm", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """As testbed.channel connects."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)

    def is_over(self) -> bool:
        """Whether the VMM has ended it, as it does with one that was idle for some seconds."""
        return self.sock is not None and bool(select.select([self.sock], [], [], 0)[0])


def _error(status: int, data: bytes) -> BadInput | LabError:
    try:
        said = msgspec.json.decode(data)["error"]
        text = f"{said['what']}: {said['remedy']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        text = f"HTTP status {status}"
    return BadInput(f"{VMM}: {text}") if status < 500 else LabError(f"{VMM}: {text}")
