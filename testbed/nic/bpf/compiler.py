"""Compiles the NIC's eBPF programs: ``python3 -m testbed.nic.bpf.compiler [FOLDER]``.

Used by the package's build and by the image's build, so it needs nothing but the standard
library. The compiler is clang: gcc-bpf 12 refuses the helper calls of these programs
("indirect call").
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from testbed.errors import MachineLacks, TestbedError

PACKAGES = "clang llvm libbpf-dev linux-libc-dev"
DEADLINE = 60.0  # seconds for one program


def objects(folder: Path, *, force: bool = False) -> list[Path]:
    """Compile every ``.c`` of ``folder`` whose ``.o`` is missing or older; return all objects.

    Raises MachineLacks without a compiler, TestbedError when a program does not compile.
    """
    made = []
    for source in sorted(folder.glob("*.c")):
        target = source.with_suffix(".o")
        if force or not target.exists() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
            _compile(source, target)
        made.append(target)
    return made


def _compile(source: Path, target: Path) -> None:
    scratch = target.with_suffix(".o.new")
    command = [_tool("clang"), "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I/usr/include"]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:  # asm/types.h is not in /usr/include itself on Debian
        command.append(f"-I/usr/include/{multiarch}")
    try:
        _run([*command, "-c", str(source), "-o", str(scratch)], source)
        _run([_tool("llvm-strip"), "-g", str(scratch)], source)  # DWARF goes, BTF stays
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _run(command: list[str], source: Path) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{source}: {command[0]} did not end within {DEADLINE:.0f} s") from None
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise TestbedError(f"{source} does not compile (Debian packages needed: {PACKAGES}):\n{last}")


def _tool(name: str) -> str:
    """Path of clang or llvm-strip, the highest version where only ``name-14`` and the like exist."""
    path = shutil.which(name)
    if path:
        return path
    versions = (v for folder in ("/usr/bin", "/usr/local/bin") for v in Path(folder).glob(f"{name}-*"))
    found = sorted(
        (int(number), str(path))
        for path in versions
        if (number := path.name.removeprefix(f"{name}-")).isdigit()
    )
    if not found:
        raise MachineLacks(f"{name} is missing: it compiles the NIC's eBPF programs; install: {PACKAGES}")
    return found[-1][1]


def main() -> int:
    """Compile what is not up to date; print one message and return 4 (or 3) where that fails."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    try:
        objects(folder)
    except TestbedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
