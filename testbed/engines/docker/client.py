"""The way to the Docker Engine: is there one, a client for it, its errors as ours.

``docker`` is imported where it is used: it takes 0.2 s, and most commands never need it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineLacks

if TYPE_CHECKING:
    from docker import APIClient

SOCKET = "/var/run/docker.sock"
ANSWER_DEADLINE = 2.0
CALL_DEADLINE = 60
PARALLEL = (
    8  # with 2 processors 14 idle containers start in the same 1.6 s by 4, 8 or 14 threads; 2 are slower
)


def available() -> tuple[bool, str]:
    """Whether a Docker Engine of this machine answers within 2 s, and why not (or where it was found)."""
    host = os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}"
    if not host.startswith("unix://"):
        return False, f"DOCKER_HOST={host}: nodes are wired through this machine's kernel, so unix:// only"
    path = host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_DEADLINE)
        try:
            sock.connect(path)
            sock.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            status = sock.recv(64)
        except FileNotFoundError:
            return False, f"no Docker Engine: {path} does not exist"
        except TimeoutError:
            return False, f"the Docker Engine at {path} does not answer within {ANSWER_DEADLINE:.0f} s"
        except OSError as error:
            return False, f"no Docker Engine answers at {path}: {error.strerror}"
    if b" 200 " not in status:
        return False, f"what listens at {path} is no Docker Engine"
    return True, f"a Docker Engine answers at {path}"


def connect() -> APIClient:
    """A client that threads may share. Raises MachineLacks when no engine answers."""
    answers, why = available()
    if not answers:
        raise MachineLacks(f"{why}; install and start it (Debian: docker.io), or use --engine namespaces")
    import docker

    with translated("connect to the Docker Engine"):
        return docker.APIClient(
            base_url=os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}",
            version="auto",
            timeout=CALL_DEADLINE,
            max_pool_size=4 * PARALLEL,
        )


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of the Docker client into LabError: "cannot DOING: why"."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except DockerException as error:
        why = getattr(error, "explanation", None) or str(error)
        raise LabError(f"cannot {doing}: {why}") from error
    except requests.exceptions.Timeout as error:
        raise LabError(f"cannot {doing}: the Docker Engine did not answer in time") from error
    except requests.exceptions.RequestException as error:
        raise LabError(f"cannot {doing}: the connection to the Docker Engine broke ({error})") from error
