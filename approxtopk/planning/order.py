"""Mapping of the ordering of results that one block cannot sort while it selects."""

from __future__ import annotations

from .cost import Chain, Work, loop, sort
from .draft import Draft, Pairs, power_of_two

__all__ = ["order"]


def order(draft: Draft, chosen: Pairs, spare: Pairs | None) -> None:
    """Add the launches that write `chosen`, k entries per row, best first.

    `spare` is workspace for at least as many entries that may be overwritten, if there is any.
    """
    k = draft.request.k
    tile = min(draft.tuning.tile, power_of_two(k))
    if k <= tile:
        _launch(draft, "order_tiles", chosen, None, tile, 0)
        return
    spare = draft.pairs(k) if spare is None else spare
    _launch(draft, "order_tiles", chosen, spare, tile, 0)
    run = tile
    while run < k:
        chosen, spare = spare, chosen
        _launch(draft, "order_merge", chosen, None if 2 * run >= k else spare, tile, run)
        run *= 2


def _launch(draft: Draft, kernel: str, source: Pairs, to: Pairs | None, tile: int, run: int) -> None:
    """Add one launch: `source` to `to`, or to the result. `run` is the length of the runs to merge."""
    r = draft.request
    tiles = -(-r.k // tile)
    merging = run > 0
    threads = min(draft.tuning.row_threads, max(32, tile // 2))
    draft.launch(
        kernel,
        {},
        r.rows * tiles,
        threads,
        tile * draft.entry_bytes + 16 * merging,
        *draft.where(source),
        *draft.where(to),
        *draft.rows(),
        r.k,
        tile,
        tiles,
        run,
        *draft.result(final=to is None),
        work=_work(draft, tile, threads, merging, to is None),
    )


def _work(draft: Draft, tile: int, threads: int, merging: bool, final: bool) -> Work:
    k, latency = draft.request.k, draft.machine.cached_latency * draft.machine.clock
    stored = draft.stored_bytes(k)
    fresh, again = draft.again(stored)
    # A tile of two runs is found by binary search in memory; every thread then finds and merges its stretch.
    found = Chain((2 * latency + 60) * k.bit_length() + 70.0 * tile.bit_length())
    serial = found + loop(tile, threads, 90, 40) if merging else sort(tile, threads)
    return Work(
        fresh,
        again,
        draft.answer_bytes() if final else stored,
        slots=30.0 * draft.request.rows * k,
        under_way=draft.key_bytes + draft.position_bytes,
        serial=serial,
        registers=40,
    )
