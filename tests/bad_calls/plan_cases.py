"""Dtypes, devices and arguments that `plan` refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import approxtopk as atk
from approxtopk import InvalidArgument, InvalidType, UnsupportedDType

from .case import Case, Unhashable

__all__ = ["plan_cases"]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no name")


def plan_cases() -> Iterator[Case]:
    def case(name: str, error: type[BaseException], *words: str, **given: Any) -> Case:
        return Case(name, lambda: atk.plan((3, 10), 2, **given), error, words)

    dtypes: dict[str, Any] = {
        "other order": np.dtype(">f4"),
        "other order by name": ">f4",
        "bool": bool,
        "complex": "complex64",
        "object": object,
        "class": Unhashable,
        "unknown": "float31",
        "void": "f4,f4",
        "abstract": np.floating,
        "datetime": "M8[s]",
        "long": "f" * 3000,
    }
    for name, dtype in dtypes.items():
        yield case(f"dtype {name}", UnsupportedDType, "dtype = ", "float8_e5m2", dtype=dtype)
    for wrong in (None, 7, b"f4", np.float32(1), np.zeros(2, np.float32), ("f4", 2), {"names": ["a"]}, ["f4"]):
        kind = type(wrong).__name__
        yield case(f"dtype {kind}", InvalidType, "dtype must", kind, "float8_e5m2", dtype=wrong)
    for text in ("gpu", "cuda:-1", "cuda:x", "cuda:" + "9" * 5000, "cpu:1", "sm_1", "", "CUDA", "cuda:\u0661"):
        yield case(f"device {text[:9]}", InvalidArgument, "device = '", "'sm_90'", device=text)
    for wrong in (0, 1.5, b"cuda", ["cuda"], np.zeros(2), Unprintable(), Unhashable):
        kind = type(wrong).__name__
        yield case(f"device {kind}", InvalidType, "device must", kind, "'sm_90'", device=wrong)
    yield case("unknown argument", InvalidType, "unexpected keyword argument 'bucket'", bucket=3)
    yield case("long unknown argument", InvalidType, "'aaa", "...", **{"a" * 3000: 3})
    yield case("bucket keyword, exact", InvalidType, "'buckets'", exact=True, buckets=3)
