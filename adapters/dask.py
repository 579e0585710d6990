"""Selection from Dask arrays, chunked along the axis too, by Dask's own tree reduction: larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..call import TopK
from ..errors import BackendMissing, InvalidArgument, InvalidType
from ..request import Request, integer, show
from ..sharded import Arrays, Part, Split
from . import registry
from .numpy import dtype_name

try:
    import dask.array
except ImportError as error:
    raise BackendMissing(f"approxtopk.adapters.dask needs Dask ({error}): pip install 'dask[array]'") from error

__all__ = ["approx_top_k", "top_k"]

_dask: Any = dask.array  # partly untyped
_ARRAYS = Arrays()


def top_k(
    x: dask.array.Array,
    k: int,
    /,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    index_dtype: Any = None,
    split_every: int | None = None,
) -> TopK:
    """Pick the k best entries of every row of a Dask array, exactly and lazily.

    Every chunk is selected from by `approxtopk.top_k`, and what is left of some of them, k entries each, by it again,
    up a tree: no more chunks are in memory at a time than Dask has workers.

    Parameters
    ----------
    x : dask.array.Array
        Chunked in any way, along `axis` too, of NumPy or CuPy blocks; the chunks' sizes along `axis` must be known.
    k : int
        Entries to pick, from 0 to the axis' length; a chunk may have fewer.
    axis, mode, sorted, index_dtype
        As in `approxtopk.top_k`.
    split_every : int or None, default None
        How many chunks are joined at a time, as in Dask's reductions; None is Dask's own configuration.

    Returns
    -------
    TopK
        ``(values, indices)``, Dask arrays in one chunk along `axis`, to the bit those of `approxtopk.top_k` on the
        whole row. ``dask.compute(values, indices)`` computes them together; each alone costs as much as both.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType
        As `approxtopk.top_k`, when called; and for `x` that is no Dask array or has chunks of unknown sizes.

    See Also
    --------
    approx_top_k : The approximate selection.

    Examples
    --------
    >>> import dask
    >>> import dask.array
    >>> from approxtopk.adapters.dask import top_k
    >>> x = dask.array.arange(1_000_000, chunks=100_000) % 1000
    >>> values, indices = dask.compute(*top_k(x, 3))
    >>> values, indices
    (array([999, 999, 999]), array([ 999, 1999, 2999]))
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    return _select("top_k", x, k, split_every, options)


def approx_top_k(
    x: dask.array.Array,
    k: int,
    /,
    *,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    recall_target: float = 0.95,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    index_dtype: Any = None,
    split_every: int | None = None,
) -> TopK:
    """Pick the k best entries of every row of a Dask array, up to an expected recall, by bucketing, lazily.

    As `top_k`, but that of every chunk the k_b best of each bucket are kept. The buckets are those of the whole row,
    wherever chunks begin, so the answer is that of `approxtopk.approx_top_k` on the whole row, to the bit.

    Parameters
    ----------
    x, k, axis, mode, sorted, index_dtype, split_every
        As in `top_k`.
    recall_target, buckets, k_per_bucket
        As in `approxtopk.approx_top_k`, for the whole row.
    interleaved : bool, default True
        Only True: contiguous buckets are not served here.

    Returns
    -------
    TopK
        As in `top_k`.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType
        As in `top_k`, and for the arguments that it lacks.
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    options |= {"recall_target": recall_target, "buckets": buckets, "k_per_bucket": k_per_bucket}
    return _select("approx_top_k", x, k, split_every, {**options, "interleaved": interleaved})


def _select(name: str, x: Any, k: Any, split_every: int | None, options: dict[str, Any]) -> TopK:
    if not isinstance(x, _dask.Array):
        raise InvalidType(f"x must be a Dask array, not {show(x)}: arrays in memory are for approxtopk.{name}")
    registry.find(x._meta)
    axis = integer("axis", options["axis"])
    if -x.ndim <= axis < x.ndim and np.isnan(x.shape[axis]):
        raise InvalidArgument(
            f"x has chunks of unknown sizes along axis {axis % x.ndim}; allowed are known ones: "
            "call x.compute_chunk_sizes() first"
        )
    shape = tuple(1 if np.isnan(extent) else int(extent) for extent in x.shape)
    request = Request.build(name, shape, (0,) * len(shape), dtype_name(x.dtype, "x"), k, **options)
    axis, index, split = request.axis, np.dtype(request.index_dtype), Split.of(request)
    if not request.k:
        values = x[(slice(None),) * axis + (slice(0),)]
        return TopK(values, values.astype(index))
    meta = x._meta
    pairs = _dask.reduction(
        x.map_blocks(partial(_part, split=split, axis=axis), dtype=x.dtype, meta=meta),
        chunk=_as_it_is,
        combine=partial(_merge, split=split),
        aggregate=partial(_finish, split=split, place=axis, index=index),
        axis=axis,
        keepdims=True,
        concatenate=False,
        dtype=x.dtype,
        split_every=split_every,
        output_size=request.k,
        meta=meta,
    )
    return TopK(
        pairs.map_blocks(_item, 0, dtype=x.dtype, meta=meta),
        pairs.map_blocks(_item, 1, dtype=index, meta=meta.astype(index)),
    )


# What Dask runs on its workers: functions that can be pickled.


def _part(block: Any, *, split: Split, axis: int, block_info: Any = None) -> Part:
    """What a block hands on."""
    start, stop = block_info[0]["array-location"][axis]
    rows = np.moveaxis(block, axis, -1)
    if split.whole(stop - start):
        values, indices = rows, np.broadcast_to(np.arange(stop - start, like=block), rows.shape)
    else:
        values, indices = split.candidates_of(_ARRAYS, rows, start)
    return Part(values, indices + start, start, stop)


def _as_it_is(part: Any, axis: Any, keepdims: bool) -> Any:
    """What is asked of the reduction's first step, which is done already."""
    return part


def _merge(parts: Any, axis: Any, keepdims: bool, *, split: Split) -> Part:
    """One part of several, nested in lists."""
    return split.merge(_ARRAYS, list(_flat(parts)))


def _finish(parts: Any, axis: Any, keepdims: bool, *, split: Split, place: int, index: Any) -> tuple[Any, Any]:
    """Values and indices from the last parts."""
    values, indices = (np.moveaxis(a, -1, place) for a in split.finish(_ARRAYS, list(_flat(parts))))
    return values.copy(), indices.astype(index)  # row-major, and of nothing larger


def _flat(parts: Any) -> Iterator[Part]:
    if isinstance(parts, Part):
        yield parts
    else:
        for inner in parts:
            yield from _flat(inner)


def _item(pair: tuple[Any, Any], which: int) -> Any:
    return pair[which]
