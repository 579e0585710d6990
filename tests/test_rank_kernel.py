"""Counts of ranks against the oracle: the NumPy path and the kernels in the emulator, below the public functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from approxtopk.buffer import Buffer, Device
from approxtopk.dtypes import DTYPES
from approxtopk.errors import InvalidArgument
from approxtopk.execute import execute
from approxtopk.host import counting, rank_counts, threads
from approxtopk.plan import Fill, HostCall, Launch, Plan
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.rank import FEW, plan_rank
from approxtopk.rank_request import TIES, RankRequest
from approxtopk.runtime.host import HostRuntime
from approxtopk.runtime.protocol import Runtime

from .backends import tuned
from .emulated import EmulatedRuntime
from .inputs import KINDS, make
from .reference_rank import reference_ranks
from .test_host import subnormals_flushed

INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind != "f"]
FLOATS = [name for name, dtype in DTYPES.items() if dtype.kind == "f"]
MODES = ("largest", "smallest")
#: Targets a row: none, one, a few, and so many that they are sorted.
SEVERAL = (0, 1, 2, FEW, FEW + 1, 40, 300)
#: What makes the planner split rows of some hundreds of entries, or use its general kernels.
SPLIT = {"split_blocks": 4, "split_entries": 64, "row_threads": 32, "thread_loads": 1}
GENERAL = {"narrow_entries": 0}


class Counted(NamedTuple):
    """What came of a call for counts, and of one for ranks by lower index."""

    counts: tuple[np.ndarray, ...]  # greater, equal, before, valid
    plan: Plan  # of the call for counts


def count(runtime: Runtime, bits: np.ndarray, dtype: str, index: Any, **options: Any) -> Counted:
    """Count, what is before by the difference between two ranks; nothing is before a value that is no entry."""
    first = call(runtime, bits, dtype, index, ties="first", **options)[0][0] if index is not None else None
    (greater, equal, valid), plan = call(runtime, bits, dtype, index, **options)
    if first is None:
        return Counted((greater, equal, np.zeros_like(greater), valid), plan)
    np.testing.assert_array_equal(first < 0, greater < 0)
    return Counted((greater, equal, np.where(first < 0, -1, first - greater), valid), plan)


def call(
    runtime: Runtime,
    bits: np.ndarray,
    dtype: str,
    index: Any,
    *,
    lengths: np.ndarray | None = None,
    value: np.ndarray | None = None,
    count_dtype: str = "int64",
    **options: Any,
) -> tuple[tuple[np.ndarray, ...], Plan]:
    """Plan a call and run it, on memory that holds anything."""
    buffers = {"x": buffer(bits, dtype)}
    if index is not None:
        options["index"] = index
    for name, array in (("index", index), ("value", value), ("lengths", lengths)):
        if isinstance(array, np.ndarray):
            given = buffers[name] = buffer(array, dtype if name == "value" else array.dtype.name)
            options[name] = (given.dtype, given.shape, given.strides)
    request = RankRequest.build("rank", bits.shape, buffers["x"].strides, dtype, count_dtype=count_dtype, **options)
    plan = plan_rank(request, runtime.device_info(Device("cpu")))
    results = {output.name: np.full(output.shape, 77, output.dtype) for output in plan.outputs}
    workspace = np.full(plan.workspace_bytes + 256, 77, np.uint8)
    workspace = workspace[-workspace.ctypes.data % 256 :][: plan.workspace_bytes]
    buffers |= {name: buffer(array, array.dtype.name) for name, array in results.items()}
    execute(plan, {**buffers, "workspace": buffer(workspace, "uint8")}, runtime)
    return tuple(results.values()), plan


def buffer(array: np.ndarray, dtype: str) -> Buffer:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Buffer(array.ctypes.data, array.shape, strides, dtype, Device("cpu"))


def check(
    runtime: Runtime, bits: np.ndarray, dtype: str, index: Any, *, mode: str = "largest", **options: Any
) -> Counted:
    """Compare all counts with the oracle's."""
    got = count(runtime, bits, dtype, index, mode=mode, **options)
    options.pop("count_dtype", None)
    want = reference_ranks(bits, DTYPES[dtype], index, largest=mode == "largest", **options)
    for name, mine, theirs in zip(("greater", "equal", "before", "valid"), got.counts, want, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=f"{name} of {dtype}, {mode}, {options}")
    return got


@pytest.fixture(params=["numpy", "emulated"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return HostRuntime() if request.param == "numpy" else EmulatedRuntime(1)


def targets(shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Some that exist, some twice, and some that do not exist."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, max(n, 1), shape)
    odd = rng.random(shape)
    found[odd < 0.1] = n // 2
    found[odd > 0.93] = rng.choice([-1, n, n + 3, -(2**40), 2**40])
    return found


# ---- Elements ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_input(runtime: Runtime, dtype: str) -> None:
    for (number, kind), mode in itertools.product(enumerate(KINDS), MODES):
        bits = make(kind, dtype, (3, 203), seed=number)
        for m in (1, 3, 9):
            check(runtime, bits, dtype, targets((3, m), 203, seed=number), mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_pattern_against_every_kind_of_target(runtime: Runtime, dtype: str, mode: str) -> None:
    element = DTYPES[dtype]
    top, sign = element.largest_number, 1 << (element.bits - 1)
    least_normal = {0x7C: 4, 0x7E: 8, 0x7C00: 0x400, 0x7F80: 0x80, 0x7F800000: 2**23, 0x7FF0000000000000: 2**52}[top]
    special = [0, 1, least_normal - 1, least_normal, top - 1, top, top + 1, sign - 1, least_normal * 3 // 2]
    special = [value for value in (*special, *(s | sign for s in special)) if value < 2 * sign]
    everything = np.arange(2 ** min(element.bits, 16), dtype=f"u{element.itemsize}")
    if element.bits > 16:  # all signs, exponents and first digits, then random and then special patterns
        everything = everything << everything.dtype.type(element.bits - 16)
        everything = np.concatenate([everything[::16], make("any bits", dtype, (2000,)), make("nan", dtype, (500,))])
    row = np.concatenate([np.array(special, everything.dtype), everything])
    np.random.default_rng(0).shuffle(row)
    rows = [int(np.flatnonzero(row == value)[0]) for value in special]
    # What the oracle says is worked out once for all targets of one value.
    bits = np.broadcast_to(row, (len(rows), row.size))
    index = np.array(rows)
    order = np.array([merit_number(int(value), dtype, mode) for value in row])
    greater = np.array([(order > order[i]).sum() for i in rows])
    equal = np.array([(order == order[i]).sum() for i in rows])
    before = np.array([(order[:i] == order[i]).sum() for i in rows])
    got = count(runtime, bits, dtype, index, mode=mode).counts
    several = count(runtime, row[None], dtype, index[None], mode=mode).counts
    few = count(runtime, row[None], dtype, index[None, :FEW], mode=mode).counts
    for want, one, many, some in zip((greater, equal, before), got, several, few, strict=False):
        np.testing.assert_array_equal(one, want)
        np.testing.assert_array_equal(many[0], want)
        np.testing.assert_array_equal(some[0], want[:FEW])


def merit_number(bits: int, dtype: str, mode: str) -> float:
    """An element's merit as a number: with as many digits as patterns of the test differ in."""
    from .reference import merit

    group, value = merit(bits, DTYPES[dtype], largest=mode == "largest")
    return np.longdouble(value) if group == 0 else group * np.longdouble(2) ** 70


@pytest.mark.parametrize("dtype", FLOATS)
def test_with_subnormals_flushed_to_zero(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(threads, "width", lambda: 1)
    kinds = ("subnormal", "zeros", "extremes")
    cases = [(make(kind, dtype, (40, 50)), mode) for kind in kinds for mode in MODES]
    index = targets((40,), 50, seed=3)
    with subnormals_flushed():
        got = [count(HostRuntime(), bits, dtype, index, mode=mode).counts for bits, mode in cases]
    for counts, (bits, mode) in zip(got, cases, strict=True):
        wanted = reference_ranks(bits, DTYPES[dtype], index, largest=mode == "largest")
        for mine, want in zip(counts, wanted, strict=True):
            np.testing.assert_array_equal(mine, want)


# ---- Shapes --------------------------------------------------------------------------------------------------

VIEWS: dict[str, tuple[tuple[int, ...], int, Callable[[np.ndarray], np.ndarray]]] = {
    "one row": ((331,), 0, lambda a: a),
    "unaligned rows": ((5, 331), 1, lambda a: a[:, 3:]),
    "first axis": ((203, 5), 0, lambda a: a),
    "middle axis": ((3, 203, 4), 1, lambda a: a),
    "reversed": ((3, 203), 1, lambda a: a[:, ::-1]),
    "every other": ((3, 406), -1, lambda a: a[:, ::2]),
    "transposed": ((203, 2, 3), 2, lambda a: a.transpose(1, 2, 0)),
    "broadcast": ((1, 203), 1, lambda a: np.broadcast_to(a, (3, 203))),
    "four axes": ((2, 3, 70, 2), 2, lambda a: a[:, ::2]),
    "one entry": ((4, 1), 1, lambda a: a),
    "no entry": ((4, 0), 1, lambda a: a),
    "no rows": ((0, 7), 1, lambda a: a),
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_axis_and_strides(runtime: Runtime, view: str) -> None:
    shape, axis, see = VIEWS[view]
    for dtype, numbers in itertools.product(("float32", "bfloat16", "int8"), ({}, SPLIT, GENERAL)):
        bits = see(make("few", dtype, shape))
        with tuned(**numbers):
            for m in (None, *SEVERAL[:-1]):
                check(runtime, bits, dtype, targets(targets_shape(bits, axis, m), bits.shape[axis]), axis=axis)


def targets_shape(bits: np.ndarray, axis: int, m: int | None) -> tuple[int, ...]:
    shape = list(bits.shape)
    if m is None:
        del shape[axis]
    else:
        shape[axis] = m
    return tuple(shape)


def test_every_alignment_length_and_place_of_the_target(runtime: Runtime) -> None:
    for dtype, n in itertools.product(("float32", "uint8", "float64"), (1, 2, 15, 16, 17, 33, 130)):
        memory = make("few", dtype, (3 * n + 40,))
        for start in range(16 // memory.itemsize):
            bits = memory[start : start + 2 * n].reshape(2, n)
            places = np.unique([0, 1, n // 2, n - 2, n - 1])[None].repeat(2, 0)
            check(runtime, bits, dtype, places[:, start % places.shape[1]])
            check(runtime, bits, dtype, places)


def test_a_target_in_every_place(runtime: Runtime) -> None:
    # Enough loads for several rounds of several warps, and the target at each step of them.
    row = make("few", "float32", (1, 2600))
    places = np.arange(0, 2600, 7)
    bits = np.broadcast_to(row[:, 1:], (places.size, 2599))
    want = reference_ranks(row[:, 1:], DTYPES["float32"], places[None])
    for numbers in ({"row_threads": 32}, {"row_threads": 64}, SPLIT):
        with tuned(**numbers):
            for got, oracle in zip(count(runtime, bits, "float32", places).counts, want[:3], strict=False):
                np.testing.assert_array_equal(got, oracle[0])


def test_several_targets_in_every_place(runtime: Runtime) -> None:
    bits = make("few", "float32", (60, 1000))
    index = np.random.default_rng(0).integers(0, 1000, (60, FEW))
    for numbers in ({"row_threads": 32}, {"row_threads": 128}, SPLIT):
        with tuned(**numbers):
            check(runtime, bits, "float32", index)


@pytest.mark.parametrize("dtype", [*INTEGERS])
def test_index_and_lengths_of_every_integer_type(runtime: Runtime, dtype: str) -> None:
    info = np.iinfo(dtype)
    bits = make("few", "float32", (6, 100))
    lengths = np.array([0, 1, 50, 100, info.max, info.min], dtype)
    index = np.array([0, 0, 49, 99, info.max, info.min], dtype)
    for counts in ("int32", "int64"):
        for given in (None, lengths):
            check(runtime, bits, "float32", index, lengths=given, count_dtype=counts)
            # Every other of six, and as many as stand there backwards.
            check(runtime, bits, "float32", np.stack([index, index[::-1]] * 3, 1)[:, ::2], lengths=given)
    strided = np.stack([index, lengths], axis=1)
    check(runtime, bits, "float32", strided[:, 0], lengths=strided[:, 1])


def test_ragged_rows(runtime: Runtime) -> None:
    lengths = np.array([0, 1, 7, 100, 202, 203, 204, 2**40, -1, -(2**40), 50])
    for dtype, mode, numbers in itertools.product(("float32", "int8"), MODES, ({}, SPLIT, GENERAL)):
        bits = make("few", dtype, (lengths.size, 203))
        with tuned(**numbers):
            for m in SEVERAL[:-1]:
                index = targets((lengths.size, m), 203)
                check(runtime, bits, dtype, index, lengths=lengths, mode=mode)
            check(runtime, bits, dtype, 57, lengths=lengths, mode=mode)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_many_targets(runtime: Runtime, dtype: str) -> None:
    for number, kind in enumerate(("few", "any bits", "equal", "sorted")):
        bits = make(kind, dtype, (2, 301), seed=number)
        for m, (mode, numbers) in itertools.product(SEVERAL[3:], zip(MODES, ({}, SPLIT), strict=True)):
            with tuned(**numbers):
                check(runtime, bits, dtype, targets((2, m), 301, seed=m), mode=mode)


def test_one_target_for_all_rows(runtime: Runtime) -> None:
    bits = make("few", "bfloat16", (3, 4, 150))
    for place in (0, 77, 149):
        check(runtime, bits, "bfloat16", place)
    check(runtime, bits, "bfloat16", 3, axis=1, mode="smallest", count_dtype="int32")
    # The same as an array without strides.
    check(runtime, bits, "bfloat16", np.broadcast_to(np.int16(77), (3, 4)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_given_by_value(runtime: Runtime, dtype: str) -> None:
    lengths = np.array([203, 100, 0, 1])
    for number, (kind, mode) in enumerate(itertools.product(("nan", "zeros", "extremes"), MODES)):
        bits, values = make(kind, dtype, (4, 203), seed=number), make(kind, dtype, (4, 9), seed=number + 7)
        values[:, 2] = bits[:, 100]
        for value in (values, values[:, ::3], values[:, 2]):
            check(runtime, bits, dtype, None, value=value, mode=mode)
            check(runtime, bits, dtype, None, value=value, mode=mode, lengths=lengths)
        if number < 2:
            check(runtime, bits.T, dtype, None, value=values.T[:3], axis=0, mode=mode)


def test_counts_add_over_shards(runtime: Runtime) -> None:
    bits = make("few", "float32", (4, 600))
    for m in (1, FEW, 9):
        index = np.random.default_rng(m).integers(0, 600, (4, m))
        value = np.take_along_axis(bits, index, 1)
        parts = [check(runtime, part, "float32", None, value=value).counts for part in np.split(bits, [100, 350], 1)]
        whole = count(runtime, bits, "float32", index).counts
        for which in (0, 1, 3):
            np.testing.assert_array_equal(sum(part[which] for part in parts), whole[which])


@pytest.mark.parametrize("m", [1, FEW, 9])
@pytest.mark.parametrize("ties", TIES)
def test_every_rank_among_equals(runtime: Runtime, ties: str, m: int) -> None:
    bits, index = make("few", "float32", (3, 500)), targets((3, m), 500, seed=m)
    lengths = np.array([500, 0, 333])
    greater, equal, before, _ = reference_ranks(bits, DTYPES["float32"], index, lengths=lengths)
    others = {"optimistic": 0, "pessimistic": equal - 1, "average": (equal - 1) / 2, "first": before}[ties]
    for base, width, numbers in itertools.product((0, 1, -7), (32, 64), ({}, SPLIT)):
        with tuned(**numbers):
            widths = {"count_dtype": f"int{width}", "index_dtypes": ("int32", f"int{width}")}
            (got,), _ = call(runtime, bits, "float32", index, lengths=lengths, ties=ties, base=base, **widths)
        assert got.dtype == (f"float{width}" if ties == "average" else f"int{width}")
        np.testing.assert_array_equal(got, np.where(greater < 0, -1, greater + others + base))


@pytest.mark.parametrize("block", [16, 250, 2**20])
def test_blocks_and_pieces_of_the_host(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(rank_counts, "BLOCK", block)
    monkeypatch.setattr(rank_counts, "PIECE", 16)
    monkeypatch.setattr(counting, "PASSES", 1)
    monkeypatch.setattr(counting, "SORTED", 16)
    lengths = np.array([[103, 100, 0, 55], [7, 103, 1000, -1], [1, 2, 3, 4]])
    for mode, dtype in itertools.product(MODES, ("float32", "float16", "int16")):
        bits = make("few", dtype, (3, 4, 103))
        for m in (1, 3, 7):
            index = targets((3, 4, m), 103, seed=m)
            check(HostRuntime(), bits, dtype, index, mode=mode)
            check(HostRuntime(), bits, dtype, index, mode=mode, lengths=lengths)
        check(HostRuntime(), bits, dtype, targets((4, 103), 3), axis=0, mode=mode)


def test_many_tied_targets_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = make("few", "float32", (2, 900))
    index = targets((2, 700), 900)
    want = check(HostRuntime(), bits, "float32", index).counts
    monkeypatch.setattr(rank_counts, "BLOCK", 500)
    monkeypatch.setattr(rank_counts, "PIECE", 600)  # targets before a piece, in it and behind it
    monkeypatch.setattr(counting, "SORTED", 16)
    for mine, theirs in zip(check(HostRuntime(), bits, "float32", index).counts, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("n", [1, 8, 9, 63, 64, 65, 2040, 2041, 2048, 4088, 30_000])
def test_marks_add_up_in_rows_of_any_length(n: int) -> None:
    """As many as there can be: a byte of a word adds up 255 of them."""
    for dtype in ("float32", "uint8"):
        bits = np.zeros((2, n), f"u{DTYPES[dtype].itemsize}")
        greater, equal, before, _ = count(HostRuntime(), bits, dtype, np.array([0, n - 1])).counts
        assert (greater == 0).all() and (equal == n).all()
        np.testing.assert_array_equal(before, [0, n - 1])
        bits[:, n // 2] = 1
        greater, *_ = count(HostRuntime(), bits, dtype, np.array([0, n - 1]), mode="smallest").counts
        assert (greater == (n - 1 if n == 1 else 0)).all()
        greater, *_ = count(HostRuntime(), 1 - bits, dtype, np.array([n // 2, n // 2])).counts
        assert (greater == n - 1).all()


# ---- What it costs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, FEW, 9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_rows_are_read_once_and_nothing_is_kept(dtype: str, m: int) -> None:
    # As many rows as fill the device, so that none is split.
    runtime = EmulatedRuntime(multiprocessors=4)
    bits = make("random", dtype, (20, 20_000))
    got = check_sizes(runtime, bits, dtype, m)
    assert got.launches == 1 and got.workspace_bytes == 0 and got.zeroed_bytes == 0
    (_, stats), size = runtime.launched[-1], bits.nbytes
    assert size <= got.bytes_read <= 1.01 * size
    assert size <= stats.bytes_loaded <= 1.01 * size + 20 * m * 400  # of each target, a few bytes for every warp


def check_sizes(runtime: EmulatedRuntime, bits: np.ndarray, dtype: str, m: int) -> Plan:
    index = np.random.default_rng(0).integers(0, bits.shape[1], (bits.shape[0], m))
    return count(runtime, bits, dtype, index).plan


def test_few_long_rows_are_split() -> None:
    runtime = EmulatedRuntime(multiprocessors=4)
    bits = make("few", "float32", (1, 200_000))
    for m in (1, FEW, 9):
        got = count(runtime, bits, "float32", np.arange(m)[None] * 20_000)
        kinds = [type(step) for step in got.plan.steps]
        assert kinds == [Fill, Launch]
        launch = got.plan.steps[1]
        assert isinstance(launch, Launch) and launch.grid > 1
        assert got.plan.zeroed_bytes <= 256 and got.plan.workspace_bytes <= 512 + launch.grid * m * 12
        order = np.array([merit_number(int(v), "float32", "largest") for v in np.unique(bits)])
        ranks = order[np.searchsorted(np.unique(bits), bits[0])]
        for t in range(m):
            assert got.counts[0][0, t] == (ranks > ranks[t * 20_000]).sum()
            assert got.counts[1][0, t] == (ranks == ranks[t * 20_000]).sum()
            assert got.counts[2][0, t] == (ranks[: t * 20_000] == ranks[t * 20_000]).sum()


def test_counters_are_zero_again() -> None:
    runtime = EmulatedRuntime(multiprocessors=4)
    bits = make("few", "float32", (2, 700))
    with tuned(**SPLIT):
        for m in (1, 9):
            index = targets((2, m), 700)
            got = check(runtime, bits, "float32", index)
            fills = [step for step in got.plan.steps if isinstance(step, Fill)]
            assert [fill.pointer.buffer for fill in fills] == ["workspace"]
            assert counters_after(runtime, bits, "float32", index, got.plan) == bytes(fills[0].nbytes)


def counters_after(runtime: Runtime, bits: np.ndarray, dtype: str, index: np.ndarray, plan: Plan) -> bytes:
    """What a run leaves where the plan's fill put zeros."""
    fill = next(step for step in plan.steps if isinstance(step, Fill))
    workspace = np.full(plan.workspace_bytes, 77, np.uint8)
    arrays = {output.name: np.empty(output.shape, output.dtype) for output in plan.outputs} | {"index": index}
    buffers = {name: buffer(array, array.dtype.name) for name, array in arrays.items()}
    execute(plan, {**buffers, "x": buffer(bits, dtype), "workspace": buffer(workspace, "uint8")}, runtime)
    return workspace[fill.pointer.offset :][: fill.nbytes].tobytes()


def test_many_short_rows_share_blocks() -> None:
    runtime = EmulatedRuntime()
    bits = make("few", "float16", (301, 40))
    got = check(runtime, bits, "float16", targets((301,), 40))
    (launch,) = got.plan.steps
    assert isinstance(launch, Launch) and launch.grid < 301


def test_more_targets_than_a_block_has_room_for() -> None:
    runtime = EmulatedRuntime()
    runtime.info = runtime.info.__class__("small", "sm_90", 132, 2000)
    got = check(runtime, make("few", "int32", (2, 150)), "int32", targets((2, 210), 150))
    (launch,) = got.plan.steps
    assert isinstance(launch, Launch) and launch.grid > 2 and launch.shared_bytes <= 2000


def plans() -> Iterator[Plan]:
    for name, n, rows, m in itertools.product(REFERENCES, (2, 1000, 2**20, 2**36), (1, 300, 2**22), (0, 1, 3, 100)):
        index = ("int64", (rows, m), (m, 1))
        request = RankRequest.build("rank", (rows, n), (n, 1), "int8", index=index)
        yield plan_rank(request, REFERENCES[name])


def test_plans_of_every_size() -> None:
    for plan in plans():
        r = plan.request
        assert isinstance(r, RankRequest)
        launches = [step for step in plan.steps if isinstance(step, Launch)]
        assert len(launches) == 1 and launches[0].block <= 512
        assert launches[0].shared_bytes <= plan.device.shared_bytes
        # The counts of a block have 32 bits, and one of them stands for a target that is not there.
        entries = launches[0].arguments[-5 - 7 - 3]
        assert isinstance(entries, int) and entries < 2**32 - 1
        assert plan.bytes_read == r.rows * (r.n + r.m)


def test_on_the_cpu_there_is_one_call() -> None:
    request = RankRequest.build("rank", (3, 9), (9, 1), "float32", index=2)
    assert plan_rank(request, HostRuntime().device_info(Device("cpu"))).steps == (HostCall("host.rank"),)


def test_too_many_blocks_are_refused() -> None:
    request = RankRequest.build("rank", (2**33, 2**10), (2**10, 1), "float32", index=2)
    with pytest.raises(InvalidArgument, match="blocks; allowed are 2147483647"):
        plan_rank(request, REFERENCES["sm_90"])
