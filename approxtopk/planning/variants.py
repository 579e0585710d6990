"""Every kernel variant that the planner can choose, found by mapping a grid of requests in every way it considers.

A variant is a kernel and its macros. Whatever decides a macro in the planner is an axis of the grid here:
element type and mode, general kernels (positions of 64 bits, many batch dimensions) or not, strides, few or many rows,
short and long ones, loads of neighbours, queue lengths, what is done with the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, product
from typing import Any, NamedTuple

from ..dtypes import DTYPES
from ..rank_request import RankRequest
from ..request import Request
from ..soft_request import KINDS, REALS, SoftRequest, real_of
from . import rank, small, soft, walk
from .devices import REFERENCES
from .draft import RowsDraft
from .select import ways

__all__ = ["Variant", "covering", "variants"]

#: Too few to fill a GPU, and enough.
_FEW, _MANY = 2, 2**16
#: Buckets of which 1, 2, 4, 8 and 16 neighbours share a load, and no more.
_BUCKETS = (3, 2, 4, 8, 16)


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
    drafts: Iterator[RowsDraft] = chain(
        (draft for request in _requests() for draft in ways(request, device)),
        (draft for request in _soft() for draft in soft.ways(request, device)),
        (next(rank.mappings(request, device)) for request in _ranks()),  # all have the same kernel
    )
    return tuple(sorted({Variant(launch.kernel, launch.defines) for draft in drafts for launch in draft.launches}))


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
        # Integers are turned around, and their signs considered, at run time.
        for mode in {"f": ("largest", "smallest"), "i": ("largest",), "u": ()}[dtype.kind]:
            for general in (False, True):
                yield from _exact(dtype.name, mode, general)
                yield from _bucketed(dtype.name, mode, general)


def _exact(dtype: str, mode: str, general: bool) -> Iterator[Request]:
    # Short rows, few entries of each; and many of each, or of long ones.
    sizes = [(_MANY, lanes * entries, lanes) for lanes in small.LANES for entries in small.ENTRIES]
    sizes += [(_MANY, 8192, 100), (_MANY, 8192, 5000), (_MANY, 70_000, 2500), (_FEW, 2**20, 5000)]
    for rows, n, k in sizes:
        for stride in (1, 2):
            for is_sorted in (True, False):
                yield _request("top_k", dtype, mode, general, rows, n, k, stride, sorted=is_sorted)


def _bucketed(dtype: str, mode: str, general: bool) -> Iterator[Request]:
    def build(rows: int, n: int, k: int, b: int, kept: int, **arguments: Any) -> Request:
        return _request("approx_top_k", dtype, mode, general, rows, n, k, buckets=b, k_per_bucket=kept, **arguments)

    for b in _BUCKETS:
        for kept in walk.KEEP:
            yield build(_FEW, 2**20, kept + 1, b, kept)
    # More than a queue keeps, of neighbours and of others; fewer entries than one block sorts, and more; candidates
    # that are the result, and so many that several blocks select from those of a row.
    kept = walk.KEEP[-1] + 1
    for interleaved in (True, False):
        for is_sorted in (True, False):
            for rows, n, k, b in ((_MANY, 2**13, 100, 16), (_MANY, 2**18, 5000, 2**10), (_FEW, 2**20, 5000, 2**13)):
                yield build(rows, n, k, b, kept, interleaved=interleaved, sorted=is_sorted, certify=is_sorted)
        yield build(_MANY, 2**13, 16 * kept, 16, kept, interleaved=interleaved, sorted=False)


def _soft() -> Iterator[SoftRequest]:
    """Short rows and long ones, of neighbours and not; any p and the kinds."""
    for dtype, general, n, stride in product(REALS, (False, True), (2**12, 2**20), (1, 2)):
        shape, strides = _rows(general, _FEW, n, stride)
        for name, kind in (*product(SoftRequest.OPERATORS[::2], KINDS), *product(SoftRequest.OPERATORS, KINDS[:1])):
            arrays: dict[str, Any] = {}
            if name.endswith("_vjp"):
                arrays["g"] = (dtype, shape, strides)
            if name == "soft_top_k_magnitude_vjp":
                arrays["tau"] = (real_of(dtype), shape[:-1], strides[:-1])
            yield SoftRequest.build(name, shape, strides, dtype, k=8, kind=kind, **arrays)


def _ranks() -> Iterator[RankRequest]:
    """One target, a few and many, of neighbours and not."""
    for dtype, general, stride, m in product(DTYPES.values(), (False, True), (1, 2), (1, 2, 2**10)):
        for mode in ("largest", "smallest") if dtype.kind == "f" else ("largest",):
            shape, strides = _rows(general, _MANY, 2**12, stride)
            index = ("int64", (*shape[:-1], m), (*(step * m for step in strides[:-1]), 1))
            yield RankRequest.build("rank", shape, strides, dtype.name, index=index, mode=mode)


def _request(
    name: str, dtype: str, mode: str, general: bool, rows: int, n: int, k: int, stride: int = 1, **arguments: Any
) -> Request:
    shape, strides = _rows(general, rows, n, stride)
    return Request.build(name, shape, strides, dtype, k, mode=mode, **arguments)


def _rows(general: bool, rows: int, n: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of rows that lie apart from each other, so that `general` batch dimensions do not merge."""
    shape = (2, 2, max(rows // 4, 2), n) if general else (rows, n)
    strides = [stride]
    for extent in shape[:0:-1]:
        strides.insert(0, strides[0] * (extent + 1))
    return shape, tuple(strides)
