"""A call over several devices: each runs the rows it holds, and XLA is told so.

Rows are independent, so what is asked of an array that is sharded over any axes but the one of its rows is worked out
where it is. Along that one XLA gathers it first where shardings are XLA's to choose, and it is an error where they are
types. Before JAX 0.7, and without the Shardy partitioner, XLA gathers whatever is sharded but in ``shard_map``.
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

__all__ = ["Call", "explicit", "partitioned", "vary_alike"]

Call = Callable[..., "tuple[jax.Array, ...]"]

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


def partitioned(local: Call, plan: Plan) -> Call:
    """`local` as a function that XLA divides among devices as it likes, but for the axis of the rows.

    `local` plans for the arrays that it gets: the whole, or one device's part.
    """
    if not _RULES:
        return local
    r = plan.request
    inputs, outputs = _shapes(plan)

    def whole(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return local(*arrays)

    divided = _partitionable(whole)

    def shardings(mesh: Any, spec: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Of arguments and results, for x sharded so."""
        whole = _named(mesh, _spec_of(*spec[: r.axis], None, *spec[r.axis + 1 :]))
        rows = _named(mesh, _spec_of(*r.without_axis(spec)))
        given, wanted = (
            tuple(whole if len(shape) == len(r.shape) else rows for shape in shapes) for shapes in (inputs, outputs)
        )
        return given, wanted

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple[Any, Call, Any, Any]:
        given, wanted = (tuple(array.sharding for array in arrays) for arrays in (arguments, results))
        if not _consistent(r.axis, arguments, results):
            place, spec = mesh, _spec(arguments[0])
            if spec is None:  # in a shard_map over some axes: shardings of the others, which name no mesh
                place = jax.sharding.Mesh(sorted(given[0].device_set, key=lambda device: device.id), ("devices",))
                spec = (None,) * len(r.shape)
            given, wanted = shardings(place, spec)
        return mesh, local, wanted, given

    # Every array has an axis of its own along the rows, and shares the others.
    letters = [f"n{i}" for i in range(len(inputs) + len(outputs))]
    axes = [f"a{i}" for i in range(len(r.shape))]
    words = []
    for letter, shape in zip(letters, (*inputs, *outputs), strict=True):
        rows = (*axes[: r.axis], letter, *axes[r.axis + 1 :])
        words.append(" ".join(rows if len(shape) == len(r.shape) else r.without_axis(rows)))
    rule = f"{', '.join(words[: len(inputs)])} -> {', '.join(words[len(inputs) :])}"
    own = tuple(x for x, shape in zip(letters, (*inputs, *outputs), strict=True) if len(shape) == len(r.shape))
    divided.def_partition(partition, sharding_rule=rule, need_replication_factors=own)

    def select(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        mesh = _typeof(arrays[0]).sharding.mesh
        # Otherwise XLA has nothing to choose; or it is its old partitioner that does, which takes no rules.
        chosen = (mesh.empty or mesh.auto_axes) and getattr(jax.config, "jax_use_shardy_partitioner", True)
        results: tuple[jax.Array, ...] = divided(*arrays) if chosen else local(*arrays)
        return results

    return select


def _shapes(plan: Plan) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Of a plan's inputs and outputs."""
    r = plan.request
    return (r.shape, *(shape for _, shape, _ in r.others.values())), tuple(output.shape for output in plan.outputs)


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


def explicit(call: Call, local: Call, plan: Plan) -> Call:
    """`call`; where the sharding of x is part of its type, `local` on every device's part."""
    r = plan.request
    axis, rank = r.axis, len(r.shape)

    def select(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        named = frozenset[Any]().union(*map(_explicit_axes, arrays))
        if not named:
            return call(*arrays)
        sharding = _typeof(arrays[0]).sharding
        spec = (*sharding.spec, *(None,) * (arrays[0].ndim - len(sharding.spec)))
        if spec[axis] is not None:
            raise DeviceMismatch(
                f"x of type {_typeof(arrays[0])} is sharded along axis {axis}, which rows lie along; allowed are "
                "other axes: gather it with jax.reshard, or see approxtopk.adapters.jax.distributed"
            )
        whole, rows = _spec_of(*spec), _spec_of(*r.without_axis(spec))
        specs = tuple(whole if array.ndim == rank else rows for array in arrays)
        wanted = tuple(whole if len(shape) == rank else rows for shape in _shapes(plan)[1])
        others = zip(arrays[1:], specs[1:], strict=True)
        parts = [arrays[0], *(_reshard(array, _named(sharding.mesh, own)) for array, own in others)]
        mapped: Call = _shard_map(local, mesh=sharding.mesh, in_specs=specs, out_specs=wanted, axis_names=named)
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
