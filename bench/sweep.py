"""``python -m bench sweep``: the planner's mappings beside the best of many more, in the cost model or on a GPU.

Without ``--measure``, the planner's pick of every case is compared with the best that an exhaustive sweep of the
mappings finds, both in the model, for the reference GPU of an architecture. With it, the mappings that the planner
considers are run and timed on the GPU that is here, and the model's constants are fitted to the times; the JSON goes
to ``approxtopk/measured/``, where the planner finds it by the GPU's name.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from approxtopk.buffer import Buffer, Device
from approxtopk.dtypes import DTYPES
from approxtopk.execute import execute
from approxtopk.plan import DeviceInfo, Plan
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.draft import Draft
from approxtopk.planning.machines import Machine
from approxtopk.planning.select import mapping, mappings, planned, seconds, ways
from approxtopk.planning.tuning import Tuning
from approxtopk.request import Request
from approxtopk.runtime import Runtime, serving

from .case import SelectionCase
from .progress import progress, say
from .provenance import provenance

__all__ = ["NumPy", "best_of_all", "cases", "measure", "pick"]

HELP = "compare the planner's mappings with the best of many more, in the model or on a GPU"

_ROW_THREADS, _SPLITS, _TILES = (32, 64, 128, 256, 512), (0, 1, 2, 4, 8), (1024, 2048, 4096, 8192)
#: What the sweep varies together, where a plan has such kernels.
GROUPS: tuple[tuple[frozenset[str], dict[str, tuple[int, ...]]], ...] = (
    (
        frozenset({"bucket_walk", "bucket_row", "warp_row"}),
        {
            "resident_threads": (128, 256, 384, 512, 768, 1024, 2048),
            "threads": (32, 64, 128, 256, 512),
            "least_steps": (2, 4, 8, 16, 32, 64),
        },
    ),
    (
        frozenset({"filter_row"}),
        {
            "row_threads": _ROW_THREADS,
            "thread_loads": (1, 2, 4, 8),
            "split_blocks": _SPLITS,
            "sample": (1, 2, 4, 8),
        },
    ),
    (
        frozenset({"radix_row", "radix_histogram"}),
        {
            "row_threads": _ROW_THREADS,
            "thread_loads": (1, 2, 4, 8),
            "split_blocks": _SPLITS,
            "split_entries": (4096, 16384),
            "tile": _TILES,
        },
    ),
)
#: Constants of the model that are fitted to measured times.
FITTED = ("bandwidth", "cached_bandwidth", "port_bandwidth", "latency", "cached_latency", "launch", "clock")
_ROWS = (1, 4, 32, 128, 1024, 16384, 65536)
_LENGTHS = (64, 512, 1024, 4096, 2**14, 2**17, 2**20, 2**22)


def cases(sparse: int = 1) -> list[SelectionCase]:
    """Rows from one to 65536, short and long, of at most 4 GiB; every `sparse`-th of them."""
    every = [
        SelectionCase(rows, n, k, dtype, recall, is_sorted)
        for rows, n in itertools.product(_ROWS, _LENGTHS)
        for dtype in ("float32", "float16", "int8", "float64")
        if rows * n * DTYPES[dtype].itemsize <= 2**32
        for k in sorted({1, 8, 64, 512, 2048, n // 32, n // 4})
        if 0 < k <= n // 4
        for recall in (1.0, 0.95)
        for is_sorted in (True, False)
    ]
    return every[::sparse]


def pick(request: Request, device: DeviceInfo) -> Draft:
    """The planner's."""
    return min(mappings(request, device), key=seconds)


def best_of_all(request: Request, device: DeviceInfo) -> Draft:
    """The best in the model, of every way with every combination of numbers.

    The time of a plan is the sum over its launches, so that numbers of different launches need no combination.
    """
    found: list[Draft] = []
    for draft in ways(request, device):
        for kernels, group in GROUPS:
            if kernels.isdisjoint(launch.kernel for launch in draft.launches):
                continue
            combinations = itertools.product(*group.values())
            numbers = (dict(zip(group, values, strict=True)) for values in combinations)
            others = (mapping(draft, draft.tuning._replace(**number)) for number in numbers)
            draft = min(itertools.chain([draft], others), key=seconds)
        found.append(draft)
    return min(found, key=seconds)


def told(draft: Draft) -> str:
    """A mapping in one line."""
    launches = ", ".join(f"{launch.kernel} {launch.grid} x {launch.block}" for launch in draft.launches)
    return f"{launches} ({' '.join(f'{name}={value}' for name, value in changed(draft).items())})"


def changed(draft: Draft) -> dict[str, int]:
    """The numbers of a mapping that are not the default ones."""
    return {name: value for name, value in draft.tuning._asdict().items() if value != getattr(Tuning(), name)}


# ---- On a machine ---------------------------------------------------------------------------------------------


class NumPy:
    """Arrays of a machine that claims CPU memory, and no clock: for tests on the emulator."""

    device = Device("cpu")
    library: Any = np

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def host(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def time(self, run: Callable[[], None], repeats: int) -> float | None:
        """Run once, untimed."""
        run()
        return None


class CuPy(NumPy):
    """Arrays on a GPU, timed by events."""

    def __init__(self) -> None:
        import cupy

        self.library = cupy
        self.device = Device("cuda", cupy.cuda.Device().id)
        # Written between runs, so that each finds L2 without its input; the CPU enqueues a run meanwhile.
        self._other = cupy.empty(2**28, np.uint8)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def host(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array.get())

    def time(self, run: Callable[[], None], repeats: int) -> float:
        """Seconds, the median of several, after two that do not count."""
        cuda = self.library.cuda
        times = []
        for _ in range(2 + repeats):
            start, end = cuda.Event(), cuda.Event()
            self._other.fill(1)
            start.record(cuda.Stream.null)
            run()
            end.record(cuda.Stream.null)
            end.synchronize()
            times.append(cuda.get_elapsed_time(start, end) / 1e3)
        return float(statistics.median(times[2:]))


def measure(
    case: SelectionCase, runtime: Runtime, machine: NumPy, repeats: int = 9
) -> Iterator[tuple[Draft, float | None]]:
    """Run, and time, every distinct mapping that the planner considers for a case.

    Raises
    ------
    AssertionError
        When two of them give different answers.
    """
    request, library = case.request, machine.library
    device = runtime.device_info(machine.device)
    given = library.resize(library.asarray(element_bits(case)), (case.rows, case.n))
    want: tuple[Any, ...] | None = None
    seen: set[tuple[object, ...]] = set()
    for draft in mappings(request, device):
        if tuple(draft.steps) in seen or seconds(draft) == math.inf:
            continue
        seen.add(tuple(draft.steps))
        plan = planned(draft)
        arrays = {"x": given, **{o.name: library.zeros(o.shape, array_dtype(plan, o.dtype)) for o in plan.outputs}}
        arrays["workspace"] = library.full(plan.workspace_bytes + 256, 0xAB, np.uint8)
        buffers = {name: buffer_of(machine, array, plan) for name, array in arrays.items()}
        offset = -buffers["workspace"].pointer % 256
        buffers["workspace"] = buffers["workspace"]._replace(pointer=buffers["workspace"].pointer + offset)
        runtime.prepare(plan, machine.device)
        time = machine.time(lambda plan=plan, buffers=buffers: execute(plan, buffers, runtime), repeats)  # type: ignore[misc]
        got = machine.host(arrays["indices"]), machine.host(arrays["values"])
        if not case.sorted:
            order = np.argsort(got[0], axis=-1, kind="stable")
            got = np.take_along_axis(got[0], order, -1), np.take_along_axis(got[1], order, -1)
        if want is None:
            want = got
        np.testing.assert_array_equal(got[0], want[0], err_msg=told(draft))
        np.testing.assert_array_equal(got[1], want[1], err_msg=told(draft))
        yield draft, time


def element_bits(case: SelectionCase) -> np.ndarray[Any, Any]:
    """Random elements as unsigned integers, to be repeated; floats normal, as most data is."""
    rng, dtype = np.random.default_rng(0), DTYPES[case.dtype]
    # Odd, so that rows differ; few enough to be made in no time.
    count, unsigned = min(case.rows * case.n, 2**24 - 3), np.dtype(f"uint{dtype.bits}")
    if dtype.kind != "f":
        return rng.integers(0, 2**dtype.bits - 1, count, dtype=unsigned, endpoint=True)
    return rng.standard_normal(count, dtype=np.float32).astype(case.dtype).view(unsigned)


def array_dtype(plan: Plan, name: str) -> np.dtype[Any]:
    """How an output lies in an array: values as their bits."""
    dtype = plan.request.dtype
    return np.dtype(f"uint{dtype.bits}" if name == dtype.name else np.bool_ if name == "bool" else name)


def buffer_of(machine: NumPy, array: Any, plan: Plan) -> Buffer:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    bits = np.dtype(f"uint{plan.request.dtype.bits}")
    name = plan.request.dtype.name if array.dtype == bits and array.ndim > 1 else array.dtype.name
    return Buffer(machine.address(array), array.shape, strides, name, machine.device)


def fit(results: list[tuple[Draft, float]]) -> dict[str, float]:
    """Constants with which the model comes nearest to the times: each in turn, by ever smaller factors."""
    machine = results[0][0].machine

    def distance(constants: dict[str, float]) -> float:
        other = replace(machine, **constants)  # type: ignore[arg-type]
        return sum(abs(math.log(seconds(remodelled(draft, other)) / time)) for draft, time in results)

    constants = {name: float(getattr(machine, name)) for name in FITTED}
    least = distance(constants)
    for factor in (1.5, 1.2, 1.1, 1.05):
        for name, direction in itertools.product(FITTED, (factor, 1 / factor)):
            while True:
                tried = {**constants, name: constants[name] * direction}
                nearer = distance(tried)
                if nearer > least - 1e-6 * len(results):
                    break
                constants, least = tried, nearer
    return constants


def remodelled(draft: Draft, machine: Machine) -> Draft:
    """The same mapping, modelled with other constants."""
    return mapping(Draft(draft.request, draft.device, machine, draft.layout, draft.tuning), draft.tuning)


# ---- What is printed ------------------------------------------------------------------------------------------


def compare(device: DeviceInfo, chosen: list[SelectionCase], worst: int) -> list[dict[str, Any]]:
    """Print the cases where the pick is furthest from the best of all, in the model."""
    rows = []
    for case in progress(chosen):
        ours, best = pick(case.request, device), best_of_all(case.request, device)
        rows.append((seconds(ours) / seconds(best), case, ours, best))
    rows.sort(key=lambda row: -row[0])
    print(f"{len(rows)} cases on {device.name}; modelled time of the pick over the best of the sweep:")
    for ratio, case, ours, best in rows[:worst]:
        print(f"{ratio:5.2f}  {case}")
        print(f"       {seconds(ours) * 1e6:10.1f} us  {told(ours)}")
        if ratio > 1:
            print(f"       {seconds(best) * 1e6:10.1f} us  {told(best)}")
    shares = [sum(row[0] <= limit for row in rows) / len(rows) for limit in (1.0001, 1.1, 1.3)]
    print("equal to the best {:.0%}, within 1.1 {:.0%}, within 1.3 {:.0%}".format(*shares))
    return [
        {"case": case.asdict(), "pick": changed(ours), "best": changed(best), "ratio": ratio}
        for ratio, case, ours, best in rows
    ]


def measured(chosen: list[SelectionCase], repeats: int) -> dict[str, Any]:
    """Time the mappings of every case on the GPU that is here."""
    machine = CuPy()
    runtime = serving(machine.device)
    device = runtime.device_info(machine.device)
    results: list[dict[str, Any]] = []
    timed: list[tuple[Draft, float]] = []
    for case in progress(chosen):
        of_case = [(draft, time) for draft, time in measure(case, runtime, machine, repeats) if time is not None]
        timed += of_case
        results += [
            {
                "case": case.asdict(),
                "mapping": changed(draft),
                "kernels": [launch.kernel for launch in draft.launches],
                "modelled_us": seconds(draft) * 1e6,
                "measured_us": time * 1e6,
            }
            for draft, time in of_case
        ]
        ours, best = min(of_case, key=lambda pair: seconds(pair[0]))[1], min(of_case, key=lambda pair: pair[1])
        say(f"{ours / best[1]:5.2f}  {ours * 1e6:10.1f} us  {case}; best: {told(best[0])}")
    return {
        **provenance("python -m bench", "cuda"),
        "device": asdict(device),
        "machine": fit(timed),
        "results": results,
    }


def add_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="sm_90", choices=sorted(REFERENCES), help="for the model (default sm_90)")
    parser.add_argument("--measure", action="store_true", help="time the mappings on the GPU that is here")
    parser.add_argument("--json", metavar="PATH", help="write the figures here")
    parser.add_argument("--sparse", type=int, default=7, metavar="N", help="every N-th case (default 7)")
    parser.add_argument("--worst", type=int, default=10, metavar="N", help="print so many cases (default 10)")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="timed runs of a mapping (default 9)")


def run(options: Any) -> None:
    chosen = cases(options.sparse)
    if options.measure:
        report = measured(chosen, options.repeats)
    else:
        device = REFERENCES[options.device]
        report = {"device": asdict(device), "results": compare(device, chosen, options.worst)}
    if options.json:
        with open(options.json, "w") as out:
            json.dump(report, out, indent=1)
            out.write("\n")
