"""The machines that every functional test runs on, through the same public calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.dtypes import DTYPES
from approxtopk.planning import tuning
from approxtopk.planning.cached import cached_plan

from .emulated import EmulatedRuntime, emulated

__all__ = ["BACKENDS", "Backend", "Selection", "gpu_present", "tuned"]


class Selection(NamedTuple):
    """A result as the oracle states it: indices, the values' bits, and the certificate where asked for."""

    indices: np.ndarray
    bits: np.ndarray
    exact: np.ndarray | None = None


class Backend:
    """Selects from arrays given as unsigned bits.

    Parameters
    ----------
    name : {"numpy", "emulated", "gpu"}
        NumPy on the CPU, the kernels in the emulator, or the kernels on a GPU.
    runtime : EmulatedRuntime or None
        The emulator's record of launches.
    """

    def __init__(self, name: str, runtime: EmulatedRuntime | None = None) -> None:
        self.name = name
        self.runtime = runtime

    def select(
        self,
        bits: np.ndarray,
        dtype: str,
        k: int,
        *,
        exact: bool = False,
        view: Callable[[Any], Any] = lambda array: array,
        **options: Any,
    ) -> Selection:
        """Call `approx_top_k`, or `top_k` when `exact`, on ``view(array)`` of this machine.

        `starts` and `lengths` among the options are NumPy arrays.
        """
        call = atk.top_k if exact else atk.approx_top_k
        if self.name == "gpu":
            return self._select_on_gpu(call, bits, dtype, k, view, options)
        values, indices, *exact_rows = call(view(bits).view(numpy_dtype(dtype)), k, **options)
        return Selection(indices, values.view(bits.dtype), *exact_rows)

    @staticmethod
    def _select_on_gpu(call: Any, bits: np.ndarray, dtype: str, k: int, view: Any, options: Any) -> Selection:
        import cupy

        if hasattr(np, dtype):
            options = {name: cupy.asarray(o) if isinstance(o, np.ndarray) else o for name, o in options.items()}
            values, indices, *exact_rows = call(view(cupy.asarray(bits)).view(dtype), k, **options)
            return Selection(indices.get(), values.view(bits.dtype).get(), *(exact.get() for exact in exact_rows))
        import torch

        # CuPy has no bfloat16 of its own and no float8: PyTorch has, though not with negative strides.
        signed = bits.view(f"int{DTYPES[dtype].bits}")
        try:
            array = view(torch.from_numpy(signed.copy()).cuda())
        except ValueError:
            pytest.skip(f"no array library holds {dtype} with negative strides")
        options = {name: torch.from_numpy(o).cuda() if isinstance(o, np.ndarray) else o for name, o in options.items()}
        values, indices, *exact_rows = call(array.view(getattr(torch, dtype)), k, **options)
        return Selection(
            indices.cpu().numpy(),
            values.view(array.dtype).cpu().numpy().view(bits.dtype),
            *(exact.cpu().numpy() for exact in exact_rows),
        )


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of that name, from ml_dtypes where NumPy has none."""
    if hasattr(np, name):
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


def gpu_present() -> bool:
    """Whether CuPy is installed and finds a GPU."""
    try:
        import cupy

        return bool(cupy.cuda.is_available())
    except ImportError:
        return False


BACKENDS = [
    "numpy",
    "emulated",
    pytest.param("gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not gpu_present(), reason="needs a GPU")]),
]


@contextmanager
def backend_named(name: str, seed: int = 0, **options: int) -> Iterator[Backend]:
    """The machine of that name."""
    if name == "emulated":
        with emulated(seed, **options) as runtime:
            yield Backend(name, runtime)
    else:
        yield Backend(name)


@contextmanager
def tuned(**numbers: int) -> Iterator[None]:
    """Let the planner map with other numbers, to force mappings that only large arrays would get."""
    before = tuning.DEFAULT
    tuning.DEFAULT = tuning.Tuning(**numbers)
    cached_plan.cache_clear()
    try:
        yield
    finally:
        tuning.DEFAULT = before
        cached_plan.cache_clear()
