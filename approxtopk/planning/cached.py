"""The one cache of plans: of calls as users write them, and of selections that an adapter meets again elsewhere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..errors import ApproxTopKError
from ..plan import DeviceInfo, Plan
from ..request import Request, integer
from .select import plan_select

__all__ = ["cached_plan", "make_plan", "plan_for", "replan"]


def _plan(
    name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: DeviceInfo,
    k: Any,
    names: tuple[str, ...],
    *values: Any,
) -> Plan:
    options = dict(zip(names, values, strict=True))
    return plan_select(Request.build(name, shape, strides, dtype, k, **options), device)


# typed: True, 1 and 1.0 are equal keys but not equally valid arguments. It compares the types of arguments alone, so
# the values of the options are such, beside one tuple of their names: half the price of keyword arguments.
cached_plan = lru_cache(maxsize=4096, typed=True)(_plan)


def plan_for(
    name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: DeviceInfo,
    k: Any,
    options: dict[str, Any],
) -> Plan:
    """Validate the arguments of a call, as `Request.build` takes them, and plan it; the second time from the cache."""
    if type(k) is not int:
        # Any object with __index__ may come, even one whose value changes: the cache is to know the number.
        k = integer("k", k)
    names = tuple(options)
    try:
        return cached_plan(name, shape, strides, dtype, device, k, names, *options.values())
    except TypeError as error:
        if isinstance(error, ApproxTopKError):
            raise
    # An argument that cannot be hashed (a list, say): validation has the words for it.
    return _plan(name, shape, strides, dtype, device, k, names, *options.values())


def make_plan(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, device: DeviceInfo, k: Any, **options: Any
) -> Plan:
    """`plan_for`, with the options by keyword."""
    return plan_for(name, shape, strides, dtype, device, k, options)


def replan(
    options: tuple[Any, ...],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    axis: int,
    device: DeviceInfo,
    **bounds: tuple[str, tuple[int, ...], tuple[int, ...]],
) -> Plan:
    """Plan a valid request for another array: under vmap, or below a framework's dispatcher.

    Parameters
    ----------
    options : tuple
        `Request.options` of the request that was planned first.
    shape, strides, dtype, axis
        Of the array to select from now, and where in it.
    device : DeviceInfo
        Where it is.
    **bounds
        dtype, shape and strides of starts and lengths, where there are such.
    """
    operator, k, largest, ordered, recall_target, buckets, k_per_bucket, interleaved, certify, index_dtype = options
    return make_plan(
        operator,
        shape,
        strides,
        dtype,
        device,
        k,
        axis=axis,
        mode="largest" if largest else "smallest",
        sorted=ordered,
        recall_target=recall_target,
        buckets=buckets,
        k_per_bucket=k_per_bucket,
        interleaved=interleaved,
        certify=certify,
        index_dtype=index_dtype,
        **bounds,
    )
