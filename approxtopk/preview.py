"""The public `plan`: what a call would run, without an array and without running it."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from typing import Any

import numpy as np

from .buffer import Device, row_major
from .dtypes import DTYPES
from .errors import ApproxTopKError, InvalidArgument, InvalidType, UnsupportedDType
from .plan import DeviceInfo, SelectionPlan
from .planning.cached import make_plan
from .planning.devices import REFERENCES
from .request import dtype_name, integer, short, show
from .runtime import serving

__all__ = ["locate", "plan", "plan_call"]


def plan(
    shape: int | tuple[int, ...],
    k: int,
    /,
    *,
    dtype: Any = "float32",
    exact: bool = False,
    device: Any = None,
    **options: Any,
) -> SelectionPlan:
    """Say what `approx_top_k` (or `top_k`) would run for a contiguous array, before anything runs.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array; an int n stands for ``(n,)``.
    k : int
        Entries to pick along the axis.
    dtype : str or dtype object, default "float32"
        Element type: a NumPy, JAX or PyTorch dtype, or any name of one that NumPy reads (``"f4"``, `float`).
    exact : bool, default False
        Plan `top_k` in place of `approx_top_k`.
    device : None, "cpu", "cuda", "cuda:1", "sm_90" and the like, or DeviceInfo
        Objects that print as such a name, as ``torch.device`` does, are taken too. None is what is here: the
        first GPU if there is one and CuPy is installed, else the CPU; CuPy is imported for it only where
        NVIDIA's driver library loads. ``"sm_XY"`` is a documented reference GPU of that architecture
        (`approxtopk.planning.devices`) and needs no GPU.
    **options
        The keyword arguments of `approx_top_k`: axis, mode, sorted, recall_target, buckets, k_per_bucket,
        interleaved, certify, index_dtype. With ``exact=True`` those of `top_k`. There is no array here to tell
        its framework: index_dtype=None plans int64 indices, as PyTorch, CuPy and NumPy get. JAX's calls return
        int32: plan them with ``index_dtype="int32"``. starts and lengths are given by their dtype, ``"int64"``.

    Returns
    -------
    SelectionPlan
        ``print(plan)`` is readable; its attributes are listed in `approxtopk.SelectionPlan`.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType
        As the call itself would.
    BackendMissing
        For ``device="cuda"`` without CuPy or without a GPU.

    Examples
    --------
    >>> import approxtopk as atk
    >>> p = atk.plan((128, 1048576), 64, device="sm_90")
    >>> p.route, p.expected_recall >= 0.95
    ('bucketed', True)
    """
    return plan_call("plan", shape, k, dtype, exact, device, options)


def plan_call(
    caller: str,
    shape: Any,
    k: Any,
    dtype: Any,
    exact: Any,
    device: Any,
    options: dict[str, Any],
    strides: tuple[int, ...] | None = None,
    **given: Any,
) -> SelectionPlan:
    """Plan a call on an array given as to `plan`, contiguous unless `strides` says otherwise.

    `caller` is the function to name in errors; `given` are the index types of a framework, and arrays starts and
    lengths, as `Request.build` takes them.
    """
    extents = _shape(shape)
    allowed = {"axis", "mode", "sorted", "index_dtype", "starts", "lengths"}
    if not isinstance(exact, (bool, np.bool_)):
        raise InvalidType(f"exact must be True or False, not {show(exact)}")
    options = dict(options)
    if not exact:
        allowed |= {"recall_target", "buckets", "k_per_bucket", "interleaved", "certify"}
        options.setdefault("recall_target", 0.95)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InvalidType(
            f"{caller} got an unexpected keyword argument {short(repr(unknown[0]))}; allowed are {sorted(allowed)}"
        )
    where = integer("axis", options.get("axis", -1))
    for name in ("starts", "lengths"):
        if options.get(name) is not None:
            # An axis out of range is refused later, whatever the batch.
            batch = (*extents[:where], *extents[where + 1 or len(extents) :])
            options[name] = (_per_row_dtype(name, options[name]), batch, row_major(batch))
    name = "top_k" if exact else "approx_top_k"
    if strides is None:
        strides = row_major(extents)
    return make_plan(name, extents, strides, _dtype(dtype), _device(device), k, **given, **options)


def locate(device: Any) -> Device | None:
    """The device of this machine that `device` names, or what is here for None; None where it names none."""
    if device is None:
        if "cupy" in sys.modules or _driver():
            try:
                serving(Device("cuda")).device_info(Device("cuda"))
                return Device("cuda")
            except ApproxTopKError:
                pass
        return Device("cpu")
    name = _text(device)
    if name in ("cpu", "cpu:0"):
        return Device("cpu")
    match = re.fullmatch(r"cuda(?::([0-9]{1,9}))?", name)
    return None if match is None else Device("cuda", int(match[1] or 0))


def _shape(shape: Any) -> tuple[int, ...]:
    if hasattr(type(shape), "__dlpack__") or isinstance(shape, str):
        raise InvalidType(f"shape must be an integer or a tuple of integers, not {show(shape)}: pass x.shape")
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    extents = tuple(integer("shape", s) for s in given)
    if any(s < 0 for s in extents):
        raise InvalidArgument(f"shape = {extents} has a negative extent; allowed are 0 and above")
    return extents


def _dtype(dtype: Any) -> str:
    """The name of an element type that approxtopk orders."""
    choices = f"allowed are {', '.join(DTYPES)}"
    name = dtype_name("dtype", dtype, choices, UnsupportedDType)
    if name not in DTYPES:
        raise UnsupportedDType(f"dtype = {short(name)} has no order here; {choices}")
    return name


def _per_row_dtype(name: str, dtype: Any) -> str:
    choices = "allowed are the names of integer types, int8 to int64 and uint8 to uint64, for an array to come"
    return dtype_name(name, dtype, choices, UnsupportedDType)


def _device(device: Any) -> DeviceInfo:
    if isinstance(device, DeviceInfo):
        return device
    where = locate(device)
    if where is not None:
        return serving(where).device_info(where)
    name = _text(device)
    if name in REFERENCES:
        return REFERENCES[name]
    choices = f"'cpu', 'cuda', 'cuda:<index>', a DeviceInfo, None and {', '.join(map(repr, REFERENCES))}"
    if isinstance(device, str):
        raise InvalidArgument(f"device = {short(repr(device))} is unknown; allowed are {choices}")
    raise InvalidType(f"device must be a string, a DeviceInfo or None, not {show(device)}; allowed are {choices}")


def _text(device: Any) -> str:
    """The name a framework's device prints as; empty for what is no device at all."""
    if isinstance(device, str):
        return device
    # An array, on a GPU, would have to be waited for.
    if hasattr(type(device), "__dlpack__"):
        return ""
    try:
        return str(device)
    except Exception:
        return ""


@cache
def _driver() -> bool:
    """Whether NVIDIA's driver library is here. Without it there is no GPU, and importing CuPy (0.2 s) is in vain."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
