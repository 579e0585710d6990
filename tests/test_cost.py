"""The cost model, and the mappings that the planner picks by it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

import approxtopk as atk
from approxtopk.buffer import row_major
from approxtopk.plan import DeviceInfo, Launch, Plan
from approxtopk.planning import cost, tuning
from approxtopk.planning.cost import Chain, Work, launch_seconds
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.machines import Machine, machine_of
from approxtopk.planning.select import mappings, plan_select, seconds
from approxtopk.request import Request
from bench import sweep
from bench.__main__ import main as bench
from bench.case import SelectionCase

from .emulated import EmulatedRuntime

H200 = REFERENCES["sm_90"]
MACHINE = machine_of(H200)


def request(shape: tuple[int, ...], k: int, *, exact: bool = False, dtype: str = "float32", **options: Any) -> Request:
    if not exact:
        options = {"recall_target": 0.95, **options}
    return Request.build("top_k" if exact else "approx_top_k", shape, row_major(shape), dtype, k, **options)


# ---- The model ------------------------------------------------------------------------------------------------


def times(grid: int = 1000, threads: int = 256, shared: int = 1024, **work: Any) -> float:
    return launch_seconds(MACHINE, grid, threads, shared, Work(**{"read": 1e8, "under_way": 64.0, **work}))


def test_more_work_never_takes_less_time() -> None:
    for grid in (1, 7, 132, 1000, 100_000):
        for name in ("read", "reread", "written", "slots"):
            found = [times(grid, **{name: amount}) for amount in (1e3, 1e6, 1e8, 1e9, 1e11)]
            assert found == sorted(found) and found[-1] > found[0], (name, found)
        for serial in (Chain(1e4, 0.0), Chain(0.0, 1e6), Chain(1e5, 1e7)):
            assert times(grid, serial=serial) >= times(grid)
            assert times(grid, finish=serial, finishing=0.5) >= times(grid)
        assert times(grid, under_way=4.0) >= times(grid, under_way=64.0)
        assert times(grid, registers=128) >= times(grid, registers=32)
        assert times(grid, shared=200_000) >= times(grid, shared=1000)
        assert times(grid, reread=1e9, reach=1e8) >= times(grid, reread=1e9, reach=1e3)


def test_bounds_of_the_model() -> None:
    """A large stream takes what memory takes; nothing takes a launch; one block takes what its loads wait."""
    assert times(10_000, read=1e10) == pytest.approx(1e10 / MACHINE.bandwidth, rel=0.02)
    assert launch_seconds(MACHINE, 1, 32, 0, Work()) == MACHINE.launch
    alone = launch_seconds(MACHINE, 1, 256, 0, Work(read=2**22, under_way=16.0))
    assert alone == pytest.approx(2**22 / (256 * 16) * MACHINE.latency, rel=0.1)
    assert times(10_000, read=0.0, slots=1e13) == pytest.approx(1e13 / (132 * 128 * MACHINE.clock), rel=0.02)
    # Behind the streaming of other blocks a wait is free, in one round it is not.
    wait = Chain(20_000.0)
    assert times(132, serial=wait) - times(132) == pytest.approx(20_000 / MACHINE.clock, rel=0.01)
    assert times(132 * 8 * 20, read=1e10, serial=wait) < 1.02 * times(132 * 8 * 20, read=1e10)


def test_a_sort_and_a_loop() -> None:
    assert cost.loop(0, 32, 10, 10).cycles == 0
    assert cost.loop(1000, 100, 50, 1).cycles == 500
    assert cost.sort(1, 32).cycles == 0
    assert [cost.sort(size, 512).cycles for size in (2, 64, 1024, 4096)] == sorted(
        cost.sort(size, 512).cycles for size in (2, 64, 1024, 4096)
    )


def test_longer_rows_more_rows_and_wider_types_take_no_less() -> None:
    def modelled(*arguments: Any, **options: Any) -> float:
        return min(map(seconds, mappings(request(*arguments, **options), H200)))

    for k in (8, 64, 1000):
        for exact in (True, False):
            # The choice of (b, k_b) and steps of the sample leave small dents.
            rows = [modelled((rows, 2**16), k, exact=exact) for rows in (1, 16, 128, 1024, 8192)]
            assert all(b >= 0.9 * a for a, b in itertools.pairwise(rows)), rows
            lengths = [modelled((256, n), k, exact=exact) for n in (2**12, 2**14, 2**16, 2**18, 2**20, 2**22)]
            assert all(b >= 0.9 * a for a, b in itertools.pairwise(lengths)), lengths
        types = [modelled((128, 2**20), k, exact=True, dtype=name) for name in ("float16", "float32", "float64")]
        assert types == sorted(types)
    for shape in ((128, 2**16), (1, 2**20)):
        assert modelled(shape, 2**12, exact=True) >= 0.9 * modelled(shape, 2**12, exact=True, sorted=False)


def test_no_plan_is_faster_than_reading_its_input() -> None:
    for case in sweep.cases(41):
        r = case.request
        pure = r.rows * r.n * r.dtype.itemsize / MACHINE.bandwidth
        assert min(map(seconds, mappings(r, H200))) >= pure + MACHINE.launch, case


# ---- The machines ---------------------------------------------------------------------------------------------


def test_every_reference_has_constants() -> None:
    for architecture, device in REFERENCES.items():
        machine = machine_of(device)
        assert machine.multiprocessors == device.multiprocessors and "data sheet" in machine.provenance, architecture
        assert 1e11 < machine.bandwidth <= machine.cached_bandwidth < 1e14


def test_a_gpu_that_is_not_in_the_table_is_scaled_by_its_multiprocessors() -> None:
    half = machine_of(DeviceInfo("half an H200", "sm_90", 66, 227 * 1024))
    assert half.bandwidth == pytest.approx(MACHINE.bandwidth / 2)
    assert (half.latency, half.clock) == (MACHINE.latency, MACHINE.clock)
    # An architecture between two has the constants of the one before; one before all, of the first.
    assert machine_of(DeviceInfo("Orin", "sm_87", 16, 163 * 1024)).clock == machine_of(REFERENCES["sm_86"]).clock
    assert machine_of(DeviceInfo("old", "sm_61", 20, 48 * 1024)).clock == machine_of(REFERENCES["sm_70"]).clock


def test_measured_constants_come_first(tmp_path: Path) -> None:
    report = {"device": {"name": "NVIDIA H200"}, "date": "2000-01-01", "machine": {"bandwidth": 4.0e12, "launch": 1e-6}}
    (tmp_path / "h200.json").write_text(json.dumps(report))
    measured = machine_of(dataclasses.replace(H200, name="NVIDIA H200"), tmp_path)
    assert measured.provenance == "measured, 2000-01-01, h200.json"
    assert (measured.bandwidth, measured.launch, measured.clock) == (4.0e12, 1e-6, MACHINE.clock)
    assert machine_of(H200, tmp_path) == MACHINE


# ---- The planner's picks --------------------------------------------------------------------------------------


def test_picks_are_near_the_best_of_the_sweep() -> None:
    assert len(sweep.cases()) > 3000
    for case in sweep.cases(61):
        ours, best = sweep.pick(case.request, H200), sweep.best_of_all(case.request, H200)
        assert seconds(ours) <= 1.3 * seconds(best), (case, sweep.told(ours), sweep.told(best))


@pytest.mark.nightly
@pytest.mark.parametrize("architecture", REFERENCES)
def test_picks_are_near_the_best_of_the_sweep_everywhere(architecture: str) -> None:
    device = REFERENCES[architecture]
    for case in sweep.cases(7):
        ours, best = sweep.pick(case.request, device), sweep.best_of_all(case.request, device)
        assert seconds(ours) <= 1.3 * seconds(best), (case, sweep.told(ours), sweep.told(best))


def test_a_pick_is_the_same_every_time_and_quick() -> None:
    requests = [case.request for case in sweep.cases(41)]
    first = [plan_select(r, H200) for r in requests]
    start = time.process_time()
    assert [plan_select(r, H200) for r in requests] == first
    # 1.5 ms on a busy core of 2026.
    assert time.process_time() - start < 0.02 * len(requests)


def test_a_forced_mapping_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    r = request((128, 2**20), 64)
    assert len(list(mappings(r, H200))) > 5
    monkeypatch.setattr(tuning, "DEFAULT", tuning.Tuning(threads=64))
    (only,) = mappings(r, H200)
    assert only.tuning == tuning.DEFAULT


def plan(shape: tuple[int, ...], k: int, **options: Any) -> tuple[Plan, float]:
    """A plan, and its modelled time over that of reading the input once."""
    found = plan_select(r := request(shape, k, **options), H200)
    best = min(map(seconds, mappings(r, H200)))
    return found, best * MACHINE.bandwidth / (r.rows * r.n * r.dtype.itemsize)


def test_long_rows_in_bulk_are_read_once() -> None:
    for k in (64, 256, 1024):
        found, ratio = plan((128, 2**20), k)
        assert set(found.kernels) <= {"bucket_row", "bucket_walk", "radix_row"} and ratio < 1.3, (k, ratio)
        found, ratio = plan((128, 2**20), k, exact=True)
        assert found.kernels == ("filter_row",) and ratio < 1.3, (k, ratio)


def test_one_long_row_is_spread_over_the_gpu() -> None:
    for exact in (True, False):
        found, _ = plan((1, 2**20), 64, exact=exact)
        grid = max(launch.grid for launch in mappings_launches(found))
        assert grid >= 32 and found.launches <= 4


def mappings_launches(found: Plan) -> list[Any]:
    return [step for step in found.steps if hasattr(step, "grid")]


def test_short_rows_in_bulk_are_selected_on_chip() -> None:
    for n, k in ((1024, 8), (4096, 64), (8192, 64), (4096, 512), (8192, 1024)):
        found, _ = plan((16384, n), k, exact=True)
        (launch,) = mappings_launches(found)
        assert found.bytes_read == 16384 * n * 4
        assert launch.kernel in ("warp_row", "filter_row", "radix_row")


def test_half_precision_rows_and_large_k_have_a_block_each() -> None:
    for k in (2**13, 2**14):
        found, _ = plan((256, 2**16), k, exact=True, dtype="float16", sorted=False)
        assert found.kernels == ("radix_row",) and found.launches == 1


def test_candidates_that_are_the_answer_take_one_launch() -> None:
    found, ratio = plan((128, 2**20), 2**16, buckets=2**15, k_per_bucket=2, sorted=False)
    assert found.kernels == ("bucket_walk",) and found.launches == 1 and ratio < 1.5


def test_ragged_rows_are_filtered() -> None:
    found, _ = plan((64, 131072), 2048, exact=True, lengths=("int64", (64,), (1,)))
    assert found.kernels == ("filter_row",)


def test_bytes_are_counted_in_sectors() -> None:
    """A column of every second element takes as many sectors as all of them; so does every eighth."""
    (walk, *_), (strided, *_) = (
        mappings(Request.build("top_k", (512, 4096), (4096 * step, step), "float32", 64), H200) for step in (1, 8)
    )
    assert strided.input_bytes()[0] == pytest.approx(8 * walk.input_bytes()[0])
    assert seconds(strided) > 3 * seconds(walk)


# ---- The bench command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        SelectionCase(2, 700, 9),
        SelectionCase(2, 700, 9, "int8", sorted=False),
        SelectionCase(1, 9000, 30, "float64"),
        SelectionCase(1, 9000, 30, recall=0.95),
        SelectionCase(2, 5000, 700, "float16", recall=0.95, sorted=False),
    ],
    ids=str,
)
def test_the_measuring_runs_on_the_emulator(case: SelectionCase) -> None:
    """Every mapping of a case gives the same answer; only the clock is missing."""
    runtime = EmulatedRuntime(3)
    ran = list(sweep.measure(case, runtime, sweep.NumPy()))
    assert len(ran) > 3 and all(time is None for _, time in ran)
    assert len({tuple(launch.kernel for launch in draft.launches) for draft, _ in ran}) > 1


def test_constants_are_found_from_times() -> None:
    """Times that the model itself makes with other constants lead to those, or to as good ones."""
    truth = dataclasses.replace(MACHINE, bandwidth=3e12, launch=4e-6)
    timed = []
    for case in sweep.cases(101):
        draft = sweep.pick(case.request, H200)
        timed.append((draft, modelled_with(truth, draft)))
    found = sweep.fit(timed)
    fitted = dataclasses.replace(MACHINE, **found)
    errors = [abs(math.log(modelled_with(fitted, draft) / time)) for draft, time in timed]
    assert sum(errors) / len(errors) < 0.05
    assert found["bandwidth"] == pytest.approx(3e12, rel=0.2)


def modelled_with(machine: Machine, draft: Any) -> float:
    return seconds(sweep.remodelled(draft, machine))


def test_the_sweep_prints_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    bench(["sweep", "--sparse", "1500", "--worst", "2", "--json", str(path)])
    assert "within 1.3 100%" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert report["device"]["architecture"] == "sm_90" and len(report["results"]) >= 2


def test_plan_shows_nothing_of_the_search() -> None:
    assert atk.plan((128, 2**20), 64, device="sm_90") == plan_select(request((128, 2**20), 64), H200)


@pytest.mark.parametrize("architecture", REFERENCES)
def test_no_launch_asks_for_more_than_the_device_has(architecture: str) -> None:
    device = REFERENCES[architecture]
    for shape, k, dtype in itertools.product(
        ((1, 2**15), (64, 2**17), (3000, 2**14)), (64, 2500, 4096, 8192), ("float32", "float64", "int8")
    ):
        for options in ({"exact": True}, {"recall_target": 0.8}, {"buckets": 8192, "k_per_bucket": 4}):
            for launch in plan_select(request(shape, k, dtype=dtype, **options), device).steps:
                if isinstance(launch, Launch):
                    assert launch.shared_bytes <= device.shared_bytes
                    assert launch.block <= (256 if launch.kernel in ("bucket_walk", "bucket_merge") else 512)


def test_long_rows_are_filtered_everywhere() -> None:
    for architecture, dtype in (("sm_86", "float32"), ("sm_90", "float64"), ("sm_90", "float32")):
        for shape in ((1000, 2**22), (16, 2**22)):
            plan = atk.plan(shape, 64, exact=True, dtype=dtype, device=architecture)
            assert plan.kernels == ("filter_row",), (architecture, dtype, shape)
