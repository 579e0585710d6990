"""One call, from the user's arrays to the user's result."""

from __future__ import annotations

from typing import Any, NamedTuple

from .adapters import registry
from .adapters.protocol import Adapter
from .buffer import Buffer
from .errors import DeviceMismatch
from .operator import Operator
from .planning.cached import plan_for
from .runtime import serving

__all__ = ["CertifiedTopK", "TopK", "add_input", "apply", "call"]


class TopK(NamedTuple):
    """The result of a selection.

    Attributes
    ----------
    values : array
        The selected entries, of x's type, dtype and shape with k in place of n.
    indices : array
        Where each entry stands along the axis, of the same shape, int32 or int64; -1 where a ragged row has no
        entry left: test ``indices >= 0`` before you index with them.
    """

    values: Any
    indices: Any


class CertifiedTopK(NamedTuple):
    """The result of a selection, and whether it is the exact one.

    Attributes
    ----------
    values, indices : array
        As in `TopK`.
    exact : array of bool
        For every row (x's shape without the axis): whether the answer is the exact top k.
    """

    values: Any
    indices: Any
    exact: Any


def call(
    operator: Operator, x: Any, k: Any, *, starts: Any = None, lengths: Any = None, **options: Any
) -> tuple[Any, ...]:
    """Run the selection `operator` on the array `x`, whatever framework owns it, and return the plan's outputs.

    `options` are the public function's other keyword arguments, unvalidated.
    """
    options["k"] = k
    return apply(operator, x, {"starts": starts, "lengths": lengths}, options)


def apply(operator: Operator, x: Any, others: dict[str, Any], options: dict[str, Any]) -> tuple[Any, ...]:
    """Run `operator` on the array `x` and its other inputs, and return the plan's outputs.

    Of `others`, by name, those that are None are not there. `options` are the arguments of the operator's request,
    unvalidated; they are changed.
    """
    adapter = registry.find(x)
    deferred = adapter.deferred(x, *others.values())
    if deferred is not None:
        return deferred(operator, x, {name: array for name, array in others.items() if array is not None}, options)
    given = adapter.facts(x)
    inputs, facts = {"x": x}, {"x": given}
    for name, array in others.items():
        if array is not None:
            add_input(adapter, inputs, facts, name, array)
            fact = facts[name]
            options[name] = (fact.dtype, fact.shape, fact.strides)
    runtime = serving(given.device)
    if operator.counts:
        options["default_index"], options["index_dtypes"] = adapter.default_index, adapter.index_dtypes()
    info = runtime.device_info(given.device)
    plan = plan_for(operator.name, given.shape, given.strides, given.dtype, info, options)
    return adapter.run(operator, inputs, facts, plan, runtime)


def add_input(adapter: Adapter, inputs: dict[str, Any], facts: dict[str, Buffer], name: str, array: Any) -> None:
    """Add another input beside x, and what `adapter` says of it.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch
        When it is no array of x's framework, or on another device.
    """
    registry.check(name, array, adapter)
    fact = adapter.facts(array, name)
    where = facts["x"].device
    if fact.device != where:
        raise DeviceMismatch(f"{name} is on device {fact.device} and x on {where}; allowed is x's device")
    inputs[name], facts[name] = array, fact
