"""What the tests of JAX's transformations and shardings share: two machines for CPU arrays, and exact comparison."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from approxtopk.buffer import Device
from approxtopk.runtime import serving, substitute

from .emulated import EmulatedRuntime

__all__ = ["MACHINES", "Counted", "counted", "distinct", "same"]

MACHINES = ["host", "emulated"]


class Counted:
    """Lets another runtime run plans, one at a time, and remembers for what shapes.

    Attributes
    ----------
    shapes : list of tuple of int
        Of x, for every plan that was run.
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.shapes: list[tuple[int, ...]] = []
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        with self._lock:
            if step is plan.steps[-1]:
                self.shapes.append(plan.request.shape)
            self.runtime.run(step, plan, buffers, stream)

    def during(self, call: Any, *arrays: Any) -> tuple[Any, list[tuple[int, ...]]]:
        """What `call` returns, and for what shapes plans were run on the way, on any device."""
        import jax

        self.shapes.clear()
        result = jax.block_until_ready(call(*arrays))
        return result, sorted(self.shapes)


@contextmanager
def counted(name: str) -> Iterator[Counted]:
    """The machine of that name serves CPU arrays."""
    runtime = Counted(serving(Device("cpu")) if name == "host" else EmulatedRuntime())
    with substitute("cpu", runtime):
        yield runtime


def distinct(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 of `shape`, no two alike, of both signs."""
    count = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(count) - count // 2 + 0.25).astype(np.float32).reshape(shape)


def same(got: Any, want: Any, what: Any = "") -> None:
    """Whether two trees of arrays are alike, bit for bit."""
    import jax

    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want), what
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (what, a.dtype, b.dtype, a.shape, b.shape)
        if a.dtype != jax.dtypes.float0:
            a, b = np.asarray(a), np.asarray(b)
            assert a.tobytes() == b.tobytes(), (what, a, b)
