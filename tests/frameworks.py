"""Arrays of every framework as a test makes and reads them, and the answer it expects."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

from .fakes import Foreign

__all__ = [
    "FRAMEWORKS",
    "DLPack",
    "Framework",
    "Jax",
    "N",
    "NumPy",
    "Torch",
    "expected",
    "expected_ragged",
    "objective",
    "rows",
]

# 0 to 7 are exact in every element type, float8_e5m2 included.
N = 8


def rows(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """float64 of `shape`, distinct along `axis`."""
    extents = [1] * len(shape)
    extents[axis] = shape[axis]
    line = np.arange(shape[axis], dtype=np.float64).reshape(extents)
    return np.ascontiguousarray(np.random.default_rng(seed).permuted(np.broadcast_to(line, shape), axis=axis))


def expected(x: np.ndarray, k: int, axis: int, mode: str = "largest") -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of rows without ties."""
    order = np.argsort(-x if mode == "largest" else x, axis=axis, kind="stable")
    indices = np.take(order, range(k), axis=axis)
    return np.take_along_axis(x, indices, axis), indices


def expected_ragged(x: np.ndarray, k: int, starts: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of the largest along the last axis, among entries start <= i < start + length."""
    i = np.arange(x.shape[-1])
    first = np.asarray(starts)[..., None]
    there = (i >= first) & (i < first + np.maximum(lengths, 0)[..., None])
    indices = np.argsort(np.where(there, -x, np.inf), axis=-1, kind="stable")[..., :k]
    there = np.take_along_axis(there, indices, -1)
    return np.where(there, np.take_along_axis(x, indices, -1), -np.inf), np.where(there, indices, -1)


def objective(select: Any) -> Any:
    """A scalar to differentiate, by the best of `select`."""
    return lambda x: (select(x, 3)[0] ** 3).sum()


class Framework:
    """How a test makes arrays of one framework and reads them back."""

    def make(self, x: np.ndarray, dtype: str) -> Any:
        raise NotImplementedError

    def back(self, x: Any) -> np.ndarray:
        return np.asarray(x).astype(np.float64)

    def context(self, dtype: str) -> AbstractContextManager[Any]:
        return nullcontext()


class NumPy(Framework):
    kind, default_index = np.ndarray, "int64"

    def make(self, x: np.ndarray, dtype: str) -> Any:
        if hasattr(np, dtype):
            return x.astype(dtype)
        return x.astype(getattr(pytest.importorskip("ml_dtypes"), dtype))


class Torch(Framework):
    default_index = "int64"

    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch")
        self.kind = self.torch.Tensor

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return self.torch.from_numpy(x).to(getattr(self.torch, dtype))

    def back(self, x: Any) -> np.ndarray:
        return x.to(self.torch.float64).numpy()


class Jax(Framework):
    default_index = "int32"

    def __init__(self) -> None:
        self.jax = pytest.importorskip("jax")
        self.kind = self.jax.Array

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return self.jax.numpy.asarray(NumPy().make(x, dtype))

    def context(self, dtype: str) -> AbstractContextManager[Any]:
        if not dtype.endswith("64"):
            return nullcontext()
        return self.jax.enable_x64(True) if hasattr(self.jax, "enable_x64") else self.jax.experimental.enable_x64()


class DLPack(Framework):
    kind, default_index = np.ndarray, "int64"

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return Foreign(NumPy().make(x, dtype))


FRAMEWORKS = {"numpy": NumPy, "torch": Torch, "jax": Jax, "dlpack": DLPack}
