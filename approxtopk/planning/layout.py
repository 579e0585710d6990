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
        The batch dimensions, outermost first, merged where the strides of all arrays allow; strides in elements.
        Never empty.
    starts, lengths : tuple of int or None
        Strides of those arrays along the same dimensions.
    axis_stride : int
        Elements between neighbours along the axis.
    inner : int
        Rows that stand side by side: the product of the axes behind the one selected along.
    slab : bool
        Whether the `inner` rows of one outer index, n entries each, are one contiguous piece of memory.
    """

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    starts: tuple[int, ...] | None
    lengths: tuple[int, ...] | None
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
        extents = (*request.shape[:axis], *request.shape[axis + 1 :])
        own = (*request.strides[:axis], *request.strides[axis + 1 :])
        bounds = [None if array is None else array.strides for array in (request.starts, request.lengths)]
        steps = zip(*(strides for strides in (own, *bounds) if strides is not None), strict=True)
        dims = _merge(list(zip(extents, steps, strict=True))) or [(1, (0, 0, 0))]
        inner_dims = _merge([(e, (s,)) for e, s in zip(extents[axis:], own[axis:], strict=True)])
        if len(dims) > MOST_DIMS:
            raise InvalidArgument(
                f"x of shape {request.shape} and strides {request.strides} has {len(dims)} batch dimensions that do "
                f"not merge; at most {MOST_DIMS} are allowed: pass a contiguous copy"
            )
        # A stride along an axis of one entry says nothing.
        axis_stride = request.strides[axis] if request.n > 1 else request.inner
        inner = request.inner
        slab = axis_stride == inner and (inner == 1 or inner_dims == [(inner, (1,))])
        strides = iter(zip(*(steps for _, steps in dims), strict=True))
        return cls(
            extents=tuple(e for e, _ in dims),
            strides=next(strides),
            starts=None if request.starts is None else next(strides),
            lengths=None if request.lengths is None else next(strides),
            axis_stride=axis_stride,
            inner=inner,
            slab=slab,
        )


def _merge(dims: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Drop dimensions of extent 1 and join neighbours that one stride of every array can walk."""
    merged: list[tuple[int, tuple[int, ...]]] = []
    for extent, strides in dims:
        if extent == 1:
            continue
        if merged and merged[-1][1] == tuple(extent * stride for stride in strides):
            merged[-1] = (merged[-1][0] * extent, strides)
        else:
            merged.append((extent, strides))
    return merged
