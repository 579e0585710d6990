"""Rows that have broken selections: ties, order, NaNs, infinities, zeros of both signs, extremes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from approxtopk.dtypes import DTYPES, DType

__all__ = ["KINDS", "make", "some"]

KINDS = (
    "random",
    "equal",
    "few",
    "sorted",
    "reversed",
    "extremes",
    "nan",
    "infinity",
    "zeros",
    "subnormal",
    "any bits",
)


def make(kind: str, dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Elements of `dtype`, as unsigned integers of its width.

    Kinds that only floats have (NaNs and so on) fall back to extremes for integers.
    """
    element = DTYPES[dtype]
    rng = np.random.default_rng([seed, KINDS.index(kind), element.bits])
    size = math.prod(shape)
    bits = _make(kind, element, size, rng).reshape(shape)
    if kind in ("sorted", "reversed") and bits.size:
        order = np.argsort(_value_order(bits, element), axis=-1, kind="stable")
        bits = np.take_along_axis(bits, order if kind == "sorted" else order[..., ::-1], axis=-1)
    return bits


def some(names: Iterable[Any], every: int) -> list[Any]:
    """Parameters of a test: every so many of them always, the others nightly."""
    return [name if at % every == 0 else pytest.param(name, marks=pytest.mark.nightly) for at, name in enumerate(names)]


def _make(kind: str, element: DType, size: int, rng: np.random.Generator) -> np.ndarray:
    unsigned = np.dtype(f"uint{element.bits}")
    anything = rng.integers(0, 2**element.bits - 1, size, dtype=unsigned, endpoint=True)
    if kind == "any bits":
        return anything
    sign = 1 << (element.bits - 1)
    if element.kind == "f":
        top = element.largest_number
        ordinary = rng.integers(0, top, size, dtype=unsigned) | (
            rng.integers(0, 1, size, dtype=unsigned, endpoint=True) << unsigned.type(element.bits - 1)
        )
        nans = [n for n in (top + 1, top + 2, sign - 1, sign | (top + 1), 2 * sign - 1) if n & (sign - 1) > top]
        special = {
            "nan": [*nans, top, sign | top, 0],
            "infinity": [top, sign | top, top - 1, 0],
            "zeros": [0, sign, 1, sign | 1],
            "subnormal": [0, sign, 1, 2, 3, sign | 1, sign | 2, sign | 3],
            "extremes": [0, sign, top, sign | top, top - 1, 1, sign - 1],
        }
    else:
        ordinary = anything
        edges = [0, 1, sign - 1, sign, sign + 1, 2 * sign - 1]
        special = dict.fromkeys(("nan", "infinity", "zeros", "subnormal", "extremes"), edges)
    if kind == "equal":
        return np.full(size, ordinary[0] if size else 0, unsigned)
    if kind == "few":
        return rng.choice(ordinary[:3] if size else np.zeros(1, unsigned), size)
    if kind in special:
        # Half special, half ordinary, so that the border falls among either, by k.
        return np.where(rng.random(size) < 0.5, rng.choice(np.array(special[kind], dtype=unsigned), size), ordinary)
    return ordinary


def _value_order(bits: np.ndarray, element: DType) -> np.ndarray:
    """Signed integers in the order of the values, for sorting test data."""
    if element.kind == "u":
        return bits
    signed = bits.view(f"int{element.bits}")
    return signed if element.kind == "i" else np.where(signed < 0, ~signed ^ np.iinfo(signed.dtype).min, signed)
