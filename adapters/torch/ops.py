"""The selection as a registered operator, for tensors that are not plain memory.

Under ``torch.func``'s transforms, forward-mode derivatives, dispatch modes (fake tensors among them) and tensor
subclasses, PyTorch's dispatcher unwraps the tensor; plain tensors skip it, which saves 3 us a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from ...plan import Plan
from ...planning.cached import replan
from ...runtime import serving

__all__ = ["dispatch", "wrapped"]

_tracing_state = torch._C._get_tracing_state  # of torch.jit.trace
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def wrapped(x: torch.Tensor) -> bool:
    """Whether `x` reaches its memory only through the dispatcher."""
    return (
        type(x) not in _PLAIN
        or peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or x.is_neg()
        or _tracing_state() is not None
    )


def dispatch(inputs: Mapping[str, torch.Tensor], plan: Plan) -> tuple[torch.Tensor, ...]:
    """Run the selection `plan` describes through the dispatcher."""
    r = plan.request
    # Detached: the derivative is taken outside, by the adapter, and the operator itself has none.
    x = inputs["x"].detach()
    return tuple(torch.ops.approxtopk.select(x, inputs.get("starts"), inputs.get("lengths"), r.axis, *r.options))


_registry: Any = torch.library  # untyped in places that differ between releases
_library = _registry.Library("approxtopk", "DEF")
# The one operator, of every selection. What follows the axis are `Request.options`; the result is values, indices and,
# with certify, exact.
_library.define(
    "select(Tensor x, Tensor? starts, Tensor? lengths, int axis, str operator, int k, bool largest, bool sorted, "
    "float recall_target, int? buckets, int? k_per_bucket, bool interleaved, bool certify, str index_dtype) -> Tensor[]"
)


def _select(
    x: torch.Tensor, starts: torch.Tensor | None, lengths: torch.Tensor | None, axis: int, *options: Any
) -> list[torch.Tensor]:
    """The kernel: all is plain memory here, maybe of other shapes and strides than the caller's."""
    from .arrays import describe, select

    given = {"x": x, "starts": starts, "lengths": lengths}
    facts = {name: describe(tensor, name, False) for name, tensor in given.items() if tensor is not None}
    own = facts["x"]
    bounds = {name: (b.dtype, b.shape, b.strides) for name, b in facts.items() if name != "x"}
    runtime = serving(own.device)
    plan = replan(options, own.shape, own.strides, own.dtype, axis, runtime.device_info(own.device), **bounds)
    return list(select(x, facts, plan, runtime))


def _fake(
    x: torch.Tensor, starts: Any, lengths: Any, axis: int, operator: str, k: int, *options: Any
) -> list[torch.Tensor]:
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    *_, certify, index_dtype = options
    arrays = [x.new_empty((*before, k, *behind)), x.new_empty((*before, k, *behind), dtype=getattr(torch, index_dtype))]
    if certify:
        arrays.append(x.new_empty((*before, *behind), dtype=torch.bool))
    return arrays


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Any, starts: Any, lengths: Any, axis: int, *options: Any
) -> tuple[list[torch.Tensor], int]:
    def batched(tensor: torch.Tensor | None, batch: int | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        return tensor.expand(info.batch_size, *tensor.shape) if batch is None else tensor.movedim(batch, 0)

    tensors = (batched(t, d) for t, d in zip((x, starts, lengths), in_dims, strict=False))
    return torch.ops.approxtopk.select(*tensors, axis + 1, *options), 0


_library.impl("select", _select, "CPU")
_library.impl("select", _select, "CUDA")
_registry.register_fake("approxtopk::select", _fake, lib=_library)
_registry.register_vmap("approxtopk::select", _vmap, lib=_library)
