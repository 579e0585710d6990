"""The shapes that users have, by suite: pure data."""

from __future__ import annotations

from .case import Case

__all__ = ["SUITES"]

_RECALLS = (0.95, 0.99, 1.0)


def _figure1() -> list[Case]:
    """128 rows, from short to long: time and bandwidth against n."""
    lengths = [2**p for p in range(12, 23)]
    return [Case(128, n, k, dtype, recall, index="int32")
            for dtype in ("float32", "bfloat16") for n in lengths for k in sorted({64, n // 64})
            for recall in (0.95, 1.0)]  # fmt: skip


def _exact() -> list[Case]:
    shapes = [(1, 2**20), (32, 50_257), (32, 128_256), (256, 151_552), (128, 2**20), (1, 2_650_000), (32, 2_650_000)]
    return [Case(rows, n, k, dtype)
            for rows, n in shapes for k in (1, 8, 50, 64, 256, 1024, 2048, 4096)
            for dtype in ("float32", "bfloat16")]  # fmt: skip


def _small_rows() -> list[Case]:
    return [Case(rows, n, k, dtype, index="int32")
            for rows, n in ((16_384, 1024), (16_384, 4096), (16_384, 8192), (2048, 2048), (65_536, 256))
            for k in (1, 8, 64) for dtype in ("float32", "float16")]  # fmt: skip


def _routing() -> list[Case]:
    """Experts of a mixture: every token picks a few."""
    return [Case(rows, n, k, dtype, index="int32")
            for rows in (32, 2048, 65_536) for n in (64, 128, 256, 512) for k in (1, 2, 8)
            for dtype in ("float32", "bfloat16")]  # fmt: skip


def _autoencoder() -> list[Case]:
    return [Case(4096, n, k, dtype, recall, sorted=False)
            for n in (2**15, 2**16, 2**17) for k in (32, 64, 128) for dtype in ("float32", "bfloat16")
            for recall in _RECALLS]  # fmt: skip


def _k_proportional() -> list[Case]:
    many = [Case(256, 2**16, 2**16 // part, "float16", recall, ordered, "int32")
            for part in (4, 8, 16) for recall in (0.95, 1.0) for ordered in (False, True)]  # fmt: skip
    # The example of the published library: j = 2, k_mult = 1, whose expected recall is 0.74.
    published = Case(128, 2**20, 2**16, sorted=False, index="int32", recall=0.74, buckets=2**15, k_per_bucket=2)
    return [*many, published]


def _indexer() -> list[Case]:
    """Sparse attention: which keys a query looks at."""
    return [Case(rows, n, k, dtype, recall, False, "int32", ragged=ragged)
            for rows, n in ((64, 131_072), (2048, 8192), (2048, 32_768)) for k in (512, 2048)
            for dtype in ("float32", "bfloat16") for recall in (0.95, 1.0) for ragged in (True, False)]  # fmt: skip


def _adversarial() -> list[Case]:
    kinds = ("normal", "uniform", "ties", "sorted", "reversed", "equal", "masked", "blocky")
    return [Case(rows, n, k, "float32", recall, inputs=kind, index="int32")
            for rows, n in ((128, 2**17), (4096, 8192)) for k in (64, 1024)
            for recall in (0.95, 1.0) for kind in kinds]  # fmt: skip


def _pareto() -> list[Case]:
    """Recall against time: from one candidate for each entry wanted to eight, kept by one to eight in a bucket."""
    named = [Case(128, 2**20, k, buckets=times * k // kept, k_per_bucket=kept, recall=0.95, sorted=False, index="int32")
             for k in (64, 1024) for times in (1, 2, 4, 8) for kept in (1, 2, 4, 8)]  # fmt: skip
    return [*named, *(Case(128, 2**20, k, sorted=False, index="int32") for k in (64, 1024))]


def _cpu() -> list[Case]:
    shapes = [(1, 2**20, 64), (32, 50_257, 50), (128, 65_536, 64), (128, 65_536, 4096), (16, 2**20, 65_536),
              (65_536, 64, 2), (4096, 512, 8), (1, 1024, 8), (1797, 16_173, 20)]  # fmt: skip
    return [Case(rows, n, k, recall=recall, inputs="digits" if n == 16_173 else "normal")
            for rows, n, k in shapes for recall in (0.95, 1.0)]  # fmt: skip


def _quick() -> list[Case]:
    """What the README claims, in 8 minutes of an H200."""
    return [
        *(Case(128, 2**20, k, recall=recall, sorted=False, index="int32") for k in (64, 1024) for recall in _RECALLS),
        *(Case(256, 2**20, k, "float16", recall, False, "int32") for k in (64, 1024) for recall in (0.95, 1.0)),
        *(Case(1, 2**20, k, recall=recall, index="int32") for k in (64, 256, 1024) for recall in (0.95, 1.0)),
        *(Case(32, 128_256, 50, "bfloat16", recall) for recall in (0.95, 1.0)),
        *(Case(16_384, n, 64, index="int32", sorted=False) for n in (1024, 4096, 8192)),
        *(Case(65_536, 256, 8, dtype, index="int32") for dtype in ("float32", "bfloat16")),
        *(Case(256, 2**16, 2**16 // part, "float16", sorted=False, index="int32") for part in (4, 8)),
        Case(64, 131_072, 2048, sorted=False, index="int32", ragged=True),
        _k_proportional()[-1],
        *(Case(128, 2**17, 64, inputs=kind, index="int32") for kind in ("sorted", "ties", "masked")),
    ]


#: Name -> the cases; made anew for every call, so that importing costs nothing.
SUITES = {
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
}
