"""Filters of packets as classic BPF, so that what does not match is never copied to this process.

At the wire (NICs, cables, switches) a frame is NVGRE over IPv4 with a header of 20 bytes or over IPv6
with one of 40, or it is anything else. ``vsid`` is that of the GRE key, of anything else 0. ``ca`` is an
address of the inner frame, of anything else its own. ``pa`` is an address of the outermost header. At a
VM's adapter ``ca`` is an address of the frame, ``vsid`` the adapter's, and there are no PAs.
An address is that of the sender or receiver in IPv4, ARP or IPv6, or what Neighbor Discovery asks for.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess

from msgspec import Struct

from testbed.capture import bpf
from testbed.capture.bpf import JA, JEQ, JSET, RET, RSH, Assembler, Program
from testbed.errors import BadInput, MachineLacks
from testbed.socketfilter import LD_BYTE, LD_HALF, LD_WORD

OVER_IPV4, OVER_IPV6 = 42, 62  # bytes before the inner frame

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_GRE = 47
_GRE_WORDS = 0x20006558
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_LAST_VSID = 0xFFFFFF
_SECONDS = 20.0  # for tcpdump to compile an expression

REFUSE: Program = (bpf.Instruction(RET, 0, 0, 0),)


class Criteria(Struct, frozen=True):
    """What is wanted; None or b"": anything. expression: a compiled ``--bpf``."""

    vsid: int | None = None
    ca: bytes = b""
    pa: bytes = b""
    expression: Program = ()


def criteria(vsid: int | None, ca: str | None, pa: str | None, expression: str | None) -> Criteria:
    """Read what the user wrote. Raises BadInput, MachineLacks."""
    if vsid is not None and not 0 <= vsid <= _LAST_VSID:
        raise BadInput(f"--vsid {vsid}: use 0 (not virtualised) to {_LAST_VSID}")
    compiled = compile_expression(expression) if expression else ()
    return Criteria(vsid, _address("--ca", ca), _address("--pa", pa), compiled)


def at_wire(wanted: Criteria, keep: int = bpf.WHOLE) -> Program:
    """The program for a NIC, a cable or a port of a switch. keep: bytes of each packet."""
    made = Assembler()
    if wanted.vsid is None and not wanted.ca and not wanted.pa:
        return _with_expression(wanted.expression, keep)
    _classify(made)
    for label, base in (("over-ipv4", OVER_IPV4), ("over-ipv6", OVER_IPV6), ("plain", 0)):
        made.label(label)
        _wanted_at(made, wanted, base)
        made.go("accept")
    return _finished(made, wanted, keep)


def at_adapter(wanted: Criteria, vsid: int, keep: int = bpf.WHOLE) -> Program:
    """The program for a VM's adapter in the virtual subnet ``vsid``."""
    if wanted.pa or wanted.vsid not in (None, vsid):
        return REFUSE
    if not wanted.ca:
        return _with_expression(wanted.expression, keep)
    made = Assembler()
    _addresses(made, wanted.ca, 0)
    return _finished(made, wanted, keep)


def compile_expression(expression: str) -> Program:
    """A program of an expression of pcap-filter(7). Raises BadInput, MachineLacks."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        raise MachineLacks("--bpf needs tcpdump, to compile the expression: install the package tcpdump")
    words = [tcpdump, "-y", "EN10MB", "-s", str(bpf.WHOLE), "-ddd", "--", expression]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BadInput(f"--bpf {expression!r}: tcpdump did not compile it in {_SECONDS:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise BadInput(f"--bpf {expression!r}: {said[-1].removeprefix('tcpdump: ') if said else 'refused'}")
    return bpf.read(done.stdout.splitlines()[1:])


def _address(option: str, text: str | None) -> bytes:
    if text is None:
        return b""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise BadInput(f"{option} {text!r} is no IP address: write it like 10.0.0.5 or fd00::5") from None


def _finished(made: Assembler, wanted: Criteria, keep: int) -> Program:
    """``accept`` and ``refuse`` at the end; accepted is only what the expression accepts too."""
    made.label("accept")
    made.put(JA, 1)
    made.label("refuse")
    made.put(RET, 0)
    return made.program() + _with_expression(wanted.expression, keep)


def _with_expression(expression: Program, keep: int) -> Program:
    """Accept what an expression accepts of the whole frame, or of the frame inside NVGRE.

    Behind the expression stands the head that looks for NVGRE, then the expression for what is inside of
    IPv6, the one for what is inside of IPv4, and the acceptance.
    """
    accept: Program = (bpf.Instruction(RET, 0, 0, keep),)
    if not expression:
        return accept
    size = len(expression)
    made = Assembler()
    _classify(made)
    made.label("plain")
    made.put(RET, 0)
    made.label("over-ipv4")
    made.put(JA, size)
    made.label("over-ipv6")
    head = made.program()
    outer = bpf.joined(expression, len(head) + 2 * size, 0)
    inside_ipv6 = bpf.joined(bpf.shifted(expression, OVER_IPV6), size, -1)
    inside_ipv4 = bpf.joined(bpf.shifted(expression, OVER_IPV4), 0, -1)
    return outer + head + inside_ipv6 + inside_ipv4 + accept


def _classify(made: Assembler) -> None:
    """Go to "over-ipv4", "over-ipv6" or "plain"."""
    made.put(LD_HALF, 12)
    made.jump(JEQ, _IPV6, "ipv6")
    made.jump(JEQ, _IPV4, "", "plain")
    made.put(LD_BYTE, 14)
    made.jump(JEQ, 0x45, "", "plain")
    made.put(LD_HALF, 20)
    made.jump(JSET, 0x3FFF, "plain")
    made.put(LD_BYTE, 23)
    made.jump(JEQ, _GRE, "", "plain")
    made.put(LD_WORD, 34)
    made.jump(JEQ, _GRE_WORDS, "over-ipv4", "plain")
    made.label("ipv6")
    made.put(LD_BYTE, 20)
    made.jump(JEQ, _GRE, "", "plain")
    made.put(LD_WORD, 54)
    made.jump(JEQ, _GRE_WORDS, "over-ipv6", "plain")


def _wanted_at(made: Assembler, wanted: Criteria, base: int) -> None:
    """Go on if a frame is wanted whose inner frame stands at ``base`` (0: it has none)."""
    if wanted.vsid is not None and base:
        made.put(LD_WORD, base - 4)
        made.put(RSH, 8)
        made.jump(JEQ, wanted.vsid, "", "refuse")
    elif wanted.vsid:
        made.go("refuse")
    if wanted.pa:
        _addresses(made, wanted.pa, 0)
    if wanted.ca:
        _addresses(made, wanted.ca, base)


def _addresses(made: Assembler, address: bytes, base: int) -> None:
    """Go on if the frame at ``base`` is from, to or about ``address``."""
    found = made.new()
    made.put(LD_HALF, base + 12)
    if len(address) == 4:
        arp = made.new()
        made.jump(JEQ, _ARP, arp)
        made.jump(JEQ, _IPV4, "", "refuse")
        _compare(made, address, base + 26, found, "")
        _compare(made, address, base + 30, found, "refuse")
        made.label(arp)
        _compare(made, address, base + 28, found, "")
        _compare(made, address, base + 38, found, "refuse")
    else:
        target = made.new()
        made.jump(JEQ, _IPV6, "", "refuse")
        _compare(made, address, base + 22, found, "")
        _compare(made, address, base + 38, found, "")
        made.put(LD_BYTE, base + 20)
        made.jump(JEQ, _ICMPV6, "", "refuse")
        made.put(LD_BYTE, base + 54)
        made.jump(JEQ, _SOLICITATION, target)
        made.jump(JEQ, _ADVERTISEMENT, "", "refuse")
        made.label(target)
        _compare(made, address, base + 62, found, "refuse")
    made.label(found)


def _compare(made: Assembler, address: bytes, at: int, equal: str, other: str) -> None:
    """Go to ``equal`` or ``other`` ("": go on behind this)."""
    behind = made.new()
    words = [int.from_bytes(address[start : start + 4], "big") for start in range(0, len(address), 4)]
    for number, word in enumerate(words):
        made.put(LD_WORD, at + 4 * number)
        last = number == len(words) - 1
        made.jump(JEQ, word, equal if last else "", other or behind)
    made.label(behind)
