"""What takes over calls on tensors that are not plain memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...operator import Operator, Pullback
from . import select
from .derivative import differentiable
from .general import run, valid
from .registered import check_owners, is_dynamo_compiling

__all__ = ["dispatch", "dispatch_arrays"]


def dispatch(
    operator: Operator, x: torch.Tensor, others: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Run `operator` through PyTorch's dispatcher, with the arguments of its request.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As the public function. Where ``torch.compile`` traces this, the operator's fake kernel finds what is wrong:
        the graph breaks there, and the call that follows raises; with ``fullgraph=True`` the compiler's error carries
        the message.
    """
    check_owners(x, others)
    if operator.derivative == "gather":
        return select.dispatch(operator, x, others, options)
    arguments = valid(operator.name, x, others, options)
    if isinstance(operator.derivative, Pullback):
        if is_dynamo_compiling():
            others, arguments = _lifted(operator, x, others, arguments)
        return differentiable(operator, {"x": x, **others}, arguments)
    return tuple(run(operator.name, x, others, arguments))


def _lifted(
    operator: Operator, x: torch.Tensor, others: Mapping[str, Any], arguments: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same with tensors for numbers that inputs may be, so that a graph serves all that come."""
    axis, rank = arguments["axis"], x.dim()
    if not -rank <= axis < rank:
        return dict(others), arguments  # as the fake kernel will say
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    batch = [extent for at, extent in enumerate(x.shape) if at != axis % rank]
    numbers = {name: arguments.pop(name) for name in operator.inputs if isinstance(arguments.get(name), float)}
    # A product, which the compiler knows how to do with a number that is not known yet.
    one = x.new_ones((), dtype=dtype)
    tensors = {name: (one * value).expand(batch) for name, value in numbers.items()}
    return {**others, **tensors}, arguments


def dispatch_arrays(
    operator: Operator, x: Any, others: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Run `operator` on NumPy arrays, as part of a graph that ``torch.compile`` makes of NumPy code."""
    check_owners(x, others)
    tensors = {name: torch.as_tensor(array) for name, array in others.items()}
    return tuple([array.numpy() for array in dispatch(operator, torch.as_tensor(x), tensors, options)])
