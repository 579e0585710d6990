"""Bad arguments, for any good array of shape (3, 10)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

import approxtopk as atk
from approxtopk import InvalidArgument, InvalidType

from .case import Case, Unhashable

__all__ = ["ARGUMENTS", "argument_cases"]

NAN, INF = float("nan"), float("inf")

ARGUMENTS: list[tuple[str, dict[str, Any], type[BaseException], tuple[str, ...]]] = [
    ("k negative", {"k": -1}, InvalidArgument, ("k = -1", "0 to 10")),
    ("k beyond n", {"k": 11}, InvalidArgument, ("k = 11", "0 to 10")),
    ("k far beyond", {"k": 2**40}, InvalidArgument, ("k = 1099511627776", "0 to 10")),
    ("k beyond 64 bits", {"k": 10**5000}, InvalidArgument, ("k = 0x",)),
    ("k far below zero", {"k": -(10**30)}, InvalidArgument, ("k = -0x",)),
    ("k NumPy integer", {"k": np.int64(11)}, InvalidArgument, ("k = 11",)),
    ("k True", {"k": True}, InvalidType, ("k must", "True (bool)")),
    ("k False", {"k": False}, InvalidType, ("k must", "False (bool)")),
    ("k NumPy bool", {"k": np.bool_(True)}, InvalidType, ("k must", "bool")),
    ("k float", {"k": 2.0}, InvalidType, ("k must", "2.0 (float)")),
    ("k NaN", {"k": NAN}, InvalidType, ("k must", "nan (float)")),
    ("k NumPy float", {"k": np.float32(2)}, InvalidType, ("k must", "float32")),
    ("k complex", {"k": 2j}, InvalidType, ("k must", "2j (complex)")),
    ("k str", {"k": "2"}, InvalidType, ("k must", "'2' (str)")),
    ("k long str", {"k": "2" * 10**6}, InvalidType, ("k must", "... (str)")),
    ("k bytes", {"k": b"2"}, InvalidType, ("k must", "bytes")),
    ("k None", {"k": None}, InvalidType, ("k must", "None")),
    ("k list", {"k": [2]}, InvalidType, ("k must", "list")),
    ("k tuple", {"k": (2,)}, InvalidType, ("k must", "tuple")),
    ("k Fraction", {"k": Fraction(2)}, InvalidType, ("k must", "Fraction")),
    ("k 0-d array", {"k": np.array(2)}, InvalidType, ("k must", "ndarray")),
    ("k array", {"k": np.array([2])}, InvalidType, ("k must", "ndarray")),
    ("k object", {"k": object()}, InvalidType, ("k must", "object")),
    ("k unhashable", {"k": Unhashable()}, InvalidType, ("k must", "Unhashable")),
    ("axis above", {"axis": 2}, InvalidArgument, ("axis = 2", "-2 to 1", "(3, 10)")),
    ("axis below", {"axis": -3}, InvalidArgument, ("axis = -3", "-2 to 1")),
    ("axis beyond 64 bits", {"axis": 10**30}, InvalidArgument, ("axis = 0x",)),
    ("axis float", {"axis": 1.0}, InvalidType, ("axis must", "1.0 (float)")),
    ("axis str", {"axis": "0"}, InvalidType, ("axis must", "'0' (str)")),
    ("axis None", {"axis": None}, InvalidType, ("axis must", "None")),
    ("axis True", {"axis": True}, InvalidType, ("axis must", "True (bool)")),
    ("axis tuple", {"axis": (0,)}, InvalidType, ("axis must", "tuple")),
    ("axis list", {"axis": [0]}, InvalidType, ("axis must", "list")),
    ("axis array", {"axis": np.array(0)}, InvalidType, ("axis must", "ndarray")),
    ("k beyond another axis", {"k": 4, "axis": 0}, InvalidArgument, ("k = 4", "0 to 3", "axis 0")),
    ("mode unknown", {"mode": "max"}, InvalidArgument, ("mode = 'max'", "'largest'", "'smallest'")),
    ("mode upper case", {"mode": "LARGEST"}, InvalidArgument, ("mode = 'LARGEST'",)),
    ("mode empty", {"mode": ""}, InvalidArgument, ("mode = ''",)),
    ("mode long", {"mode": "m" * 3000}, InvalidArgument, ("mode = 'mmm", "...")),
    ("mode None", {"mode": None}, InvalidType, ("mode must", "None")),
    ("mode bool", {"mode": True}, InvalidType, ("mode must", "True (bool)")),
    ("mode bytes", {"mode": b"largest"}, InvalidType, ("mode must", "bytes")),
    ("mode list", {"mode": ["largest"]}, InvalidType, ("mode must", "list")),
    ("sorted 1", {"sorted": 1}, InvalidType, ("sorted must", "1 (int)")),
    ("sorted None", {"sorted": None}, InvalidType, ("sorted must", "None")),
    ("sorted str", {"sorted": "yes"}, InvalidType, ("sorted must", "'yes' (str)")),
    ("sorted array", {"sorted": np.array(True)}, InvalidType, ("sorted must", "ndarray")),
    ("recall 0", {"recall_target": 0}, InvalidArgument, ("recall_target = 0.0", "<= 1")),
    ("recall 0.0", {"recall_target": 0.0}, InvalidArgument, ("recall_target = 0.0", "<= 1")),
    ("recall -0.0", {"recall_target": -0.0}, InvalidArgument, ("recall_target = -0.0",)),
    ("recall negative", {"recall_target": -0.5}, InvalidArgument, ("recall_target = -0.5",)),
    ("recall above 1", {"recall_target": 1.0000001}, InvalidArgument, ("recall_target = 1.0000001",)),
    ("recall percent", {"recall_target": 95}, InvalidArgument, ("recall_target = 95.0",)),
    ("recall NaN", {"recall_target": NAN}, InvalidArgument, ("recall_target = nan",)),
    ("recall NumPy NaN", {"recall_target": np.float32(NAN)}, InvalidArgument, ("recall_target = nan",)),
    ("recall inf", {"recall_target": INF}, InvalidArgument, ("recall_target = inf",)),
    ("recall huge", {"recall_target": 10**400}, InvalidArgument, ("recall_target = inf",)),
    ("recall str", {"recall_target": "0.9"}, InvalidType, ("recall_target must", "'0.9' (str)")),
    ("recall None", {"recall_target": None}, InvalidType, ("recall_target must", "None")),
    ("recall True", {"recall_target": True}, InvalidType, ("recall_target must", "True (bool)")),
    ("recall complex", {"recall_target": 0.9 + 0j}, InvalidType, ("recall_target must", "complex")),
    ("recall list", {"recall_target": [0.9]}, InvalidType, ("recall_target must", "list")),
    ("recall array", {"recall_target": np.array(0.9)}, InvalidType, ("recall_target must", "ndarray")),
    ("recall with b and k_b", {"recall_target": 2.0, "buckets": 5, "k_per_bucket": 1}, InvalidArgument, ("2.0",)),
    ("buckets 0", {"buckets": 0}, InvalidArgument, ("buckets = 0", "1 to 10")),
    ("buckets negative", {"buckets": -4}, InvalidArgument, ("buckets = -4", "1 to 10")),
    ("buckets beyond n", {"buckets": 11}, InvalidArgument, ("buckets = 11", "1 to 10")),
    ("buckets float", {"buckets": 4.0}, InvalidType, ("buckets must", "4.0 (float)")),
    ("buckets str", {"buckets": "4"}, InvalidType, ("buckets must", "'4' (str)")),
    ("buckets True", {"buckets": True}, InvalidType, ("buckets must", "True (bool)")),
    ("buckets list", {"buckets": [4]}, InvalidType, ("buckets must", "list")),
    ("k_per_bucket 0", {"k_per_bucket": 0}, InvalidArgument, ("k_per_bucket = 0", "at least 1")),
    ("k_per_bucket negative", {"k_per_bucket": -1}, InvalidArgument, ("k_per_bucket = -1", "at least 1")),
    ("k_per_bucket float", {"k_per_bucket": 1.5}, InvalidType, ("k_per_bucket must", "1.5 (float)")),
    ("k_per_bucket str", {"k_per_bucket": "1"}, InvalidType, ("k_per_bucket must", "'1' (str)")),
    ("k_per_bucket True", {"k_per_bucket": True}, InvalidType, ("k_per_bucket must", "True (bool)")),
    ("b * k_b < k", {"k": 3, "buckets": 2, "k_per_bucket": 1}, InvalidArgument, ("2 * 1 = 2", "k = 3")),
    ("interleaved 1", {"interleaved": 1}, InvalidType, ("interleaved must", "1 (int)")),
    ("interleaved None", {"interleaved": None}, InvalidType, ("interleaved must", "None")),
    ("interleaved str", {"interleaved": "no"}, InvalidType, ("interleaved must", "'no' (str)")),
    ("certify 1", {"certify": 1}, InvalidType, ("certify must", "1 (int)")),
    ("certify None", {"certify": None}, InvalidType, ("certify must", "None")),
    ("certify str", {"certify": "yes"}, InvalidType, ("certify must", "'yes' (str)")),
    ("certify array", {"certify": np.array(True)}, InvalidType, ("certify must", "ndarray")),
    ("index_dtype int16", {"index_dtype": "int16"}, InvalidArgument, ("index_dtype = int16", "int32")),
    ("index_dtype uint32", {"index_dtype": np.uint32}, InvalidArgument, ("index_dtype = uint32", "int64")),
    ("index_dtype float", {"index_dtype": float}, InvalidArgument, ("index_dtype = float64",)),
    ("index_dtype unknown", {"index_dtype": "nope"}, InvalidArgument, ("index_dtype = 'nope'", "int32")),
    ("index_dtype long", {"index_dtype": "i" * 3000}, InvalidArgument, ("index_dtype = 'iii", "...")),
    ("index_dtype other order", {"index_dtype": ">i8"}, InvalidArgument, ("index_dtype = >i8", "byte order")),
    ("index_dtype other dtype", {"index_dtype": np.dtype(">i4")}, InvalidArgument, ("index_dtype = >i4", "int32")),
    ("index_dtype void", {"index_dtype": "i4,i4"}, InvalidArgument, ("index_dtype = void64", "int32")),
    ("index_dtype abstract", {"index_dtype": np.integer}, InvalidArgument, ("index_dtype = <class", "int32")),
    ("index_dtype class", {"index_dtype": Unhashable}, InvalidArgument, ("index_dtype = object", "int32")),
    ("index_dtype dict", {"index_dtype": {"names": ["a"]}}, InvalidType, ("index_dtype must", "dict")),
    ("index_dtype tuple", {"index_dtype": ("i4", -1)}, InvalidType, ("index_dtype must", "tuple")),
    ("index_dtype list", {"index_dtype": ["i4"]}, InvalidType, ("index_dtype must", "list")),
    ("index_dtype bytes", {"index_dtype": b"int32"}, InvalidType, ("index_dtype must", "bytes")),
    ("index_dtype instance", {"index_dtype": np.int32(7)}, InvalidType, ("index_dtype must", "int32")),
    ("index_dtype array", {"index_dtype": np.zeros(1, np.int32)}, InvalidType, ("index_dtype must", "ndarray")),
    ("index_dtype number", {"index_dtype": 32}, InvalidType, ("index_dtype must", "32 (int)")),
    ("index_dtype object", {"index_dtype": object()}, InvalidType, ("index_dtype must", "object")),
    ("index_dtype True", {"index_dtype": True}, InvalidType, ("index_dtype must", "True (bool)")),
]


def argument_cases(x: Any) -> Iterator[Case]:
    """The table of arguments, on the array `x`; those of top_k too where it has them."""
    exact_only = {"k", "axis", "mode", "sorted", "index_dtype"}
    for name, given, error, words in ARGUMENTS:
        options = {"k": 2, **given}
        k = options.pop("k")
        yield Case(name, lambda k=k, o=options: atk.approx_top_k(x, k, **o), error, words)
        if set(given) <= exact_only:
            yield Case(f"{name}, exact", lambda k=k, o=options: atk.top_k(x, k, **o), error, words)
