"""A selection over several devices: each runs the rows it holds, and XLA is told so.

Rows are independent, so an array that is sharded over any axes but the one selected along is selected from where it
is. Along that one XLA gathers it first where shardings are XLA's to choose, and it is an error where they are types.
Before JAX 0.7, and without the Shardy partitioner, XLA gathers whatever is sharded but in ``shard_map``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning

from ...errors import DeviceMismatch
from ...plan import Plan

__all__ = ["Selection", "explicit", "partitioned", "vary_alike"]

Selection = Callable[..., "tuple[jax.Array, ...]"]

# Untyped: their names and arguments differ between releases.
_lax: Any = jax.lax
_typeof: Any = jax.typeof
_partitionable: Any = custom_partitioning
_spec_of: Any = jax.sharding.PartitionSpec
_named: Any = jax.sharding.NamedSharding
_shard_map: Any = jax.shard_map
# Whether XLA can be told what it may divide: not by JAX before 0.7.
_RULES = "need_replication_factors" in signature(custom_partitioning.def_partition).parameters
_reshard: Any = getattr(jax, "reshard", None) or getattr(jax.sharding, "reshard", None)


def partitioned(local: Selection, plan: Plan) -> Selection:
    """`local` as a function that XLA divides among devices as it likes, but for the axis selected along.

    `local` plans for the arrays that it gets: the whole, or one device's part.
    """
    if not _RULES:
        return local
    r = plan.request
    bounds = (r.starts is not None) + (r.lengths is not None)

    def whole(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return local(*arrays)

    divided = _partitionable(whole)

    def shardings(mesh: Any, spec: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Of arguments and results, for x sharded so."""
        batch = (*spec[: r.axis], *spec[r.axis + 1 :])
        whole = _named(mesh, _spec_of(*spec[: r.axis], None, *spec[r.axis + 1 :]))
        rows = _named(mesh, _spec_of(*batch))
        return (whole,) + (rows,) * bounds, (whole, whole, rows)[: len(plan.outputs)]

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple[Any, Selection, Any, Any]:
        given, wanted = (tuple(array.sharding for array in arrays) for arrays in (arguments, results))
        if not _consistent(r.axis, arguments, results):
            place, spec = mesh, _spec(arguments[0])
            if spec is None:  # in a shard_map over some axes: shardings of the others, which name no mesh
                place = jax.sharding.Mesh(sorted(given[0].device_set, key=lambda device: device.id), ("devices",))
                spec = (None,) * len(r.shape)
            given, wanted = shardings(place, spec)
        return mesh, local, wanted, given

    axes = [f"a{i}" for i in range(len(r.shape))]
    rows = " ".join(axes[: r.axis] + axes[r.axis + 1 :])
    inputs = [" ".join((*axes[: r.axis], "n", *axes[r.axis + 1 :]))] + [rows] * bounds
    outputs = [" ".join((*axes[: r.axis], "k", *axes[r.axis + 1 :]))] * 2 + [rows]
    rule = f"{', '.join(inputs)} -> {', '.join(outputs[: len(plan.outputs)])}"
    divided.def_partition(partition, sharding_rule=rule, need_replication_factors=("n", "k"))

    def select(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        mesh = _typeof(arrays[0]).sharding.mesh
        # Otherwise XLA has nothing to choose; or it is its old partitioner that does, which takes no rules.
        chosen = (mesh.empty or mesh.auto_axes) and getattr(jax.config, "jax_use_shardy_partitioner", True)
        results: tuple[jax.Array, ...] = divided(*arrays) if chosen else local(*arrays)
        return results

    return select


def _consistent(axis: int, arguments: Any, results: Any) -> bool:
    """Whether each device has whole rows of x, and of all other arrays those rows."""
    x, *others = map(_part, (*arguments, *results))
    batch = (*x[:axis], *x[axis + 1 :])
    return x[axis] == arguments[0].shape[axis] and all(
        (*part[:axis], *part[axis + 1 :]) == batch if len(part) == len(x) else part == batch for part in others
    )


def _part(array: Any) -> tuple[int, ...]:
    """The shape of one device's part, with padding where an axis does not divide."""
    spec = _spec(array)
    if spec is None:
        return tuple(array.sharding.shard_shape(array.shape))
    sizes = array.sharding.mesh.shape
    parts = (math.prod(sizes[name] for name in _names(names)) for names in spec)
    return tuple(-(-extent // count) for extent, count in zip(array.shape, parts, strict=True))


def _names(part: Any) -> tuple[Any, ...]:
    """The axes of the mesh in one place of a PartitionSpec."""
    if part is None:
        return ()
    return part if isinstance(part, tuple) else (part,)


def _spec(array: Any) -> tuple[Any, ...] | None:
    """How every axis of `array` is sharded, where its sharding can say it."""
    spec = getattr(array.sharding, "spec", None)
    return None if spec is None else (*spec, *(None,) * (len(array.shape) - len(spec)))


def explicit(call: Selection, local: Selection, plan: Plan) -> Selection:
    """`call`; where the sharding of x is part of its type, `local` on every device's part."""
    axis, count = plan.request.axis, len(plan.outputs)

    def select(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        named = frozenset[Any]().union(*map(_explicit_axes, arrays))
        if not named:
            return call(*arrays)
        sharding = _typeof(arrays[0]).sharding
        spec = (*sharding.spec, *(None,) * (arrays[0].ndim - len(sharding.spec)))
        if spec[axis] is not None:
            raise DeviceMismatch(
                f"x of type {_typeof(arrays[0])} is sharded along axis {axis}, which is selected along; allowed are "
                "other axes: gather it with jax.reshard, or see approxtopk.adapters.jax.distributed"
            )
        rows = _spec_of(*spec[:axis], *spec[axis + 1 :])
        specs = (_spec_of(*spec), *(rows,) * (len(arrays) - 1))
        parts = [arrays[0], *(_reshard(bound, _named(sharding.mesh, rows)) for bound in arrays[1:])]

        wanted = (specs[0], specs[0], rows)[:count]
        mapped: Selection = _shard_map(local, mesh=sharding.mesh, in_specs=specs, out_specs=wanted, axis_names=named)
        return mapped(*parts)

    return select


def _explicit_axes(array: jax.Array) -> frozenset[Any]:
    """The axes of the mesh that, as its type says, `array` is sharded over."""
    sharding = _typeof(array).sharding
    names = frozenset(name for part in sharding.spec for name in _names(part))
    return names & frozenset(getattr(sharding.mesh, "explicit_axes", ()))


def vary_alike(arrays: tuple[jax.Array, ...], like: tuple[jax.Array, ...] = ()) -> tuple[jax.Array, ...]:
    """The same arrays, whose types in ``shard_map`` say that they vary wherever one of them, or of `like`, does."""
    axes = frozenset[Any]().union(*(_varying(array) for array in (*arrays, *like)))
    return tuple(_vary(array, tuple(axes - _varying(array))) for array in arrays)


def _varying(array: jax.Array) -> frozenset[Any]:
    kind = _typeof(array)
    manual = getattr(kind, "manual_axis_type", None)  # older releases: vma
    return frozenset(manual.varying if manual is not None else getattr(kind, "vma", ()))


def _vary(array: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    if not axes:
        return array
    varied: jax.Array = _lax.pcast(array, axes, to="varying") if hasattr(_lax, "pcast") else _lax.pvary(array, axes)
    return varied
