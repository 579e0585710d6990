"""The one cache of plans: of calls as users write them, and of selections that an adapter meets again elsewhere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..plan import DeviceInfo, Plan
from ..request import Request
from .select import plan_select

__all__ = ["cached_plan", "plan_call", "replan"]


def plan_call(
    name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: DeviceInfo,
    k: Any,
    **options: Any,
) -> Plan:
    """Validate the arguments of a call (`Request.build`) and plan it."""
    return plan_select(Request.build(name, shape, strides, dtype, k, **options), device)


# typed: True, 1 and 1.0 are equal keys but not equally valid arguments.
cached_plan = lru_cache(maxsize=4096, typed=True)(plan_call)


def replan(
    options: tuple[Any, ...],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    axis: int,
    device: DeviceInfo,
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
    """
    operator, k, largest, ordered, recall_target, buckets, k_per_bucket, interleaved, index_dtype = options
    return cached_plan(
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
        index_dtype=index_dtype,
    )
