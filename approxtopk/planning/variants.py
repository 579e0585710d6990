"""Every kernel variant that the planner can choose, found by planning a grid of requests.

A variant is a kernel and its macros. Whatever decides a macro in the planner is an axis of the grid here:
element type and mode, positions of 32 or 64 bits, few or many batch dimensions, few or many rows, loads of
neighbours, queue lengths, long and short buckets, what is done with the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from ..dtypes import DTYPES
from ..plan import Launch
from ..request import Request
from .devices import REFERENCES
from .select import plan_select
from .walk import KEEP

__all__ = ["Variant", "covering", "variants"]

#: Rows too short to filter, and some that are filtered.
_SHORT = (2**10, 2**16)
#: Rows whose positions take 32 and 64 bits, long enough for a walk of more steps than a packed entry counts.
_LONG = (2**30, 2**33)
#: Too few to fill a GPU, and enough.
_ROWS = (2, 2**16)
#: Long and short buckets, as many as 1, 2, 4, 8 and 16 neighbouring lanes divide and no more.
_BUCKETS = (3, 2, 4, 8, 16, *(2**20 + lanes for lanes in (1, 2, 4, 8, 16)))


class Variant(NamedTuple):
    """One compilation.

    Attributes
    ----------
    kernel : str
        The entry point and its source, as in a Launch.
    defines : tuple of (str, int)
        The macros, sorted by name.
    """

    kernel: str
    defines: tuple[tuple[str, int], ...]

    @property
    def common(self) -> bool:
        """Whether it serves axes below 2**31 and at most two batch dimensions, as nearly all calls have."""
        return ("WIDE", 0) in self.defines and ("BATCH_DIMS", 2) in self.defines

    def __str__(self) -> str:
        return " ".join((self.kernel, *(f"{name}={value}" for name, value in self.defines)))


@cache
def variants(architecture: str = "sm_90") -> tuple[Variant, ...]:
    """List the variants for the reference GPU of `architecture`, in a fixed order."""
    device = REFERENCES[architecture]
    plans = (plan_select(request, device) for request in _requests())
    launches = (step for plan in plans for step in plan.steps if isinstance(step, Launch))
    return tuple(sorted({Variant(launch.kernel, launch.defines) for launch in launches}))


def covering(all_variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """A small subset in which every kernel meets every value of each of its macros."""
    facts = {variant: {(variant.kernel, define) for define in variant.defines} for variant in all_variants}
    missing = set().union(*facts.values())
    chosen: list[Variant] = []
    while missing:
        best = max(all_variants, key=lambda variant: len(facts[variant] & missing))
        chosen.append(best)
        missing -= facts[best]
    return tuple(chosen)


def _requests() -> Iterator[Request]:
    for dtype in DTYPES.values():
        # Integers are turned around at run time.
        for mode in ("largest", "smallest") if dtype.kind == "f" else ("largest",):
            for n in (*_SHORT, *_LONG):
                for rows in _ROWS:
                    for many_dims in (False, True):
                        yield from _of_rows(dtype.name, mode, n, rows, many_dims)


def _of_rows(dtype: str, mode: str, n: int, rows: int, many_dims: bool) -> Iterator[Request]:
    """Requests on `rows` rows, apart from each other so that batch dimensions do not merge."""
    shape = (2, 2, 2, max(rows // 8, 1), n) if many_dims else (rows // 2, 2, n)

    def build(name: str, k: int, stride: int = 1, **arguments: Any) -> Request:
        strides = [stride]
        for extent in shape[:0:-1]:
            strides.insert(0, strides[0] * (extent + 1))
        return Request.build(name, shape, tuple(strides), dtype, k, mode=mode, **arguments)

    # More than a bucket keeps; fewer entries than one block sorts, and more.
    for k in (KEEP[-1] + 2, min(n // 2, 5000)):
        for is_sorted in (True, False):
            for stride in (1, 2):
                yield build("top_k", k, stride, sorted=is_sorted)
            if n in _LONG:
                yield build("approx_top_k", k, buckets=5000, k_per_bucket=KEEP[-1] + 1, sorted=is_sorted)
                yield build("approx_top_k", k, buckets=_BUCKETS[-1], k_per_bucket=1, sorted=is_sorted)
    if n in _LONG:
        for b in _BUCKETS:
            for kept in KEEP:
                yield build("approx_top_k", kept + 1, buckets=b, k_per_bucket=kept)
