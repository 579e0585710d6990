"""The selection as a registered operator, for tensors that are not plain memory.

Under ``torch.func``'s transforms, forward-mode derivatives, dispatch modes (fake tensors among them) and tensor
subclasses, PyTorch's dispatcher unwraps the tensor; plain tensors skip it, which saves 3 us a call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from ...operator import Operator
from ...plan import Plan
from ...planning.cached import replan
from ...runtime import serving

__all__ = ["dispatch", "wrapped"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def wrapped(x: torch.Tensor) -> bool:
    """Whether `x` reaches its memory only through the dispatcher."""
    return (
        type(x) not in _PLAIN
        or peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or x.is_neg()
    )


def dispatch(x: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the selection `plan` describes through the dispatcher."""
    r = plan.request
    values, indices = torch.ops.approxtopk.select(x, r.axis, *r.options)
    return values, indices


# The one registered operator, of every selection; the derivative is taken outside, by the adapter.
_RECORD = Operator("select", inputs=("x",), outputs=("values", "indices"), derivative=None)

_registry: Any = torch.library  # untyped in places that differ between releases
_library = _registry.Library("approxtopk", "DEF")
# What follows the axis are `Request.options`.
_library.define(
    "select(Tensor x, int axis, str operator, int k, bool largest, bool sorted, float recall_target, int? buckets, "
    "int? k_per_bucket, bool interleaved, str index_dtype) -> (Tensor values, Tensor indices)"
)


def _select(x: torch.Tensor, axis: int, *options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel: `x` is plain memory here, maybe of another shape and other strides than the caller's."""
    from .arrays import describe, select

    facts = describe(x)
    runtime = serving(facts.device)
    plan = replan(options, facts.shape, facts.strides, facts.dtype, axis, runtime.device_info(facts.device))
    return select(_RECORD, x, facts, plan, runtime)


def _fake(x: torch.Tensor, axis: int, operator: str, k: int, *options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int32 if options[-1] == "int32" else torch.int64)


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, axis: int, *options: Any
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[int, int]]:
    batch = in_dims[0]
    assert batch is not None  # vmap calls this only when some tensor is batched, and there is one
    return torch.ops.approxtopk.select(x.movedim(batch, 0), axis + 1, *options), (0, 0)


_library.impl("select", _select, "CPU")
_library.impl("select", _select, "CUDA")
_registry.register_fake("approxtopk::select", _fake, lib=_library)
_registry.register_vmap("approxtopk::select", _vmap, lib=_library)
