"""JAX: its transformations, the drop-ins, a backend that changes under a trace, sharded arrays."""

from __future__ import annotations

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.runtime import substitute

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
