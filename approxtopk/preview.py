"""The public `plan`: what a call would run, without an array and without running it."""

from __future__ import annotations

import re
from typing import Any

from .buffer import Device, row_major
from .call import make_plan
from .errors import ApproxTopKError, InvalidArgument, InvalidType
from .plan import DeviceInfo, Plan
from .planning.devices import REFERENCES
from .request import integer, show
from .runtime import serving

__all__ = ["plan"]


def plan(
    shape: int | tuple[int, ...],
    k: int,
    /,
    *,
    dtype: Any = "float32",
    exact: bool = False,
    device: str | DeviceInfo | None = None,
    **options: Any,
) -> Plan:
    """Say what `approx_top_k` (or `top_k`) would run for a contiguous array, before anything runs.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array; an int n stands for ``(n,)``.
    k : int
        Entries to pick along the axis.
    dtype : str or dtype object, default "float32"
        Element type, by name or as a NumPy, JAX or PyTorch dtype.
    exact : bool, default False
        Plan `top_k` in place of `approx_top_k`.
    device : None, "cpu", "cuda", "cuda:1", "sm_90" and the like, or DeviceInfo
        None is what is here: the first GPU if there is one and CuPy is installed, else the CPU. ``"sm_XY"`` is
        a documented reference GPU of that architecture (`approxtopk.planning.devices`) and needs no GPU.
    **options
        The keyword arguments of `approx_top_k`: axis, mode, sorted, recall_target, buckets, k_per_bucket,
        interleaved, index_dtype. With ``exact=True`` those of `top_k`.

    Returns
    -------
    Plan
        ``print(plan)`` is readable; its attributes are listed in `approxtopk.Plan`.

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
    extents = _shape(shape)
    strides = row_major(extents)
    allowed = {"axis", "mode", "sorted", "index_dtype"}
    if not isinstance(exact, bool):
        raise InvalidType(f"exact must be True or False, not {show(exact)}")
    if not exact:
        allowed |= {"recall_target", "buckets", "k_per_bucket", "interleaved"}
        options.setdefault("recall_target", 0.95)
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise InvalidType(f"plan got an unexpected keyword argument {unknown[0]!r}; allowed are {sorted(allowed)}")
    name = "top_k" if exact else "approx_top_k"
    return make_plan(name, extents, strides, _dtype(dtype), _device(device), k, **options)


def _shape(shape: Any) -> tuple[int, ...]:
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    extents = tuple(integer("shape", s) for s in given)
    if any(s < 0 for s in extents):
        raise InvalidArgument(f"shape = {extents} has a negative extent; allowed are 0 and above")
    return extents


def _dtype(dtype: Any) -> str:
    """A dtype's name; NumPy, ml_dtypes and JAX dtypes have one, PyTorch's prints as ``torch.<name>``."""
    if isinstance(dtype, str):
        return dtype
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).removeprefix("torch.")


def _device(device: Any) -> DeviceInfo:
    if isinstance(device, DeviceInfo):
        return device
    if device is None:
        try:
            return serving(Device("cuda")).device_info(Device("cuda"))
        except ApproxTopKError:
            return serving(Device("cpu")).device_info(Device("cpu"))
    if not isinstance(device, str):
        raise InvalidType(f"device must be a string, a DeviceInfo or None, not {show(device)}")
    if device == "cpu":
        return serving(Device("cpu")).device_info(Device("cpu"))
    if match := re.fullmatch(r"cuda(?::(\d+))?", device):
        where = Device("cuda", int(match[1] or 0))
        return serving(where).device_info(where)
    if device in REFERENCES:
        return REFERENCES[device]
    raise InvalidArgument(
        f"device = {device!r} is unknown; allowed are 'cpu', 'cuda', 'cuda:<index>', a DeviceInfo, None and "
        f"{', '.join(map(repr, REFERENCES))}"
    )
