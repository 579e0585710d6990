"""NumPy: any strides, read-only, misaligned and mapped memory."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.host import threads

from .emulated import emulated
from .frameworks import expected, expected_ragged, rows


def strided_views() -> dict[str, np.ndarray]:
    x = rows((6, 8, 10), 2, seed=3).astype(np.float32)
    packed = np.zeros((6, 10), [("flag", "i1"), ("value", "f4")])
    packed["value"] = x[:, 0]
    locked = x.copy()
    locked.flags.writeable = False
    return {
        "transposed": x.T,
        "reversed": x[:, ::-1, ::-1],
        "stepped": x[::2, 1::3, ::2],
        "broadcast": np.broadcast_to(x[:1], (4, 8, 10)),
        "fortran": np.asfortranarray(x),
        "read-only": locked,
        "packed field": packed["value"],
        "misaligned": np.frombuffer(b"\0" + x[0].tobytes(), np.float32, offset=1).reshape(8, 10),
        "record array": x.view(np.recarray),
    }


@pytest.mark.parametrize("name", strided_views())
@pytest.mark.parametrize("axis", [0, -1])
def test_numpy_strides(name: str, axis: int) -> None:
    x = strided_views()[name]
    before = x.copy()
    values, indices = atk.top_k(x, 2, axis=axis)
    order = np.take(np.argsort(-np.asarray(x), axis=axis, kind="stable"), range(2), axis=axis)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(np.asarray(x), order, axis))
    np.testing.assert_array_equal(x, before)
    assert type(values) is np.ndarray


def views_of_lengths() -> dict[str, np.ndarray]:
    x = np.array([[3, 0, 9, 1], [10, 2, 7, 4]])
    packed = np.zeros(x.shape, [("flag", "i1"), ("value", "i4")])
    packed["value"] = x
    return {
        "plain": x,
        "transposed": np.asfortranarray(x),
        "reversed": x[::-1, ::-1].copy()[::-1, ::-1],
        "broadcast": np.broadcast_to(x[:, :1], (2, 4)),
        "one for all": np.broadcast_to(np.uint8(4), (2, 4)),
        "packed field": packed["value"],
        "misaligned": np.frombuffer(b"\0" + x.astype(np.int64).tobytes(), np.int64, offset=1).reshape(2, 4),
        "record array": x.view(np.recarray),
    }


@pytest.mark.parametrize("machine", [contextlib.nullcontext, emulated], ids=["host", "emulated"])
@pytest.mark.parametrize("name", views_of_lengths())
def test_numpy_strides_of_lengths(name: str, machine: Any) -> None:
    x, lengths = rows((2, 4, 40), 2).astype(np.float32), views_of_lengths()[name]
    with machine():
        for starts in (lengths, np.ascontiguousarray(lengths)):
            values, indices = atk.top_k(x, 5, starts=starts, lengths=lengths)
            np.testing.assert_array_equal(indices, expected_ragged(x, 5, lengths, lengths)[1])
            np.testing.assert_array_equal(values, expected_ragged(x, 5, lengths, lengths)[0])


class Tagged(np.ndarray):
    """A subclass that adds a name, and nothing to what its entries mean."""

    tag = "mine"


class Measured(np.ndarray):
    """A subclass with units, of which its arithmetic takes care."""

    def __array_ufunc__(self, *arguments: Any, **keywords: Any) -> Any:
        return NotImplemented


class Lazy(np.ndarray):
    """A subclass that answers for NumPy's functions."""

    def __array_function__(self, *arguments: Any) -> Any:
        return NotImplemented


def test_subclasses_go_by_rule(tmp_path: Any) -> None:
    x = rows((4, 50), 1).astype(np.float32)
    x.tofile(tmp_path / "x")
    plain = [x.view(Tagged), x.view(np.recarray), np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)]
    for one in plain:
        values, indices = atk.top_k(one, 3)
        assert type(values) is type(indices) is np.ndarray
        np.testing.assert_array_equal(indices, expected(x, 3, 1)[1])
    refused = {
        Measured: r"Measured, a subclass .* \(__array_ufunc__\), .*: pass numpy.asarray of it",
        Lazy: r"Lazy, a subclass .* \(__array_function__\)",
        np.matrix: "matrix",
        np.ma.MaskedArray: "a mask has no place",
    }
    lengths = np.full(4, 9)
    for kind, message in refused.items():
        with pytest.raises(atk.InvalidType, match=f"^x .*{message}"):
            atk.top_k(x.view(kind), 3)
        with pytest.raises(atk.InvalidType, match="^lengths "):
            atk.top_k(x, 3, lengths=lengths.view(kind))
    prepared = atk.prepare(x.shape, 3, exact=True, device="cpu")
    out = np.empty((4, 3), np.float32), np.empty((4, 3), np.int64)
    with pytest.raises(atk.InvalidType, match="out, for indices, is a .*Measured"):
        prepared(x, out=(out[0], out[1].view(Measured)))
    assert prepared(x, out=(out[0].view(Tagged), out[1])).indices is out[1]


UNSERVED: dict[str, tuple[np.ndarray, str]] = {
    "bool": (np.ones(9, bool), r"dtype bool; .*: pass x.view\(numpy.uint8\)$"),
    "dates": (np.zeros(9, "M8[ns]"), r"dtype datetime64\[ns\]; .*: pass x.view\(numpy.int64\), in which NaT"),
    "durations": (np.zeros(9, "m8[s]"), r"dtype timedelta64\[s\]; .*: pass x.view\(numpy.int64\), in which NaT"),
    "records": (np.zeros(9, [("a", "f4")]), r"dtype .*: pass one field of it, x\[name\]$"),
    "complex": (np.zeros(9, complex), "dtype complex128; allowed are .*float8_e5m2$"),
    "objects": (np.zeros(9, object), "dtype object; allowed are"),
    "text": (np.zeros(9, "U3"), "dtype <U3; allowed are"),
    "long double": (np.zeros(9, np.longdouble), "dtype float128; allowed are"),
    "byte order": (np.zeros(9, ">f8"), r"dtype >f8, in the other byte order; .*pass x.astype\(x.dtype.newbyte"),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_other_element_types_are_refused_in_words(name: str) -> None:
    x, message = UNSERVED[name]
    with pytest.raises(atk.UnsupportedDType, match=f"^x has {message}"):
        atk.top_k(x, 2)
    for way in ("uint8", "int64"):
        if f"view\\(numpy.{way}" in message:
            assert atk.top_k(x.view(way), 2).indices.tolist() == [0, 1]


def test_other_integers_do_not_count() -> None:
    x = np.zeros((2, 9))
    for lengths, message in (
        (np.ones(2, bool), "lengths has dtype bool; allowed are int8, .* uint64$"),
        (np.ones(2, ">i4"), "lengths has dtype >i4, in the other byte order"),
        (np.ones(2), "lengths has dtype float64"),
    ):
        with pytest.raises(atk.UnsupportedDType, match=message):
            atk.top_k(x, 2, lengths=lengths)


@pytest.mark.parametrize("scalar", [np.float32(3), np.int64(3), 3.0])
def test_scalars_are_no_arrays(scalar: Any) -> None:
    with pytest.raises(atk.InvalidType, match="^x must be a NumPy"):
        atk.top_k(scalar, 1)
    with pytest.raises(atk.InvalidArgument, match="x has no axes"):
        atk.top_k(np.array(scalar), 1)


def test_a_memory_map_is_read_in_place(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of holes, far larger than what the call may take for itself."""
    monkeypatch.setattr(threads, "width", lambda: 1)  # each has memory of its own
    n, best = 2**26, {3: 7.0, 2**25 + 1: 9.0, 2**26 - 1: 8.0}
    with open(tmp_path / "x", "wb") as file:
        file.truncate(n * 2)
    writable = np.memmap(tmp_path / "x", np.float16, "r+", shape=(1, n))
    for index, value in best.items():
        writable[0, index] = value
    x = np.memmap(tmp_path / "x", np.float16, "r", shape=(1, n))
    tracemalloc.start()
    try:
        exact = atk.top_k(x, 3)
        approximate = atk.approx_top_k(x, 3, buckets=64, k_per_bucket=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for got in (exact, approximate):
        assert got.indices.tolist() == [[2**25 + 1, 2**26 - 1, 3]] and got.values.tolist() == [[9, 8, 7]]
    assert peak < x.nbytes / 6, f"{peak / 2**20:.0f} MiB for a file of {x.nbytes / 2**20:.0f}"
