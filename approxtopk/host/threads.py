"""A few threads for the host path, started when first needed. NumPy lets them run side by side inside its loops.

They are daemon threads of our own. Python ends the pools of `concurrent.futures` before it joins the other threads
and before `atexit`, and a call from there must still work.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["run", "width"]

T = TypeVar("T")
R = TypeVar("R")


def _nothing() -> None:
    """What is left of a call that is called off."""


class _Help:
    """What another thread is asked to do: it takes that up, or the asker calls it off, whoever comes first."""

    # A Future does this too, and takes three times as long to wake who waits for it: as long as a small call.

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.failure: BaseException | None = None
        self._fate: dict[
            str, str
        ] = {}  # setdefault() is atomic, and tells the same when an interrupted end() asks again
        self._ended = False
        self._end = threading.Lock()
        self._end.acquire()

    def take_up(self) -> None:
        """Do it, unless it was called off."""
        if self._fate.setdefault("is", "taken up") == "taken up":
            try:
                self.call()
            except BaseException as failure:
                self.failure = failure
            self._ended = True
            self._end.release()

    def end(self) -> None:
        """Call it off, or wait for its end. Whatever interrupts this, it may be called again."""
        if self._fate.setdefault("is", "called off") == "taken up":
            while not self._ended:
                self._end.acquire()
        else:
            self.call = _nothing  # it may wait in the queue for long, with all that it holds


MOST = 16
"""More threads than this wait for each other's Python code."""

_lock = threading.RLock()  # a __del__ may call us while we hold it
_jobs: SimpleQueue[_Help] = SimpleQueue()
_started = 0


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
    if workers < 2 or sys.is_finalizing():  # by then daemon threads are frozen
        return [task(item) for item in items]
    work = list(islice(items, count))
    results: list[R | None] = [None] * count
    positions = iter(range(count))  # next() on it is atomic: whoever is free takes the next item

    def drain() -> None:
        for i in positions:
            results[i] = task(work[i])

    others = [_Help(drain) for _ in range(workers - 1)]
    failure: BaseException | None = None
    # Whatever comes, Ctrl-C too, the others are waited for: they write to memory that the caller frees.
    while True:
        try:
            if failure is None:
                _ask(others)
                drain()
            else:
                deque(positions, 0)  # nobody takes another
            for other in others:  # one that has not started has nothing left to do
                other.end()
            break
        except BaseException as error:
            failure = error
    failures = [failure, *(other.failure for other in others)]
    try:
        for failure in failures:
            if failure is not None:
                raise failure
    finally:
        del failure, failures, others  # a traceback that holds its own exception lives long
    return results  # type: ignore[return-value]


def _ask(helps: list[_Help]) -> None:
    """Ask a thread for each of them; some may never start."""
    global _started
    with _lock:
        while _started < len(helps):
            try:
                threading.Thread(target=_work, args=(_jobs,), name="approxtopk", daemon=True).start()
            except RuntimeError:  # no more threads now: the caller does what is left
                break
            _started += 1
        if _started:
            for help_ in helps:
                _jobs.put(help_)


def _work(jobs: SimpleQueue[_Help]) -> None:
    while True:
        jobs.get().take_up()  # nothing is kept: it holds arrays, and the next may be long in coming


def _forget() -> None:
    """Threads do not survive a fork."""
    global _lock, _jobs, _started
    _lock, _jobs, _started = threading.RLock(), SimpleQueue(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
