"""Reading a capture with tshark: VSID, customer and provider addresses in columns of their own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from testbed.errors import BadInput, MachineLacks

COLUMNS = (
    "time",
    "point",
    "VSID",
    "CA source",
    "CA destination",
    "PA source",
    "PA destination",
    "info",
    "comment",
)

_FIELDS = (
    "frame.time_epoch",
    "frame.interface_name",
    "gre.key",
    "eth.type",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "arp.src.proto_ipv4",
    "arp.dst.proto_ipv4",
    "_ws.col.Info",
    "frame.comment",
)
_SEPARATOR = "\x1f"  # between occurrences of a field: in no text
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_FAMILIES = {
    _IPV4: ("ip.src", "ip.dst"),
    _IPV6: ("ipv6.src", "ipv6.dst"),
    _ARP: ("arp.src.proto_ipv4", "arp.dst.proto_ipv4"),
}
_SECONDS = 10.0  # for tshark to end once nobody reads


def decode(file: Path) -> Iterator[list[str]]:
    """A row of :data:`COLUMNS` for each packet of ``file``. Raises BadInput, MachineLacks."""
    tshark = shutil.which("tshark")
    if tshark is None:
        raise MachineLacks("--decode needs tshark: install the package tshark")
    if not file.is_file():
        raise BadInput(f"--decode {file}: there is no such file")
    words = [tshark, "-n", "-l", "-r", str(file), "-T", "fields", "-E", f"aggregator={_SEPARATOR}"]
    for field in _FIELDS:
        words += ["-e", field]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout
            for text in process.stdout:
                yield row(text.rstrip("\n").split("\t"))
            code = process.wait(_SECONDS)
        finally:
            process.kill()
            process.communicate()
        if code:
            said.seek(0)
            words = [line for line in said if line.startswith("tshark:")]
            raise BadInput(f"--decode {file}: {words[-1].strip() if words else 'tshark could not read it'}")


def row(words: list[str]) -> list[str]:
    """The columns of one packet, from tshark's fields."""
    told = dict(zip(_FIELDS, words, strict=False))
    found = {field: text.split(_SEPARATOR) if text else [] for field, text in told.items()}
    kinds = [int(text, 16) for text in found["eth.type"]]
    pairs = [_take(found, kind) for kind in kinds[:2]]
    vsid, provider, customer = "", ["", ""], pairs[0] if pairs else ["", ""]
    if found["gre.key"] and len(pairs) == 2:
        vsid = str(int(found["gre.key"][0], 0) >> 8)
        provider, customer = pairs
    when = f"{float(told['frame.time_epoch']):.6f}"
    info, comment = told["_ws.col.Info"], "; ".join(found["frame.comment"])
    return [when, told["frame.interface_name"], vsid, *customer, *provider, info, comment]


def _take(found: dict[str, list[str]], kind: int) -> list[str]:
    """Source and destination of the next header of this kind, outermost first."""
    fields = _FAMILIES.get(kind, ())
    return [found[field].pop(0) if found[field] else "" for field in fields] or ["", ""]
