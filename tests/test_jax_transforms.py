"""The same call under JAX's transformations: values, indices and derivatives those of jax.lax.top_k, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from approxtopk.adapters import registry

import approxtopk as atk

from .jax_machines import MACHINES, Counted, counted, distinct, same

jax = pytest.importorskip("jax")
export = pytest.importorskip("jax.export")
jnp = jax.numpy

K = 3


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[Counted]:
    with counted(request.param) as runtime:
        yield runtime


def fresh() -> Any:
    """Our selection as a new function: ``jit`` and ``scan`` keep what they made of the same one on another machine."""
    return lambda x, k=K: list(atk.top_k(x, k))


def theirs(x: Any, k: int = K) -> Any:
    return jax.lax.top_k(x, k)


def cubes(select: Any) -> Any:
    """A scalar with derivatives of any order, also through the indices' places."""
    return lambda x: (select(x)[0] ** 3 * jnp.arange(1.0, K + 1)).sum()


SELECTIONS = {
    "eager": lambda s: s,
    "jit": jax.jit,
    "jit, k static": lambda s: lambda x: jax.jit(s, static_argnums=1)(x, 2),
    "vmap": jax.vmap,
    "vmap, in_axes": lambda s: jax.vmap(s, in_axes=1),
    "vmap, out_axes": lambda s: jax.vmap(s, out_axes=1),
    "vmap of vmap": lambda s: lambda x: jax.vmap(jax.vmap(s, in_axes=1), in_axes=2)(x.reshape(4, 6, 2)),
    "jit of vmap": lambda s: jax.jit(jax.vmap(s)),
    "vmap of jit": lambda s: jax.vmap(jax.jit(s)),
    "map": lambda s: lambda x: jax.lax.map(s, x),
    "batched map": lambda s: lambda x: jax.lax.map(s, x, batch_size=4),
    "scan": lambda s: lambda x: jax.lax.scan(lambda c, row: (c + s(row)[0].sum(), s(row)), 0.0, x),
    "scan, unrolled": lambda s: lambda x: jax.lax.scan(lambda c, row: (c, s(row)), x[0], x, unroll=2),
    "fori_loop": lambda s: jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, c: c.at[i, :K].set(s(c)[0][i]), x)),
    "while_loop": lambda s: (
        lambda x: jax.lax.while_loop(lambda c: s(c)[0].max() > 1, lambda c: c / 2 - s(c)[0][:, :1], x)
    ),
    "cond": lambda s: jax.jit(lambda x: jax.lax.cond(x[0, 0] > x[0, 1], s, lambda x: s(-x), x)),
    "vmap of cond": lambda s: jax.vmap(lambda x: jax.lax.cond(x[0] > x[1], s, lambda x: s(-x), x)),
    "switch": lambda s: lambda x: jax.lax.switch(x[0, 0].astype(int) % 2, [s, lambda x: s(2 * x)], x),
    "donation": lambda s: lambda x: jax.jit(lambda x: (s(x), x * 2), donate_argnums=0)(x + 0),
    "ahead of time": lambda s: lambda x: jax.jit(s).lower(x).compile()(x),
    "jaxpr": lambda s: lambda x: jax.core.eval_jaxpr((j := jax.make_jaxpr(s)(x)).jaxpr, j.consts, x),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections(name: str, machine: Counted) -> None:
    x = jnp.asarray(distinct(6, 8))
    change = SELECTIONS[name]
    same(change(fresh())(x), change(theirs)(x))
    assert machine.shapes


DERIVATIVES = {
    "grad": jax.grad,
    "value_and_grad": jax.value_and_grad,
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x + 1,)),
    "vjp": lambda f: lambda x: jax.vjp(f, x)[1](2.0),
    "linearize": lambda f: lambda x: jax.linearize(f, x)[1](x + 1),
    "jacfwd": lambda f: jax.jacfwd(f),
    "jacrev": lambda f: jax.jacrev(f),
    "hessian": jax.hessian,
    "jacrev of jacrev": lambda f: jax.jacrev(jax.jacrev(f)),
    "jvp of grad": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x + 1,)),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f)),
    "grad of vmap": lambda f: jax.grad(lambda x: jax.vmap(f)(x).sum()),
    "vmap of vmap of grad": lambda f: lambda x: jax.vmap(jax.vmap(jax.grad(f), 1), 2)(x.reshape(4, 6, 2)),
    "vmap of hessian": lambda f: jax.vmap(jax.hessian(f)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "checkpoint, nothing saved": lambda f: jax.grad(jax.checkpoint(f, policy=jax.checkpoint_policies.nothing_saveable)),
    "jit of checkpoint of jit": lambda f: jax.jit(jax.grad(jax.checkpoint(jax.jit(f)))),
    "grad of scan": lambda f: jax.grad(lambda x: jax.lax.scan(lambda c, row: (c + f(row), None), 0.0, x)[0]),
    "grad of checkpointed scan": lambda f: jax.grad(
        lambda x: jax.lax.scan(jax.checkpoint(lambda c, row: (c + f(row), None)), 0.0, x)[0]
    ),
    "grad of map": lambda f: jax.grad(lambda x: jax.lax.map(f, x).sum()),
    "grad of cond": lambda f: jax.grad(lambda x: jax.lax.cond(x[0, 0] > 0, f, lambda x: f(-x), x)),
    "forward over fori_loop": lambda f: (
        lambda x: jax.jvp(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c + f(x * c), 1.0), (x,), (x,))
    ),
    "stopped": lambda f: jax.grad(lambda x: f(jax.lax.stop_gradient(x)) * x.sum()),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name: str, machine: Counted) -> None:
    x = jnp.asarray(distinct(6, 8, seed=1) / 8)
    change = DERIVATIVES[name]
    same(change(cubes(fresh()))(x), change(cubes(theirs))(x))
    assert machine.shapes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_derivatives_of_narrow_floats(dtype: str, machine: Counted) -> None:
    x = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.arange(8.0), (3, 1)), axis=1)).astype(dtype)
    weights = jnp.arange(1.0, 4)

    def change(select: Any) -> Any:
        return jax.grad(lambda x: (select(x)[0].astype("float32") * weights).sum())(x)

    same(change(fresh()), change(theirs))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_other_axes(axis: int, machine: Counted) -> None:
    x = jnp.asarray(distinct(4, 5, 6, seed=2))

    def select(x: Any) -> Any:
        return atk.top_k(x, 2, axis=axis)

    def moved(x: Any) -> Any:
        return tuple(jnp.moveaxis(a, -1, axis) for a in jax.lax.top_k(jnp.moveaxis(x, axis, -1), 2))

    same(select(x), moved(x))
    batch = jnp.stack([x, -x, x * 2], axis=3)
    for ours, wanted in ((select, moved), (jax.jit(select), moved)):
        same(jax.vmap(ours, in_axes=3, out_axes=1)(batch), jax.vmap(wanted, in_axes=3, out_axes=1)(batch))
    same(jax.grad(lambda x: (select(x)[0] ** 2).sum())(x), jax.grad(lambda x: (moved(x)[0] ** 2).sum())(x))


@pytest.mark.parametrize(
    "options", [{"recall_target": 0.9}, {"buckets": 128, "k_per_bucket": 1}, {"buckets": 100, "k_per_bucket": 2}]
)
def test_rows_of_an_approximate_call_are_alike(options: dict[str, Any], machine: Counted) -> None:
    """Alone, in a batch, under vmap, in a scan, prepared, jitted."""
    x = jnp.asarray(distinct(4, 16384, seed=3))
    plan = atk.plan((4, 16384), 24, **options)
    assert plan.route == "bucketed" and plan.expected_recall < 1

    def select(x: Any) -> Any:
        return atk.approx_top_k(x, 24, **options)

    want = select(x)
    rows = [select(row) for row in x]
    same([jnp.stack(a) for a in zip(*rows, strict=True)], want)
    same(jax.vmap(select)(x), want)
    same(jax.jit(jax.vmap(jax.vmap(select)))(x.reshape(2, 2, 16384)), [a.reshape(2, 2, 24) for a in want])
    same(jax.lax.map(select, x), want)
    same(jax.jit(atk.prepare((4, 16384), 24, **options))(x), want)
    same(jax.vmap(atk.prepare(16384, 24, **options))(x), want)


def test_prepared_calls_are_transformed(machine: Counted) -> None:
    x = jnp.asarray(distinct(6, 8, seed=4) / 8)
    prepared = {2: atk.prepare((6, 8), K, exact=True), 1: atk.prepare(8, K, exact=True)}
    for name in ("grad", "jvp", "hessian", "vmap of grad", "grad of scan", "checkpoint"):
        change = DERIVATIVES[name]
        same(change(cubes(lambda x: prepared[x.ndim](x)))(x), change(cubes(theirs))(x), name)


def test_staging_without_running(machine: Counted) -> None:
    def certified(x: Any) -> Any:
        return atk.approx_top_k(x, 4, buckets=300, k_per_bucket=1, certify=True)

    x = jax.ShapeDtypeStruct((5, 900), np.float32)
    shapes = jax.eval_shape(certified, x)
    assert [(a.shape, a.dtype.name) for a in shapes] == [((5, 4), "float32"), ((5, 4), "int32"), ((5,), "bool")]
    compiled = jax.jit(certified).lower(x).compile()
    assert "approxtopk" in compiled.as_text()
    assert compiled.memory_analysis() is not None
    compiled.cost_analysis()
    assert not machine.shapes
    exact = compiled(jnp.asarray(distinct(5, 900))).exact
    assert machine.shapes == [(5, 900)] and exact.shape == (5,)


def test_what_fails_while_it_runs_is_told() -> None:
    """An error in XLA's thread is JAX's error, with our words, and the next call is well."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(machine, name)

        def run(self, *arguments: Any) -> None:
            raise atk.InvalidArgument("planted")

    from approxtopk.runtime import substitute

    x = jnp.asarray(distinct(5, 12))
    with counted("host") as machine:
        with substitute("cpu", Broken()), pytest.raises(Exception, match="InvalidArgument: planted"):
            jax.block_until_ready(atk.top_k(x, K))
        same(atk.top_k(x, K), theirs(x))


def test_calls_forgotten_are_read_from_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program names what it runs such that a process that has not traced it can run it."""
    registry.find(jnp.zeros(1))
    from approxtopk.adapters.jax import programs

    x, lengths = jnp.asarray(distinct(5, 700)), jnp.asarray([700, 3, 0, 90, 699])
    compiled = jax.jit(lambda x, n: _ragged(x, n)).lower(x, lengths).compile()
    want = compiled(x, lengths)
    monkeypatch.setattr(programs, "_calls", {})
    same(compiled(x, lengths), want)
    ((name, kind),) = programs._calls
    assert kind == "cpu" and b'"lengths"' in name


def _ragged(x: Any, lengths: Any) -> Any:
    return tuple(atk.approx_top_k(x, 4, lengths=lengths, buckets=300, k_per_bucket=1, certify=True))


def test_traced_for_another_machine() -> None:
    """A program runs on the CPU that was traced for a GPU, but not the other way: there is no workspace for it."""
    from approxtopk.adapters.jax import programs

    with counted("emulated") as runtime:
        plan = atk.plan((1, 70_000), 64, exact=True, device=runtime.info)
        assert plan.workspace_bytes
        gpu = programs.name(plan, runtime, "cuda").encode()
    host = programs.name(atk.plan((1, 70_000), 64, exact=True, device="cpu"), runtime, "cpu").encode()
    assert programs._read(gpu, atk.buffer.Device("cpu")).plan.device.name == "cpu"
    with counted("emulated"), pytest.raises(atk.DeviceMismatch, match=r"traced for cpu, with 0 bytes .* set jax.def"):
        programs._read(host, atk.buffer.Device("cpu"))


CHECKS = {"disabled_checks": [export.DisabledSafetyCheck.custom_call("approxtopk")]}


def test_export(machine: Counted) -> None:
    x = jnp.asarray(distinct(4, 600))
    exported = export.export(jax.jit(fresh()), **CHECKS)(x)
    same(exported.call(x), theirs(x))
    gradient = export.export(jax.jit(jax.grad(cubes(fresh()))), **CHECKS)(x)
    same(gradient.call(x), jax.grad(cubes(theirs))(x))
    with pytest.raises(
        ValueError, match=r"custom calls whose targets have no compatibility guarantees[\s\S]*@approxtopk"
    ):
        export.export(jax.jit(fresh()))(x)
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("rows, 600"), np.float32)
    with pytest.raises(atk.InvalidArgument, match="shape .*rows, 600.*; allowed are known extents"):
        export.export(jax.jit(fresh()), **CHECKS)(rows)


def test_exported_to_another_process(tmp_path: Any) -> None:
    pytest.importorskip("flatbuffers")
    from .interpreter import python

    x, lengths = distinct(4, 600), np.array([600, 0, 2, 77], np.int32)
    select = jax.jit(lambda x, n: atk.approx_top_k(x, 9, lengths=n, buckets=64, k_per_bucket=1, certify=True))
    exported = export.export(select, **CHECKS)(x, lengths)
    (tmp_path / "exported").write_bytes(exported.serialize())
    np.savez(tmp_path / "arrays.npz", x, lengths, *select(x, lengths))
    code = """
        import sys
        import jax, numpy as np
        import approxtopk.adapters.jax
        x, lengths, *want = np.load(sys.path[0] + "/arrays.npz").values()
        exported = jax.export.deserialize(bytearray(open(sys.path[0] + "/exported", "rb").read()))
        result = exported.call(x, lengths)
        assert type(result).__name__ == "CertifiedTopK"
        for got, wanted in zip(result, want, strict=True):
            assert np.asarray(got).tobytes() == wanted.tobytes()
        print("alike")
    """
    code = code.replace("sys.path[0]", repr(str(tmp_path)))
    assert python(code) == "alike\n"


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0), (1, 1)])
def test_nothing_selected(in_axes: Any, machine: Counted) -> None:
    """k = 0, empty batches and n = 0 run nothing, under every transformation too."""
    for shape, k in (((4, 4, 6), 0), ((4, 4, 0, 6), 2), ((4, 4, 0), 0)):
        x = jnp.zeros(shape)
        lengths = jnp.zeros(shape[:-1], int)
        f = jax.vmap(lambda x, n, k=k: tuple(atk.approx_top_k(x, k, lengths=n, certify=True)), in_axes)
        arguments = [a if axis is not None else a[0] for a, axis in zip((x, lengths), in_axes, strict=True)]
        values, indices, exact = jax.jit(f)(*arguments)
        assert values.shape == indices.shape == (4, *shape[1:-1], k) and exact.shape == (4, *shape[1:-1])
        assert exact.all()
    assert not machine.shapes
    assert jax.grad(lambda x: atk.top_k(x, 0)[0].sum())(jnp.ones((2, 3))).sum() == 0
