"""What tshark, which knows nothing of us, reads in a capture."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

from testbed.errors import LabError, MachineLacks

SECONDS = 30.0
Row = dict[str, list[str]]  # field -> its values in one frame, outermost first


def require() -> None:
    """Raise MachineLacks when there is no tshark."""
    if which("tshark") is None:
        raise MachineLacks("tshark is not installed: it decodes what the labs send; apt-get install tshark")


def decode(capture: Path, *fields: str) -> list[Row]:
    """The frames of a capture file, each as the values of ``fields``."""
    options = [word for field in fields for word in ("-e", field)]
    options += ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]  # each frame for itself
    command = ["tshark", "-n", "-r", str(capture), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]
    try:
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"tshark needed more than {SECONDS:g} s for a capture") from error
    if done.returncode:
        raise LabError(f"tshark cannot read a capture: {done.stderr.strip()[-300:]}")
    return [
        {
            field: [value for value in cell.split(",") if value]
            for field, cell in zip(fields, line.split("|"), strict=True)
        }
        for line in done.stdout.splitlines()
    ]
