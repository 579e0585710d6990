"""What fills the rows: random, tied, ordered, and real."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from approxtopk.dtypes import DTYPES

if TYPE_CHECKING:
    from .case import Case

__all__ = ["KINDS", "element", "make", "rows_of"]

Array = np.ndarray[Any, Any]

#: So many random numbers are drawn at most, and repeated: an odd number, so that rows differ.
_POOL = 2**24 - 3


def make(case: Case, seed: int = 0) -> Array:
    """The input of a case, of its own dtype; bfloat16 and float8 by ml_dtypes."""
    return rows_of(case.inputs, case.rows, case.n, seed, element(case.dtype))


def rows_of(kind: str, rows: int, n: int, seed: int, dtype: Any = np.float32) -> Array:
    """A matrix of one kind.

    Raises
    ------
    ValueError
        When the kind has no rows so long.
    """
    return KINDS[kind](rows, n, np.random.default_rng([seed, *kind.encode()]), np.dtype(dtype))


def element(dtype: str) -> np.dtype[Any]:
    """NumPy's type of that name."""
    if dtype == "bfloat16" or dtype.startswith("float8"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype))
    return np.dtype(dtype)


def _typed(x: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers of about normal size as `dtype`; integers from a thousandfold of them."""
    facts = DTYPES[dtype.name]
    if facts.kind == "f":
        return x.astype(dtype)
    if facts.bits == 8:
        return (x * 32).clip(-127 if facts.kind == "i" else 0, 127).astype(dtype)
    return (x * 1000 if facts.kind == "i" else abs(x) * 1000).astype(dtype)


def _normal(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    pool = _typed(rng.standard_normal(min(rows * n, _POOL), np.float32), dtype)
    return np.resize(pool, (rows, n))


def _uniform(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    return np.resize(_typed(rng.random(min(rows * n, _POOL), np.float32), dtype), (rows, n))


def _ties(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Some sixty different numbers."""
    pool = np.round(rng.standard_normal(min(rows * n, _POOL), np.float32) * 8) / 8
    return np.resize(_typed(pool, dtype), (rows, n))


def _ascending(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    row = _typed(np.sort(np.resize(rng.standard_normal(min(n, _POOL), np.float32), n)), dtype)
    return np.tile(row, (rows, 1))


def _descending(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(_ascending(rows, n, rng, dtype)[:, ::-1])


def _equal(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    return np.ones((rows, n), dtype)


def _masked(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Nine in ten are -inf, as under an attention mask."""
    if DTYPES[dtype.name].kind != "f":
        raise ValueError(f"masked rows have -inf, which {dtype} lacks")
    x = _normal(rows, n, rng, dtype)
    x[:, np.resize(rng.random(min(n, _POOL)) < 0.9, n)] = -np.inf
    return x


def _blocky(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Neighbours are alike: eight hills, and some noise."""
    wave = 3 * np.sin(np.arange(n, dtype=np.float64) * (16 * np.pi / n)).astype(np.float32)
    noise = np.resize(rng.standard_normal(min(rows * n, _POOL), np.float32), (rows, n))
    return _typed(wave + noise / 4, dtype)


def _digits(rows: int, n: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Cosines between images of handwritten digits: the demo's."""
    similarity = _similarity()
    if n > similarity.shape[1]:
        raise ValueError(f"digits have rows of at most {similarity.shape[1]}, not {n}")
    return _typed(similarity[rng.permutation(rows) % len(similarity), :n], dtype)


@cache
def _similarity() -> Array:
    from approxtopk.demo import digits

    return digits().similarity


KINDS: dict[str, Callable[[int, int, np.random.Generator, np.dtype[Any]], Array]] = {
    "normal": _normal,
    "uniform": _uniform,
    "ties": _ties,
    "sorted": _ascending,
    "reversed": _descending,
    "equal": _equal,
    "masked": _masked,
    "blocky": _blocky,
    "digits": _digits,
}
