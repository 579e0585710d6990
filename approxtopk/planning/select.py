"""The planner of both selections: the route from n, k and recall alone, then the mapping to the machine."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..errors import InvalidArgument
from ..exactness import exact_share
from ..plan import DeviceInfo, HostCall, Pointer, SelectionPlan, Step
from ..request import Request
from . import certify, chip, filter, order, radix, small, tuning, walk
from .choose import EXACT, Choice, choose
from .draft import Draft, Pairs
from .layout import Layout
from .machines import machine_of

__all__ = ["mapping", "mappings", "plan_select", "planned", "seconds", "ways"]

#: Blocks of a launch, at most.
_MOST_BLOCKS = 2**31 - 1
#: A way that begins so many times worse than the best is not looked at further.
_HOPELESS = 3.0


def plan_select(request: Request, device: DeviceInfo) -> SelectionPlan:
    """Plan `request` for `device`: of the mappings considered, the one that should take the least time.

    Raises
    ------
    InvalidArgument
        For more rows than one launch has blocks (2**31 - 1).
    """
    r, choice = request, _choice(request)
    if r.k == 0 or r.rows == 0:
        return _finish(r, device, choice)
    if device.architecture == "cpu":
        read = math.prod(r.shape) * r.dtype.itemsize
        return _finish(r, device, choice, (HostCall("host.select"),), read)
    return planned(min(mappings(r, device), key=seconds))


def planned(draft: Draft) -> SelectionPlan:
    """The plan of a mapping.

    Raises
    ------
    InvalidArgument
        For more blocks than a launch may have.
    """
    r = draft.request
    most = max(launch.grid for launch in draft.launches)
    if most > _MOST_BLOCKS:
        raise InvalidArgument(f"x of shape {r.shape} needs {most} blocks; allowed are {_MOST_BLOCKS} at most")
    return _finish(r, draft.device, _choice(r), tuple(draft.steps), draft.bytes_read, draft.workspace_bytes)


def mappings(request: Request, device: DeviceInfo) -> Iterator[Draft]:
    """Every mapping that is considered for a request; the first of the cheapest is taken.

    From the beginning of each way to select, `tuning.AXES` are settled in turn.
    """
    beginnings = ways(request, device)
    yield from beginnings
    if tuning.Tuning() != tuning.DEFAULT:
        return
    least = min(map(seconds, beginnings))
    for draft in beginnings:
        if seconds(draft) > _HOPELESS * least:
            continue
        for kernels, choices in tuning.AXES:
            if kernels.isdisjoint(launch.kernel for launch in draft.launches):
                continue
            others = [mapping(draft, draft.tuning._replace(**numbers)) for numbers in choices]
            yield from others
            draft = min((draft, *others), key=seconds)


def ways(request: Request, device: DeviceInfo) -> list[Draft]:
    """The beginning of every way to select, or the one mapping that is forced.

    Among them are all kernels, with all macros, that a plan may have.
    """
    empty = Draft(request, device, machine_of(device), Layout.of(request), tuning.DEFAULT)
    if tuning.Tuning() != tuning.DEFAULT:
        return [mapping(empty, tuning.DEFAULT)]
    found: list[Draft] = []
    for numbers in tuning.EXACT if _buckets(request) is None else tuning.BUCKETED:
        draft = mapping(empty, tuning.DEFAULT._replace(**numbers))
        # A way that is not open to this request ends in another.
        if all(draft.steps != other.steps for other in found):
            found.append(draft)
    return found


def mapping(like: Draft, numbers: tuning.Tuning) -> Draft:
    """The same request mapped as `numbers` say."""
    draft = Draft(like.request, like.device, like.machine, like.layout, numbers)
    _map(draft)
    return draft


def seconds(draft: Draft) -> float:
    """What a mapping should take; forever, where it needs too many blocks, or more shared memory than there is."""
    most = draft.device.shared_bytes
    if any(launch.grid > _MOST_BLOCKS or launch.shared_bytes > most for launch in draft.launches):
        return math.inf
    return sum(draft.seconds)


def _choice(r: Request) -> Choice:
    exact = r.operator == "top_k" or r.k == 0
    return EXACT if exact else choose(r.n, r.k, r.recall_target, r.buckets, r.k_per_bucket)


def _buckets(r: Request) -> tuple[int, int] | None:
    """(b, k_b) where they turn entries away.

    No bucket gives more than k entries, or than it has: where it may keep those, the answer is the exact one.
    """
    choice = _choice(r)
    if choice.buckets is None or choice.k_per_bucket is None:
        return None
    b, kept = choice.buckets, choice.k_per_bucket
    return (b, kept) if kept < min(r.k, -(-r.n // b)) else None


def _map(draft: Draft) -> None:
    """Add the steps: candidates where the route has them, the best k, and their order."""
    buckets = _buckets(draft.request)
    if buckets is not None:
        _bucketed(draft, *buckets)
        return
    _exact(draft)
    if draft.request.certify:
        draft.fill(Pointer("exact"), draft.request.rows, 1)


def _bucketed(draft: Draft, b: int, kept: int) -> None:
    r = draft.request
    # With just k candidates and no order asked for, the candidates are the result.
    final = b * kept == r.k and not r.sorted
    if (not final or r.certify) and walk.walk_rows(draft, b, kept):
        return
    guards = draft.pairs(b) if r.certify else None
    if kept + r.certify <= draft.tuning.most_kept:
        candidates = walk.walk(draft, b, kept, guards, final)
    else:
        candidates = radix.select_buckets(draft, b, kept, guards, final and not r.certify)
    if candidates is not None:
        _select(draft, candidates)
    if guards is not None:
        certify.certify(draft, b, guards)


def _exact(draft: Draft) -> None:
    n, numbers = draft.request.n, draft.tuning
    if n <= numbers.small_entries and small.small_rows(draft):
        return
    if n <= numbers.chip_entries and chip.chip_rows(draft):
        return
    if not filter.filter_rows(draft):
        _select(draft, None)


def _select(draft: Draft, source: Pairs | None) -> None:
    """Add the best k of every row of x, or of its candidates, and their order."""
    chosen = radix.select(draft, source)
    if chosen is not None:
        order.order(draft, chosen, spare=source)


def _certified_share(r: Request, choice: Choice) -> float | None:
    if not r.certify:
        return None
    if choice.buckets is None or choice.k_per_bucket is None:
        return 1.0
    return exact_share(r.n, r.k, choice.buckets, choice.k_per_bucket)


def _finish(
    request: Request,
    device: DeviceInfo,
    choice: Choice,
    steps: tuple[Step, ...] = (),
    bytes_read: int = 0,
    workspace_bytes: int = 0,
) -> SelectionPlan:
    return SelectionPlan(
        request=request,
        device=device,
        route=choice.route,
        buckets=choice.buckets,
        k_per_bucket=choice.k_per_bucket,
        expected_recall=choice.expected_recall,
        certified_share=_certified_share(request, choice),
        outputs=request.outputs,
        steps=steps,
        bytes_read=bytes_read,
        workspace_bytes=workspace_bytes,
    )
