"""A few threads for the host path, started when first needed. NumPy lets them run side by side inside its loops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["run", "width"]

T = TypeVar("T")
R = TypeVar("R")

MOST = 16
"""More threads than this wait for each other's Python code."""

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def width() -> int:
    """How many threads to use: the processors this process may run on, up to `MOST`."""
    try:
        return min(len(os.sched_getaffinity(0)), MOST)
    except AttributeError:  # not on this system
        return min(os.cpu_count() or 1, MOST)


def run(task: Callable[[T], R], items: Iterable[T], count: int) -> list[R]:
    """Run ``[task(item) for item in items]`` on several threads, the caller's among them.

    Parameters
    ----------
    task : callable
        Must not call `run` for more than one item itself.
    items : iterable
        Its arguments.
    count : int
        How many there are.
    """
    workers = min(width(), count)
    if workers < 2:
        return [task(item) for item in items]
    work = list(islice(items, count))
    results: list[R | None] = [None] * count
    positions = iter(range(count))  # next() on it is atomic: whoever is free takes the next item

    def drain() -> None:
        for i in positions:
            results[i] = task(work[i])

    others = [_executor().submit(drain) for _ in range(workers - 1)]
    try:
        drain()
    finally:
        for other in others:
            other.cancel()  # one that has not started has nothing left to do
        failures = [other.exception() for other in others if not other.cancelled()]
    for failure in failures:
        if failure is not None:
            raise failure
    return results  # type: ignore[return-value]


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(MOST, thread_name_prefix="approxtopk")
        return _pool


def _forget() -> None:
    """Threads do not survive a fork."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
