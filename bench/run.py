"""Suites, measured: every contender of a case in turn, on inputs that no cache holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .case import Case
from .clock import Clock, CpuClock, CudaClock, Timing, interleaved
from .contender import Contender, Field, tensor
from .inputs import make
from .peers import SELECTION
from .peers_rank import RANK
from .peers_soft import SOFT
from .progress import progress

__all__ = ["FIELDS", "Cpu", "Gpu", "Place", "measure", "run_suite"]

#: By the family of a case.
FIELDS = {"selection": SELECTION, "soft": SOFT, "rank": RANK}

#: Inputs rotate over so many bytes: more than any L2 or last-level cache that is measured here.
_COLD = 2**28
_MOST_INPUTS = 32
#: Seconds after which a call finds no cache as it left it, for the others' turns lie between two of its own.
_LONG = 0.1


class Cpu:
    """Cases on the CPU: NumPy arrays."""

    def __init__(self, clock: Clock | None = None, device: str = "cpu") -> None:
        self.clock = clock or CpuClock()
        self.device = device

    def contenders(self, field: Field) -> Sequence[Contender]:
        return [*field.ours, *field.cpu]

    def place(self, array: np.ndarray[Any, Any]) -> Any:
        return array

    def copies(self, case: Case) -> int:
        return min(_MOST_INPUTS, -(-_COLD // case.nbytes_read)) if case.nbytes_read > 2**20 else 1

    def clock_of(self, contender: Contender) -> Clock:
        return self.clock


class Gpu(Cpu):
    """Cases on a GPU: PyTorch tensors, on a stream that can be captured."""

    def __init__(self, device: str = "cuda") -> None:
        super().__init__(CudaClock(), device)
        self._wall = CpuClock()

    def contenders(self, field: Field) -> Sequence[Contender]:
        return [*field.ours, *field.gpu]

    def place(self, array: np.ndarray[Any, Any]) -> Any:
        return tensor(array).to(self.device)

    def copies(self, case: Case) -> int:
        return max(1, min(_MOST_INPUTS, -(-_COLD // case.nbytes_read)))

    def clock_of(self, contender: Contender) -> Clock:
        return self._wall if contender.wait is not None else self.clock


Place = Cpu


def measure(case: Case, place: Place, budget: float, contenders: Iterable[Contender] | None = None) -> dict[str, Any]:
    """Time all contenders of a case, interleaved, in `budget` seconds or a little more.

    Returns
    -------
    dict
        The case, its plan, microseconds by contender and way (eager, graph, and warm: the graph, or the eager call, on
        one input again and again), and why others are absent. Those whose call takes long make one in a round.
    """
    field = FIELDS[case.family]
    rounds: dict[str, tuple[Clock, Callable[[], Any], int]] = {}
    absent: dict[str, str] = {}
    other = case.other()
    given = place.place(make(case)), None if other is None else place.place(other)
    copies = [given, *(tuple(map(_copy, given)) for _ in range(place.copies(case) - 1))]
    for contender in contenders if contenders is not None else place.contenders(field):
        why = contender.missing(case)
        if why:
            absent[contender.name] = why
            continue
        clock = place.clock_of(contender)
        try:
            calls = [contender.prepare(case, *given) for given in copies]
            if len(calls) > 1 and _takes_long(calls[0], contender.wait):
                del calls[1:]
        except Exception as error:
            if contender in field.ours:
                raise
            absent[contender.name] = _said(error)
            continue
        for way in clock.ways(contender.capturable):
            try:
                rounds[f"{contender.name}/{way}"] = clock, clock.prepare(calls, way, contender.wait), len(calls)
                if way == clock.ways(contender.capturable)[-1] and len(calls) > 1:
                    again = calls[:1] * len(calls)
                    rounds[f"{contender.name}/warm"] = clock, clock.prepare(again, way, contender.wait), len(calls)
            except Exception as error:  # a peer that fails is a fact to report, not an end
                if contender in field.ours:
                    raise
                absent[f"{contender.name}/{way}"] = _said(error)
    times: dict[str, dict[str, Timing]] = {}
    for name, timing in interleaved(rounds, budget).items():
        contender_name, _, way = name.rpartition("/")
        times.setdefault(contender_name, {})[way] = timing
    return {
        "case": case.asdict(),
        "plan": case.facts(place.device),
        "bytes": {"read": case.nbytes_read, "written": case.nbytes_written},
        "inputs": len(copies),
        "us": times,
        "absent": absent,
    }


def run_suite(
    cases: Sequence[Case], place: Place, seconds: float, told: Callable[[Case, dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Measure `cases` within `seconds` in all, what is left shared evenly; say each when it is there."""
    end = time.perf_counter() + seconds
    results = []
    for number, case in enumerate(progress(cases)):
        left = end - time.perf_counter()
        # Making inputs and compiling take their time too: a quarter is kept for them.
        result = measure(case, place, max(0.05, 0.75 * left / (len(cases) - number)))
        results.append(result)
        told(case, result)
    return results


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _takes_long(call: Callable[[], Any], wait: Callable[[Any], object] | None) -> bool:
    """Whether a call keeps the host for long, when it is called the second time."""
    for _ in range(2):
        start = time.perf_counter()
        result = call()
        if wait is not None:
            wait(result)
    return time.perf_counter() - start > _LONG


def _copy(x: Any) -> Any:
    if x is None:
        return None
    return x.clone() if hasattr(x, "clone") else x.copy()
