"""Mapping of the certificate: one guard a bucket, compared with the answer."""

from __future__ import annotations

from ..plan import Pointer
from .cost import Work, scan
from .draft import Draft, Pairs, power_of_two

__all__ = ["certify", "take_guards"]


def certify(draft: Draft, b: int, guards: Pairs) -> None:
    """Add the launch that tells which rows' answers are exact, given the best entry that each bucket rejected."""
    r = draft.request
    threads = _threads(max(b, r.k))
    draft.launch(
        "certify",
        draft.keys(),
        r.rows,
        threads,
        32 * draft.entry_bytes,
        *draft.where(guards),
        b,
        *draft.result(final=True),
        Pointer("exact"),
        work=_work(draft, draft.stored_bytes(b) + draft.answer_bytes(), r.rows * (b + r.k), threads),
    )


def take_guards(draft: Draft, candidates: Pairs, per_bucket: int, guards: Pairs) -> None:
    """Add the launch that moves the worst of every bucket's candidates to `guards`."""
    threads = _threads(per_bucket)
    entries = guards.per_row * per_bucket
    draft.launch(
        "bucket_guard",
        {},
        draft.request.rows * guards.per_row,
        threads,
        32 * draft.entry_bytes,
        *draft.where(candidates),
        per_bucket,
        *draft.where(guards),
        work=_work(draft, draft.stored_bytes(entries), draft.request.rows * entries, threads),
    )


def _work(draft: Draft, nbytes: float, entries: int, threads: int) -> Work:
    """Entries read once, and the extremes of what the threads found."""
    fresh, again = draft.again(nbytes)
    return Work(fresh, again, slots=20.0 * entries, under_way=8, serial=scan(threads) * 2)


def _threads(entries: int) -> int:
    return min(256, max(32, power_of_two(entries // 4)))
