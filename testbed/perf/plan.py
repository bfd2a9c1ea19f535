"""What a bench is to measure: a plan, from a YAML file or from options, and the cells that it means."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from testbed.errors import BadInput
from testbed.perf.bench import Baseline, Terms
from testbed.perf.expect import Expectation
from testbed.perf.iperf import (
    BLOCK_SIZE,
    CONGESTION_CONTROL,
    MAX_BLOCK,
    MAX_RATE,
    MAX_STREAMS,
    Direction,
    Load,
    Protocol,
)
from testbed.topology.reteam import parse as parse_team
from testbed.topology.schema import Wire

_TCP_HEADER = 32  # with time stamps; iperf3's default for datagrams is the MSS of its control connection
MOST_CELLS = 1000
_MAX_BYTES = 1 << 20
T = TypeVar("T")
OneOrMore: TypeAlias = T | tuple[T, ...]
_Seconds = Annotated[int, Meta(ge=1, le=3600)]
_Streams = Annotated[int, Meta(ge=1, le=MAX_STREAMS)]
_Ip = Annotated[int, Meta(ge=4, le=6)]
_Size = Annotated[int, Meta(ge=1, le=MAX_BLOCK)]
_Rate = Annotated[int, Meta(ge=0, le=MAX_RATE)]


class Cell(Struct, frozen=True, omit_defaults=True):
    """One choice on every axis; None: as the lab has it.

    nic: a profile, with single tasks switched: "modern,nvgre=off". wire: of the cables. guest_lso: VMs
    hand over super-packets. team: "none" or "MODE/ALGORITHM". ip: 4 or 6; by default that of the VM's
    first address. message_size: bytes of one write; by default 128 KB with TCP, and with UDP the MSS
    of TCP. rate: Mbit/s of each stream, 0 for as fast as can be.
    """

    nic: str | None = None
    wire: Wire | None = None
    guest_lso: bool | None = None
    team: str | None = None
    streams: int = 1
    direction: Direction = "forward"
    protocol: Protocol = "tcp"
    ip: int | None = None
    message_size: int | None = None
    rate: int = 0

    def name(self) -> str:
        """What is chosen, for people."""
        chosen = {axis: value for axis, value in msgspec.to_builtins(self).items() if value is not None}
        told = {
            axis: str(value).lower() if value in (True, False) else value for axis, value in chosen.items()
        }
        return " ".join(f"{axis}={value}" for axis, value in told.items()) or "as the lab is"


class Matrix(Struct, frozen=True, forbid_unknown_fields=True):
    """Values for axes, one or several each; what it means are all combinations."""

    nic: OneOrMore[str] | None = None
    wire: OneOrMore[Wire] | None = None
    guest_lso: OneOrMore[bool] | None = None
    team: OneOrMore[str] | None = None
    streams: OneOrMore[_Streams] | None = None
    direction: OneOrMore[Direction] | None = None
    protocol: OneOrMore[Protocol] | None = None
    ip: OneOrMore[_Ip] | None = None
    message_size: OneOrMore[_Size] | None = None
    rate: OneOrMore[_Rate] | None = None

    def cells(self) -> list[Cell]:
        """All combinations, the last axis changing fastest."""
        chosen = {axis: _several(value) for axis, value in _set(self).items()}
        return [
            Cell(**dict(zip(chosen, values, strict=True))) for values in itertools.product(*chosen.values())
        ]


class BenchPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole plan. matrix: several are done one after the other. from_vm, to_vm: see lab.bench."""

    matrix: Matrix | tuple[Matrix, ...] = Matrix()
    baselines: tuple[Baseline, ...] = ()
    from_vm: str | None = msgspec.field(name="from", default=None)
    to_vm: str | None = msgspec.field(name="to", default=None)
    seconds: _Seconds = 5
    warm_up: Annotated[int, Meta(ge=0, le=3600)] = 1
    repeat: Annotated[int, Meta(ge=1, le=1000)] = 5
    latency: bool = True
    congestion_control: str = CONGESTION_CONTROL
    label: str = ""
    expect: tuple[Expectation, ...] = ()

    def cells(self) -> list[Cell]:
        """What it means, each once. Raises BadInput."""
        matrices = self.matrix if isinstance(self.matrix, tuple) else (self.matrix,)
        found = [*dict.fromkeys(cell for matrix in matrices for cell in matrix.cells())]
        if not found:
            raise BadInput("the plan has no cells: a list in it is empty")
        if len(found) > MOST_CELLS:
            raise BadInput(f"the plan has {len(found)} cells: at most {MOST_CELLS}")
        for cell in found:
            if cell.ip not in (None, 4, 6):
                raise BadInput(f"ip is {cell.ip}: must be 4 or 6")
            if cell.team is not None:
                parse_team(cell.team)
            self.load(cell, mtu=1500, version=4).check()
        for position, expectation in enumerate(self.expect):
            expectation.check(f"expect[{position}]", found, latency=self.latency)
        return found

    def terms(self) -> Terms:
        """How each cell is measured."""
        return Terms(self.repeat, self.warm_up, self.latency)

    def load(self, cell: Cell, mtu: int, version: int) -> Load:
        """What is sent in a cell. mtu: the VMs'; version: of IP."""
        headers = (20 if version == 4 else 40) + _TCP_HEADER
        size = BLOCK_SIZE if cell.protocol == "tcp" else mtu - headers
        return Load(
            seconds=self.seconds,
            streams=cell.streams,
            direction=cell.direction,
            protocol=cell.protocol,
            message_size=size if cell.message_size is None else cell.message_size,
            rate=cell.rate,
            congestion_control=self.congestion_control,
        )

    def changed(self, axes: dict[str, Any], others: dict[str, Any]) -> BenchPlan:
        """With axes of every matrix, and other keys, replaced by what is given (not None, nor empty)."""
        given = {axis: value for axis, value in axes.items() if value not in (None, ())}
        matrices = self.matrix if isinstance(self.matrix, tuple) else (self.matrix,)
        new = tuple(msgspec.structs.replace(matrix, **given) for matrix in matrices)
        rest = {key: value for key, value in others.items() if value not in (None, (), "")}
        return msgspec.structs.replace(self, matrix=new, **rest)


def _set(matrix: Matrix) -> dict[str, Any]:
    values = {axis: getattr(matrix, axis) for axis in matrix.__struct_fields__}
    return {axis: value for axis, value in values.items() if value is not None}


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def load(path: Path) -> BenchPlan:
    """The plan of a file. Raises BadInput with the file, and the line or the key."""
    from testbed.topology import document

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BadInput(f"{path}: is larger than {_MAX_BYTES} bytes, no bench plan")
        plan = msgspec.convert(document.parse(data.decode()).data(), BenchPlan)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except document.YamlError as error:
        told = error.message.replace("{earlier}", str((error.earlier or 0) + 1))
        raise BadInput(f"{path}:{error.line + 1}: {told}") from None
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"{path}: {error}; see docs/bench.md") from None
    try:
        plan.cells()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    return plan
