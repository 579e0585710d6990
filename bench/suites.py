"""The shapes that users have, by suite: pure data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from .case import Case, RankCase, SelectionCase, SoftCase

__all__ = ["SUITES"]

_RECALLS = (0.95, 0.99, 1.0)
#: What a soft top-k is made of.
_P2, _SIGMOID = {"p": 2.0}, {"kind": "sigmoid"}
_FORMS: tuple[dict[str, Any], ...] = ({}, _P2, _SIGMOID)


def _figure1() -> list[SelectionCase]:
    """128 rows, from short to long: time and bandwidth against n."""
    lengths = [2**p for p in range(12, 23)]
    return [SelectionCase(128, n, k, dtype, recall, index="int32")
            for dtype in ("float32", "bfloat16") for n in lengths for k in sorted({64, n // 64})
            for recall in (0.95, 1.0)]  # fmt: skip


def _exact() -> list[SelectionCase]:
    shapes = [(1, 2**20), (32, 50_257), (32, 128_256), (256, 151_552), (128, 2**20), (1, 2_650_000), (32, 2_650_000)]
    return [SelectionCase(rows, n, k, dtype)
            for rows, n in shapes for k in (1, 8, 50, 64, 256, 1024, 2048, 4096)
            for dtype in ("float32", "bfloat16")]  # fmt: skip


def _small_rows() -> list[SelectionCase]:
    return [SelectionCase(rows, n, k, dtype, index="int32")
            for rows, n in ((16_384, 1024), (16_384, 4096), (16_384, 8192), (2048, 2048), (65_536, 256))
            for k in (1, 8, 64) for dtype in ("float32", "float16")]  # fmt: skip


def _routing() -> list[SelectionCase]:
    """Experts of a mixture: every token picks a few."""
    return [SelectionCase(rows, n, k, dtype, index="int32")
            for rows in (32, 2048, 65_536) for n in (64, 128, 256, 512) for k in (1, 2, 8)
            for dtype in ("float32", "bfloat16")]  # fmt: skip


def _autoencoder() -> list[SelectionCase]:
    return [SelectionCase(4096, n, k, dtype, recall, sorted=False)
            for n in (2**15, 2**16, 2**17) for k in (32, 64, 128) for dtype in ("float32", "bfloat16")
            for recall in _RECALLS]  # fmt: skip


def _k_proportional() -> list[SelectionCase]:
    many = [SelectionCase(256, 2**16, 2**16 // part, "float16", recall, ordered, "int32")
            for part in (4, 8, 16) for recall in (0.95, 1.0) for ordered in (False, True)]  # fmt: skip
    # The example of the published library: j = 2, k_mult = 1, whose expected recall is 0.74.
    published = SelectionCase(
        128, 2**20, 2**16, sorted=False, index="int32", recall=0.74, buckets=2**15, k_per_bucket=2
    )
    return [*many, published]


def _indexer() -> list[SelectionCase]:
    """Sparse attention: which keys a query looks at."""
    return [SelectionCase(rows, n, k, dtype, recall, False, "int32", ragged=ragged)
            for rows, n in ((64, 131_072), (2048, 8192), (2048, 32_768)) for k in (512, 2048)
            for dtype in ("float32", "bfloat16") for recall in (0.95, 1.0) for ragged in (True, False)]  # fmt: skip


def _adversarial() -> list[SelectionCase]:
    kinds = ("normal", "uniform", "ties", "sorted", "reversed", "equal", "masked", "blocky")
    return [SelectionCase(rows, n, k, "float32", recall, inputs=kind, index="int32")
            for rows, n in ((128, 2**17), (4096, 8192)) for k in (64, 1024)
            for recall in (0.95, 1.0) for kind in kinds]  # fmt: skip


def _pareto() -> list[SelectionCase]:
    """Recall against time: from one candidate for each entry wanted to eight, kept by one to eight in a bucket."""
    own: dict[str, Any] = {"sorted": False, "index": "int32"}
    named = [SelectionCase(128, 2**20, k, buckets=times * k // kept, k_per_bucket=kept, recall=0.95, **own)
             for k in (64, 1024) for times in (1, 2, 4, 8) for kept in (1, 2, 4, 8)]  # fmt: skip
    return [*named, *(SelectionCase(128, 2**20, k, **own) for k in (64, 1024))]


def _cpu() -> list[SelectionCase]:
    shapes = [(1, 2**20, 64), (32, 50_257, 50), (128, 65_536, 64), (128, 65_536, 4096), (16, 2**20, 65_536),
              (65_536, 64, 2), (4096, 512, 8), (1, 1024, 8), (1797, 16_173, 20)]  # fmt: skip
    return [SelectionCase(rows, n, k, recall=recall, inputs="digits" if n == 16_173 else "normal")
            for rows, n, k in shapes for recall in (0.95, 1.0)]  # fmt: skip


def _quick() -> list[SelectionCase]:
    """What the README claims, in 8 minutes of an H200."""
    return [
        *(
            SelectionCase(128, 2**20, k, recall=recall, sorted=False, index="int32")
            for k in (64, 1024)
            for recall in _RECALLS
        ),
        *(
            SelectionCase(256, 2**20, k, "float16", recall, False, "int32")
            for k in (64, 1024)
            for recall in (0.95, 1.0)
        ),
        *(SelectionCase(1, 2**20, k, recall=recall, index="int32") for k in (64, 256, 1024) for recall in (0.95, 1.0)),
        *(SelectionCase(32, 128_256, 50, "bfloat16", recall) for recall in (0.95, 1.0)),
        *(SelectionCase(16_384, n, 64, index="int32", sorted=False) for n in (1024, 4096, 8192)),
        *(SelectionCase(65_536, 256, 8, dtype, index="int32") for dtype in ("float32", "bfloat16")),
        *(SelectionCase(256, 2**16, 2**16 // part, "float16", sorted=False, index="int32") for part in (4, 8)),
        SelectionCase(64, 131_072, 2048, sorted=False, index="int32", ragged=True),
        _k_proportional()[-1],
        *(SelectionCase(128, 2**17, 64, inputs=kind, index="int32") for kind in ("sorted", "ties", "masked")),
    ]


def _soft() -> list[SoftCase]:
    """Routers, sparse autoencoders, vocabularies, and rows that no memory on chip holds."""
    every = tuple(product((False, True), ("float32", "bfloat16")))
    return [
        *(SoftCase(65_536, n, k, dtype, training=training)
          for n in (64, 128, 256, 512) for k in (2, 8) for training, dtype in every),
        *(SoftCase(65_536, 256, 8, l=l, **form) for form in _FORMS for l in (0.01, 1.0)),
        *(SoftCase(4096, n, 64, dtype, magnitude=True, training=training)
          for n in (2**15, 2**16) for training, dtype in every),
        *(SoftCase(4096, 2**15, 64, magnitude=True, l=l, p=p) for p in (2.0, 4 / 3) for l in (0.01, 1.0)),
        *(SoftCase(32, n, 64, training=training, **form)
          for n in (4096, 128_256) for form in _FORMS for training in (False, True)),
        *(SoftCase(32, 128_256, 64, l=l, **form) for form in _FORMS for l in (0.01, 1.0)),
        *(SoftCase(32, 128_256, 64, "bfloat16", training=training) for training in (False, True)),
        *(SoftCase(1, 10_000_000, 64, training=training, **form) for form in _FORMS for training in (False, True)),
    ]  # fmt: skip


def _soft_cpu() -> list[SoftCase]:
    return [
        *(SoftCase(32, 4096, 64, **form) for form in _FORMS),
        *(SoftCase(32, 4096, 64, l=l) for l in (0.01, 1.0)),
        *(SoftCase(32, 4096, 64, training=True, **form) for form in (_FORMS[0], _P2)),
        *(SoftCase(32, 128_256, 64, **form) for form in _FORMS),
        SoftCase(32, 128_256, 64, "bfloat16"),
        SoftCase(32, 128_256, 64, training=True),
        *(SoftCase(65_536, 64, 2, training=training) for training in (False, True)),
        *(SoftCase(64, 2**15, 64, magnitude=True, training=training) for training in (False, True)),
        *(SoftCase(1, 10_000_000, 64, **form) for form in (_FORMS[0], _SIGMOID)),
    ]


def _rank() -> list[RankCase]:
    """Ranks of tokens, of features, and of entities in a knowledge graph."""
    return [
        RankCase(8192, 151_552, "bfloat16"),
        RankCase(32, 50_000),
        *(RankCase(32, 128_256, dtype) for dtype in ("bfloat16", "float32")),
        RankCase(32, 128_256, "bfloat16", inputs="ties"),
        *(RankCase(4096, 2**15, dtype) for dtype in ("float32", "bfloat16")),
        *(RankCase(64, 2_650_000, targets=targets) for targets in (1, 100)),
    ]


def _rank_cpu() -> list[RankCase]:
    return [
        RankCase(32, 50_000),
        RankCase(32, 50_000, targets=100),
        RankCase(32, 128_256, "bfloat16"),
        RankCase(4096, 2048),
        *(RankCase(2, 2_650_000, targets=targets) for targets in (1, 100)),
    ]


#: Name -> the cases; made anew for every call, so that importing costs nothing.
SUITES: dict[str, Callable[[], Sequence[Case]]] = {
    "quick": _quick,
    "figure1": _figure1,
    "exact": _exact,
    "small-rows": _small_rows,
    "routing": _routing,
    "autoencoder": _autoencoder,
    "k-proportional": _k_proportional,
    "indexer": _indexer,
    "adversarial": _adversarial,
    "pareto": _pareto,
    "cpu": _cpu,
    "soft": _soft,
    "soft-cpu": _soft_cpu,
    "rank": _rank,
    "rank-cpu": _rank_cpu,
}
