"""The planner of both selections: the route from n, k and recall alone, then the mapping to the machine."""

from __future__ import annotations

import math

from ..errors import InvalidArgument
from ..plan import DeviceInfo, HostCall, Plan, Step
from ..request import Request
from . import filter, order, radix, tuning, walk
from .choose import EXACT, Choice, choose
from .draft import Draft

__all__ = ["plan_select"]


def plan_select(request: Request, device: DeviceInfo) -> Plan:
    """Plan `request` for `device`.

    Raises
    ------
    InvalidArgument
        For more rows than one launch has blocks (2**31 - 1).
    """
    r = request
    exact = r.operator == "top_k" or r.k == 0
    choice = EXACT if exact else choose(r.n, r.k, r.recall_target, r.buckets, r.k_per_bucket)
    if r.k == 0 or r.rows == 0:
        return _finish(r, device, choice)
    if device.architecture == "cpu":
        read = math.prod(r.shape) * r.dtype.itemsize
        return _finish(r, device, choice, (HostCall("host.select"),), read)
    draft = Draft(r, device, tuning.DEFAULT)
    _map(draft, choice)
    for launch in draft.launches:
        if launch.grid > 2**31 - 1:
            raise InvalidArgument(f"x of shape {r.shape} needs {launch.grid} blocks; allowed are 2**31 - 1 at most")
    return _finish(r, device, choice, tuple(draft.steps), draft.bytes_read, draft.workspace_bytes)


def _map(draft: Draft, choice: Choice) -> None:
    """Add the steps: candidates where the route has them, the best k, and their order."""
    r = draft.request
    source = None
    if choice.buckets is not None and choice.k_per_bucket is not None:
        b, kept = choice.buckets, choice.k_per_bucket
        # No bucket gives more than k entries, or than it has: where it may keep those, it turns none away, and
        # the answer is the exact one.
        most = min(r.k, -(-r.n // b))
        if kept < most:
            # With just k candidates and no order asked for, the candidates are the result.
            final = b * kept == r.k and not r.sorted
            if kept <= draft.tuning.most_kept:
                source = walk.walk(draft, b, kept, final)
            else:
                source = radix.select_buckets(draft, b, kept, r.interleaved, final)
            if final:
                return
    if source is None and filter.filter_rows(draft):
        return
    chosen = radix.select(draft, source)
    if chosen is not None:
        order.order(draft, chosen, spare=source)


def _finish(
    request: Request,
    device: DeviceInfo,
    choice: Choice,
    steps: tuple[Step, ...] = (),
    bytes_read: int = 0,
    workspace_bytes: int = 0,
) -> Plan:
    return Plan(
        request=request,
        device=device,
        route=choice.route,
        buckets=choice.buckets,
        k_per_bucket=choice.k_per_bucket,
        expected_recall=choice.expected_recall,
        steps=steps,
        bytes_read=bytes_read,
        workspace_bytes=workspace_bytes,
    )
