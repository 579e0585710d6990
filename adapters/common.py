"""What every adapter does the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..buffer import Buffer
from ..dtypes import DTYPES
from ..errors import InvalidArgument, UnsupportedDType
from ..plan import Output, Plan
from ..request import short

__all__ = ["misfit", "name_buffers", "result_types", "unsupported"]

_new = tuple.__new__


def name_buffers(
    facts: Mapping[str, Buffer], plan: Plan, addresses: Iterable[int], workspace: int
) -> dict[str, Buffer]:
    """Name the buffers of a call: its inputs, and the plan's outputs and workspace at the given addresses."""
    buffers = dict(facts)
    device = facts["x"].device
    for (name, shape, strides, dtype), address in zip(plan.outputs, addresses, strict=True):
        # What Buffer(...) does, at a third of the price: this is on the way of every call.
        buffers[name] = _new(Buffer, (address, shape, strides, dtype, device))
    if plan.workspace_bytes:
        buffers["workspace"] = _new(Buffer, (workspace, (plan.workspace_bytes,), (1,), "uint8", device))
    return buffers


def result_types(plan: Plan, own: object, name: str) -> list[Any]:
    """Element types of a plan's outputs: the framework's `own` for the first, if it has x's, of this name.

    Not all frameworks know all of them by name, or mean x's by it.
    """
    first, *others = plan.outputs
    return [own if first.dtype == name else first.dtype, *[output.dtype for output in others]]


def misfit(output: Output, dtype: object, came: str) -> InvalidArgument:
    """The error for an array that cannot take an output."""
    return InvalidArgument(
        f"out has {came} for {output.name}; allowed is a contiguous writable array of {dtype} and shape "
        f"{output.shape}, on x's device"
    )


def unsupported(dtype: object, name: str, way: str = "") -> UnsupportedDType:
    """The error for an element type of `x` without an order here, or one that is no integer of another input.

    `way` is appended: what to pass in its place.
    """
    allowed = [dtype for dtype, facts in DTYPES.items() if name == "x" or facts.kind != "f"]
    return UnsupportedDType(f"{name} has dtype {short(str(dtype), 200)}; allowed are {', '.join(allowed)}{way}")
