"""The drop-ins beside jax.lax's own functions: answers, shapes, types, errors; and the recall they promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .frameworks import Jax
from .frameworks import rows as small_rows
from .jax_machines import MACHINES, Counted, counted, distinct, same

jax = pytest.importorskip("jax")
drop_in = pytest.importorskip("approxtopk.adapters.jax")
jnp = jax.numpy
top_k, approx_max_k, approx_min_k = drop_in.top_k, drop_in.approx_max_k, drop_in.approx_min_k


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[Counted]:
    with counted(request.param) as runtime:
        yield runtime


def alike(ours: Any, theirs: Any, *arguments: Any, **given: Any) -> None:
    got, want = ours(*arguments, **given), theirs(*arguments, **given)
    assert type(got) is type(want) and len(got) == 2
    same(got, want, (arguments[1:], given))
    inside = [
        jax.tree.structure(jax.eval_shape(lambda x, f=f: f(x, *arguments[1:], **given), arguments[0]))
        for f in (ours, theirs)
    ]
    assert inside[0] == inside[1]


INTEGERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]
OTHERS = ["float8_e4m3", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, *OTHERS])
def test_top_k_of_every_type(dtype: str, machine: Counted) -> None:
    kind = getattr(jnp, dtype, None) or getattr(pytest.importorskip("ml_dtypes"), dtype)
    with Jax().context(dtype):
        x = jnp.asarray(small_rows((3, 8), 1)).astype(kind)
        for axis in (0, -1):
            alike(top_k, jax.lax.top_k, x, 3, axis=axis)  # columns have ties, which both rank by the lower index
        if jnp.issubdtype(kind, jnp.floating):
            slopes = [
                jax.grad(lambda x, f=f: (f(x, 3)[0].astype("float32") * 2).sum())(x) for f in (top_k, jax.lax.top_k)
            ]
            same(*slopes)


def test_top_k_of_every_shape(machine: Counted) -> None:
    for shape, k in (((0,), 0), ((3, 0), 0), ((0, 8), 2), ((8,), 8), ((1,), 1), ((2, 3, 4), 2)):
        alike(top_k, jax.lax.top_k, jnp.asarray(distinct(*shape)), k)
    numbers = distinct(5, 6)
    for operand in (numbers, numbers[0], numbers.astype(np.int16)):
        alike(top_k, jax.lax.top_k, operand, 2)
    alike(top_k, jax.lax.top_k, jnp.asarray(numbers), np.int64(2))


@pytest.mark.parametrize("function", ["approx_max_k", "approx_min_k"])
def test_approximate_drop_ins(function: str, machine: Counted) -> None:
    ours, theirs = getattr(drop_in, function), getattr(jax.lax, function)
    x = jnp.asarray(distinct(6, 7, 40))
    for axis in (0, 1, -1):
        alike(ours, theirs, x, 3, reduction_dimension=axis, recall_target=0.9)  # short rows are exact
    alike(ours, theirs, x, 3, 2, 1.0)
    alike(ours, theirs, jnp.asarray(distinct(3, 40) / 2).astype("bfloat16"), 3)
    slopes = [jax.grad(lambda x, f=f: (f(x, 3)[0] ** 2).sum())(x) for f in (ours, theirs)]
    same(*slopes)
    same(jax.jit(jax.vmap(lambda x: ours(x, 3)))(x), theirs(x, 3))


def errors(call: Any, *arguments: Any) -> type[BaseException] | None:
    try:
        call(*arguments)
    except Exception as error:
        return next(kind for kind in type(error).__mro__ if kind in (ValueError, TypeError, RuntimeError, Exception))
    return None


@pytest.mark.parametrize(
    ("k", "axis"), [(-1, -1), (9, -1), (9, 0), (2, 2), (2, -3), ("2", -1), (None, 0), (2, 1.5), (8, 1), (3, 0)]
)
def test_errors_are_of_their_kind(k: Any, axis: Any) -> None:
    """And nothing is refused that JAX takes."""
    x = jnp.asarray(distinct(3, 8))
    assert errors(lambda: top_k(x, k, axis=axis)) is errors(lambda: jax.lax.top_k(x, k, axis=axis))
    for ours, theirs in ((approx_max_k, jax.lax.approx_max_k), (approx_min_k, jax.lax.approx_min_k)):
        got, want = errors(ours, x, k, axis), errors(theirs, x, k, axis)
        assert (got is None) == (want is None)


CANDIDATES = [
    # n, k, target, override
    (40, 4, 0.95, -1),
    (1000, 10, 0.95, -1),
    (1000, 1, 0.9, -1),
    (3000, 10, 0.95, 30_000),
    (3000, 5, 0.5, -1),
    (3000, 60, 0.99, 1 << 20),
    (1000, 10, 1.0, -1),
]


@pytest.mark.parametrize(("n", "k", "target", "override"), CANDIDATES)
def test_candidates(n: int, k: int, target: float, override: int, machine: Counted) -> None:
    """As many as JAX returns, the best of each bucket, in one pass; the best k of them have the recall asked for."""
    for shape, axis in (((2, n), 1), ((n,), -1), ((n, 3), 0)):
        x = jnp.asarray(distinct(*shape))
        theirs = jax.eval_shape(lambda x, a=axis: jax.lax.approx_max_k(x, k, a, target, override, False), x)
        values, indices = approx_max_k(x, k, axis, target, override, aggregate_to_topk=False)
        assert (values.shape, indices.shape) == (theirs[0].shape, theirs[1].shape)
        count = values.shape[axis]
        same(values, jnp.take_along_axis(x, indices, axis=axis))
        row, picked = np.moveaxis(np.asarray(x), axis, -1), np.moveaxis(np.asarray(indices), axis, -1)
        for entries, where in zip(row.reshape(-1, n), picked.reshape(-1, count), strict=True):
            best = [b + count * int(np.argmax(entries[b::count])) for b in range(count)]
            assert sorted(where.tolist()) == sorted(best)
        whole = max(n, override)
        assert atk.expected_recall(whole, k, buckets=min(whole, -(-whole * count // n)), k_per_bucket=1) >= target
    worst, _ = approx_min_k(x, k, 0, target, override, False)
    same(jnp.sort(worst, 0), jnp.sort(-approx_max_k(-x, k, 0, target, override, False)[0], 0))
    slope = jax.grad(lambda x: approx_max_k(x, k, 0, target, override, False)[0].sum())(x)
    assert slope.sum() == values.size


@pytest.mark.parametrize(("shards", "k", "target"), [(8, 64, 0.7), (4, 24, 0.9), (16, 128, 0.8)])
def test_shards_reach_the_recall_of_the_whole(shards: int, k: int, target: float) -> None:
    """A row of shards, of each the best k by the row's buckets, of those the best k: measured over random rows."""
    n, repeats = 16384, 40
    x = np.random.default_rng(0).permuted(np.tile(np.arange(n, dtype=np.float32), (repeats, 1)), axis=1)
    assert atk.plan(n, k, recall_target=target).route == "bucketed"
    parts = jnp.asarray(x.reshape(repeats * shards, n // shards))
    for aggregate in (True, False):
        values, _ = approx_max_k(parts, k, -1, target, n, aggregate)
        best = -np.sort(-np.asarray(values).reshape(repeats, -1), axis=1)[:, :k]
        recall = (best >= n - k).mean(axis=1)
        error = recall.std() / np.sqrt(repeats)
        assert recall.mean() > target - 3 * error, (aggregate, recall.mean(), error)
        assert recall.mean() < 1  # not by being exact
    alone = approx_max_k(parts, k, -1, target)[0]
    assert alone.shape == (repeats * shards, k)


def test_a_part_has_the_buckets_of_the_whole() -> None:
    """Buckets are as large as those of a row of that length, and hold enough for k."""
    from approxtopk.adapters.jax.drop_in import _part

    whole = atk.plan(1 << 20, 64, recall_target=0.95)
    for n in (1 << 16, 100_000, 5000, 64):
        part = _part(n, 1 << 20, 64, 0.95)
        assert part["k_per_bucket"] == whole.k_per_bucket
        size = (1 << 20) / whole.buckets
        assert part["buckets"] == max(-(-n // size), -(-64 // whole.k_per_bucket)) <= n
    assert _part(500, 1000, 64, 0.95) == {"recall_target": 1.0}
