"""The docker engine: nodes are containers without a network of Docker's.

Whose a container is stands in its labels; nothing is ever found by name.

=================  ====================================================================
``testbed.lab``    the lab's id
``testbed.name``   the lab's name
``testbed.node``   the node's name
``testbed.role``   host, vm, vmm or fabric
``testbed.state``  the lab's folder
``testbed.owner``  pid:start time of the process that started it (:mod:`testbed.processes`)
=================  ====================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from testbed.engines.base import DISKS, STATEFUL, LabRef, Node, NodeSpec
from testbed.engines.docker import image
from testbed.engines.docker.client import PARALLEL, available, connect, translated
from testbed.errors import LabError
from testbed.processes import ProcessId
from testbed.signals import deferred

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["DockerEngine", "available"]

CAPABILITIES = ["NET_ADMIN", "NET_RAW"]
# Docker switches IPv6 off in a container without network.
SYSCTLS = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
STATE = "/run/testbed"  # a node's state_dir as the node sees it
COMMANDS = {
    "host": ("python3", "-m", "testbed.host", STATE),
    "vmm": ("python3", "-m", "testbed.vmm.node", STATE),
    "vm": ("sleep", "infinity"),
    "fabric": ("sleep", "infinity"),
}

ANNOUNCE = ("python3", "-m", "testbed.guest.announce")

GONE_DEADLINE = 30.0
EARLY_EXIT = 1  # seconds that a foreign image is watched for a command that ends at once
LAST_LINES = 20

T = TypeVar("T")
R = TypeVar("R")


class DockerEngine:
    """An :class:`testbed.engines.base.Engine`. ``progress`` gets a line per step of pulling and building."""

    name = "docker"

    def __init__(self, progress: Callable[[str], None] = lambda _line: None) -> None:
        self._progress = progress

    @cached_property
    def _client(self) -> APIClient:
        return connect()

    def start(self, lab: LabRef, nodes: Sequence[NodeSpec]) -> None:
        """Start nodes, all at once, building or pulling images first. LabError names the node that failed."""
        images = self._images({spec.image for spec in nodes})
        _each(nodes, lambda spec: self._start(lab, spec, images[spec.image]))

    def stop(self, lab: LabRef, names: Sequence[str]) -> None:
        """Remove the containers of some nodes; unknown names are no error."""
        self._remove([c["Id"] for c in self._containers(lab) if c["Labels"]["testbed.node"] in names])

    def destroy(self, lab: LabRef) -> None:
        """Remove every container of the lab and wait until all are gone. Idempotent."""
        self._remove([container["Id"] for container in self._containers(lab)])

    def open(self, lab: LabRef, name: str) -> Node:
        """Open a running node. Raises LabError when it does not run, with its last log lines."""
        container = self._find(lab, name)
        with translated(f"inspect {name}"):
            facts = self._client.inspect_container(container)
        if not facts["State"]["Running"]:
            raise LabError(self._ended(name, facts))
        pid = int(facts["State"]["Pid"])
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            cgroups = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            cgroups = ""
        if container not in cgroups:
            if pidfd >= 0:
                os.close(pidfd)
            raise LabError(self._not_ours(name, container, pid))
        env = dict(line.partition("=")[::2] for line in facts["Config"]["Env"] or ())
        return Node(name, pidfd, pid, env)

    def close(self) -> None:
        """Nothing of a lab is kept open."""

    def commit(self, lab: LabRef) -> None:
        """Nothing to do: containers outlive the process that started them."""

    def alive(self, lab: LabRef) -> bool:
        """Whether any container of the lab is running."""
        return any(container["State"] == "running" for container in self._containers(lab))

    def logs(self, lab: LabRef, name: str, follow: bool) -> Iterator[bytes]:
        """What the node wrote to stdout and stderr; with ``follow`` until it ends."""
        container = self._find(lab, name)
        with translated(f"read the log of {name}"):
            yield from self._client.logs(container, stdout=True, stderr=True, stream=True, follow=follow)

    def leftovers(self, is_there: Callable[[str, Path], bool], state_dir: Path) -> list[str]:
        """Ids of containers of labs under ``state_dir`` that are not there, by the lab's id and folder."""
        with translated("list containers"):
            found = self._client.containers(all=True, filters={"label": ["testbed.lab", "testbed.state"]})
        return [
            container["Id"]
            for container in found
            if (folder := Path(container["Labels"]["testbed.state"])).is_relative_to(state_dir)
            and not is_there(container["Labels"]["testbed.lab"], folder)
        ]

    def remove_leftovers(self, ids: Sequence[str]) -> None:
        """Remove what :meth:`leftovers` found and wait until it is gone."""
        self._remove(ids)

    # Images

    def _images(self, wanted: set[str | None]) -> dict[str | None, str]:
        found: dict[str | None, str] = {}
        for name in wanted:
            found[name] = self._foreign(name) if name else image.ensure(self._client, self._progress)
        return found

    def _foreign(self, name: str) -> str:
        known = image.image_id(self._client, name)
        if known:
            return known
        self._progress(f"pulling {name}")
        why = image.pull(self._client, name)
        known = image.image_id(self._client, name)
        if not known:
            raise LabError(
                f"image {name} is not on this machine and cannot be pulled: {why}; "
                "load it (docker load) or mend the VM's `image:`"
            )
        return known

    # Containers

    def _start(self, lab: LabRef, spec: NodeSpec, image_id: str) -> None:
        from docker.types import LogConfig, Mount

        me = ProcessId.own()
        labels = {"lab": lab.id, "name": lab.name, "node": spec.name, "role": spec.role}
        labels |= {"state": str(lab.directory), "owner": f"{me.pid}:{me.start_time}"}
        mounts = [Mount(STATE, spec.state_dir, type="bind")] if spec.role in STATEFUL else []
        if spec.disk:
            mounts.append(Mount(f"{DISKS}/{Path(spec.disk).name}", spec.disk, type="bind"))
        command = _command(spec)
        client = self._client
        with translated(f"start {spec.name}"):
            container = client.create_container(
                image_id,
                list(command) if command else None,
                name=f"testbed-{lab.name}-{lab.id}-{spec.name}",
                hostname=spec.name,
                labels={f"testbed.{key}": value for key, value in labels.items()},
                host_config=client.create_host_config(
                    network_mode="none",
                    cap_add=CAPABILITIES,
                    sysctls=SYSCTLS,
                    mounts=mounts,
                    log_config=LogConfig(type="json-file", config={"max-size": "16m", "max-file": "2"}),
                ),
            )["Id"]
            client.start(container)
        if spec.image and self._exits(container):
            facts = client.inspect_container(container)
            hint = f"; set `command:` of {spec.name} to one that stays, such as [sleep, infinity]"
            raise LabError(f"image {spec.image}: {self._ended(spec.name, facts, hint)}")

    def _exits(self, container: str) -> bool:
        """Whether the container's command ends within EARLY_EXIT."""
        import requests

        try:
            with translated("watch a container"):
                self._client.wait(container, timeout=EARLY_EXIT)
        except LabError as error:
            cause = error.__cause__
            if isinstance(cause, requests.exceptions.Timeout | requests.exceptions.ConnectionError):
                return False
            raise
        return True

    def _containers(self, lab: LabRef) -> list[dict[str, Any]]:
        with translated(f"list the containers of {lab.name}"):
            found: list[dict[str, Any]] = self._client.containers(
                all=True, filters={"label": [f"testbed.lab={lab.id}"]}
            )
        return found

    def _find(self, lab: LabRef, name: str) -> str:
        for container in self._containers(lab):
            if container["Labels"]["testbed.node"] == name:
                return str(container["Id"])
        raise LabError(f"{lab.name} has no container for {name}: it never started or somebody removed it")

    def _ended(self, name: str, facts: dict[str, Any], hint: str = "") -> str:
        with translated(f"read the log of {name}"):
            tail = self._client.logs(facts["Id"], stdout=True, stderr=True, tail=LAST_LINES)
        text = tail.decode(errors="replace").rstrip() or "(it wrote nothing)"
        state = facts["State"]
        why = state.get("Error") or f"it ended with code {state['ExitCode']}"
        return f"{name} does not run: {why}{hint}; its last lines:\n{text}"

    def _not_ours(self, name: str, container: str, pid: int) -> str:
        with translated(f"inspect {name}"):
            facts = self._client.inspect_container(container)
        if not facts["State"]["Running"]:
            return self._ended(name, facts)
        return (
            f"process {pid} is not {name}'s as seen from here: the Docker Engine must run on this machine, "
            "and a command line inside a container needs --pid=host"
        )

    def _remove(self, ids: Sequence[str]) -> None:
        _each(ids, self._remove_one)

    def _remove_one(self, container: str) -> None:
        """Kill and remove; a removal that is under way elsewhere is waited for."""
        from docker.errors import APIError, NotFound

        until = time.monotonic() + GONE_DEADLINE
        with translated(f"remove container {container[:12]}"):
            while True:
                try:
                    self._client.remove_container(container, v=True, force=True)
                except NotFound:
                    return
                except APIError as error:
                    if error.status_code != 409 or time.monotonic() > until:  # 409: removal in progress
                        raise
                    time.sleep(0.02)


def _command(spec: NodeSpec) -> tuple[str, ...] | None:
    """What the container runs; None: what its image says."""
    if spec.image or not spec.announce:
        return spec.command or (None if spec.image else COMMANDS[spec.role])
    if spec.command is None:
        return ANNOUNCE
    return ("sh", "-c", f'{" ".join(ANNOUNCE)} & exec "$0" "$@"', *spec.command)


def _each(items: Sequence[T], work: Callable[[T], R]) -> list[R]:
    """Do ``work`` for all items in parallel; when all are done, raise the first error there was.

    On Ctrl-C what is under way is finished and the rest is not begun: a roll-back finds all there is.
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(min(PARALLEL, len(items)), thread_name_prefix="docker")
    try:
        with deferred():  # an interrupt inside submit() would leave a thread that the pool does not know
            futures = [pool.submit(work, item) for item in items]
        wait(futures)
    finally:
        with deferred():
            pool.shutdown(wait=True, cancel_futures=True)
    return [future.result() for future in futures]
