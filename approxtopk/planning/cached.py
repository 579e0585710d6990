"""The one cache of plans: of calls as users write them, and of those that an adapter meets again elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import ApproxTopKError
from ..plan import DeviceInfo, Plan, SelectionPlan
from ..rank_request import RankRequest
from ..request import Request, integer
from ..rows import Given, RowsRequest
from ..soft_request import SoftRequest
from .rank import plan_rank
from .select import plan_select
from .soft import plan_soft

__all__ = ["cached_plan", "make_plan", "plan_for", "replan", "request_of"]


class _Family(NamedTuple):
    """How calls of some operators are validated and planned."""

    build: Callable[..., Any]
    plan: Callable[[Any, DeviceInfo], Plan]


_SELECT = _Family(Request.build, plan_select)
_SOFT = _Family(SoftRequest.build, plan_soft)
_FAMILIES = {
    "top_k": _SELECT,
    "approx_top_k": _SELECT,
    "rank": _Family(RankRequest.build, plan_rank),
    **dict.fromkeys(SoftRequest.OPERATORS, _SOFT),
}


def _plan(
    name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: DeviceInfo,
    names: tuple[str, ...],
    *values: Any,
) -> Plan:
    family = _FAMILIES[name]
    return family.plan(family.build(name, shape, strides, dtype, **dict(zip(names, values, strict=True))), device)


# typed: True, 1 and 1.0 are equal keys but not equally valid arguments. It compares the types of arguments alone, so
# the values of the options are such, beside one tuple of their names: half the price of keyword arguments.
cached_plan = lru_cache(maxsize=4096, typed=True)(_plan)
_PLAIN = frozenset((int, float, tuple, type(None)))


def plan_for(
    name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: DeviceInfo,
    options: dict[str, Any],
) -> Plan:
    """Validate the arguments of a call, as its request's `build` takes them, and plan it; again from the cache."""
    k = options.get("k")
    if type(k) not in _PLAIN and name in ("top_k", "approx_top_k"):
        # Any object with __index__ may come, even one whose value changes: the cache is to know the number.
        options["k"] = integer("k", k)
    names = tuple(options)
    try:
        return cached_plan(name, shape, strides, dtype, device, names, *options.values())
    except TypeError as error:
        if isinstance(error, ApproxTopKError):
            raise
    # An argument that cannot be hashed (a list, say): validation has the words for it.
    return _plan(name, shape, strides, dtype, device, names, *options.values())


def make_plan(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, device: DeviceInfo, k: Any, **options: Any
) -> SelectionPlan:
    """Plan a selection, with the options by keyword."""
    plan = plan_for(name, shape, strides, dtype, device, {"k": k, **options})
    assert isinstance(plan, SelectionPlan)
    return plan


def request_of(name: str, x: Given, others: Mapping[str, Given], arguments: Mapping[str, Any]) -> RowsRequest:
    """The valid call, not planned: of arrays that may have no memory, of extents that only a compiler knows."""
    dtype, shape, strides = x
    request: RowsRequest = _FAMILIES[name].build(name, shape, strides, dtype, **arguments, **others)
    return request


def replan(name: str, x: Given, others: Mapping[str, Given], arguments: Mapping[str, Any], device: DeviceInfo) -> Plan:
    """Plan a valid request for other arrays: under vmap, or below a framework's dispatcher.

    Parameters
    ----------
    name : str
        The operator.
    x, others
        dtype, shape and strides of the first array, and of the others by name.
    arguments : mapping
        `RowsRequest.arguments` of the request that was planned first, with the axis in x.
    device : DeviceInfo
        Where they are.
    """
    dtype, shape, strides = x
    return plan_for(name, shape, strides, dtype, device, {**arguments, **others})
