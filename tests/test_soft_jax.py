"""Soft top-k and ranks under JAX's transformations, on the NumPy path and the emulator, on one device and on eight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .jax_machines import MACHINES, Counted, counted

jax = pytest.importorskip("jax")
jnp = jax.numpy
P = jax.sharding.PartitionSpec

FORMS: dict[str, dict[str, Any]] = {
    "p = 2": {"p": 2},
    "p = 4/3": {},
    "sigmoid": {"kind": "sigmoid"},
    "laplace": {"kind": "laplace"},
}
FUNCTIONS = {"mask": atk.soft_top_k_mask, "magnitude": atk.soft_top_k}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[Counted]:
    with counted(request.param) as runtime:
        yield runtime


def sample(*shape: int, seed: int = 0) -> np.ndarray:
    """float32, without two entries so close to each other that a difference would meet a kink."""
    rng = np.random.default_rng(seed)
    x = rng.permuted(np.linspace(-3.3, 3.1, int(np.prod(shape)))).reshape(shape)
    return x.astype(np.float32)


def close(got: Any, want: Any, tolerance: float = 2e-6) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name: str, form: str, machine: Counted) -> None:
    """Those of JAX are the operator's own, forward and backward, mapped, jitted and once more."""
    x = sample(3, 12)
    k, l = np.array([1.5, 2.0, 3.7], np.float32), np.array([0.9, 1.4, 2.2], np.float32)
    weights = sample(3, 12, seed=1)
    call = FUNCTIONS[name]
    vjp = {"mask": atk.soft_top_k_mask_vjp, "magnitude": atk.soft_top_k_vjp}[name]
    y, pullback = vjp(x, k, l=l, **FORMS[form])
    want = tuple(pullback(weights))

    def loss(x: Any, k: Any, l: Any) -> Any:
        return (call(x, k, l=l, **FORMS[form]) * weights).sum()

    arrays = tuple(map(jnp.asarray, (x, k, l)))
    close(jax.jit(lambda x, k, l: call(x, k, l=l, **FORMS[form]))(*arrays), y)
    got = jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays)
    close(got, want, 2e-5)
    each = jax.vmap(jax.grad(lambda x, k, l, w: (call(x, k, l=l, **FORMS[form]) * w).sum(), (0, 1, 2)))
    close(each(*arrays, weights), want, 2e-5)
    ones = tuple(map(jnp.ones_like, arrays))
    _, forward = jax.jvp(loss, arrays, ones)
    np.testing.assert_allclose(forward, sum(float(g.sum()) for g in want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name: str) -> None:
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        x = jnp.asarray(sample(9).astype(np.float64))

        def loss(x: Any) -> Any:
            return (FUNCTIONS[name](x, 2.5, l=1.5) ** 3).sum()

        hessian = jax.hessian(loss)(x)
        step = 1e-5
        slopes = [(jax.grad(loss)(x + step * e) - jax.grad(loss)(x - step * e)) / (2 * step) for e in jnp.eye(9)]
        close(hessian, jnp.stack(slopes), 1e-8)
        close(jax.jacrev(jax.grad(loss))(x), hessian, 1e-12)


def test_k_and_l_may_be_traced(machine: Counted) -> None:
    x = jnp.asarray(sample(4, 30))
    call = jax.jit(lambda x, k, l: atk.soft_top_k_mask(x, k, l=l))
    for k, l in ((2, 0.5), (5, 1.0)):
        close(call(x, k, l), atk.soft_top_k_mask(np.asarray(x), k, l=l))
    assert call._cache_size() == 1
    sums = jax.vmap(lambda k: atk.soft_top_k_mask(x[0], k))(jnp.arange(1.0, 4.0)).sum(1)
    close(sums, np.array([1.0, 2.0, 3.0]), 1e-5)


def test_scan_and_checkpoint() -> None:
    x = jnp.asarray(sample(5, 20))

    def step(total: Any, row: Any) -> Any:
        return total + jax.checkpoint(lambda r: (atk.soft_top_k(r, 3, l=0.7) ** 2).sum())(row), None

    got = jax.jit(jax.grad(lambda x: jax.lax.scan(step, 0.0, x)[0]))(x)
    close(got, jax.grad(lambda x: (atk.soft_top_k(x, 3, l=0.7) ** 2).sum())(x), 1e-5)


def test_types() -> None:
    assert atk.soft_top_k_mask(jnp.arange(6), 2).dtype == jnp.float32
    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.asarray(sample(2, 40)).astype(dtype)
        y = atk.soft_top_k_mask(x, 4, l=1.0)
        assert y.dtype == dtype
        close(y.astype(jnp.float32), atk.soft_top_k_mask(np.asarray(x, np.float32), 4, l=1.0), 4e-3)
        assert jax.grad(lambda x: atk.soft_top_k(x, 4, l=1.0).sum())(x).dtype == dtype
    mask = atk.hard_top_k_mask(jnp.asarray(sample(2, 7)), 3)
    assert (mask.sum(1) == 3).all()
    kept = atk.hard_top_k_magnitude(jnp.asarray(sample(2, 7)), 3)
    assert ((kept != 0).sum(1) == 3).all()


def test_ranks(machine: Counted) -> None:
    x = jnp.asarray(np.round(sample(4, 50)))
    index = jnp.asarray([3, 7, 0, 49])
    for ties in ("optimistic", "pessimistic", "average", "first"):
        want = atk.rank(np.asarray(x), np.asarray(index), ties=ties, base=1)

        def call(x: Any, index: Any, ties: Any = ties) -> Any:
            return atk.rank(x, index, ties=ties, base=1)

        for found in (call(x, index), jax.jit(call)(x, index), jax.vmap(call)(x, index)):
            assert found.dtype == (jnp.float32 if ties == "average" else jnp.int32)
            assert (found == want).all(), ties
    assert all(counts.dtype == jnp.int32 for counts in atk.rank_counts(x, index))


@pytest.mark.skipif(jax.device_count("cpu") < 8, reason="needs eight devices: see conftest.py")
def test_each_device_has_its_rows(machine: Counted) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), ("r",))
    x = sample(16, 40)
    k, index = np.linspace(1, 4, 16).astype(np.float32), np.arange(16)

    def call(x: Any, k: Any, index: Any) -> Any:
        y = atk.soft_top_k_mask(x, k, l=1.0)
        return y, atk.rank_counts(x, index).greater, jax.grad(lambda x: (atk.soft_top_k(x, k, l=1.0) ** 2).sum())(x)

    want = call(*map(jnp.asarray, (x, k, index)))

    def placed(array: Any, *spec: Any) -> Any:
        return jax.device_put(array, jax.sharding.NamedSharding(mesh, P(*spec)))

    got, shapes = machine.during(jax.jit(call), placed(x, "r"), placed(k, "r"), placed(index, "r"))
    close(got, want, 1e-6)
    assert set(shapes) == {(2, 40)}
