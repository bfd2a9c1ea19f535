"""A lab's VMM: what it is given, what hosts are told of it, and when the hosts are in step with it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from testbed.channel import Message
from testbed.errors import LabError
from testbed.lab.lab import Lab
from testbed.topology.management import VMM
from testbed.topology.plan import HostPolicy, Plan, encode
from testbed.vmm import files

RESYNC_SECONDS = 15.0


def prepare(folder: Path, plan: Plan) -> None:
    """What the VMM of a new lab finds in its folder: the Plan, the administrator's and the hosts' tokens."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / files.HOST_TOKENS).mkdir(mode=0o700)
    files.write_private(folder / files.ADMIN_TOKEN, files.admin_token())
    for host in plan.hosts:
        token_of(folder, host.name)
    (folder / files.PLAN).write_bytes(encode(plan))


def token_of(folder: Path, host: str) -> str:
    """A host's token; made if it has none yet."""
    path = folder / files.HOST_TOKENS / host
    if not path.exists():
        files.write_private(path, files.host_token(host))
    return path.read_text().strip()


def access(lab: Lab, host: str) -> Message | None:
    """How a host reaches the VMM: address, port, token. None where there is none."""
    plan = lab.plan.vmm
    if plan is None:
        return None
    return {"address": plan.address, "port": plan.port, "token": token_of(lab.folder(VMM), host)}


def converge(lab: Lab, plan: Plan, rebuilt: Iterable[str]) -> None:
    """Have the VMM follow a changed Plan, in which the VMs ``rebuilt`` are made anew. Raises BadInput."""
    folder = lab.folder(VMM)
    tokens = {host.name: token_of(folder, host.name) for host in plan.hosts}
    bare = tuple(msgspec.structs.replace(host, policy=HostPolicy()) for host in plan.hosts)
    order = {"plan": msgspec.structs.replace(plan, hosts=bare), "rebuilt": list(rebuilt), "tokens": tokens}
    lab.vmm().put("/plan", order)


def wait_in_step(lab: Lab, hosts: Iterable[str], deadline: float, revision: int = 0) -> None:
    """Return once the hosts have applied what the VMM said up to a revision. Raises LabError.

    ``deadline`` is on the monotonic clock.
    """
    for host in hosts:
        while True:
            told = lab.ask(host, "status")["vmm"]
            if told and told["revision"] is not None and told["revision"] >= revision:
                break
            lab.node(VMM)  # fails with its last words if it is down
            if time.monotonic() > deadline:
                why = told["error"] if told else "it was told of no VMM"
                raise LabError(f"{host} is not in step with the VMM: {why}")
            time.sleep(0.005)  # a poll with a deadline
