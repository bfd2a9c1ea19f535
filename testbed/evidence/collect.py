"""What a running lab tells of itself when a test has failed, as files of a bundle, without any token."""

from __future__ import annotations

import functools
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from testbed import __version__
from testbed.errors import TestbedError
from testbed.evidence import bundle
from testbed.evidence.bundle import Manifest
from testbed.evidence.ring import Recorder
from testbed.lab import events, inspect, policy
from testbed.lab.lab import Lab
from testbed.topology import plan as plans
from testbed.topology.load import render

TOPOLOGY, FAILURE, MACHINE = "topology.yaml", "failure.txt", "machine.json"
LOG_BYTES = 256 << 10  # the last of each node's
DOCTOR_SECONDS = 30.0
_POLICY = ("lookup-records", "customer-routes", "provider-addresses", "provider-routes")
_VMM = ("status", "networks", "subnets", "pools", "hosts", "lookup-records", "vms")
_PART = 16  # bytes of a secret that must not be told; a token has 43 at random
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")

Files = dict[str, bytes]


class Test(msgspec.Struct, frozen=True):
    """The failed one. suite: "" for a user's own; variables: of its topology, None: it is not known."""

    suite: str
    name: str
    file: str
    text: str
    variables: Mapping[str, str] | None


def save(folder: Path, lab: Lab, test: Test, recorder: Recorder | None, hidden: Iterable[str]) -> Path:
    """Write a bundle; its path. ``hidden``: what must not be in it. Raises OSError, MachineLacks."""
    files, missing = gather(lab, test, recorder)
    hidden = [each for each in hidden if each]
    record = lab.record
    manifest = Manifest(
        format=bundle.FORMAT,
        testbed=__version__,
        suite=test.suite,
        name=test.name,
        file=test.file,
        lab=record.name,
        topology=Path(record.topology).name,
        engine=record.engine,
        plant=record.plant,
        created=time.time(),
        python=platform.python_version(),
        kernel=platform.release(),
        settings=dict(test.variables or {}),
        seeds=seeds(lab),
        missing=missing,
    )
    clean = msgspec.json.decode(scrubbed(msgspec.json.encode(manifest), hidden), type=Manifest)
    folder.mkdir(parents=True, exist_ok=True)
    slug = _UNSAFE.sub("-", f"{test.suite} {test.name}").strip("-")[:80]
    path = folder / f"{slug}-{secrets.token_hex(3)}{bundle.SUFFIX}"
    bundle.write(path, clean, {name: scrubbed(data, hidden) for name, data in files.items()})
    return path


def scrubbed(data: bytes, hidden: Iterable[str]) -> bytes:
    """Data with asterisks where a secret or a large part of one was: as many, so that lengths stay right.

    Parts, since packets, logs and messages are cut somewhere.
    """
    for each in hidden:
        secret = each.encode()
        data = data.replace(secret, b"*" * len(secret))
        for start in range(len(secret) - _PART + 1):
            data = data.replace(secret[start : start + _PART], b"*" * _PART)
    return data


def seeds(lab: Lab) -> dict[str, int]:
    """Of what cables do at random: {"host1:nic1 to_host": 1}."""
    return {
        f"{cable.host}:{cable.nic} {way}": faults.seed
        for cable in lab.plan.fabric.cables
        for way, faults in (("to_host", cable.to_host), ("from_host", cable.from_host))
        if cable.is_faulty
    }


def gather(lab: Lab, test: Test, recorder: Recorder | None) -> tuple[Files, dict[str, str]]:
    """All that there is, and why the rest is not."""
    files: Files = {FAILURE: test.text.encode()}
    missing: dict[str, str] = {}

    def add(name: str, make: Callable[[], bytes]) -> None:
        try:
            files[name] = make()
        except (TestbedError, OSError) as error:
            missing[name] = str(error)[:1000]

    variables = test.variables
    if variables is None:
        missing[TOPOLOGY] = "the lab was running before, and its variables are not known"
    else:
        add(TOPOLOGY, lambda: render(Path(lab.record.topology), variables).encode())
    add("plan.json", lambda: plans.encode(lab.plan))
    add(MACHINE, machine)
    add("inspect.json", lambda: _json(inspect.inspect(lab)))
    add("counters.json", lambda: _json(inspect.counters(lab, None)))
    add("events.json", lambda: _events(lab))
    for host in lab.plan.hosts:
        add(f"policy/{host.name}.json", functools.partial(_policy, lab, host.name))
    if lab.plan.vmm:
        add("policy/vmm.json", lambda: _json({name: lab.vmm().get(f"/{name}") for name in _VMM}))
    for node in lab.node_names():
        add(f"logs/{node}.log", functools.partial(_log, lab, node))
    if recorder:
        recorder.stop()
        files.update(recorder.files())
    return files, missing


def _json(data: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def _policy(lab: Lab, host: str) -> bytes:
    return _json({kind: policy.objects(lab, kind, host) for kind in _POLICY})


def _events(lab: Lab) -> bytes:
    """As of `testbed events -f json`; a host that does not answer is a notice in it."""
    found, lost = events.history(lab, events.Wanted())
    return _json({"events": found, "lost": lost})


def _log(lab: Lab, node: str) -> bytes:
    return b"".join(lab.engine.logs(lab.ref, node, follow=False))[-LOG_BYTES:]


@functools.cache
def machine() -> bytes:
    """What `testbed doctor` finds: kernel features, programs, engines. Raises OSError."""
    command = [sys.executable, "-P", "-m", "testbed", "doctor", "-f", "json"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=DOCTOR_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(str(error)) from None
    return done.stdout
