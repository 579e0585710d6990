"""Clocks: how long calls take on the CPU that is here, or on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Clock", "CpuClock", "CudaClock", "Once", "Timing", "interleaved"]

Call = Callable[[], Any]
Wait = Callable[[Any], object]

#: Microseconds: median, quartiles, minimum, and how many were taken.
Timing = dict[str, float]


class Clock(Protocol):
    """Times one round of a contender's calls, one call for each of its rotated inputs."""

    def ways(self, capturable: bool) -> tuple[str, ...]:
        """The ways it times calls in: ``"eager"`` first, others where the contender can be captured."""
        ...

    def prepare(self, calls: Sequence[Call], way: str, wait: Wait | None = None) -> Call:
        """Make one round, ready to be timed by `seconds`; runs every call once, untimed.

        `wait` waits for the last result of a round.

        Raises
        ------
        RuntimeError
            Where a call cannot be timed so.
        """
        ...

    def seconds(self, round: Call, calls: int) -> float:
        """Seconds a call of one round takes."""
        ...


class CpuClock:
    """The wall clock, with rounds that return when they are done."""

    def ways(self, capturable: bool) -> tuple[str, ...]:
        return ("eager",)

    def prepare(self, calls: Sequence[Call], way: str, wait: Wait | None = None) -> Call:
        round = _round(calls, wait)
        round()
        return round

    def seconds(self, round: Call, calls: int) -> float:
        start = time.perf_counter()
        round()
        return (time.perf_counter() - start) / calls


class Once(CpuClock):
    """No clock: one run, for checking that everything runs at all."""

    def seconds(self, round: Call, calls: int) -> float:
        return 0.0


class CudaClock:
    """Events on PyTorch's current stream: around eager calls, and around the replay of a graph of them.

    ``"eager"`` contains what the host adds where it is slower than the GPU; ``"graph"`` is the GPU alone.
    """

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self._stream = torch.cuda.Stream()  # not the legacy stream, which cannot be captured
        torch.cuda.set_stream(self._stream)

    def ways(self, capturable: bool) -> tuple[str, ...]:
        return ("eager", "graph") if capturable else ("eager",)

    def prepare(self, calls: Sequence[Call], way: str, wait: Wait | None = None) -> Call:
        round = _round(calls, wait)
        round()
        self._torch.cuda.synchronize()
        if way == "eager":
            return round
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            round()
        graph.replay()
        self._torch.cuda.synchronize()
        replay: Call = graph.replay
        return replay

    def seconds(self, round: Call, calls: int) -> float:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        round()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls


def _round(calls: Sequence[Call], wait: Wait | None) -> Call:
    def round() -> None:
        for call in calls:
            result = call()
        if wait is not None:
            wait(result)

    return round


def interleaved(
    rounds: Mapping[str, tuple[Clock, Call, int]], budget: float, least: int = 3, most: int = 200
) -> dict[str, Timing]:
    """Time rounds in turn, A B C A B C, so that a machine that drifts disturbs all alike.

    Parameters
    ----------
    rounds : mapping
        By name: its clock, the round, and how many calls are in it.
    budget : float
        Seconds of wall clock to spend in all, if `least` repetitions are done.
    """
    times: dict[str, list[float]] = {name: [] for name in rounds}
    end = time.perf_counter() + budget
    for repeat in range(most):
        if repeat >= least and time.perf_counter() > end:
            break
        for name, (clock, round, calls) in rounds.items():
            times[name].append(clock.seconds(round, calls) * 1e6)
    return {name: summary(t) for name, t in times.items()}


def summary(times: list[float]) -> Timing:
    """Median and spread, in the unit of `times`."""
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"median": median, "low": low, "high": high, "minimum": min(times), "repeats": len(times)}
