"""Plan, Step and DeviceInfo: what will run, said before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, Union

from .request import Request
from .rows import Output, RowsRequest

__all__ = ["Argument", "DeviceInfo", "Fill", "HostCall", "Launch", "Output", "Plan", "Pointer", "SelectionPlan", "Step"]


@dataclass(frozen=True)
class DeviceInfo:
    """The facts of a device that a plan depends on.

    Attributes
    ----------
    name : str
        The device's own name, e.g. ``"NVIDIA H200"`` or ``"cpu"``.
    architecture : str
        ``"sm_90"`` and the like; ``"cpu"`` for the NumPy path.
    multiprocessors : int
        Streaming multiprocessors (1 for the CPU).
    shared_bytes : int
        The most dynamic shared memory one block may ask for, in bytes.
    """

    name: str
    architecture: str
    multiprocessors: int
    shared_bytes: int


class Pointer(NamedTuple):
    """An address known only when the plan runs: a named buffer of the call plus a byte offset."""

    buffer: str
    offset: int = 0


Argument = Union[int, Pointer]


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes
    ----------
    kernel : str
        Name of the entry point, and of its source ``kernels/<kernel>.cu``.
    defines : tuple of (str, int)
        The ``-D`` macros that pick the variant, sorted by name.
    grid, block : int
        Blocks (one-dimensional) and threads a block.
    shared_bytes : int
        Dynamic shared memory per block.
    arguments : tuple of int or Pointer
        The fields of the kernel's one parameter, a struct of 8-byte members, in order.
    """

    kernel: str
    defines: tuple[tuple[str, int], ...]
    grid: int
    block: int
    shared_bytes: int
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Fill:
    """A stream-ordered fill of part of a buffer with one byte."""

    pointer: Pointer
    nbytes: int
    byte: int = 0


@dataclass(frozen=True)
class HostCall:
    """One call of the NumPy path, which does all of it."""

    kernel: str


Step = Union[Launch, Fill, HostCall]


@dataclass(frozen=True)
class Plan:
    """What a call will run, for exactly that call. ``print(plan)`` tells a person.

    Attributes
    ----------
    request : RowsRequest
        The call.
    device : DeviceInfo
        Where it will run.
    outputs : tuple of Output
        The arrays the call returns.
    steps : tuple of Step
        Launches and fills, in order; empty when there is nothing to return.
    bytes_read : int
        Bytes of the input that the launches ask for, re-reads included.
    workspace_bytes : int
        Scratch memory the call takes from the caller's framework.
    """

    request: RowsRequest
    device: DeviceInfo
    outputs: tuple[Output, ...]
    steps: tuple[Step, ...]
    bytes_read: int
    workspace_bytes: int

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels, in launch order."""
        return tuple(step.kernel for step in self.steps if not isinstance(step, Fill))

    @property
    def launches(self) -> int:
        """How many operations are put on the stream: kernels and fills."""
        return len(self.steps)

    @property
    def zeroed_bytes(self) -> int:
        """Bytes of workspace that are zeroed first (counters and histograms)."""
        return sum(step.nbytes for step in self.steps if isinstance(step, Fill) and step.pointer.buffer == "workspace")

    def __str__(self) -> str:
        """A few lines that say what will run and what it costs."""
        r = self.request
        lines = [r.title, f"  device           {self.device.name} ({self.device.architecture})", *self._algorithm()]
        lines.append(f"  launches         {self.launches}")
        for line, alike in groupby(map(_step, self.steps)):
            times = len(list(alike))
            lines.append(f"    {line}" + (f", x {times}" if times > 1 else ""))
        size = math.prod(r.shape) * r.dtype.itemsize
        share = f" ({self.bytes_read / size:.3g} x the input)" if self.bytes_read else ""
        lines.append(f"  bytes read       {_bytes(self.bytes_read)}{share}")
        lines.append(f"  workspace        {_bytes(self.workspace_bytes)}, of which zeroed {_bytes(self.zeroed_bytes)}")
        return "\n".join(lines)

    def _algorithm(self) -> list[str]:
        """Lines that say what was chosen, where there is a choice."""
        return []


@dataclass(frozen=True)
class SelectionPlan(Plan):
    """What a selection will run, for exactly that call. ``print(plan)`` tells a person.

    Attributes
    ----------
    request : Request
        The call.
    device, outputs, steps, bytes_read, workspace_bytes
        As in `Plan`.
    route : {"bucketed", "exact"}
        The algorithm; a pure function of n, k and recall_target, as are the next three.
    buckets, k_per_bucket : int or None
        b and k_b; None on the exact route.
    expected_recall : float
        Exact expectation of the share of the true top k that is returned (1.0 on the exact route).
    certified_share : float or None
        The share of rows in random order whose certificate will say exact; None where none is asked for.
    """

    request: Request
    route: Literal["bucketed", "exact"]
    buckets: int | None
    k_per_bucket: int | None
    expected_recall: float
    certified_share: float | None

    def _algorithm(self) -> list[str]:
        if self.route == "exact":
            lines = ["  route            exact"]
        else:
            how = "interleaved" if self.request.interleaved else "contiguous"
            lines = [f"  route            bucketed: b = {self.buckets} {how} buckets, k_b = {self.k_per_bucket} kept"]
        lines.append(f"  expected recall  {_share(self.expected_recall)}")
        if self.certified_share is not None:
            lines.append(f"  certified exact  {_share(self.certified_share)} of rows in random order")
        return lines


def _step(step: Step) -> str:
    """One line that tells a step."""
    if isinstance(step, Launch):
        return f"{step.kernel:<22} {step.grid} blocks of {step.block} threads, {_bytes(step.shared_bytes)} shared"
    if isinstance(step, Fill):
        return f"{'(fill)':<22} {_bytes(step.nbytes)} of {step.pointer.buffer}"
    return f"{step.kernel:<22} NumPy on the CPU"


def _share(recall: float) -> str:
    """A recall to six digits, but "1" only where it is 1."""
    text = f"{recall:.6g}"
    return f"1 - {1 - recall:.2g}" if text == "1" and recall < 1 else text


def _bytes(count: int) -> str:
    """A byte count for people, in binary units."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
