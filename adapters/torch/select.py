"""The selections as one registered operator, for tensors that are not plain memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import ApproxTopKError, InvalidArgument
from ...operator import Operator
from ...request import Request, dtype_name, flag, integer
from .memory import DTYPE_OF
from .registered import all_given, batched, execute_on, is_dynamo_compiling, register

__all__ = ["dispatch", "gather"]

_DIFFERENTIABLE = frozenset(  # float8 has no gather, so no derivative
    (torch.float16, torch.bfloat16, torch.float32, torch.float64)
)


def dispatch(
    operator: Operator, x: torch.Tensor, others: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Run the selection `operator` through the dispatcher, with the arguments of the public function."""
    starts, lengths = others.get("starts"), others.get("lengths")
    if is_dynamo_compiling():
        arguments = _typed(options)
    else:
        arguments = _request(x, starts, lengths, operator.name, **options).arguments
    # Detached: the derivative is taken outside, and the operator itself has none.
    k = arguments.pop("k")
    arrays = torch.ops.approxtopk.select(x.detach(), starts, lengths, operator.name, k, **arguments)
    values, indices, *certificates = arrays
    if operator.derivative == "gather":
        values = gather(x, values, indices, arguments.get("axis", -1), bool(others))
    return (values, indices, *certificates)


def gather(x: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, axis: int, ragged: bool) -> torch.Tensor:
    """`values` once more, with their derivative: that of `x` at `indices`, and 0 where a ragged row is padded."""
    if x.dtype not in _DIFFERENTIABLE:
        return values
    where = indices.to(torch.int64)
    if not ragged:
        return torch.gather(x, axis, where)
    # Out of range, -1 would stop the device.
    return torch.where(where < 0, values, torch.gather(x, axis, where.clamp_min(0)))


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the operator's schema takes them, which converts bools to ints and the like; else unvalidated."""
    typed = dict(options)
    for name in ("k", "axis", "buckets", "k_per_bucket"):
        if options.get(name) is not None:
            typed[name] = integer(name, options[name])
    for name in ("sorted", "interleaved", "certify"):
        if name in options:
            typed[name] = flag(name, options[name])
    dtype = options.get("index_dtype")
    if dtype is not None and not isinstance(dtype, str):
        typed["index_dtype"] = dtype_name("index_dtype", dtype, "it must be int32, int64 or None", InvalidArgument)
    return typed


def _request(x: Any, starts: Any, lengths: Any, operator: str, k: Any, **options: Any) -> Request:
    """The valid call; extents, k and buckets may be numbers that only PyTorch's compiler knows."""
    bounds = {name: array for name, array in (("starts", starts), ("lengths", lengths)) if array is not None}
    (dtype, shape, _), facts = all_given(x, bounds)
    return Request.build(operator, shape, (), dtype, k, **{**options, **facts})


def _select(x: Any, starts: Any, lengths: Any, operator: str, k: int, **options: Any) -> list[torch.Tensor]:
    """Select; all is plain memory here, maybe of other shapes and strides than the caller's."""
    given = {"x": x, "starts": starts, "lengths": lengths}
    inputs = {name: tensor for name, tensor in given.items() if tensor is not None}
    return execute_on(operator, inputs, {"k": k, **options})


def _fake(x: Any, starts: Any, lengths: Any, operator: str, k: Any, **options: Any) -> list[torch.Tensor]:
    """The outputs without their contents, of a valid call."""
    try:
        r = _request(x, starts, lengths, operator, k, **options)
    except ApproxTopKError as error:
        # Of all errors this is the one at which Dynamo breaks the graph, so that the call itself can raise its own.
        raise NotImplementedError(str(error)) from error
    arrays = [x.new_empty(r.output_shape), x.new_empty(r.output_shape, dtype=DTYPE_OF[r.index_dtype])]
    if r.certify:
        arrays.append(x.new_empty(r.batch_shape, dtype=torch.bool))
    return arrays


def _vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Any,
    starts: Any,
    lengths: Any,
    operator: str,
    k: Any,
    *,
    axis: int = -1,
    **options: Any,
) -> tuple[list[torch.Tensor], int]:
    tensors = [batched(info, t, d) for t, d in zip((x, starts, lengths), in_dims, strict=False)]
    axis = axis if axis < 0 else axis + 1
    return torch.ops.approxtopk.select(*tensors, operator, k, axis=axis, **options), 0


# With the arguments and defaults of the public functions; the result is values, indices and, with certify, exact.
register(
    "select(Tensor x, Tensor? starts, Tensor? lengths, str operator, SymInt k, *, int axis=-1, str mode='largest', "
    "bool sorted=True, float recall_target=1.0, SymInt? buckets=None, SymInt? k_per_bucket=None, "
    "bool interleaved=True, bool certify=False, str? index_dtype=None) -> Tensor[]",
    _select,
    _fake,
    _vmap,
)
