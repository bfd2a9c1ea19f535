"""What a node sees of the file system: the machine's, with its own /proc, /sys and run-time folders."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from testbed.engines.base import DISKS

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PLAIN = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC

# Programs write here; a node's writes must stay in the node and end with it.
_PRIVATE_FOLDERS = ("/run", "/var/lib/dhcp", "/var/lib/misc")
NODE_FOLDER = Path("/run/testbed")

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind or source} on {target}: {os.strerror(code)}")


def make_private() -> None:
    """Keep this mount namespace's changes from every other one."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)


def mount_proc() -> None:
    """A /proc of this PID namespace."""
    _mount("proc", "/proc", "proc", _PLAIN)


def mount_sys() -> None:
    """A /sys that shows this network namespace's interfaces."""
    _mount("sysfs", "/sys", "sysfs", _PLAIN)


def prepare_node(state_dir: str | None, disk: str | None = None) -> None:
    """Set up the mounts of a new node; its ``state_dir`` appears at :data:`NODE_FOLDER`.

    The file ``disk`` appears below DISKS with its name.

    Must run in the node's own mount, PID and network namespaces. Raises OSError.
    """
    make_private()
    mount_proc()
    mount_sys()
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY) if state_dir else -1
    shared = os.open(disk, os.O_PATH) if disk else -1
    for path in _PRIVATE_FOLDERS:
        if Path(path).is_dir():
            _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64m,mode=755")
    if folder >= 0:
        NODE_FOLDER.mkdir()
        _mount(f"/proc/self/fd/{folder}", str(NODE_FOLDER), "", _MS_BIND)
        os.close(folder)
    if disk:
        target = Path(DISKS) / Path(disk).name
        target.parent.mkdir()
        target.touch()
        _mount(f"/proc/self/fd/{shared}", str(target), "", _MS_BIND)
        os.close(shared)
    _cover("/etc/resolv.conf")


def _cover(path: str) -> None:
    """An empty file of the node's own in place of ``path``: a DHCP client must not write the machine's."""
    if not Path(path).exists():
        return
    own = Path("/run") / Path(path).name
    own.touch()
    _mount(str(own), os.path.realpath(path), "", _MS_BIND)
