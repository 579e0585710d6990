"""One call, from the user's array to the user's result."""

from __future__ import annotations

from typing import Any, NamedTuple

from .adapters import registry
from .operator import Operator
from .planning.cached import make_plan
from .runtime import serving

__all__ = ["TopK", "call"]


class TopK(NamedTuple):
    """The result of a selection.

    Attributes
    ----------
    values : array
        The selected entries, of x's type, dtype and shape with k in place of n.
    indices : array
        Where each entry stands along the axis, of the same shape, int32 or int64.
    """

    values: Any
    indices: Any


def call(operator: Operator, x: Any, k: Any, **options: Any) -> TopK:
    """Run `operator` on the array `x`, whatever framework owns it.

    `options` are the public function's keyword arguments, unvalidated.
    """
    adapter = registry.find(x)
    facts = adapter.facts(x)
    runtime = serving(facts.device)
    plan = make_plan(
        operator.name,
        facts.shape,
        facts.strides,
        facts.dtype,
        runtime.device_info(facts.device),
        k,
        default_index=adapter.default_index,
        index_dtypes=adapter.index_dtypes(),
        **options,
    )
    return TopK(*adapter.run(operator, x, facts, plan, runtime))
