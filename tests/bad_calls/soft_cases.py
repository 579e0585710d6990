"""What is passed wrongly to soft top-k, hard top-k and ranks, of NumPy and PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import approxtopk as atk
from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from .case import Case

__all__ = ["soft_cases"]

_FLOATS = "allowed are float16, bfloat16, float32, float64"


def soft_cases() -> Iterator[Case]:
    x = np.zeros((3, 10), np.float32)
    yield from _soft(x)
    yield from _hard(x)
    yield from _rank(x)


def _soft(x: Any) -> Iterator[Case]:
    number = "must be a real number, or an array of one for every row"
    wrong: dict[str, tuple[dict[str, Any], type[BaseException], tuple[str, ...]]] = {
        "p at 1": ({"p": 1}, InvalidArgument, ("p = 1.0 is out of range", "finite numbers above 1")),
        "p infinite": ({"p": float("inf")}, InvalidArgument, ("p = inf is out of range",)),
        "p nan": ({"p": float("nan")}, InvalidArgument, ("p = nan is out of range",)),
        "p str": ({"p": "2"}, InvalidType, ("p must be a real number above 1, not '2' (str)",)),
        "p bool": ({"p": True}, InvalidType, ("p must be a real number above 1",)),
        "p array": ({"p": np.ones(3)}, InvalidType, ("p must be a real number above 1, not ndarray",)),
        "l zero": ({"l": 0}, InvalidArgument, ("l = 0.0 is out of range", "above 0")),
        "l negative": ({"l": -0.1}, InvalidArgument, ("l = -0.1 is out of range",)),
        "l infinite": ({"l": np.inf}, InvalidArgument, ("l = inf is out of range",)),
        "l None": ({"l": None}, InvalidType, (f"l {number}, not None",)),
        "l list": ({"l": [0.1, 0.1, 0.1]}, InvalidType, (f"l {number}, not list",)),
        "l complex": ({"l": 1j}, InvalidType, (f"l {number}",)),
        "l of another shape": ({"l": np.ones(10)}, InvalidArgument, ("l has shape (10,); allowed is (3,)",)),
        "l column": ({"l": np.ones((3, 1))}, InvalidArgument, ("l has shape (3, 1); allowed is (3,)",)),
        "l of bools": ({"l": np.ones(3, bool)}, UnsupportedDType, ("l has dtype bool", _FLOATS)),
        "kind": ({"kind": "relu"}, InvalidArgument, ("kind = 'relu' is unknown", "'pnorm', 'sigmoid', 'laplace'")),
        "kind None": ({"kind": None}, InvalidType, ("kind must be the string",)),
        "axis": ({"axis": 2}, InvalidArgument, ("axis = 2 is out of range",)),
        "axis float": ({"axis": 1.0}, InvalidType, ("axis must be an integer",)),
    }
    functions: dict[str, Any] = {
        "mask": atk.soft_top_k_mask,
        "magnitude": atk.soft_top_k,
        "mask vjp": atk.soft_top_k_mask_vjp,
        "magnitude vjp": atk.soft_top_k_vjp,
    }
    for name, function in functions.items():
        for what, (options, error, words) in wrong.items():
            yield Case(f"{name}, {what}", lambda f=function, o=options: f(x, 2, **o), error, words)
        for what, k, error, words in (
            ("k negative", -1, InvalidArgument, ("k = -1.0 is out of range",)),
            ("k nan", float("nan"), InvalidArgument, ("k = nan is out of range",)),
            ("k huge", 10**400, InvalidArgument, ("k = inf is out of range",)),
            ("k None", None, InvalidType, (f"k {number}, not None",)),
            ("k bool", True, InvalidType, (f"k {number}, not True (bool)",)),
            ("k of another shape", np.ones(2), InvalidArgument, ("k has shape (2,); allowed is (3,)",)),
            ("k of strings", np.array(["a"] * 3), UnsupportedDType, ("k has dtype str",)),
        ):
            yield Case(f"{name}, {what}", lambda f=function, k=k: f(x, k), error, words)
        yield Case(f"{name}, list", lambda f=function: f([1.0], 1), InvalidType, ("x must be", "numpy.asarray"))
        yield Case(
            f"{name}, bool", lambda f=function: f(x > 0, 1), UnsupportedDType, ("x has dtype bool", "allowed are")
        )
        yield Case(
            f"{name}, complex", lambda f=function: f(x.astype(complex), 1), UnsupportedDType, ("x has dtype complex",)
        )
        yield Case(
            f"{name}, 0-d", lambda f=function: f(np.array(1.0), 1), InvalidArgument, ("x has no axes (shape ())",)
        )
    yield Case(
        "method",
        lambda: atk.soft_top_k_mask(x, 2, method="sort"),
        InvalidArgument,
        ("method = 'sort' is unknown",),  # type: ignore[arg-type]
    )
    yield Case(
        "method and kind",
        lambda: atk.soft_top_k_mask(x, 2, method="pav", kind="sigmoid"),
        InvalidArgument,
        ("method = 'pav' and kind = 'sigmoid'",),
    )


def _hard(x: Any) -> Iterator[Case]:
    for name, function in (("hard mask", atk.hard_top_k_mask), ("hard magnitude", atk.hard_top_k_magnitude)):
        yield Case(f"{name}, k", lambda f=function: f(x, 11), InvalidArgument, ("k = 11 is out of range",))
        yield Case(f"{name}, k float", lambda f=function: f(x, 2.0), InvalidType, ("k must be an integer",))
        yield Case(f"{name}, bool", lambda f=function: f(x > 0, 1), UnsupportedDType, ("x has dtype bool",))
        yield Case(f"{name}, list", lambda f=function: f([1.0], 1), InvalidType, ("x must be",))


def _rank(x: Any) -> Iterator[Case]:
    index = np.zeros(3, int)
    shape = "allowed for x of shape (3, 10) are (3,), one target a row, and (3, m), m of them"
    for name, function in (("rank", atk.rank), ("rank_counts", atk.rank_counts)):
        call: Any = function
        for what, given, error, words in (
            ("index beyond", 10, InvalidArgument, ("index = 10 is out of range; allowed are 0 to 9",)),
            ("index negative", -1, InvalidArgument, ("index = -1 is out of range",)),
            ("index float", 1.0, InvalidType, ("index must be an integer",)),
            ("index bool", True, InvalidType, ("index must be an integer",)),
            ("index None", None, InvalidType, ("index must be an integer",)),
            ("index list", [1, 2, 3], InvalidType, ("index must be an integer",)),
            ("index of floats", np.zeros(3), UnsupportedDType, ("index has dtype float64", "int8")),
            ("index short", np.zeros(2, int), InvalidArgument, ("index has shape (2,)", shape)),
            ("index flat", np.zeros((10, 3), int), InvalidArgument, ("index has shape (10, 3)", shape)),
        ):
            yield Case(f"{name}, {what}", lambda f=call, i=given: f(x, i), error, words)
        yield Case(f"{name}, axis", lambda f=call: f(x, index, axis=5), InvalidArgument, ("axis = 5 is out of range",))
        yield Case(
            f"{name}, lengths",
            lambda f=call: f(x, index, lengths=np.zeros(4, int)),
            InvalidArgument,
            ("lengths has shape (4,)",),
        )
        yield Case(f"{name}, list", lambda f=call: f([1.0], 0), InvalidType, ("x must be", "numpy.asarray"))
        yield Case(
            f"{name}, complex",
            lambda f=call: f(x.astype(complex), index),
            UnsupportedDType,
            ("x has dtype complex128",),
        )
    counts: Any = atk.rank_counts
    for what, value, error, words in (
        ("number", 1.0, InvalidType, ("value must be a NumPy array, as x is",)),
        ("of another type", np.zeros(3), UnsupportedDType, ("value has dtype float64; allowed is x's own, float32",)),
        ("of another shape", np.zeros(2, np.float32), InvalidArgument, ("value has shape (2,)", shape)),
    ):
        yield Case(f"value, {what}", lambda v=value: counts(x, value=v), error, words)
    some = np.zeros(3, np.float32)
    yield Case("value and index", lambda: counts(x, index, value=some), InvalidType, ("must be None", "an array"))
    yield Case("value and number", lambda: counts(x, 3, value=some), InvalidType, ("must be None where value", "3"))
    rank: Any = atk.rank
    yield Case("ties", lambda: rank(x, index, ties="min"), InvalidArgument, ("ties = 'min' is unknown", "'first'"))
    yield Case("ties None", lambda: rank(x, index, ties=None), InvalidType, ("ties must be the string",))
    yield Case("mode", lambda: rank(x, index, mode="max"), InvalidArgument, ("mode = 'max' is unknown",))
    yield Case("base", lambda: rank(x, index, base=0.5), InvalidType, ("base must be an integer",))
    yield Case("base huge", lambda: rank(x, index, base=2**40), InvalidArgument, ("base = 1099511627776 is out",))
