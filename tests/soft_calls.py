"""Calls of the soft kernels in the emulator, below the public functions: planned, run and measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from approxtopk.buffer import Buffer, Device
from approxtopk.plan import DeviceInfo, Launch, Plan
from approxtopk.planning.soft import plan_soft
from approxtopk.runtime.source import pack
from approxtopk.soft_request import SoftRequest

from . import emulated
from .backends import numpy_dtype
from .emulator import Emulator, Range, Stats

__all__ = ["FORMS", "REALS", "SMALL", "Ran", "call", "decoded", "drawn", "encoded", "space"]

REALS = ("float16", "bfloat16", "float32", "float64")
#: Kinds and norms: those with arithmetic of their own, and others.
FORMS: dict[str, dict[str, Any]] = {
    "p = 4/3": {"p": 4 / 3},
    "p = 2": {"p": 2.0},
    "p = 1.5": {"p": 1.5},
    "p = 4": {"p": 4.0},
    "sigmoid": {"kind": "sigmoid"},
    "laplace": {"kind": "laplace"},
}
#: A device on which hardly any row fits shared memory.
SMALL = DeviceInfo("a GPU with little shared memory", "sm_90", 132, 26_000)


class Ran(NamedTuple):
    """What came of a call."""

    results: dict[str, np.ndarray]
    plan: Plan
    stats: Stats


def call(
    operator: str,
    x: np.ndarray,
    *,
    seed: int = 0,
    device: DeviceInfo | None = None,
    emulator: Emulator | None = None,
    **arguments: Any,
) -> Ran:
    """Run ``soft_top_k_<operator>`` on arrays of any strides, which nothing may write to."""
    emulator = emulator or Emulator(seed=seed)
    device = device or DeviceInfo("emulated GPU", emulator.architecture, 132, emulator.shared_bytes)
    arrays = {"x": x} | {name: given for name, given in arguments.items() if isinstance(given, np.ndarray)}
    buffers = {name: _buffer(array) for name, array in arrays.items()}
    described = {name: (b.dtype, b.shape, b.strides) for name, b in buffers.items()}
    dtype, shape, strides = described.pop("x")
    request = SoftRequest.build(f"soft_top_k_{operator}", shape, strides, dtype, **{**arguments, **described})
    plan = plan_soft(request, device)
    # On memory that holds anything.
    results = {o.name: np.full(o.shape, -77, numpy_dtype(o.dtype)) for o in plan.outputs}
    buffers |= {name: _buffer(array) for name, array in results.items()}
    ranges = [_range(array, False) for array in arrays.values()] + [_range(array, True) for array in results.values()]
    stats = Stats(0, 0, 0)
    for step in plan.steps:
        assert isinstance(step, Launch)
        kernel = emulator.compile(emulated.joined(step.kernel), step.defines, step.kernel)
        stats = emulator.launch(kernel, step.grid, step.block, step.shared_bytes, pack(step, buffers), ranges)
    return Ran(results, plan, stats)


def encoded(values: Any, dtype: str) -> np.ndarray:
    """Numbers rounded to an element type."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(numpy_dtype(dtype))


def decoded(array: np.ndarray) -> np.ndarray:
    """An array's numbers in float64."""
    return array.astype(np.float64)


def space(dtype: str, values: np.ndarray) -> np.ndarray:
    """Half the distance of neighbouring numbers about `values`, if narrow or subnormal: what rounding may add."""
    digits, least = {"float16": (11, -25), "bfloat16": (8, -134), "float32": (99, -150), "float64": (99, -1074)}[dtype]
    return np.maximum(np.abs(values) * 2.0**-digits, 2.0**least)


def drawn(law: str, size: Any, rng: np.random.Generator) -> np.ndarray:
    """Random numbers that have broken solvers."""
    x = rng.standard_normal(size)
    return {
        "normal": lambda: x,
        "offset": lambda: x + 1000,
        "heavy": lambda: rng.standard_cauchy(size),
        "ties": lambda: np.round(4 * x) / 4,
        "two heaps": lambda: np.where(rng.random(size) < 0.4, x, x - 80),
    }[law]()


def _buffer(array: np.ndarray) -> Buffer:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Buffer(array.ctypes.data, array.shape, strides, array.dtype.name, Device("cpu"))


def _range(array: np.ndarray, writable: bool) -> Range:
    low, high = np.lib.array_utils.byte_bounds(array) if array.size else (0, 0)
    return Range(low, high - low, writable)
