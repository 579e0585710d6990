"""Bugs planted in the kernels on purpose must make the suite fail: a test of the tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import approxtopk as atk

from . import emulated
from .backends import backend_named, tuned
from .emulator import EmulatorError
from .inputs import make
from .test_filter import FILTER, ONE_BLOCK, ROW, SPLIT, aligned, run, sampled_entries
from .test_select import check

#: What to break: the source file's stem, the line's text and what replaces it.
MUTANTS = {
    "walk: dropped barrier before merging": (
        "bucket_walk",
        "        __syncthreads();\n        if (takes) {",
        "        if (takes) {",
    ),
    "walk: dropped barrier after merging": (
        "bucket_walk",
        "            }\n        }\n        __syncthreads();\n    }\n}",
        "            }\n        }\n    }\n}",
    ),
    "walk: last step lost": ("bucket_walk", "step < end && step <= full_end", "step < end && step < full_end"),
    "walk: one entry too many": ("bucket_walk", "flat >= 0 && flat < length", "flat >= 0 && flat <= length"),
    "walk: first lanes lost": ("bucket_walk", "flat >= 0 && flat < length", "flat > 0 && flat < length"),
    "walk: later of equal entries kept": ("bucket_walk", "return a.key > b.key; }", "return a.key >= b.key; }"),
    "walk: slots taken for full": ("bucket_walk", "int to_fill = KEEP + (VECTOR > 1 ? 1 : 0)", "int to_fill = 0"),
    "walk: lost remainder of contiguous buckets": (
        "bucket_walk",
        "Index(size + (bucket < longer ? 1 : 0))",
        "Index(size)",
    ),
    "merge: higher of equal indices kept": ("bucket_merge", "a.index < b.index", "a.index > b.index"),
    "keys: -0 below +0": ("radix_row", "((u & ~SIGN) ^ negative) - negative", "(u & ~SIGN) ^ negative"),
    "keys: NaNs ordered by payload": ("radix_row", "key < NAN_KEY ? key : NAN_KEY", "key"),
    "radix: dropped barrier after zeroing": (
        "radix_row",
        "scratch.histogram[bin] = 0;\n    __syncthreads();",
        "scratch.histogram[bin] = 0;",
    ),
    "radix: dropped barrier before reading sums": (
        "radix_row",
        "shared[warp] = sum;\n    __syncthreads();",
        "shared[warp] = sum;",
    ),
    "radix: one too many above the cut": ("radix_row", "cut.need <= above + mine", "cut.need < above + mine"),
    "radix: ties taken from the end": ("radix_row", "maybes < cut.need)) {", "maybes >= cut.need)) {"),
    "radix: a tile's end lost": ("radix_histogram", "end = source.positions;", "end = source.positions - VECTOR;"),
    "radix: counts of earlier blocks ignored": (
        "radix_scatter",
        "earlier < part.partition",
        "earlier + 1 < part.partition",
    ),
    "filter: too many ties taken": ("filter_row", "0, 0, k - above, 0}", "0, 0, k, 0}"),
    "filter: too few survivors not noticed": (
        "filter_row",
        "kept < k || kept > u64(p.capacity)",
        "kept > u64(p.capacity)",
    ),
    "filter: the row's end not read": (
        "filter_row",
        "threadIdx.x >= 2 * VECTOR) return;",
        "threadIdx.x >= VECTOR) return;",
    ),
    "filter: list entered at the wrong place": (
        "filter_row",
        "first + base + slot, filter",
        "first + slot, filter",
    ),
    "filter: counter not shared with the other blocks": (
        "filter_row",
        "filter.equal = load_fresh(counts + 1);",
        "filter.equal = all;",
    ),
    "filter: counters not zero for the next run": (
        "filter_row",
        "if (threadIdx.x < 2) store(counts + threadIdx.x, 0u);",
        "",
    ),
    "filter: the k-th and its equals cut off": ("filter_row", "entry.key >= kth", "entry.key > kth"),
    "filter: a block that is not the last finishes": ("filter_row", "return last;", "return true;"),
    "filter: a short row sampled less densely": (
        "filter_row",
        "if (length < u64(p.rows.n)) loads = divide(",
        "if (length < u64(p.rows.n)) loads = divide(0 * ",
    ),
    "bucket row: a partition not merged": (
        "bucket_row",
        "for (u64 partition = 0; partition < partitions; ++partition) {",
        "for (u64 partition = 1; partition < partitions; ++partition) {",
    ),
    "bucket row: more than k_b of a bucket": ("bucket_row", "if (u64(j) < kept) candidates", "if (true) candidates"),
    "bucket row: guards of one bucket only": (
        "bucket_row",
        "guard = chosen<true>(guard, best[j]);",
        "guard = best[j];",
    ),
    "bucket row: dropped barrier before selecting": (
        "bucket_row",
        "        }\n    }\n    __syncthreads();\n\n    const Source source",
        "        }\n    }\n\n    const Source source",
    ),
    "rows: start not added": ("bucket_walk", "i64(row.first) + i64(bucket)", "i64(bucket)"),
    "rows: lengths beyond the end": ("radix_row", "if (length < u64(end - first)) end", "end"),
    "rows: padding by an entry": ("radix_row", "is_there ? i64(entry.index) : -1", "i64(entry.index)"),
    "certify: guards of the first buckets only": ("certify", "bucket < u64(p.buckets)", "bucket < u64(p.buckets) / 2"),
    "certify: the best in place of the worst": ("certify", "worst = chosen<false>(", "worst = chosen<true>("),
    "guard: left among the candidates": ("bucket_guard", "store_pair(p.candidates, base + where, EMPTY);", ";"),
    "radix: a list that is not complete taken for one": ("radix_count", "load(counts) <= capacity", "true"),
    "radix: entries above the listed forgotten": ("radix_count", "if (threadIdx.x == 0) sure +=", "if (false) sure +="),
    "radix: histograms not zero for the next run": (
        "radix_scatter",
        "store(histograms + bin, Count(0));",
        ";",
    ),
    "radix sort: equal ones out of order": (
        "radix_row",
        "__popc(peers & ((1u << lane) - 1))",
        "__popc(peers >> lane) - 1",
    ),
    "radix sort: dropped barrier before counting on": (
        "radix_row",
        "__syncwarp();\n            if (there && rank == 0)",
        "if (there && rank == 0)",
    ),
    "radix sort: dropped barrier between passes": (
        "radix_row",
        "        }\n        __syncthreads();\n        Item* other",
        "        }\n        Item* other",
    ),
    "radix sort: warps in each other's places": ("radix_row", "= at;\n                    at += here;", "= at;"),
    "sort: comparison reversed at one distance": ("radix_row", "(low & run) == 0", "(low & distance) == 0"),
    "order: dropped barrier after loading": (
        "order_merge",
        "second(from_second + i - firsts);\n    __syncthreads();",
        "second(from_second + i - firsts);",
    ),
    "order: equal entries of the second run first": (
        "order_merge",
        "if (better(second(diagonal - 1 - middle), first(middle))) high = middle;",
        "if (!better(first(middle), second(diagonal - middle))) high = middle;",
    ),
    "small: dropped barrier before ranking": (
        "warp_row",
        "shared.found[count + lane] = NOTHING;\n        __syncwarp();",
        "shared.found[count + lane] = NOTHING;",
    ),
    "small: dropped barrier after ranking": (
        "warp_row",
        "__syncwarp();\n        mine = shared.ordered[lane];",
        "mine = shared.ordered[lane];",
    ),
    "small: later of equal entries first": (
        "warp_row",
        "(a.key == b.key) & (a.index < b.index)",
        "(a.key == b.key) & (a.index > b.index)",
    ),
    "small: bound one rank too high": ("warp_row", "best, int(k) - 1, LANES)", "best, int(k) - 2, LANES)"),
    "small: bound of both sorts too high": ("warp_row", "int(k - 2 - lane)", "int(k - 3 - lane)"),
    "small: survivors beyond the room for them": ("warp_row", "count <= CAPACITY)", "count <= 2 * CAPACITY)"),
    "small: end of the survivors unfilled": (
        "warp_row",
        "if (lane < AT_ONCE) shared",
        "if (lane < AT_ONCE - 2) shared",
    ),
    "small: one entry too many": (
        "warp_row",
        "if (position_of(e, lane) >= length) continue;\n            const Word",
        "if (position_of(e, lane) > length) continue;\n            const Word",
    ),
    "small: entries that are not there": ("warp_row", "exists = kept_step(mine) < length", "exists = true"),
    "small: rows taken for aligned": (
        "warp_row",
        "(reinterpret_cast<u64>(x) | length * sizeof(Element)) % BYTES",
        "length * sizeof(Element) % BYTES",
    ),
    "small: the wrong entry not taken again": ("warp_row", "* VECTOR + taken % VECTOR)", "* VECTOR)"),
    "small: lanes without a row": ("warp_row", "if (!is_there) row = u64(p.rows_count) - 1;", ""),
}


#: What forces the radix selection, one block a row or several.
RADIX = {"small_entries": 0, "chip_entries": 0, "filter_entries": 0, "copy_bytes": 0}
SMALL_BLOCKS = {"least_steps": 2, "threads": 32, "split_entries": 64, "row_threads": 32, "tile": 16}


def walks() -> None:
    """The walk and its merge, with the selection behind them; rows whole and ragged, lanes and steps shared."""
    for seed in range(3):
        with backend_named("emulated", seed) as backend:
            for kind, mode in itertools.product(("few", "nan", "zeros", "random"), ("largest", "smallest")):
                wide, odd = make(kind, "float32", (3, 640), seed), make(kind, "float32", (3, 331), seed)
                bounds = {"starts": np.array([0, 7, 300]), "lengths": np.array([331, 200, 90])}
                for numbers in ({"fused_bytes": 0}, {"fused_bytes": 0, **SMALL_BLOCKS}):
                    with tuned(**numbers):
                        check(backend, odd, "float32", 14, mode=mode, buckets=32, k_per_bucket=2, certify=True)
                        check(backend, odd, "float32", 14, mode=mode, buckets=32, k_per_bucket=2, **bounds)
                        check(backend, odd, "float32", 14, mode=mode, buckets=7, k_per_bucket=2, interleaved=False)
                        check(backend, wide, "float32", 60, mode=mode, buckets=32, k_per_bucket=2)
                        check(backend, wide, "float32", 40, mode=mode, buckets=2, k_per_bucket=20, certify=True)


def fused() -> None:
    """The walk with the selection in its launch."""
    for seed in range(3):
        with backend_named("emulated", seed) as backend:
            for kind, mode in itertools.product(("few", "nan", "zeros", "random"), ("largest", "smallest")):
                odd = make(kind, "float32", (2, 1331), seed)
                for numbers in ({}, {"least_steps": 1}, SMALL_BLOCKS):
                    with tuned(fused_bytes=40_000, **numbers):
                        check(backend, odd, "float32", 14, mode=mode, buckets=32, k_per_bucket=2, certify=True)
                        check(backend, odd, "float32", 16, mode=mode, buckets=21, k_per_bucket=1, interleaved=False)
                        check(backend, odd, "float32", 40, mode=mode, buckets=600, k_per_bucket=1, certify=True)
                        check(backend, odd, "float32", 64, mode=mode, buckets=32, k_per_bucket=2, certify=True)


def digits() -> None:
    """The radix selection, one block a row and several, and the ordering of its results."""
    for seed in range(3):
        with backend_named("emulated", seed) as backend:
            for kind, mode in itertools.product(("few", "nan", "zeros", "random"), ("largest", "smallest")):
                odd = make(kind, "float32", (3, 331), seed)
                bounds = {"starts": np.array([0, 7, 300]), "lengths": np.array([400, 200, 9])}
                on_chip = {**RADIX, "copy_bytes": 2**20, "tile": 16}
                for numbers in (RADIX, on_chip, RADIX | SMALL_BLOCKS, RADIX | SMALL_BLOCKS | {"split_entries": 128}):
                    with tuned(**numbers):
                        check(backend, odd, "float32", 30, mode=mode, exact=True)
                        check(backend, odd, "float32", 90, mode=mode, exact=True, **bounds)
    with emulated.emulated() as runtime, tuned(**RADIX, **SMALL_BLOCKS):
        run_twice(make("random", "float32", (2, 331)).view(np.float32), 90, runtime)


def filtered() -> None:
    """Rows long enough for the filter, among them ones that mislead its sample and ones of many ties."""
    for seed, multiprocessors in itertools.product(range(2), (ONE_BLOCK, SPLIT)):
        rng = np.random.default_rng(seed)
        ordinary = rng.standard_normal(ROW).astype(np.float32)
        last = np.arange(ROW, dtype=np.float32)
        misleading = ordinary.copy()
        misleading[sampled_entries(ROW, 30, multiprocessors)] += 1e3
        masked = np.where(rng.random(ROW) < 1e-3, 1.0, -np.inf).astype(np.float32)
        for row in (ordinary, last, last[:-1], misleading, masked):
            run(aligned(row), "float32", 30, multiprocessors)
        run(aligned(rng.standard_normal(2 * ROW).astype(np.float32)), "float32", 1000, multiprocessors)
        with emulated.emulated(multiprocessors=multiprocessors) as runtime, tuned(**FILTER):
            run_twice(ordinary[None], 30, runtime)
            runtime.launched.clear()
            atk.top_k(ordinary[None], 30, lengths=np.array([ROW // 4]))
            # Found at the first attempt, without the second reading of a row whose sample misled.
            assert sum(stats.bytes_loaded for _, stats in runtime.launched) < 4 * ROW


def short_rows() -> None:
    """Short rows: with both bounds, many ties, unaligned, ragged, few and many lanes a row."""
    for seed, multiprocessors in itertools.product(range(3), (1, 132)):
        with tuned(chip_entries=0), backend_named("emulated", seed, multiprocessors=multiprocessors) as backend:
            for kind, k in itertools.product(("random", "few", "equal"), (3, 7, 20)):
                check(backend, make(kind, "float32", (6, 120), seed), "float32", k, exact=True)
                bits = make(kind, "float32", (5, 203), seed)
                check(backend, bits, "float32", k, exact=True)
                check(backend, bits[:, :124], "float32", k, exact=True, view=lambda a: a[:, 1:121])
                lengths = np.array([120, 90, 30, 7, 2, 0])
                check(backend, make(kind, "uint8", (6, 120), seed), "uint8", k, exact=True, lengths=lengths)


def run_twice(x: np.ndarray, k: int, runtime: emulated.EmulatedRuntime) -> None:
    """A prepared call finds its counters as the call before it left them."""
    prepared = atk.prepare(x.shape, k, exact=True, device=runtime.info)
    want = np.argsort(-x, axis=1, kind="stable")[:, :k]
    for _ in range(2):
        np.testing.assert_array_equal(prepared(x).indices, want)


#: What reaches each kernel.
BATTERIES = {
    "bucket_walk": walks,
    "bucket_merge": walks,
    "bucket_guard": walks,
    "certify": walks,
    "bucket_row": fused,
    "radix_row": digits,
    "radix_histogram": digits,
    "radix_count": digits,
    "radix_scatter": digits,
    "order_tiles": digits,
    "order_merge": digits,
    "filter_row": filtered,
    "warp_row": short_rows,
}


@pytest.mark.parametrize("battery", dict.fromkeys(BATTERIES.values()))
def test_a_battery_passes_on_the_real_kernels(battery: Callable[[], None]) -> None:
    battery()


def plant(monkeypatch: pytest.MonkeyPatch, source: str, right: str, wrong: str) -> None:
    """Let the emulator compile `source` with `wrong` in the place of `right`."""
    real: Callable[[str], str] = emulated.joined
    assert right in real(source), "the kernel has changed: plant this bug anew"

    def joined(stem: str) -> str:
        return real(stem).replace(right, wrong) if stem == source else real(stem)

    monkeypatch.setattr(emulated, "joined", joined)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, right, wrong = MUTANTS[name]
    plant(monkeypatch, source, right, wrong)
    with pytest.raises((AssertionError, EmulatorError)):
        BATTERIES[source]()
