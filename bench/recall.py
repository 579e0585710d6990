"""Recall as measured, beside recall as predicted, and what its loss costs a task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import approxtopk as atk

from . import texts
from .inputs import rows_of

__all__ = ["measured", "shuffled", "structured", "tasks"]

Array = np.ndarray[Any, Any]

#: (n, k) -> what is asked for: candidates from k to 8 k, kept by one to eight in a bucket, and plans for a target.
ASKED: dict[tuple[int, int], list[dict[str, Any]]] = {
    (n, k): [
        *(
            {"buckets": times * k // kept, "k_per_bucket": kept}
            for kept in (1, 2, 4, 8)
            for times in (1, 2, 4, 8)
            if times * k % kept == 0
        ),
        *({"recall_target": target} for target in (0.8, 0.9, 0.95, 0.99)),
    ]
    for n, k in ((4096, 64), (16_384, 64), (16_384, 1024), (50_257, 50), (131_072, 256), (131_072, 32))
}
_CHUNK = 2**24


class Sample(NamedTuple):
    """The mean over rows, and its standard error."""

    mean: float
    error: float


def measured(x: Array, k: int, **options: Any) -> Sample:
    """The recall of one call: the share of the returned values that are among the true k, ties included."""
    return _sample(_shares(x, atk.top_k(x, k).values[:, -1:], k, options))


def _shares(x: Array, worst: Array, k: int, options: dict[str, Any]) -> Array:
    shares: Array = np.mean(atk.approx_top_k(x, k, **options).values >= worst, axis=-1)
    return shares


def _sample(shares: Array) -> Sample:
    return Sample(float(np.mean(shares)), float(np.std(shares, ddof=1) / math.sqrt(len(shares))))


def shuffled(samples: int = 2**18, seed: int = 0, every: int = 1) -> Iterator[dict[str, Any]]:
    """Random rows, so many that `samples` of their entries are among the best k: named (b, k_b), and plans."""
    for (n, k), asked in ASKED.items():
        rows, chunk = max(2, samples // k), max(1, _CHUNK // n)
        shares: list[list[Array]] = [[] for _ in asked[::every]]
        rng = np.random.default_rng([seed, n, k])
        for start in range(0, rows, chunk):
            x = rng.standard_normal((min(chunk, rows - start), n), dtype=np.float32)
            worst = atk.top_k(x, k).values[:, -1:]
            for found, options in zip(shares, asked[::every], strict=True):
                found.append(_shares(x, worst, k, options))
        for found, options in zip(shares, asked[::every], strict=True):
            plan, sample = atk.plan(n, k, device="cpu", **options), _sample(np.concatenate(found))
            yield {
                "n": n,
                "k": k,
                "buckets": plan.buckets,
                "k_per_bucket": plan.k_per_bucket,
                "recall_target": options.get("recall_target"),
                "rows": rows,
                "predicted": plan.expected_recall,
                "measured": sample.mean,
                "error": sample.error,
            }


def structured(rows: int = 256) -> Iterator[dict[str, Any]]:
    """Rows with an order of their own, synthetic and real, by interleaved and by contiguous buckets."""
    inputs: dict[str, Array] = {
        kind: rows_of(kind, rows, 16_384, 0) for kind in ("normal", "sorted", "reversed", "blocky", "ties")
    }
    inputs["digits"] = rows_of("digits", 4 * rows, 16_173, 0)
    if not texts.missing():
        inputs["sentences"] = texts.similarity()
        some = texts.attention()
        inputs["attention"] = (some.queries @ some.keys.transpose(0, 2, 1)).reshape(-1, some.keys.shape[1])
    for name, x in inputs.items():
        n = x.shape[1]
        k = 64 if n > 1024 else 32
        for buckets, kept in ((k, 1), (4 * k, 1), (k, 2), (k // 2, 4)):
            for interleaved in (True, False):
                sample = measured(x, k, buckets=buckets, k_per_bucket=kept, interleaved=interleaved)
                yield {
                    "inputs": name,
                    "n": n,
                    "k": k,
                    "buckets": buckets,
                    "k_per_bucket": kept,
                    "interleaved": interleaved,
                    "rows": len(x),
                    "predicted": atk.expected_recall(n, k, buckets=buckets, k_per_bucket=kept),
                    "measured": sample.mean,
                    "error": sample.error,
                }


def tasks() -> Iterator[dict[str, Any]]:
    """What the loss of recall costs: labels of digits by their neighbours, and the output of sparse attention."""
    yield from _neighbours()
    if not texts.missing():
        yield from _attention()


def _neighbours(k: int = 20) -> Iterator[dict[str, Any]]:
    from approxtopk.demo import digits

    base = digits()

    def accuracy(indices: Array) -> float:
        votes = np.apply_along_axis(np.bincount, 1, base.entry_label[indices], minlength=10)
        return float(np.mean(votes.argmax(axis=1) == base.label))

    for buckets, kept in _pairs(k):
        options = {"buckets": buckets, "k_per_bucket": kept} if buckets else {"recall_target": 1.0}
        found = atk.approx_top_k(base.similarity, k, **options)
        yield _cost(
            "digits: share of right labels by a vote", k, buckets, kept, base.similarity, accuracy(found.indices)
        )


def _attention(k: int = 64) -> Iterator[dict[str, Any]]:
    """Only the k keys with the best scores are attended to: how far the output is from the whole one's, relatively."""
    some = texts.attention()
    scores = some.queries @ some.keys.transpose(0, 2, 1)
    whole = _softmax(scores) @ some.values
    flat = np.ascontiguousarray(scores.reshape(-1, scores.shape[-1]))
    for buckets, kept in _pairs(k):
        options = {"buckets": buckets, "k_per_bucket": kept} if buckets else {"recall_target": 1.0}
        values, indices = atk.approx_top_k(flat, k, **options)
        weights = np.zeros_like(flat)
        np.put_along_axis(weights, indices, _softmax(values), axis=-1)
        output = weights.reshape(scores.shape) @ some.values
        error = float(np.linalg.norm(output - whole) / np.linalg.norm(whole))
        yield _cost("attention: relative error of the output", k, buckets, kept, flat, error)


def _pairs(k: int) -> list[tuple[int, int]]:
    """(b, k_b) from exact, (0, 0), to one pass."""
    return [(0, 0), (8 * k, 1), (2 * k, 2), (4 * k, 1), (2 * k, 1), (k, 1)]


def _cost(task: str, k: int, buckets: int, kept: int, x: Array, score: float) -> dict[str, Any]:
    named = {"buckets": buckets, "k_per_bucket": kept}
    return {
        "task": task,
        "k": k,
        "n": x.shape[1],
        **named,
        "recall": measured(x, k, **named).mean if buckets else 1.0,
        "predicted": atk.expected_recall(x.shape[1], k, **named) if buckets else 1.0,
        "score": score,
    }


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = weights / weights.sum(axis=-1, keepdims=True)
    return shares
