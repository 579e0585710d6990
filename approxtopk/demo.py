"""The main job on real input: nearest neighbours of handwritten digits, exactly and approximately.

The data are the 1,797 digits of 8 x 8 pixels that ship with scikit-learn. To make rows long enough for buckets
to pay, the base that is searched holds every image nine times, as it is and moved by a pixel in all directions
(ordinary data augmentation), in random order. Every original is a query; its own nine copies do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .approx_top_k import approx_top_k
from .call import TopK
from .errors import BackendMissing, InvalidArgument
from .plan import SelectionPlan
from .preview import plan
from .top_k import top_k

__all__ = ["demo"]

_DIGITS = 1797
_MOVES = tuple((down, right) for down in (0, -1, 1) for right in (0, -1, 1))
_REPEATS = 5
_RECALL = 0.95


class Base(NamedTuple):
    """A similarity matrix and what its entries mean.

    Attributes
    ----------
    similarity : ndarray of float32, (queries, entries)
        Cosine of the angle between two images; -inf between a query and a copy of it.
    label : ndarray of int, (queries,)
        The digit that a query shows.
    entry_label : ndarray of int, (entries,)
        The digit that an entry of the base shows.
    """

    similarity: np.ndarray[Any, Any]
    label: np.ndarray[Any, Any]
    entry_label: np.ndarray[Any, Any]


def demo(*, k: int = 20, device: str | None = None) -> None:
    """Print a table: exact, planned and named (b, k_b) side by side.

    Parameters
    ----------
    k : int, default 20
        Neighbours of each image, from 1 to 1796.
    device : {"cpu", "cuda"}, optional
        The first GPU if there is one and CuPy is installed, else the CPU.

    Raises
    ------
    BackendMissing
        Without scikit-learn, or for ``device="cuda"`` without CuPy or a GPU.
    InvalidArgument
        For k out of range.
    """
    if not 1 <= k < _DIGITS:
        raise InvalidArgument(f"k = {k} is out of range; the demo allows 1 to {_DIGITS - 1}, the other digits' number")
    base = digits()
    shape = base.similarity.shape
    exact = plan(shape, k, exact=True, device=device)
    planned = plan(shape, k, recall_target=_RECALL, device=device)
    pairs = (4 * k, 1), (2 * k, 2), (k, 1)
    named = [plan(shape, k, buckets=b, k_per_bucket=kept, device=device) for b, kept in pairs]
    rows = [("exact", exact), (f"recall {_RECALL:g}", planned), *(("named", p) for p in named)]

    print(f"The {k} nearest of {shape[1]:,} images for each of {shape[0]:,} handwritten digits, by cosine, float32")
    where = "the CPU" if exact.device.architecture == "cpu" else f"{exact.device.name} ({exact.device.architecture})"
    print(f"on {where}; times are medians of {_REPEATS} calls after a first\n")
    x, synchronize = _placed(base.similarity, exact)
    with _Progress(len(rows) * (_REPEATS + 1)) as progress:
        results = [_timed(x, p, synchronize, progress) for _, p in rows]
    worst = _host(results[0][0].values)[:, -1:]
    print(f"{'asked for':<12} {'route':<18} {'time':>10} {'recall':>8} {'predicted':>10} {'same digit':>11}")
    for (what, p), (found, seconds) in zip(rows, results, strict=True):
        route = "exact" if p.buckets is None else f"b = {p.buckets}, k_b = {p.k_per_bucket}"
        # Returned values count, ties included.
        recall = float(np.mean(_host(found.values) >= worst))
        same = float(np.mean(base.entry_label[_host(found.indices)] == base.label[:, None]))
        print(
            f"{what:<12} {route:<18} {1e3 * seconds:>7.1f} ms {recall:>8.4f} {p.expected_recall:>10.4f} {same:>11.1%}"
        )
    print("\nrecall: share of the true neighbours that was found; predicted: its expectation, known before the run.")
    print("same digit: share of the neighbours found that show the digit of the query.")
    if exact.device.architecture == "cpu":
        print("Buckets are made for GPUs: on a CPU, expect no gain over the exact route.")


def digits() -> Base:
    """Compare every digit of scikit-learn's with the base described above.

    Raises
    ------
    BackendMissing
        Without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BackendMissing(
            'the demo needs scikit-learn, which ships the digits: pip install "approxtopk[demo]"'
        ) from error
    data = load_digits()
    images = data.images.astype(np.float32)
    moved = np.concatenate([_moved(images, *move) for move in _MOVES])
    source = np.tile(np.arange(len(images)), len(_MOVES))
    # Recall is predicted for entries in random order, and collections that are searched are in no better one.
    order = np.random.default_rng(0).permutation(len(source))
    moved, source = moved[order], source[order]
    similarity = _unit(images) @ _unit(moved).T
    similarity[source == np.arange(len(images))[:, None]] = -np.inf
    return Base(similarity, data.target, data.target[source])


def _moved(images: np.ndarray[Any, Any], down: int, right: int) -> np.ndarray[Any, Any]:
    """Every image moved by up to a pixel; what leaves it is lost, what enters it is 0, the background."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def _unit(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images as rows of length 1."""
    flat = images.reshape(len(images), -1)
    unit: np.ndarray[Any, Any] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return unit


def _placed(x: np.ndarray[Any, Any], p: SelectionPlan) -> tuple[Any, Callable[[], object]]:
    """The matrix where the plan runs, and how to wait for that machine."""
    if p.device.architecture == "cpu":
        return x, lambda: None
    import cupy  # type: ignore[import-untyped, unused-ignore]

    return cupy.asarray(x), cupy.cuda.runtime.deviceSynchronize


def _host(x: Any) -> np.ndarray[Any, Any]:
    """A result as a NumPy array."""
    array: np.ndarray[Any, Any] = x if isinstance(x, np.ndarray) else x.get()
    return array


def _timed(x: Any, p: SelectionPlan, synchronize: Callable[[], object], progress: _Progress) -> tuple[TopK, float]:
    """The plan's result and the median of its seconds, once kernels are compiled and memory is warm."""
    r = p.request
    seconds = []
    for _ in range(_REPEATS + 1):
        synchronize()
        start = time.perf_counter()
        if r.operator == "top_k":
            found = top_k(x, r.k)
        else:
            found = approx_top_k(x, r.k, recall_target=r.recall_target, buckets=r.buckets, k_per_bucket=r.k_per_bucket)
        synchronize()
        seconds.append(time.perf_counter() - start)
        progress.step()
    return found, statistics.median(seconds[1:])


class _Progress:
    """tqdm's bar on a terminal, where tqdm is installed; else nothing."""

    def __init__(self, total: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar: Any = None
        else:
            self._bar = tqdm(total=total, desc="selecting", leave=False, disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """Count one call."""
        if self._bar is not None:
            self._bar.update()
