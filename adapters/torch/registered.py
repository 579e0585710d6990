"""What our registered operators share: tensors that are not plain memory, and how PyTorch is told of an operator.

Under ``torch.compile`` and ``torch.export``, ``torch.func``'s transforms, forward-mode derivatives, dispatch modes
(fake tensors among them) and tensor subclasses, PyTorch's dispatcher unwraps the tensor; plain tensors skip it, which
saves 3 us a call. Operators take the public arguments and are planned where they run, so graphs hold for shapes that
are not known when they are made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from ...errors import DeviceMismatch, InvalidType
from ...planning.cached import plan_for
from ...rows import Given
from ...runtime import serving
from .. import registry
from .memory import check, describe, run_plan

__all__ = ["all_given", "batched", "check_owners", "execute_on", "is_dynamo_compiling", "register", "wrapped"]

# True only in what Dynamo traces; torch.compiler.is_compiling is true in every thread while one of them compiles.
is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_tracing_state = torch._C._get_tracing_state  # of torch.jit.trace
_PLAIN = (torch.Tensor, torch.nn.Parameter)

_registry: Any = torch.library  # untyped in places that differ between releases
_library = _registry.Library("approxtopk", "DEF")


def wrapped(x: torch.Tensor) -> bool:
    """Whether `x` reaches its memory only through the dispatcher, if it has any."""
    return (
        is_dynamo_compiling()
        or type(x) not in _PLAIN
        or peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or x.is_neg()
        or _tracing_state() is not None
    )


def check_owners(x: Any, others: Mapping[str, Any]) -> None:
    """Make sure that all are arrays of one framework."""
    for name, array in others.items():
        registry.check(name, array, registry.find(x))


def all_given(x: Any, others: Mapping[str, Any]) -> tuple[Given, dict[str, Given]]:
    """The element types and shapes of `x` and of the other inputs, whose extents only a compiler may know.

    Raises
    ------
    InvalidType, UnsupportedDType, DeviceMismatch
        When one is a tensor of another kind, type or device than allowed.
    """
    own, found = _given(x, "x"), {}
    for name, array in others.items():
        found[name] = _given(array, name)
        if array.device != x.device:
            raise DeviceMismatch(f"{name} is on device {array.device} and x on {x.device}; allowed is x's device")
    return own, found


def _given(x: Any, name: str) -> Given:
    if hasattr(x, "to_local"):
        raise InvalidType(
            f"{name} is a {type(x).__name__}; allowed are tensors of one rank: pass {name}.to_local(), and where it is "
            "the axis that is sharded, pass that to approxtopk.adapters.torch.distributed"
        )
    return check(x, name), tuple(x.shape), ()


def execute_on(operator: str, inputs: Mapping[str, torch.Tensor], options: dict[str, Any]) -> list[torch.Tensor]:
    """Plan and run what is asked for, on tensors that are plain memory, ``"x"`` among them."""
    facts = {name: describe(tensor, name) for name, tensor in inputs.items()}
    own = facts["x"]
    options |= {name: (b.dtype, b.shape, b.strides) for name, b in facts.items() if name != "x"}
    runtime = serving(own.device)
    plan = plan_for(operator, own.shape, own.strides, own.dtype, runtime.device_info(own.device), options)
    return list(run_plan(inputs["x"], facts, plan, runtime))


def batched(info: Any, tensor: torch.Tensor | None, batch: int | None) -> torch.Tensor | None:
    """`tensor` with vmap's batch as its first axis."""
    if tensor is None:
        return None
    return tensor.expand(info.batch_size, *tensor.shape) if batch is None else tensor.movedim(batch, 0)


def register(schema: str, kernel: Any, fake: Any, vmap: Any) -> None:
    """Tell PyTorch of an operator: how it runs, on fake tensors, and under vmap."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    hidden = _unseen(kernel)
    _library.impl(name, hidden, "CPU")
    _library.impl(name, hidden, "CUDA")
    _registry.register_fake(f"approxtopk::{name}", fake, lib=_library)
    _registry.register_vmap(f"approxtopk::{name}", vmap, lib=_library)


def _unseen(kernel: Callable[..., list[torch.Tensor]]) -> Callable[..., list[torch.Tensor]]:
    """`kernel`, of which Dynamo sees nothing.

    Where a graph breaks, it looks at every frame that follows, and would compile what the CPU does in NumPy.
    """
    hidden: Any = None

    def run(*arguments: Any, **options: Any) -> list[torch.Tensor]:
        nonlocal hidden
        if hidden is None:
            if "torch._dynamo" not in sys.modules:
                return kernel(*arguments, **options)
            hidden = torch.compiler.disable(kernel)  # type: ignore[no-untyped-call]
        result: list[torch.Tensor] = hidden(*arguments, **options)
        return result

    return run
