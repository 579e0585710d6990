"""The selection as a registered operator, for tensors that are not plain memory.

Under ``torch.compile`` and ``torch.export``, ``torch.func``'s transforms, forward-mode derivatives, dispatch modes
(fake tensors among them) and tensor subclasses, PyTorch's dispatcher unwraps the tensor; plain tensors skip it, which
saves 3 us a call. The operator takes the public arguments and is planned where it runs, so graphs hold for shapes that
are not known when they are made.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from ...errors import ApproxTopKError, DeviceMismatch, InvalidArgument, InvalidType
from ...operator import Operator
from ...planning.cached import make_plan
from ...request import Request, dtype_name, flag, integer
from ...runtime import serving
from .. import registry
from .memory import DTYPE_OF, check, describe, select

__all__ = ["dispatch", "dispatch_arrays", "gather", "wrapped"]

_DIFFERENTIABLE = frozenset(  # float8 has no gather, so no derivative
    (torch.float16, torch.bfloat16, torch.float32, torch.float64)
)
# True only in what Dynamo traces; torch.compiler.is_compiling is true in every thread while one of them compiles.
_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_tracing_state = torch._C._get_tracing_state  # of torch.jit.trace
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def wrapped(x: torch.Tensor) -> bool:
    """Whether `x` reaches its memory only through the dispatcher, if it has any."""
    return (
        _is_dynamo_compiling()
        or type(x) not in _PLAIN
        or peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or x.is_neg()
        or _tracing_state() is not None
    )


def dispatch(
    operator: Operator, x: torch.Tensor, k: Any, starts: Any, lengths: Any, options: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Run `operator` through the dispatcher, with the arguments of the public function.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As the public function. Where ``torch.compile`` traces this, the operator's fake kernel finds what is wrong:
        the graph breaks there, and the call that follows raises; with ``fullgraph=True`` the compiler's error carries
        the message.
    """
    _check_owners(x, starts, lengths)
    if _is_dynamo_compiling():
        k, arguments = integer("k", k), _typed(options)
    else:
        r = _request(x, starts, lengths, operator.name, k, options)
        k, arguments = r.k, r.arguments
    # Detached: the derivative is taken outside, and the operator itself has none.
    arrays = torch.ops.approxtopk.select(x.detach(), starts, lengths, operator.name, k, **arguments)
    values, indices, *others = arrays
    if operator.derivative == "gather":
        values = gather(x, values, indices, arguments.get("axis", -1), starts is not None or lengths is not None)
    return (values, indices, *others)


def dispatch_arrays(
    operator: Operator, x: Any, k: Any, starts: Any, lengths: Any, options: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Run `operator` on NumPy arrays, as part of a graph that ``torch.compile`` makes of NumPy code."""
    _check_owners(x, starts, lengths)
    x, starts, lengths = (None if array is None else torch.as_tensor(array) for array in (x, starts, lengths))
    return tuple([array.numpy() for array in dispatch(operator, x, k, starts, lengths, options)])


def gather(x: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, axis: int, ragged: bool) -> torch.Tensor:
    """`values` once more, with their derivative: that of `x` at `indices`, and 0 where a ragged row is padded."""
    if x.dtype not in _DIFFERENTIABLE:
        return values
    where = indices.to(torch.int64)
    if not ragged:
        return torch.gather(x, axis, where)
    # Out of range, -1 would stop the device.
    return torch.where(where < 0, values, torch.gather(x, axis, where.clamp_min(0)))


def _check_owners(x: Any, starts: Any, lengths: Any) -> None:
    """Make sure that all are arrays of one framework."""
    for name, array in (("starts", starts), ("lengths", lengths)):
        if array is not None:
            registry.check(name, array, registry.find(x))


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the operator's schema takes them, which converts bools to ints and the like; else unvalidated."""
    typed = dict(options)
    for name in ("axis", "buckets", "k_per_bucket"):
        if options.get(name) is not None:
            typed[name] = integer(name, options[name])
    for name in ("sorted", "interleaved", "certify"):
        if name in options:
            typed[name] = flag(name, options[name])
    dtype = options.get("index_dtype")
    if dtype is not None and not isinstance(dtype, str):
        typed["index_dtype"] = dtype_name("index_dtype", dtype, "it must be int32, int64 or None", InvalidArgument)
    return typed


def _request(x: Any, starts: Any, lengths: Any, operator: str, k: Any, options: Mapping[str, Any]) -> Request:
    """The valid call; extents, k and buckets may be numbers that only PyTorch's compiler knows."""
    if hasattr(x, "to_local"):
        raise InvalidType(
            f"x is a {type(x).__name__}; allowed are tensors of one rank: pass x.to_local(), and where it is the axis "
            "that is sharded, pass that to approxtopk.adapters.torch.distributed"
        )
    dtype = check(x, "x")
    bounds: dict[str, Any] = {}
    for name, array in (("starts", starts), ("lengths", lengths)):
        if array is not None:
            bounds[name] = (check(array, name), tuple(array.shape), ())
            if array.device != x.device:
                raise DeviceMismatch(f"{name} is on device {array.device} and x on {x.device}; allowed is x's device")
    return Request.build(operator, tuple(x.shape), (), dtype, k, **options, **bounds)


_registry: Any = torch.library  # untyped in places that differ between releases
_library = _registry.Library("approxtopk", "DEF")
# The one operator, of every selection, with the arguments and defaults of the public functions; the result is values,
# indices and, with certify, exact.
_library.define(
    "select(Tensor x, Tensor? starts, Tensor? lengths, str operator, SymInt k, *, int axis=-1, str mode='largest', "
    "bool sorted=True, float recall_target=1.0, SymInt? buckets=None, SymInt? k_per_bucket=None, "
    "bool interleaved=True, bool certify=False, str? index_dtype=None) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _kernel(*arguments: Any, **options: Any) -> list[torch.Tensor]:
    """The kernel, of which Dynamo sees nothing.

    Where a graph breaks, it looks at every frame that follows, and would compile what the CPU does in NumPy.
    """
    run = _select if "torch._dynamo" not in sys.modules else _unseen or _make_unseen()
    return run(*arguments, **options)


_unseen: Any = None


def _make_unseen() -> Any:
    global _unseen
    _unseen = torch.compiler.disable(_select)  # type: ignore[no-untyped-call]
    return _unseen


def _select(x: Any, starts: Any, lengths: Any, operator: str, k: int, **options: Any) -> list[torch.Tensor]:
    """Select; all is plain memory here, maybe of other shapes and strides than the caller's."""
    given = {"x": x, "starts": starts, "lengths": lengths}
    facts = {name: describe(tensor, name) for name, tensor in given.items() if tensor is not None}
    own = facts["x"]
    options |= {name: (b.dtype, b.shape, b.strides) for name, b in facts.items() if name != "x"}
    runtime = serving(own.device)
    plan = make_plan(operator, own.shape, own.strides, own.dtype, runtime.device_info(own.device), k, **options)
    return list(select(x, facts, plan, runtime))


def _fake(x: Any, starts: Any, lengths: Any, operator: str, k: Any, **options: Any) -> list[torch.Tensor]:
    """The outputs without their contents, of a valid call."""
    try:
        r = _request(x, starts, lengths, operator, k, options)
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
    def batched(tensor: torch.Tensor | None, batch: int | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        return tensor.expand(info.batch_size, *tensor.shape) if batch is None else tensor.movedim(batch, 0)

    tensors = [batched(t, d) for t, d in zip((x, starts, lengths), in_dims, strict=False)]
    axis = axis if axis < 0 else axis + 1
    return torch.ops.approxtopk.select(*tensors, operator, k, axis=axis, **options), 0


_library.impl("select", _kernel, "CPU")
_library.impl("select", _kernel, "CUDA")
_registry.register_fake("approxtopk::select", _fake, lib=_library)
_registry.register_vmap("approxtopk::select", _vmap, lib=_library)
