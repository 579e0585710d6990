"""JAX: its transformations, the drop-ins, a backend that changes under a trace, sharded arrays."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.runtime import substitute

from .emulated import emulated
from .fakes import Machine
from .frameworks import objective, rows
from .interpreter import python

jax = pytest.importorskip("jax")


def test_jax_transformations() -> None:
    x = jax.numpy.asarray(rows((5, 6), 1, seed=4), "float32")
    ours = objective(lambda x, k: atk.top_k(x, k))
    theirs = objective(lambda x, k: jax.lax.top_k(x, k))
    changes = {
        "jit": jax.jit,
        "grad": jax.grad,
        "hessian": jax.hessian,
        "vmap": jax.vmap,
        "vmap of grad": lambda f: jax.vmap(jax.grad(f)),
        "vmap of columns": lambda f: jax.vmap(f, in_axes=1),
        "vmap of vmap": lambda f: jax.vmap(lambda y: jax.vmap(lambda z: f(z * jax.numpy.ones(6)))(y[:, None])),
        "jit of vmap of grad": lambda f: jax.jit(jax.vmap(jax.grad(f))),
        "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x + 1,))[1],
        "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    }
    for name, change in changes.items():
        if name == "vmap of columns":
            continue  # columns hold ties
        np.testing.assert_allclose(change(ours)(x), change(theirs)(x), rtol=1e-6, err_msg=name)
    columns = jax.vmap(lambda y: atk.top_k(y, 2)[0], in_axes=1)(x)
    np.testing.assert_array_equal(columns, jax.lax.top_k(x.T, 2)[0])
    total = jax.lax.scan(lambda c, row: (c + atk.top_k(row, 2)[0].sum(), None), 0.0, x)[0]
    assert total == jax.lax.top_k(x, 2)[0].sum()


CERTIFIED = {"buckets": 8, "k_per_bucket": 1, "certify": True}


@pytest.fixture(params=[contextlib.nullcontext, emulated], ids=["host", "emulated"])
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("in_axes", list(itertools.product((0, None), repeat=3))[:-1])
def test_jax_vmap_of_ragged_rows(in_axes: tuple[int | None, ...]) -> None:
    """Every mixture of what is batched is the batch done at once."""
    x = jax.numpy.asarray(rows((3, 5, 40), 2), "float32")
    starts, lengths = jax.numpy.arange(15).reshape(3, 5) * 2, jax.numpy.arange(15).reshape(3, 5)[::-1]
    batched = [a if axis == 0 else a[0] for a, axis in zip((x, starts, lengths), in_axes, strict=True)]
    whole = [jax.numpy.broadcast_to(a, b.shape) for a, b in zip(batched, (x, starts, lengths), strict=True)]

    def select(x: Any, starts: Any, lengths: Any) -> Any:
        return (
            *atk.top_k(x, 4, starts=starts, lengths=lengths),
            *atk.approx_top_k(x, 4, starts=starts, lengths=lengths, **CERTIFIED),
        )

    want = select(*whole)
    for change in (lambda f: f, jax.jit):
        for got, wanted in zip(change(jax.vmap(select, in_axes))(*batched), want, strict=True):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.usefixtures("machine")
def test_jax_derivatives_of_ragged_rows() -> None:
    """Those of the entries that are there; none of padding."""
    jnp = jax.numpy
    x = jnp.asarray(rows((6, 32), 1, seed=4), "float32")
    lengths = jnp.asarray([0, 1, 2, 3, 20, 32])

    def ours(x: Any, lengths: Any) -> Any:
        values, indices, exact = atk.approx_top_k(x, 3, lengths=lengths, recall_target=1, certify=True)
        return (jnp.where(exact[..., None] & (indices >= 0), values, 7.0) ** 3).sum()

    def theirs(x: Any, lengths: Any) -> Any:
        there = jnp.arange(x.shape[-1]) < lengths[..., None]
        values, _ = jax.lax.top_k(jnp.where(there, x, -jnp.inf), 3)
        return (jnp.where(values == -jnp.inf, 7.0, values) ** 3).sum()

    changes = {
        "none": lambda f: f,
        "jit": jax.jit,
        "grad": jax.grad,
        "vmap of grad": lambda f: jax.vmap(jax.grad(f)),
        "jit of vmap of grad": lambda f: jax.jit(jax.vmap(jax.grad(f))),
        "vmap of x alone": lambda f: lambda x, lengths: jax.vmap(jax.grad(f), (0, None))(x, lengths[2]),
        "hessian": jax.hessian,
        "jvp": lambda f: lambda x, lengths: jax.jvp(lambda x: f(x, lengths), (x,), (x + 1,))[1],
        "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
        "scan": lambda f: lambda *a: jax.lax.scan(lambda c, row: (c + f(*row), f(*row)), 0.0, a),
        "grad of scan": lambda f: jax.grad(lambda *a: jax.lax.scan(lambda c, row: (c + f(*row), None), 0.0, a)[0]),
    }
    for name, change in changes.items():
        got, want = jax.tree.leaves(change(ours)(x, lengths)), jax.tree.leaves(change(theirs)(x, lengths))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=name)
    # Straight through -inf, and still no NaN.
    gradient = jax.grad(lambda x: atk.top_k(x, 3, lengths=lengths)[0].sum())(x)
    assert gradient.sum(1).tolist() == [0, 1, 2, 3, 3, 3]
    tangents = jax.jvp(lambda x: atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED), (x,), (jnp.ones_like(x),))[1]
    assert tangents.values.sum(1).tolist() == [0, 1, 2, 3, 3, 3]
    assert tangents.indices.dtype == tangents.exact.dtype == jax.dtypes.float0


def test_jax_traced_backend_is_not_stale() -> None:
    x = jax.numpy.asarray(rows((5, 4000), 1), "float32")
    machine = Machine()
    atk.top_k(x, 7)
    with substitute("cpu", machine):
        jax.block_until_ready(atk.top_k(x, 7))
    assert machine.runs and machine.prepared


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_jax_drop_ins(axis: int) -> None:
    from approxtopk.adapters.jax import approx_max_k, approx_min_k, top_k

    x = jax.numpy.asarray(rows((6, 7), axis, seed=5), "float32")
    for ours, theirs in (
        (top_k(x, 3, axis=axis), jax.lax.top_k(x, 3, axis=axis)),
        (approx_max_k(x, 3, axis, 1.0), jax.lax.approx_max_k(x, 3, axis, 1.0)),
        (approx_min_k(x, 3, reduction_dimension=axis), jax.lax.approx_min_k(x, 3, axis)),
    ):
        assert type(ours) is type(theirs) and len(ours) == 2
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1].dtype == theirs[1].dtype
    np.testing.assert_array_equal(top_k(np.asarray(x), 2)[1], jax.lax.top_k(x, 2)[1])
    flags = x > 3
    assert top_k(flags, 2)[0].dtype == bool and type(top_k(flags, 2)) is type(jax.lax.top_k(flags, 2))
    alike = [jax.tree.structure(jax.eval_shape(lambda x, f=f: f(x, 3), x)) for f in (top_k, jax.lax.top_k)]
    assert alike[0] == alike[1]
    np.testing.assert_array_equal(top_k(flags, 2)[0], jax.lax.top_k(flags, 2)[0])


def test_jax_sharded_is_refused() -> None:
    code = """
        import jax, jax.numpy as jnp, numpy as np, approxtopk as atk
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
        x = jax.device_put(jnp.zeros((4, 8)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))
        try:
            atk.top_k(x, 2)
        except atk.DeviceMismatch as error:
            print(error)
    """
    assert "x is sharded over 2 devices; allowed is one" in python(
        code, XLA_FLAGS="--xla_force_host_platform_device_count=2"
    )
