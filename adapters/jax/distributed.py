"""Selection from rows that are sharded over the devices of a mesh, inside ``jax.shard_map``."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ...call import TopK
from ...errors import InvalidArgument
from ...request import Request, integer, short
from ...sharded import Arrays, Part, Split
from .arrays import ADAPTER

__all__ = ["approx_top_k", "top_k"]

_lax: Any = jax.lax
_TELLS = jax.__version_info__ >= (0, 10)  # whether all_gather can be told that its result is alike everywhere


def top_k(
    x: jax.Array,
    k: int,
    /,
    *,
    axis_name: Hashable,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    index_dtype: Any = None,
) -> TopK:
    """Pick the k best entries of every row of which each device holds a part, exactly; inside ``jax.shard_map``.

    Every device selects from its own shard, an all-gather carries k values and indices a row and device, and every
    device selects from those.

    Parameters
    ----------
    x : jax.Array
        This device's shard: consecutive entries of every row along `axis`, as ``shard_map`` gives them for an
        ``in_specs`` that names `axis_name` there.
    k : int
        Entries to pick, from 0 to the length of the whole axis; a shard may have fewer.
    axis_name : hashable or tuple of them
        The mesh axis or axes that the rows are sharded over; of several, the first is the slowest, as in a
        ``PartitionSpec``. An axis that ``vmap`` or ``pmap`` names does, too.
    axis, mode, sorted, index_dtype
        As in `approxtopk.top_k`. What is said there of the axis' length is meant of the whole one.

    Returns
    -------
    TopK
        ``(values, indices)``, the same on every device, to the bit those of `approxtopk.top_k` on the whole row;
        indices count along the whole row. Differentiable; the gradient needs no communication. ``shard_map`` knows
        that the result is the same everywhere, as ``out_specs=PartitionSpec()`` says; JAX before
        0.10 needs ``check_vma=False`` for that. With that, gradients taken inside of ``shard_map`` are sums over the
        devices, as JAX's own are then.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As `approxtopk.top_k`, and for an `axis_name` that is not bound, while tracing.

    See Also
    --------
    approx_top_k : The approximate selection.

    Examples
    --------
    >>> import jax
    >>> from jax.sharding import PartitionSpec
    >>> from approxtopk.adapters.jax import distributed
    >>> mesh = jax.sharding.Mesh(jax.devices(), ("vocabulary",))
    >>> @jax.jit
    ... def best(logits):
    ...     select = lambda shard: distributed.top_k(shard, 3, axis_name="vocabulary")
    ...     specs = {"in_specs": PartitionSpec(None, "vocabulary"), "out_specs": PartitionSpec()}
    ...     return jax.shard_map(select, mesh=mesh, **specs)(logits)
    >>> best(jax.numpy.arange(64.0).reshape(2, 32)).indices
    Array([[31, 30, 29],
           [31, 30, 29]], dtype=int32)
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    return _select("top_k", x, k, axis_name, options)


def approx_top_k(
    x: jax.Array,
    k: int,
    /,
    *,
    axis_name: Hashable,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    recall_target: float = 0.95,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    index_dtype: Any = None,
) -> TopK:
    """Pick the k best entries of every row of which each device holds a part, up to an expected recall, by bucketing.

    As `top_k`, but that every device hands on the k_b best of each bucket of its shard. The buckets are those of the
    whole row, wherever shards begin, so the answer is that of `approxtopk.approx_top_k` on the whole row, to the bit.

    Parameters
    ----------
    x, k, axis_name, axis, mode, sorted, index_dtype
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
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As in `top_k`, and for the arguments that it lacks.
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    options |= {"recall_target": recall_target, "buckets": buckets, "k_per_bucket": k_per_bucket}
    return _select("approx_top_k", x, k, axis_name, {**options, "interleaved": interleaved})


class _Arrays(Arrays):
    """Elements as unsigned integers of the same width: XLA may widen narrow floats and lose what a NaN carries."""

    np = jnp

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def select(self, x: Any, k: int, **options: Any) -> Any:
        return super().select(_lax.bitcast_convert_type(x, self.dtype), k, **options)

    def sortable(self, indices: Any) -> Any:
        return indices.astype(f"uint{indices.dtype.itemsize * 8}")


def _select(name: str, x: Any, k: Any, axis_name: Any, options: dict[str, Any]) -> TopK:
    facts = ADAPTER.facts(x)
    try:
        shards = _count(axis_name)
    except NameError:
        raise InvalidArgument(
            f"axis_name = {short(repr(axis_name))} is not bound here; allowed are axes of the mesh, in jax.shard_map"
        ) from None
    shape = list(facts.shape)
    axis = integer("axis", options["axis"])
    if -len(shape) <= axis < len(shape):  # else it says so
        shape[axis] *= shards
    request = Request.build(
        name,
        tuple(shape),
        (0,) * len(shape),
        facts.dtype,
        k,
        default_index=ADAPTER.default_index,
        index_dtypes=ADAPTER.index_dtypes(),
        **options,
    )
    split = Split.of(request)
    if 0 in request.output_shape:
        return TopK(jnp.zeros(request.output_shape, x.dtype), jnp.zeros(request.output_shape, request.index_dtype))
    rows = jnp.moveaxis(x, axis, -1)
    values, indices = _sharded(split, axis_name, request.index_dtype, _lax.stop_gradient(rows))
    values = _picked(axis_name, rows, values, indices)
    return TopK(jnp.moveaxis(values, -1, axis), jnp.moveaxis(indices, -1, axis))


def _count(axis_name: Any) -> int:
    """How many shards there are; known while tracing."""
    return int(_lax.psum(1, axis_name))


def _sharded(split: Split, axis_name: Any, index: str, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Select along the last axis, of which `rows` is this device's shard."""
    arrays = _Arrays(rows.dtype)
    bits = _lax.bitcast_convert_type(rows, f"uint{rows.dtype.itemsize * 8}")
    extent = rows.shape[-1]
    if split.whole(extent):
        values = _all_gather(bits, axis_name)
        # All know the indices.
        indices = jnp.broadcast_to(jnp.arange(extent, dtype=index), values.shape)
    else:
        # Where the shard begins, but for multiples of b, which might not fit 32 bits.
        start = arrays.sortable(_lax.axis_index(axis_name)) * (extent % split.buckets)
        values, indices = (_all_gather(a, axis_name) for a in split.candidates_of(arrays, bits, start))
        indices = indices.astype(index)
    starts = range(0, _count(axis_name) * extent, extent)
    parts = [Part(values[r], indices[r] + start, start, start + extent) for r, start in enumerate(starts)]
    values, indices = split.finish(arrays, parts)
    return _lax.bitcast_convert_type(values, rows.dtype), indices


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _picked(axis_name: Any, rows: jax.Array, values: jax.Array, indices: jax.Array) -> jax.Array:
    """`values`, which were picked at `indices` from the shards `rows`, and so have their derivative."""
    return values


@_picked.defjvp
def _derivative(axis_name: Any, primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    slope, (_, values, indices) = tangents[0], primals
    extent = slope.shape[-1]
    where = indices - _lax.axis_index(axis_name).astype(indices.dtype) * extent
    mine = (where >= 0) & (where < extent)
    own = jnp.where(mine, jnp.take_along_axis(slope, jnp.clip(where, 0, extent - 1), axis=-1), 0)
    # k entries a row travel; backwards, none.
    return _picked(axis_name, *primals), _vary(_lax.psum(own, axis_name), _varying(values))


def _all_gather(x: jax.Array, axis_name: Any) -> Any:
    """What every device has in place of `x`, along a new first axis.

    Where ``shard_map`` keeps track of what varies from device to device, the result is declared not to.
    """
    names = frozenset(axis_name if isinstance(axis_name, tuple) else (axis_name,))
    if not (_TELLS and names <= frozenset(jax.sharding.get_abstract_mesh().manual_axes)):
        return _lax.all_gather(x, axis_name)
    x = _vary(x, names)
    return _lax.all_gather(x, axis_name, to="invarying" if names <= _varying(x) else "varying")


def _vary(x: jax.Array, names: frozenset[Any]) -> Any:
    """`x` as one that varies along these axes of the mesh too; where ``shard_map`` does not check, just `x`."""
    missing = tuple(names - _varying(x))
    if not missing:
        return x
    return _lax.pcast(x, missing, to="varying") if hasattr(_lax, "pcast") else _lax.pvary(x, missing)


def _varying(x: jax.Array) -> frozenset[Any]:
    """The mesh axes along which `x` is known to vary; none where ``shard_map`` does not check."""
    kind: Any = jax.typeof(x)
    found: frozenset[Any] = kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return found
