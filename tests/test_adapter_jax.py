"""JAX: ragged rows under its transformations, and a backend that changes under a trace."""

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
from .frameworks import rows

jax = pytest.importorskip("jax")


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
