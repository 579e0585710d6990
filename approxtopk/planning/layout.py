"""How an array's rows lie in memory, as the kernels see it."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidArgument
from ..rows import RowsRequest

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
    others : dict of str to tuple of int
        Strides of the other inputs along the same dimensions.
    axis_stride : int
        Elements between neighbours along the axis.
    inner : int
        Rows that stand side by side: the product of the axes behind the one of the rows.
    slab : bool
        Whether the `inner` rows of one outer index, n entries each, are one contiguous piece of memory.
    """

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    others: dict[str, tuple[int, ...]]
    axis_stride: int
    inner: int
    slab: bool

    @classmethod
    def of(cls, request: RowsRequest) -> Layout:
        """Work out the layout of a request's inputs.

        Raises
        ------
        InvalidArgument
            For a view with more than 32 batch dimensions that cannot be merged.
        """
        axis = request.axis
        own = request.without_axis(request.strides)
        # Of the batch shape as they are, or with an axis of their own.
        others = {
            name: strides if len(shape) < len(request.shape) else request.without_axis(strides)
            for name, (_, shape, strides) in request.others.items()
        }
        extents = request.batch_shape
        dims = _merge(list(zip(extents, zip(own, *others.values(), strict=True), strict=True)))
        dims = dims or [(1, (0,) * (1 + len(others)))]
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
        strides, *rest = zip(*(steps for _, steps in dims), strict=True)
        return cls(
            extents=tuple(e for e, _ in dims),
            strides=strides,
            others=dict(zip(others, rest, strict=True)),
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
