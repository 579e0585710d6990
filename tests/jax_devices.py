"""What a process with eight JAX devices does for test_wide_jax: every scenario, and what became of it, as JSON."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from approxtopk.adapters.jax import distributed
from jax.sharding import Mesh, PartitionSpec

import approxtopk as atk

from .emulated import emulated
from .examples import run_example
from .frameworks import rows

SCENARIOS: dict[str, Callable[[], None]] = {}
MESH = Mesh(np.array(jax.devices()[:8]), ("v",))
GRID = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("rows", "v"))
NEW = jax.__version_info__ >= (0, 10)  # then a result may be declared to be the same everywhere


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    SCENARIOS[function.__name__] = function
    return function


def same(got: Any, want: Any) -> None:
    """Both are pairs of arrays: equal to the bit."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (a, b)
        a, b = (np.asarray(array).view(f"u{array.dtype.itemsize}") for array in (a, b))
        np.testing.assert_array_equal(a, b)


def sharded(
    k: int, axis: int = -1, rank: int = 2, mesh: Any = MESH, names: Any = "v", check: bool = NEW, **options: Any
) -> Callable[[Any], Any]:
    """A function of whole arrays of `rank` axes that selects from shards."""
    call = distributed.approx_top_k if "buckets" in options or "recall_target" in options else distributed.top_k
    spec: list[Any] = [None] * rank
    spec[axis] = names
    return jax.jit(
        jax.shard_map(
            lambda x: call(x, k, axis_name=names, axis=axis, **options),
            mesh=mesh,
            in_specs=PartitionSpec(*spec),
            out_specs=PartitionSpec(),
            check_vma=check,
        )
    )


def calls(k: int, **options: Any) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """The selection from shards, which wants an axis_name too, and the one from the whole."""
    ours, theirs = (distributed.approx_top_k, atk.approx_top_k) if options else (distributed.top_k, atk.top_k)
    return lambda x, axis_name: ours(x, k, axis_name=axis_name, **options), lambda x: theirs(x, k, **options)


def row_of_all_kinds(shape: tuple[int, ...], rng: np.random.Generator) -> jax.Array:
    """float32 with ties, infinities, NaNs of either sign and payload, and both zeros."""
    x = rng.integers(-3, 4, shape).astype(np.float32)
    for bits in (0xFF800000, 0xFF800000, 0x7F800000, 0x7FC00001, 0xFF800123, 0x80000000, 0x80000001, 0x00000001):
        x.view(np.uint32)[rng.random(shape) < 0.05] = bits
    return jnp.asarray(x)


@scenario
def exact() -> None:
    rng = np.random.default_rng(1)
    for n, k, mode in (
        (8, 1, "largest"),
        (80, 3, "smallest"),
        (80, 10, "largest"),
        (80, 33, "largest"),
        (80, 0, "largest"),
    ):
        x = row_of_all_kinds((6, n), rng)
        same(sharded(k, mode=mode)(x), atk.top_k(x, k, mode=mode))


@scenario
def bucketed() -> None:
    rng = np.random.default_rng(2)
    # Shards of 20: of candidates alone, at any place in a bucket's round; and whole.
    for k, b, kept, mode in (
        (6, 3, 2, "largest"),
        (9, 4, 3, "smallest"),
        (16, 16, 1, "smallest"),
        (20, 7, 4, "largest"),
    ):
        x = row_of_all_kinds((5, 160), rng)
        options = {"mode": mode, "buckets": b, "k_per_bucket": kept}
        same(sharded(k, **options)(x), atk.approx_top_k(x, k, **options))


@scenario
def planned() -> None:
    n = 40_000
    assert atk.plan(n, 20, recall_target=0.9).route == "bucketed"
    x = jnp.asarray(rows((2, n), 1), "float32")
    for options in ({"recall_target": 0.9}, {"recall_target": 1.0}):
        same(sharded(20, **options)(x), atk.approx_top_k(x, 20, **options))


@scenario
def axes_and_meshes() -> None:
    rng = np.random.default_rng(4)
    options = {"buckets": 3, "k_per_bucket": 2}
    x = row_of_all_kinds((3, 80, 4), rng)
    same(sharded(5, 1, 3, **options)(x), atk.approx_top_k(x, 5, axis=1, **options))
    x = row_of_all_kinds((24, 40), rng)
    same(sharded(5, 0)(x), atk.top_k(x, 5, axis=0))
    same(sharded(4, mesh=GRID, names=("rows", "v"))(x), atk.top_k(x, 4))
    same(sharded(4, mesh=GRID, names=("v", "rows"))(x), atk.top_k(x, 4))
    # Rows over one axis of the mesh, their entries over the other.
    spec = PartitionSpec("rows")
    both = jax.shard_map(
        lambda x: distributed.approx_top_k(x, 5, axis_name="v", **options),
        mesh=GRID,
        in_specs=PartitionSpec("rows", "v"),
        out_specs=atk.TopK(spec, spec),
        check_vma=NEW,
    )
    same(jax.jit(both)(x), atk.approx_top_k(x, 5, **options))


@scenario
def dtypes() -> None:
    rng = np.random.default_rng(5)
    for name in ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "uint32"]:
        dtype = jnp.dtype(name)
        bits = rng.integers(0, 256, (2, 48 * dtype.itemsize), dtype=np.uint8).view(f"u{dtype.itemsize}")
        if name == "float16" or (name == "bfloat16" and NEW):  # JAX 0.6 itself loses those of bfloat16
            bits[:, ::9] = np.where(name == "float16", 0x7C01, 0x7F81) + np.arange(6)  # signalling NaNs
        x = jnp.asarray(bits.view(dtype))
        same(sharded(7)(x), atk.top_k(x, 7))
        same(sharded(4, buckets=2, k_per_bucket=2)(x), atk.approx_top_k(x, 4, buckets=2, k_per_bucket=2))


@scenario
def wide_integers() -> None:
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        x = jnp.asarray(np.random.default_rng(6).integers(-5, 5, (2, 160)))
        assert x.dtype == "int64"
        for index in (None, "int64"):
            options = {"buckets": 5, "k_per_bucket": 2, "index_dtype": index}
            same(sharded(6, **options)(x), atk.approx_top_k(x, 6, **options))


@scenario
def derivatives() -> None:
    x = jnp.asarray(rows((3, 160), 1, 7), "float32")

    def loss(select: Any) -> Any:
        return lambda x: (select(x)[0] ** 3).sum()

    for options in ({}, {"buckets": 5, "k_per_bucket": 2}):
        call, reference = calls(6, **options)

        for check in (True, False) if NEW else (False,):
            ours = sharded(6, check=check, **options)
            np.testing.assert_array_equal(jax.jit(jax.grad(loss(ours)))(x), jax.grad(loss(reference))(x))
        tangents = [jax.jvp(loss(f), (x,), (x + 1,))[1] for f in (ours, reference)]
        np.testing.assert_allclose(*tangents, rtol=1e-6)
        if NEW:
            inside = jax.shard_map(
                jax.grad(loss(partial(call, axis_name="v"))),
                mesh=MESH,
                in_specs=PartitionSpec(None, "v"),
                out_specs=PartitionSpec(None, "v"),
            )
            np.testing.assert_array_equal(jax.jit(inside)(x), jax.grad(loss(reference))(x))
    short = x[:, :8]
    np.testing.assert_array_equal(
        jax.grad(loss(sharded(3)))(short), jax.grad(loss(lambda x: atk.top_k(x, 3)))(short)
    )  # whole shards


@scenario
def mapped() -> None:
    x = row_of_all_kinds((3, 2, 160), np.random.default_rng(8))
    for options in ({}, {"buckets": 5, "k_per_bucket": 2}):
        call, reference = calls(6, **options)
        want = reference(x)
        same(jax.jit(jax.vmap(sharded(6, **options)))(x), want)
        inside = jax.shard_map(
            jax.vmap(partial(call, axis_name="v")),
            mesh=MESH,
            in_specs=PartitionSpec(None, None, "v"),
            out_specs=PartitionSpec(),
            check_vma=NEW,
        )
        same(jax.jit(inside)(x), want)
        # An axis that vmap names: the shards are a batch.
        shards = x.reshape(3, 2, 8, 20)
        got = jax.vmap(partial(call, axis_name="s"), in_axes=2, axis_name="s")(shards)
        for r in range(8):
            same((got.values[r], got.indices[r]), want)


@scenario
def unsorted() -> None:
    x = row_of_all_kinds((2, 160), np.random.default_rng(9))
    for options in ({}, {"buckets": 6, "k_per_bucket": 2}):
        got = sharded(9, sorted=False, **options)(x)
        want = atk.approx_top_k(x, 9, **options) if options else atk.top_k(x, 9)
        orders = [np.argsort(result.indices, axis=-1) for result in (got, want)]
        pairs = [
            [np.take_along_axis(np.asarray(a), o, -1) for a in r] for r, o in zip((got, want), orders, strict=True)
        ]
        same(*pairs)


@scenario
def on_the_emulated_gpu() -> None:
    rng = np.random.default_rng(10)
    with emulated() as runtime:
        for k, n, options in ((6, 160, {}), (6, 160, {"buckets": 5, "k_per_bucket": 2}), (9, 16, {})):
            x = row_of_all_kinds((2, n), rng)
            same(jax.jit(sharded(k, **options))(x), (atk.approx_top_k if options else atk.top_k)(x, k, **options))
        assert runtime.launched


@scenario
def volume() -> None:
    """What leaves a device are its candidates: k, or k_b of every bucket, or a short shard without indices."""
    x = jnp.zeros((6, 8000))
    for k, options, entries, arrays in (
        (16, {}, 16, 2),
        (16, {"buckets": 32, "k_per_bucket": 2}, 64, 2),
        (1000, {}, 1000, 1),
        (0, {}, 0, 0),
    ):
        found = collectives(jax.make_jaxpr(sharded(k, check=False, **options))(x).jaxpr)
        assert [(name, size) for name, size in found if name != "axis_index"] == [("all_gather", 6 * entries)] * arrays


def collectives(jaxpr: Any) -> list[tuple[str, int]]:
    """Those of a program, its callees' too: their names and how many elements a device puts in."""
    found = []
    for equation in jaxpr.eqns:
        if "axis_name" in equation.params or ("axes" in equation.params and "psum" in equation.primitive.name):
            found.append((equation.primitive.name, sum(v.aval.size for v in equation.invars)))
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                found += collectives(inner)
    return found


@scenario
def example() -> None:
    if NEW:
        run_example(distributed.top_k)


def refusal(*arguments: Any, **options: Any) -> str:
    try:
        sharded(*arguments, **options)(jnp.zeros((2, 160)))
    except atk.ApproxTopKError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


@scenario
def refused() -> None:
    assert "k = 161 is out of range; allowed are 0 to 160" in refusal(161)
    assert refusal(1.5).startswith("InvalidType: k must be an integer")
    assert "interleaved = False is not for rows in parts" in refusal(1, recall_target=0.9, interleaved=False)
    assert "index_dtype = int64 is not available" in refusal(1, index_dtype="int64")
    assert "buckets = 161 is out of range; allowed are 1 to 160" in refusal(1, buckets=161)
    for x, options, words in (
        (jnp.zeros(8), {"axis_name": "v"}, "axis_name = 'v' is not bound here; allowed are axes of the mesh"),
        (np.zeros(8), {"axis_name": "v"}, "x must be a JAX array"),
    ):
        try:
            distributed.top_k(x, 1, **options)
        except atk.ApproxTopKError as error:
            assert words in str(error), error
        else:
            raise AssertionError("nothing was raised")


def main() -> None:
    outcomes = {}
    for name, function in SCENARIOS.items():
        try:
            function()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
