"""The node image: built when it is missing, from this very package.

Tag ``testbed-node:<hash of what it is built from>``. The Debian base is pulled where a registry
can be reached and bootstrapped from Debian packages (mmdebstrap, about 20 s) where not. Wheels are
fetched out here, with this machine's proxies and certificates, and put beside the Dockerfile.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import testbed
from testbed.engines.docker.client import translated
from testbed.errors import LabError, MachineLacks

if TYPE_CHECKING:
    from docker import APIClient

REPOSITORY = "testbed-node"
RELEASE = "bookworm"
PYTHON = "3.11"  # Debian bookworm's
STOCK_BASE = f"debian:{RELEASE}-slim"
OWN_BASE = f"testbed-base:{RELEASE}"
IN_IMAGE = Path("/opt/testbed")  # where the image has this package
NO_WHEEL = ("iperf3",)  # pure Python, published as source only: its wheel is made here

PULL_FIRST_WORD = 10  # seconds until the registry says anything
PULL_DEADLINE = 180.0
BOOTSTRAP_DEADLINE = 600.0
PIP_DEADLINE = 300.0
BUILD_DEADLINE = 900.0
LOCK_DEADLINE = 1200.0
KEEP_OLD = 3600.0  # seconds: an image of another checkout may be about to be used

_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/hostname\Z")

Progress = Callable[[str], None]
Files = dict[str, tuple[int, bytes]]  # name in the build context -> mode, content; sorted by name


def ensure(client: APIClient, progress: Progress) -> str:
    """The id of the node image, built first when it is missing. ``progress`` gets one line per step.

    Raises MachineLacks when no base can be had, LabError when the build fails.
    """
    files = context_files()
    tag = f"{REPOSITORY}:{context_hash(files)}"
    found = image_id(client, tag)
    if found:
        return found
    own = _own_image(client)
    if own:
        with translated(f"name the image {tag}"):
            client.tag(own, REPOSITORY, context_hash(files))
        return own
    with _only_one(progress):
        found = image_id(client, tag)  # somebody else may have built it meanwhile
        if found:
            return found
        base = _base(client, progress)
        with translated("ask the Docker Engine for its architecture"):
            machine = str(client.info()["Architecture"])
        _build(client, tag, base, _context(files, _wheels(machine, progress)), progress)
        _remove_old(client, tag)
    found = image_id(client, tag)
    if not found:
        raise LabError(f"the node image {tag} was built and is gone again: does something prune images?")
    return found


def image_id(client: APIClient, tag: str) -> str | None:
    """The id of a local image, None where there is none of that name."""
    from docker.errors import ImageNotFound

    with translated(f"look for the image {tag}"):
        try:
            return str(client.inspect_image(tag)["Id"])
        except ImageNotFound:
            return None


def _own_image(client: APIClient) -> str | None:
    """The id of the image that this process runs from, if that is a node image as it was built.

    So is the command line run with nothing installed but Docker: building the same again is needless.
    """
    from docker.errors import NotFound

    container = own_container(Path("/proc/self/mountinfo").read_text())
    if container is None or source_root() != IN_IMAGE:
        return None
    with translated("look for the image of this container"):
        try:
            own = str(client.inspect_container(container)["Image"])
            labels = client.inspect_image(own)["Config"]["Labels"] or {}
        except NotFound:  # a container of another engine
            return None
    return own if labels.get("testbed.image") == "node" else None


def own_container(mountinfo: str) -> str | None:
    """Id of the container with these mounts (proc(5)): its /etc/hostname comes from a folder of that name.

    None outside a container, and where something is mounted over the code of the image.
    """
    found = None
    for line in mountinfo.splitlines():
        root, target = line.split()[3:5]
        if Path(target).is_relative_to(IN_IMAGE):
            return None
        if target == "/etc/hostname" and (match := _CONTAINER.search(root)):
            found = match[1]
    return found


def pull(client: APIClient, image: str) -> str:
    """Try to pull ``image``; return "" or why it cannot be had, soon where no registry answers."""
    import requests
    from docker.errors import DockerException

    name, tag = image, None
    if "@" not in image and ":" not in image.rpartition("/")[2]:
        tag = "latest"
    until = time.monotonic() + PULL_DEADLINE
    earlier, client.timeout = client.timeout, PULL_FIRST_WORD
    try:
        for line in client.pull(name, tag=tag, stream=True, decode=True):
            if "error" in line:
                return str(line["error"])
            if time.monotonic() > until:
                return f"not there after {PULL_DEADLINE:.0f} s"
    except DockerException as error:
        return str(getattr(error, "explanation", None) or error)
    except requests.exceptions.RequestException:
        return f"the registry said nothing for {PULL_FIRST_WORD} s"
    finally:
        client.timeout = earlier
    return ""


# What the image is built from


def source_root() -> Path:
    """Where Dockerfile, pyproject.toml, images/ and topologies/ are: in the wheel or the checkout."""
    package = Path(testbed.__file__).parent
    data = package / "_data"
    return data if data.is_dir() else package.parent


def context_files() -> Files:
    """What the image is built from, but the wheels. Raises LabError where the eBPF objects are missing."""
    root, package = source_root(), Path(testbed.__file__).parent
    paths = {name: root / name for name in ("Dockerfile", "pyproject.toml")}
    for folder, start in (
        ("images", root / "images"),
        ("topologies", root / "topologies"),
        ("testbed", package),
    ):
        for path in start.rglob("*"):
            relative = path.relative_to(start)
            hidden = any(part.startswith(".") or part in {"__pycache__", "_data"} for part in relative.parts)
            if not hidden and path.is_file():
                paths[f"{folder}/{relative}"] = path
    if not any(name.endswith(".o") for name in paths):
        raise LabError(
            f"{package}/nic/bpf has no compiled eBPF programs: install testbed with pip, "
            "or run python3 -m testbed.nic.bpf.compiler"
        )
    return {name: (_mode(paths[name]), paths[name].read_bytes()) for name in sorted(paths)}


def context_hash(files: Files) -> str:
    """16 hex digits over names, modes and contents; topologies don't count: nodes never read them."""
    digest = hashlib.sha256()
    for name, (mode, content) in files.items():
        if not name.startswith("topologies/"):
            digest.update(f"{name}\0{mode:o}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def _context(files: Files, wheels: Path | None) -> io.BytesIO:
    """The build context as a tar; equal contents give equal bytes, as Docker's layer cache wants."""
    everything = dict(files)
    if wheels is not None:
        everything |= {
            f"wheels/{path.name}": (0o644, path.read_bytes()) for path in sorted(wheels.glob("*.whl"))
        }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        folders = {str(parent) for name in everything for parent in Path(name).parents} - {"."}
        for folder in sorted(folders | {"topologies"}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, (mode, content) in everything.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    data.seek(0)
    return data


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def cache_folder() -> Path:
    """Where wheels are kept between builds: $XDG_CACHE_HOME/testbed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "testbed"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wheels(machine: str, progress: Progress) -> Path | None:
    """A folder with the wheels of all dependencies for the image's Python; None where pip can't get them."""
    project = tomllib.loads((source_root() / "pyproject.toml").read_text())["project"]
    needed = [str(requirement) for requirement in project["dependencies"]]
    key = hashlib.sha256("\n".join([PYTHON, machine, *needed]).encode()).hexdigest()[:16]
    target = cache_folder() / f"wheels-{key}"
    if target.is_dir():
        return target
    progress("fetching the Python packages of the node image")
    made_here = [requirement for requirement in needed if requirement.startswith(NO_WHEEL)]
    rest = [requirement for requirement in needed if requirement not in made_here]
    platforms = [f"--platform={policy}_{machine}" for policy in ("manylinux_2_28", "manylinux2014")]
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        commands = (
            [
                "download",
                "--only-binary=:all:",
                f"--python-version={PYTHON}",
                *platforms,
                "--dest",
                scratch,
                *rest,
            ],
            ["wheel", "--no-deps", "--wheel-dir", scratch, *made_here],
        )
        for command in commands:
            why = _pip(command)
            if why:
                progress(f"pip cannot fetch them here ({why}); pip inside the build will try")
                return None
        Path(scratch).chmod(0o755)
        shutil.copytree(scratch, f"{scratch}.whole")
    Path(f"{scratch}.whole").rename(target)
    for old in cache_folder().glob("wheels-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _pip(arguments: list[str]) -> str:
    """Run pip; return "" or its last line."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PIP_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {PIP_DEADLINE:.0f} s"
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""


# The base


def _base(client: APIClient, progress: Progress) -> str:
    for tag in (STOCK_BASE, OWN_BASE):
        if image_id(client, tag):
            return tag
    progress(f"pulling {STOCK_BASE}")
    why = pull(client, STOCK_BASE)
    if not why:
        return STOCK_BASE
    progress(f"{STOCK_BASE} cannot be pulled; making a base from Debian packages")
    program = shutil.which("mmdebstrap")
    if program is None:
        raise MachineLacks(
            f"the base {STOCK_BASE} of the node image cannot be pulled ({why}), and mmdebstrap, "
            "which makes one from Debian packages, is missing; install: mmdebstrap"
        )
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        _bootstrap(program, archive)
        with translated(f"import {OWN_BASE}"), archive.open("rb") as file:
            client.import_image(src=file, repository=OWN_BASE.partition(":")[0], tag=RELEASE)
    if not image_id(client, OWN_BASE):
        raise LabError(f"the Docker Engine did not take the base {OWN_BASE} (is its disk full?)")
    return OWN_BASE


def _bootstrap(program: str, archive: Path) -> None:
    """Make a minimal Debian as a tar, from the mirrors this machine itself uses for the release."""
    slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
    command = [program, "--quiet", "--variant=minbase", *slim, RELEASE, str(archive), *_mirrors()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=BOOTSTRAP_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"mmdebstrap was not done after {BOOTSTRAP_DEADLINE:.0f} s") from None
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-10:])
        raise LabError(f"mmdebstrap cannot make the base of the node image:\n{last}")


def _mirrors() -> list[str]:
    """The apt lines that this machine has for RELEASE; none: mmdebstrap then takes Debian's mirrors."""
    layout = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", layout, "Created-By: Packages", "Origin: Debian"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    rows = [line.split() for line in done.stdout.splitlines()]
    usable = {RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"}
    lines = [f"deb {' '.join(row)}" for row in rows if len(row) == 3 and row[1] in usable]
    return lines if any(f" {RELEASE} " in line for line in lines) else []


# The build


def _build(client: APIClient, tag: str, base: str, context: io.BytesIO, progress: Progress) -> None:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    arguments = {name: os.environ[name] for name in names if name in os.environ} | {"BASE": base}
    until = time.monotonic() + BUILD_DEADLINE
    log: deque[str] = deque(maxlen=30)
    progress(f"building the node image {tag}")
    with translated("build the node image"):
        lines = client.build(
            fileobj=context,
            custom_context=True,
            dockerfile="Dockerfile",
            tag=tag,
            buildargs=arguments,
            network_mode="host",  # the way out that the machine itself uses
            rm=True,
            forcerm=True,
            decode=True,
            timeout=int(BUILD_DEADLINE),
        )
        for line in lines:
            _take(line, log, progress)
            if time.monotonic() > until:
                raise LabError(_build_failure(f"not done after {BUILD_DEADLINE:.0f} s", log))


def _take(line: dict[str, Any], log: deque[str], progress: Progress) -> None:
    text = str(line.get("stream", "")).rstrip()
    if text.startswith("Step "):
        progress(text.partition("&&")[0].strip()[:80])
    if text:
        log.extend(text.splitlines())
    if "error" in line:
        raise LabError(_build_failure(str(line["error"]), log))


def _build_failure(why: str, log: deque[str]) -> str:
    return f"the node image cannot be built: {why}\nlast lines of the build:\n" + "\n".join(log)


def _remove_old(client: APIClient, current: str) -> None:
    """Remove node images of earlier builds that no container uses, but none of the last hour."""
    from docker.errors import APIError

    with translated("remove old node images"):
        for image in client.images(name=REPOSITORY):
            for tag in set(image.get("RepoTags") or ()) - {current}:
                if time.time() - _tagged_at(client, tag) > KEEP_OLD:
                    try:
                        client.remove_image(tag)
                    except APIError as error:
                        if error.status_code not in (404, 409):  # gone already; a container uses it
                            raise
        filters = {"dangling": True, "label": "testbed.image=stage", "until": f"{KEEP_OLD:.0f}s"}
        client.prune_images(filters=filters)


def _tagged_at(client: APIClient, tag: str) -> float:
    """When the tag was set, in seconds since 1970; now for a tag that is gone."""
    from docker.errors import ImageNotFound

    try:
        facts = client.inspect_image(tag)
    except ImageNotFound:
        return time.time()
    stamp = (facts.get("Metadata") or {}).get("LastTagTime") or facts["Created"]
    return datetime.fromisoformat(stamp[:19] + "+00:00").timestamp()


@contextmanager
def _only_one(progress: Progress) -> Iterator[None]:
    """Hold the build lock of this user; two builds at once would only do everything twice."""
    with (cache_folder() / "image.lock").open("w") as lock:
        until, said = time.monotonic() + LOCK_DEADLINE, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LabError(f"another build of the node image holds {lock.name}") from None
                if not said:
                    progress("waiting for another build of the node image")
                    said = True
                time.sleep(0.2)
        yield
