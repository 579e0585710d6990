"""JAX arrays that are refused, and the drop-ins, which fail as those of jax.lax do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import approxtopk as atk
from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from .arguments import argument_cases
from .case import Case, array_cases, bound_cases

__all__ = ["jax_cases"]


def jax_cases() -> Iterator[Case]:
    import jax
    import jax.numpy as jnp
    import ml_dtypes
    from approxtopk.adapters.jax import approx_max_k, approx_min_k, top_k

    x = jnp.zeros((3, 10), jnp.float32)
    yield from argument_cases(x)
    deleted = x + 1
    deleted.delete()
    yield from array_cases(
        {
            "bool": (x.astype(bool), UnsupportedDType, ("x has dtype bool", "float32")),
            "complex": (x.astype(jnp.complex64), UnsupportedDType, ("x has dtype complex64",)),
            "int4": (x.astype(jnp.int4), UnsupportedDType, ("x has dtype int4",)),
            "float8_e4m3": (x.astype(ml_dtypes.float8_e4m3), UnsupportedDType, ("x has dtype float8_e4m3;",)),
            "PRNG keys": (jax.random.split(jax.random.key(0), 4), UnsupportedDType, ("x has dtype key<fry>",)),
            "0-d": (jnp.float32(1), InvalidArgument, ("shape ()", "at least one axis")),
            "empty axis": (jnp.zeros((2, 0)), InvalidArgument, ("k = 1", "0 to 0")),
            "deleted": (deleted, InvalidArgument, ("was deleted",)),
            "class": (jax.Array, InvalidType, ("x must",)),
            "shape": (jax.ShapeDtypeStruct((4,), np.float32), InvalidType, ("x must", "ShapeDtypeStruct")),
            "list of arrays": ([x], InvalidType, ("x must", "list")),
        }
    )
    count = jnp.zeros(3, jnp.int32)
    gone = count + 1
    gone.delete()
    wrong_kind = ("{} must be a JAX array, as x is", "jax.numpy.asarray({})")
    yield from bound_cases(
        x,
        count,
        {
            "list": ([1, 2, 3], InvalidType, (*wrong_kind, "not list")),
            "int": (3, InvalidType, (*wrong_kind, "not 3 (int)")),
            "NumPy array": (np.zeros(3, np.int32), InvalidType, (*wrong_kind, "not numpy.ndarray")),
            "shape": (jax.ShapeDtypeStruct((3,), np.int32), InvalidType, (*wrong_kind, "ShapeDtypeStruct")),
            "float": (count.astype(jnp.float32), UnsupportedDType, ("{} has dtype float32", "integers, int8 to int64")),
            "bool": (count.astype(bool), UnsupportedDType, ("{} has dtype bool; allowed are int8", "uint64")),
            "int4": (count.astype(jnp.int4), UnsupportedDType, ("{} has dtype int4; allowed are int8",)),
            "keys": (jax.random.split(jax.random.key(0), 3), UnsupportedDType, ("{} has dtype key<fry>",)),
            "deleted": (gone, InvalidArgument, ("{} of shape (3,) was deleted",)),
            "0-d": (jnp.int32(3), InvalidArgument, ("{} has shape ()", "allowed is (3,)")),
            "too short": (count[:2], InvalidArgument, ("{} has shape (2,)", "allowed is (3,)")),
        },
    )
    traced = jax.jit(lambda x, lengths: atk.top_k(x, 2, lengths=lengths))
    yield Case("traced lengths", lambda: traced(x, count[:2]), InvalidArgument, ("lengths has shape (2,)",))
    yield Case("k JAX array", lambda: atk.top_k(x, jnp.int32(2)), InvalidType, ("k must", "ArrayImpl"))
    yield Case("k traced", lambda: jax.jit(lambda x, k: atk.top_k(x, k))(x, 2), InvalidType, ("k must", "Tracer"))
    if not jax.config.jax_enable_x64:
        words = ("index_dtype = int64", "x64", "int32")
        yield Case("int64 indices", lambda: atk.top_k(x, 2, index_dtype="int64"), InvalidArgument, words)
        yield Case("int64 by type", lambda: atk.top_k(x, 2, index_dtype=np.int64), InvalidArgument, words)
        with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
            wide = jnp.zeros(4, jnp.float64)
            many = jnp.zeros(3, jnp.int64)
        wide_bounds = {"int64": (many, UnsupportedDType, ("{} has dtype int64 and JAX runs without x64",))}
        yield from bound_cases(x, count, wide_bounds)
        yield Case("float64", lambda: atk.top_k(wide, 2), UnsupportedDType, ("x has dtype float64", "x64"))

    def drop_in(
        name: str, error: type[BaseException], *words: str, functions: Any = None, **given: Any
    ) -> Iterator[Case]:
        for function in functions or (top_k, approx_max_k, approx_min_k):
            arguments = {"operand": x, "k": 2, **given}
            yield Case(f"{function.__name__} {name}", lambda f=function, a=arguments: f(**a), error, words, False)

    approximate = (approx_max_k, approx_min_k)
    yield from drop_in("k beyond n", ValueError, "11", k=11)
    yield from drop_in("k negative", ValueError, "-1", k=-1)
    yield from drop_in("k float", TypeError, "k must be an integer", k=2.0)
    yield from drop_in("k None", TypeError, "k must be an integer", k=None)
    yield from drop_in("list", TypeError, "list", operand=[1.0, 2.0])
    yield from drop_in("str", TypeError, "str", operand="12")
    yield from drop_in("0-d", (ValueError, TypeError), "dimension", operand=jnp.float32(1), k=1)  # type: ignore[arg-type]
    yield from drop_in("axis", ValueError, "axis 3 is out of bounds", functions=(top_k,), axis=3)
    waves = x.astype(jnp.complex64)
    yield from drop_in("complex", ValueError, "not compatible with complex", functions=(top_k,), operand=waves)
    yield from drop_in("complex, k", ValueError, "complex inputs", functions=(top_k,), operand=waves, k=11)
    yield from drop_in("complex, k < 0", ValueError, "nonnegative", functions=(top_k,), operand=waves, k=-1)
    yield from drop_in("complex number", ValueError, "complex inputs", functions=(top_k,), operand=np.array([2j]))
    yield from drop_in("complex", ValueError, "floating type", functions=approximate, operand=waves)
    yield from drop_in("axis", ValueError, "axis 3", functions=approximate, reduction_dimension=3)
    yield from drop_in("k 0", ValueError, "k must be positive", functions=approximate, k=0)
    yield from drop_in("integers", ValueError, "floating", functions=approximate, operand=x.astype(jnp.int32))
    yield from drop_in("recall", ValueError, "recall_target = 2.0", functions=approximate, recall_target=2.0)
    yield from drop_in(
        "recall NaN", ValueError, "recall_target = nan", functions=approximate, recall_target=float("nan")
    )
    for override in (0, 9):
        given = {"reduction_input_size_override": override}
        yield from drop_in(
            f"override {override}", ValueError, f"override: {override} should be", functions=approximate, **given
        )
        yield from drop_in(
            f"override {override}, candidates",
            ValueError,
            "10",
            functions=approximate,
            aggregate_to_topk=False,
            **given,
        )
    wrong = {"functions": approximate, "aggregate_to_topk": False, "reduction_input_size_override": 99}
    yield from drop_in("recall of candidates", ValueError, "recall_target = 0.0", recall_target=0.0, **wrong)
    yield from drop_in(
        "override float",
        TypeError,
        "reduction_input_size_override must be",
        **{**wrong, **{"reduction_input_size_override": 9.5}},
    )
