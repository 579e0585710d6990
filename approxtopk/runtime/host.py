"""The CPU as a machine: a plan's one step is a call of the NumPy path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..buffer import Buffer, Device
from ..host import select
from ..plan import DeviceInfo, Plan, Step
from ..soft_request import SoftRequest

__all__ = ["HostRuntime"]

_INFO = DeviceInfo(name="cpu", architecture="cpu", multiprocessors=1, shared_bytes=0)


class HostRuntime:
    """Serves CPU memory through `approxtopk.host`."""

    def device_info(self, device: Device) -> DeviceInfo:
        """The CPU; plans do not depend on which."""
        return _INFO

    def current(self) -> Device:
        """The CPU."""
        return Device("cpu")

    def guard(self, device: Device) -> AbstractContextManager[object]:
        """There is one CPU and it is always current."""
        return nullcontext()

    def prepare(self, plan: Plan, device: Device) -> None:
        """Nothing to compile."""

    def run(self, step: Step, plan: Plan, buffers: Mapping[str, Buffer], stream: int) -> None:
        """Do all of it with NumPy, on the caller's thread and a small pool."""
        _CALLS.get(plan.request.operator, _select)(plan.request, plan, buffers)


def _select(r: Any, plan: Any, buffers: Mapping[str, Buffer]) -> None:
    bits = f"uint{r.dtype.bits}"
    starts, lengths, exact = (buffers.get(name) for name in ("starts", "lengths", "exact"))
    select(
        _view(buffers["x"], bits),
        _view(buffers["values"], bits),
        _view(buffers["indices"], r.index_dtype),
        dtype=r.dtype,
        k=r.k,
        axis=r.axis,
        largest=r.largest,
        sorted=r.sorted,
        buckets=plan.buckets,
        k_per_bucket=plan.k_per_bucket,
        interleaved=r.interleaved,
        starts=None if starts is None else _view(starts, starts.dtype),
        lengths=None if lengths is None else _view(lengths, lengths.dtype),
        exact=None if exact is None else _view(exact, "bool"),
        padding=r.padding,
    )


def _soft(r: Any, plan: Any, buffers: Mapping[str, Buffer]) -> None:
    # Imported when first needed, as what follows: importing the package is to be quick.
    from ..host import soft

    names = ("x", "g", "tau", "rest", "k", "l", "y", "dx", "dk", "dl")
    # NumPy has no bfloat16: its bits.
    arrays = {name: _view(b, b.dtype.replace("bfloat16", "uint16")) for name in names if (b := buffers.get(name))}
    k, l = (arrays.get(name, getattr(r, name)) for name in ("k", "l"))
    common = {"dtype": r.dtype, "axis": r.axis, "p": r.p, "l": l}
    if r.operator == "soft_top_k_mask":
        soft.soft_mask(arrays["x"], arrays["y"], kind=r.kind, k=k, **common)
    elif r.operator == "soft_top_k_magnitude":
        soft.soft_magnitude(arrays["x"], arrays["y"], arrays["tau"], arrays["rest"], k=k, **common)
    else:
        given, results = (arrays["x"], arrays["g"]), (arrays["dx"], arrays["dk"], arrays["dl"])
        if r.operator == "soft_top_k_mask_vjp":
            soft.soft_mask_vjp(*given, *results, kind=r.kind, **common)
        else:
            soft.soft_magnitude_vjp(*given, arrays["tau"], arrays.get("rest", 0.0), *results, **common)


def _rank(r: Any, plan: Any, buffers: Mapping[str, Buffer]) -> None:
    from ..host.rank_counts import count_ranks, write_ranks

    bits = f"uint{r.dtype.bits}"
    given = {name: _view(b, b.dtype) for name in ("index", "lengths") if (b := buffers.get(name))}
    value = buffers.get("value")
    x, index = _view(buffers["x"], bits), given.get("index", r.index)
    results = [_view(buffers[output.name], output.dtype) for output in plan.outputs]
    common = {"dtype": r.dtype, "axis": r.axis, "largest": r.largest, "lengths": given.get("lengths")}
    if r.ties is None:
        count_ranks(x, index, *results, value=None if value is None else _view(value, bits), **common)
    else:
        write_ranks(x, index, *results, ties=r.ties, base=r.base, **common)


#: By operator; selections are the others.
_CALLS: dict[str, Callable[[Any, Any, Mapping[str, Buffer]], None]] = {
    "rank": _rank,
    **dict.fromkeys(SoftRequest.OPERATORS, _soft),
}


class _Memory:
    """Memory as NumPy takes it from others."""

    __slots__ = ("__array_interface__",)


def _view(buffer: Buffer, name: str) -> NDArray[Any]:
    """A NumPy view of CPU memory as elements of dtype `name`."""
    dtype = np.dtype(name)
    size = dtype.itemsize
    memory: Any = _Memory()
    memory.__array_interface__ = {
        "version": 3,
        "data": (buffer.pointer, False),
        "shape": buffer.shape,
        "strides": tuple([step * size for step in buffer.strides]),
        "typestr": dtype.str,
    }
    return np.asarray(memory)
