"""How an array's rows lie in memory, as the kernels see it."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidArgument
from ..request import Request

__all__ = ["MOST_DIMS", "Layout"]

#: Batch dimensions a kernel can describe at most; more would not fit an array of fewer than 2**32 rows.
MOST_DIMS = 32


class Layout(NamedTuple):
    """Rows of an array of shape (outer, n, inner).

    Attributes
    ----------
    extents, strides : tuple of int
        The batch dimensions, outermost first, merged where strides allow; strides in elements. Never empty.
    axis_stride : int
        Elements between neighbours along the axis.
    inner : int
        Rows that stand side by side: the product of the axes behind the one selected along.
    slab : bool
        Whether the `inner` rows of one outer index, n entries each, are one contiguous piece of memory.
    """

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    axis_stride: int
    inner: int
    slab: bool

    @classmethod
    def of(cls, request: Request) -> Layout:
        """Work out the layout of a request's input.

        Raises
        ------
        InvalidArgument
            For a view with more than 32 batch dimensions that cannot be merged.
        """
        axis = request.axis
        before = list(zip(request.shape[:axis], request.strides[:axis], strict=True))
        behind = list(zip(request.shape[axis + 1 :], request.strides[axis + 1 :], strict=True))
        inner_dims = _merge(behind)
        dims = _merge(before + behind) or [(1, 0)]
        if len(dims) > MOST_DIMS:
            raise InvalidArgument(
                f"x of shape {request.shape} and strides {request.strides} has {len(dims)} batch dimensions that do "
                f"not merge; at most {MOST_DIMS} are allowed: pass a contiguous copy"
            )
        # A stride along an axis of one entry says nothing.
        axis_stride = request.strides[axis] if request.n > 1 else request.inner
        inner = request.inner
        slab = axis_stride == inner and (inner == 1 or inner_dims == [(inner, 1)])
        return cls(tuple(e for e, _ in dims), tuple(s for _, s in dims), axis_stride, inner, slab)


def _merge(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop dimensions of extent 1 and join neighbours that one stride can walk."""
    merged: list[tuple[int, int]] = []
    for extent, stride in dims:
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    return merged
