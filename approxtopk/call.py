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

__all__ = ["CertifiedTopK", "TopK", "add_bounds", "call"]


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
    """Run `operator` on the array `x`, whatever framework owns it, and return the plan's outputs.

    `options` are the public function's other keyword arguments, unvalidated.
    """
    adapter = registry.find(x)
    deferred = adapter.deferred(x, starts, lengths)
    if deferred is not None:
        return deferred(operator, x, k, starts, lengths, options)
    given = adapter.facts(x)
    inputs, facts = {"x": x}, {"x": given}
    if starts is not None or lengths is not None:
        add_bounds(adapter, inputs, facts, starts, lengths)
        options |= {name: (f.dtype, f.shape, f.strides) for name, f in facts.items() if name != "x"}
    runtime = serving(given.device)
    options["default_index"], options["index_dtypes"] = adapter.default_index, adapter.index_dtypes()
    info = runtime.device_info(given.device)
    plan = plan_for(operator.name, given.shape, given.strides, given.dtype, info, k, options)
    return adapter.run(operator, inputs, facts, plan, runtime)


def add_bounds(adapter: Adapter, inputs: dict[str, Any], facts: dict[str, Buffer], starts: Any, lengths: Any) -> None:
    """Add the arrays that say where rows begin and how long they are, and what `adapter` says of them.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch
        When one is no array of x's framework, or on another device.
    """
    where = facts["x"].device
    for name, array in (("starts", starts), ("lengths", lengths)):
        if array is None:
            continue
        registry.check(name, array, adapter)
        inputs[name], facts[name] = array, adapter.facts(array, name)
        if facts[name].device != where:
            raise DeviceMismatch(f"{name} is on device {facts[name].device} and x on {where}; allowed is x's device")
