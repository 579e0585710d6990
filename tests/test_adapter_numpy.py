"""NumPy: any strides, read-only, misaligned and mapped memory."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

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


def test_numpy_memory_map(tmp_path: Any) -> None:
    reference = rows((3, 100), 1).astype(np.int16)
    reference.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.int16, "r", shape=(3, 100))
    np.testing.assert_array_equal(atk.top_k(x, 4)[1], expected(reference, 4, 1)[1])
