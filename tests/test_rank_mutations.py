"""Bugs planted in the kernels of ranks must make the suite fail, as those of test_mutations."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from approxtopk.plan import Launch
from approxtopk.planning.rank import FEW

from .backends import tuned
from .emulated import EmulatedRuntime
from .emulator import EmulatorError
from .inputs import make, some
from .test_mutations import plant
from .test_rank_kernel import SPLIT, check, counters_after, targets

#: What to break: the kernel, the element type it shows with, the line's text and what replaces it.
MUTANTS = {
    "the target ranks above itself": (
        "rank",
        "float32",
        "count_beating<UP, false>(word",
        "count_beating<UP, true>(word",
    ),
    "targets below zero taken for their magnitude": ("rank", "float32", "element_of(target, coding, bound);", ";"),
    "NaN targets not moved to the largest number": ("rank", "float32", "if (is_nan) bound = LARGEST_NUMBER;", ""),
    "NaN targets counted as numbers": ("rank", "float32", "if (is_nan) return UP", "if (false) return UP"),
    "entries not counted that were seen": ("rank", "float32", "seen += UNROLL * VECTOR;", ""),
    "halves: -0 below +0": ("rank", "float8_e4m3fn", "element == 0 ? 1u << (BITS - 1) : element,", "element,"),
    "halves: half of the bytes": ("rank", "int8", "select_bytes(word ^ flip, 0, 0x4342)", "0"),
    "halves: signs of integers": ("rank", "int8", "/ 0x1000000 * 0x1010101", "/ 0x1000000"),
    "keys: what stands below an entry": ("rank", "int16", "target | (LEAST_STEP - 1), above", "target, above"),
    "loads behind the target taken for ones before it": ("rank", "float32", "next = min(next, ahead[t]);", ";"),
    "the target passed one load late": (
        "rank",
        "float32",
        "if (number >= ahead[t]) pass",
        "if (number > ahead[t]) pass",
    ),
    "a target behind all loads": ("rank", "float32", "if (ahead[t] != NOWHERE) pass(t);", ""),
    "a target ahead of a piece": ("rank", "float32", "is_there && load >= piece.first ? load", "is_there ? load + 1"),
    "the target's own load": ("rank", "float32", "if (VECTOR == 1 || ranks.ahead", "if (true || ranks.ahead"),
    "the target itself before it": (
        "rank",
        "float32",
        "if (position < u64(ranks.target[t].index) + piece.shift)",
        "if (position <= u64(ranks.target[t].index) + piece.shift)",
    ),
    "loads that are not there": ("rank", "float32", "if (number < last) {", "{"),
    "the ends of a row": ("rank", "float32", "piece.ends(thread, take);", ""),
    "the end of a row": ("rank", "float32", "thread >= 2 * VECTOR) return;", "thread >= VECTOR) return;"),
    "all that is equal in the ends": (
        "rank",
        "float32",
        "key == ranks.target[t].key && position <",
        "key == 0 && position <",
    ),
    "a row that is not aligned": ("rank", "float32", "/ sizeof(Element) % VECTOR) : 0;", "/ sizeof(Element) * 0) : 0;"),
    "targets beyond a shorter row": ("rank", "float32", "u64(index) >= row.length", "u64(index) >= u64(p.rows.n)"),
    "targets below zero": ("rank", "float32", "u64(index) >= row.length", "index >= i64(row.length)"),
    "the step between targets": ("rank", "float32", "i64(number) * p.index_step", "i64(number)"),
    "targets that are not there": ("rank", "float32", "== NOWHERE) counts.above = ABSENT;", "== NOWHERE) ;"),
    "one warp of a row": ("rank", "float32", "for (u32 w = 1; w < warps; ++w)", "for (u32 w = 1; w < 1; ++w)"),
    "dropped barrier before adding": (
        "rank",
        "float32",
        "    __syncthreads();\n    if (threadIdx.x < rows * TARGETS)",
        "    if (threadIdx.x < rows * TARGETS)",
    ),
    "one piece of a row": ("rank", "float32", "piece < u64(p.pieces)", "piece < u64(1)"),
    "a block that is not the last adds": ("rank", "float32", "return last;", "return true;"),
    "counters not zero for the next run": ("rank", "float32", "if (before == blocks - 1) store(counter, 0u);", ""),
    "rows that are not there": ("rank", "float32", "if (row < u64(p.rows_count)) {", "{"),
    "how many exist, never said": (
        "rank",
        "float32",
        "if (number == 0 && thread == 0)",
        "if (number == 1 && thread == 1)",
    ),
    "the first of equals for each of them": ("rank", "float32", "p.ties == FIRST ? before : 0", "0"),
    "many: entries at the wrong target": (
        "rank_many",
        "float32",
        "return better(entry, targets[i]);",
        "return better(entry, targets[i]) || i == 3;",
    ),
    "many: equal entries behind the last target": (
        "rank_many",
        "float32",
        "else if (at > 0 && targets[at - 1].key == entry.key)",
        "else if (false)",
    ),
    "many: equal entries before a target": ("rank_many", "float32", "if (is_before) atomicAdd", "if (false) atomicAdd"),
    "many: the worst target's equals": ("rank_many", "float32", "if (key >= worst)", "if (key > worst)"),
    "many: a word of a load": ("rank_many", "float32", "there >> w; ++w", "there >> w + 1; ++w"),
    "many: the ends of a row": (
        "rank_many",
        "float32",
        "piece.ends(threadIdx.x,",
        "if (p.m < 0) piece.ends(threadIdx.x,",
    ),
    "many: a row that is not aligned": (
        "rank_many",
        "float32",
        "Index(position + v - piece.shift)",
        "Index(position + v)",
    ),
    "many: the first of equal targets": (
        "rank_many",
        "float32",
        "return targets[i].key <= target.key;",
        "return targets[i].key < target.key;",
    ),
    "many: sums of one part": ("rank_many", "float32", "sum += total;", ""),
    "many: dropped barrier before sorting": (
        "rank_many",
        "float32",
        "count += __syncthreads_count(i < size && target.index != NOWHERE);",
        "count += i < size ? 1 : 0;",
    ),
    "many: dropped barrier behind the row": (
        "rank_many",
        "float32",
        "        __syncthreads();\n        add_up(bins.better",
        "        add_up(bins.better",
    ),
    "many: a chunk's targets": ("rank_many", "float32", "chunk * u64(p.chunk), end", "chunk * 0, end"),
}


def few_targets(dtype: str) -> None:
    """Rows whole and split, aligned and not, of several lengths, side by side in a block; targets everywhere."""
    runtime = EmulatedRuntime(2, multiprocessors=4)
    lengths = np.array([650, 0, 130, 7, 651])
    for number, (kind, mode) in enumerate(itertools.product(("few", "nan", "zeros"), ("largest", "smallest"))):
        bits = make(kind, dtype, (5, 656), seed=number)
        for numbers, m in itertools.product(
            ({"row_threads": 32}, {"row_threads": 64, "thread_loads": 1}, SPLIT), (1, FEW)
        ):
            with tuned(**numbers):
                check(runtime, bits[:, 5:], dtype, targets((5, m), 651, seed=m), mode=mode)
                check(runtime, bits[:, 5:], dtype, targets((5, 2 * m), 651)[:, ::2], mode=mode, lengths=lengths)
    rows = np.broadcast_to(make("few", dtype, (600,)), (60, 600))
    with tuned(row_threads=64):
        check(runtime, rows, dtype, np.arange(0, 600, 10))
    counters(runtime, dtype, 1)


def many_targets(dtype: str) -> None:
    """The same for more targets than registers have room for, and than a block has."""
    runtime = EmulatedRuntime(2, multiprocessors=4)
    for number, (kind, mode) in enumerate(itertools.product(("few", "nan"), ("largest", "smallest"))):
        bits = make(kind, dtype, (3, 656), seed=number)
        for numbers in ({"row_threads": 64, "thread_loads": 1}, SPLIT):
            with tuned(**numbers):
                for m in (5, 150):
                    lengths = np.array([650, 0, 130])
                    check(runtime, bits[:, 5:], dtype, targets((3, m), 651), mode=mode)
                    check(runtime, bits[:, 5:], dtype, targets((3, m), 651), mode=mode, lengths=lengths)
    counters(runtime, dtype, 9)
    runtime.info = runtime.info.__class__("small", "sm_90", 4, 2000)
    check(runtime, bits, dtype, targets((3, 180), 656))


def counters(runtime: EmulatedRuntime, dtype: str, m: int) -> None:
    """A prepared call finds its counters as the call before it left them, and only one block of a row adds."""
    bits = make("few", dtype, (2, 700))
    with tuned(**SPLIT):
        index = targets((2, m), 700)
        plan = check(runtime, bits, dtype, index).plan
        (launch,) = (step for step in plan.steps if isinstance(step, Launch))
        # Of every block what it counted, and that it is done; of every row the sums, and the counter's zero.
        assert runtime.launched[-1][1].bytes_stored == launch.grid * (12 * m + 4) + 2 * (2 * m * 8 + 8 + 4)
        left = counters_after(runtime, bits, dtype, index, plan)
        assert left == bytes(len(left))


BATTERIES: dict[str, Callable[[str], None]] = {"rank": few_targets, "rank_many": many_targets}


@pytest.mark.parametrize(("kernel", "dtype"), sorted({mutant[:2] for mutant in MUTANTS.values()}))
def test_a_battery_passes_on_the_real_kernels(kernel: str, dtype: str) -> None:
    BATTERIES[kernel](dtype)


@pytest.mark.parametrize("name", some(MUTANTS, 3))
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, dtype, right, wrong = MUTANTS[name]
    plant(monkeypatch, kernel, right, wrong)
    with pytest.raises((AssertionError, EmulatorError)):
        BATTERIES[kernel](dtype)
