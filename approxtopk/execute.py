"""Walks a plan's steps over buffers on a runtime: allocates nothing, never synchronises, knows no framework."""

from __future__ import annotations

from collections.abc import Mapping

from .buffer import Buffer
from .plan import Plan
from .runtime.protocol import Runtime

__all__ = ["execute"]


def execute(plan: Plan, buffers: Mapping[str, Buffer], runtime: Runtime, stream: int = 0) -> None:
    """Put the steps of `plan` on `stream`, in order.

    Parameters
    ----------
    plan : Plan
        What to run; an empty one does nothing.
    buffers : mapping of str to Buffer
        ``"x"`` and the operator's outputs by name, and ``"workspace"`` where the plan asks for one.
    runtime : Runtime
        The machine that serves the buffers' device.
    stream : int
        The driver's handle of the caller's current stream; ignored on a CPU.
    """
    if not plan.steps:
        return
    with runtime.guard(buffers["x"].device):
        for step in plan.steps:
            runtime.run(step, plan, buffers, stream)
