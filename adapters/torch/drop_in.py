"""``torch.topk`` by name and signature, exact and approximate."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NoReturn

import torch
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from ...approx_top_k import OPERATOR as APPROXIMATE
from ...buffer import Buffer
from ...call import call
from ...errors import DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType
from ...operator import Operator
from ...planning.cached import make_plan
from ...request import Request, integer
from ...runtime import serving
from ...top_k import OPERATOR as EXACT
from .arrays import ADAPTER
from .registered import wrapped

__all__ = ["approx_topk", "topk"]

_MOST = 2**63
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_types: Any = torch.return_types  # topk_out is left out of its stubs


def topk(
    input: torch.Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
    *,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.return_types.topk:
    """Exact top-k in place of ``torch.topk``: its arguments, its result type, its errors.

    Ties, which ``torch.topk`` leaves open, go to the lower index; see `approxtopk.top_k` for the whole order. float8
    and unsigned integers of 16 to 64 bits, which ``torch.topk`` may lack, are served; what only ``torch.topk`` knows
    (other devices, quantized tensors) goes to it, and so do its own errors for what it refuses.

    Parameters
    ----------
    input, k, dim, largest, sorted
        As ``torch.topk``; 0-d tensors and tensors on "meta" too. An `input` with a ``__torch_function__`` is asked for
        this function, and where it knows none such, for ``torch.topk``.
    out
        As ``torch.topk``: of the right shape or resized. Contiguous tensors are written in place, without a copy.

    Returns
    -------
    torch.return_types.topk
        ``(values, indices)``; differentiable. ``torch.return_types.topk_out`` where `out` is given.

    Examples
    --------
    >>> import torch
    >>> from approxtopk.adapters.torch import topk
    >>> topk(torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0]), 2)
    torch.return_types.topk(
    values=tensor([5., 4.]),
    indices=tensor([4, 2]))
    """
    if has_torch_function_unary(input) or (out is not None and has_torch_function(_tensors(out))):
        return _overridden(topk, torch.topk, input, k, dim, largest, sorted, out, {})
    return _select("topk", EXACT, input, k, dim, largest, sorted, out, {})


def approx_topk(
    input: torch.Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
    *,
    recall_target: float = 0.95,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    j: int | None = None,
    k_mult: float | None = None,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.return_types.topk:
    """Approximate top-k with the arguments of ``torch.topk``.

    Parameters
    ----------
    input, k, dim, largest, sorted, out
        As `topk`, with the errors of ``torch.topk``; what approxtopk does not serve is refused.
    recall_target, buckets, k_per_bucket, interleaved
        As `approxtopk.approx_top_k`.
    j, k_mult
        The older names of pytorch-approx-topk: j is k_per_bucket, and k_mult = k_per_bucket * buckets / k, so
        buckets = k_mult * k / j. k_mult is meaningless without j (or k_per_bucket).

    Returns
    -------
    torch.return_types.topk
        ``(values, indices)``; differentiable. ``torch.return_types.topk_out`` where `out` is given.

    Raises
    ------
    InvalidArgument, InvalidType
        For the arguments ``torch.topk`` lacks: out of range, contradictory, or with k_mult * k / j no integer.
    """
    if has_torch_function_unary(input) or (out is not None and has_torch_function(_tensors(out))):
        given = {"recall_target": recall_target, "buckets": buckets, "k_per_bucket": k_per_bucket}
        given |= {"interleaved": interleaved, "j": j, "k_mult": k_mult}
        return _overridden(approx_topk, None, input, k, dim, largest, sorted, out, given)
    if j is not None or k_mult is not None:
        count = _integer("approx_topk", "k", 2, k)
        if not -_MOST <= count < _MOST:
            raise ValueError("Overflow when unpacking long long")
        buckets, k_per_bucket = _modern_names(count, buckets, k_per_bucket, j, k_mult)
    options = {
        "recall_target": recall_target,
        "buckets": buckets,
        "k_per_bucket": k_per_bucket,
        "interleaved": interleaved,
    }
    return _select("approx_topk", APPROXIMATE, input, k, dim, largest, sorted, out, options)


def _modern_names(
    k: int, buckets: int | None, k_per_bucket: int | None, j: int | None, k_mult: Any
) -> tuple[int | None, int | None]:
    """(buckets, k_per_bucket) from either set of names, or both where they agree."""
    if j is not None:
        kept = integer("j", j)
        if kept < 1:
            raise InvalidArgument(f"j = {kept} is out of range; it must be at least 1")
        if k_per_bucket is not None and integer("k_per_bucket", k_per_bucket) != kept:
            raise InvalidArgument(f"j = {kept} and k_per_bucket = {k_per_bucket} are one argument; give it once")
        k_per_bucket = kept
    if k_mult is None:
        return buckets, k_per_bucket
    if isinstance(k_mult, float):
        if not 0 < k_mult < float("inf"):
            raise InvalidArgument(f"k_mult = {k_mult} is out of range; it must be positive and finite")
        times = Fraction(k_mult)
    else:
        times = Fraction(integer("k_mult", k_mult))
        if times <= 0:
            raise InvalidArgument(f"k_mult = {k_mult} is out of range; it must be positive")
    if k_per_bucket is None:
        raise InvalidArgument(f"k_mult = {k_mult} says nothing without j (or k_per_bucket): buckets = k_mult * k / j")
    kept = integer("k_per_bucket", k_per_bucket)
    if kept < 1:
        raise InvalidArgument(f"k_per_bucket = {kept} is out of range; it must be at least 1")
    count = times * k / kept
    if count.denominator != 1:
        raise InvalidArgument(
            f"k_mult * k / j = {k_mult} * {k} / {kept} = {float(count):g} buckets is not a whole number; "
            "choose k_mult * k divisible by j"
        )
    if k == 0:
        return buckets, k_per_bucket
    if buckets is not None and integer("buckets", buckets) != count:
        raise InvalidArgument(f"buckets = {buckets} contradicts k_mult * k / j = {k_mult} * {k} / {kept} = {count}")
    return int(count), k_per_bucket


def _tensors(out: Any) -> tuple[Any, ...]:
    """What may override the call besides its input."""
    return tuple(out) if isinstance(out, (tuple, list)) else ()


def _overridden(
    function: Callable[..., Any],
    original: Callable[..., Any] | None,
    input: Any,
    k: Any,
    dim: Any,
    largest: Any,
    sorted: Any,
    out: Any,
    options: dict[str, Any],
) -> torch.return_types.topk:
    """Let the ``__torch_function__`` of an argument, or of a mode, answer the call."""
    relevant = (input, *_tensors(out))
    options = options if out is None else {**options, "out": out}
    try:
        result: torch.return_types.topk = handle_torch_function(
            function, relevant, input, k, dim, largest, sorted, **options
        )
        return result
    except TypeError as error:
        # Raised by handle_torch_function when all have returned NotImplemented: they may know the original.
        if original is None or "no implementation found for" not in str(error):
            raise
    result = original(input, k, dim, largest, sorted, **options)
    return result


def _select(
    name: str,
    record: Operator,
    input: Any,
    k: Any,
    dim: Any,
    largest: Any,
    sorted: Any,
    out: Any,
    options: dict[str, Any],
) -> torch.return_types.topk:
    """Check as PyTorch checks, select, and hand back as PyTorch does."""
    if not isinstance(input, torch.Tensor):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {_kind(input)}")
    # One comparison for the usual call.
    if not (type(k) is int and type(dim) is int and type(largest) is bool and type(sorted) is bool):
        k, dim = _integer(name, "k", 2, k), _integer(name, "dim", 3, dim)
        for argument, position, flag in (("largest", 4, largest), ("sorted", 5, sorted)):
            if not isinstance(flag, bool):
                kind = _kind(flag)
                raise TypeError(f"{name}(): argument '{argument}' (position {position}) must be bool, not {kind}")
    if not (-_MOST <= k < _MOST and -_MOST <= dim < _MOST):
        raise ValueError("Overflow when unpacking long long")
    if out is not None:
        _check_tuple(name, out)
    if record is EXACT and (input.layout is not torch.strided or input.is_nested):
        return _original(input, k, dim, largest, sorted, out)  # before k is looked at: there may be no such size
    scalar = input.dim() == 0
    rank = 1 if scalar else input.dim()
    if not -rank <= dim < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    if not 0 <= k <= (1 if scalar else input.size(dim)):
        raise RuntimeError("selected index k out of range")
    if out is not None:
        _check_out(name, input, out)
    x = input.reshape(1) if scalar else input
    k = 1 if scalar else k  # torch.topk of a 0-d tensor returns it for k = 0 too
    options = {**options, "axis": dim, "mode": "largest" if largest else "smallest", "sorted": sorted}
    try:
        if out is not None and not scalar and _write(record, x, k, options, out):
            return _topk_out(out)
        values, indices = (_infer if x.is_meta else call)(record, x, k, **options)
    except (UnsupportedDType, DeviceMismatch, InvalidType) as error:
        if record is EXACT and str(error).startswith("x "):
            return _original(input, k, dim, largest, sorted, out)
        _translate(name, error)
    except InvalidArgument as error:
        _translate(name, error)
    if scalar:
        values, indices = values.reshape(()), indices.reshape(())
    if out is None:
        return torch.return_types.topk((values, indices))
    for given, result in zip(out, (values, indices), strict=True):
        _resize(given, result.shape)
        given.copy_(result)
    return _topk_out(out)


def _write(record: Operator, x: torch.Tensor, k: int, options: dict[str, Any], out: Any) -> bool:
    """Select into the tensors of `out` themselves, if they are memory that a plan can write: whether they were."""
    values, indices = out
    if x.is_meta or wrapped(x) or not (_writable(values) and _writable(indices)):
        return False
    axis = options["axis"]
    shape = (*x.shape[:axis], k, *x.shape[axis:][1:])
    for given in out:
        # What has elements and another shape is resized behind the call: it may share memory with x until then.
        if given.numel() if given.shape != shape else not given.is_contiguous():
            return False
    if values.shape != shape or indices.shape != shape:
        values.resize_(shape)
        indices.resize_(shape)
    own = ADAPTER.facts(x)
    if _overlap(own, values, indices):
        return False
    runtime = serving(own.device)
    plan = make_plan(record.name, own.shape, own.strides, own.dtype, runtime.device_info(own.device), k, **options)
    ADAPTER.run(record, {"x": x}, {"x": own}, plan, runtime, out=out)
    return True


def _infer(record: Operator, x: torch.Tensor, k: int, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The results of a valid call on "meta": shapes and element types only."""
    dtype = str(x.dtype).removeprefix("torch.")
    r = Request.build(record.name, tuple(x.shape), x.stride(), dtype, k, **options)
    return x.new_empty(r.output_shape), x.new_empty(r.output_shape, dtype=torch.int64)


def _writable(given: torch.Tensor) -> bool:
    """Whether a tensor is plain memory that may be written now."""
    return (
        type(given) in _PLAIN and not given.is_neg() and (not given.is_inference() or torch.is_inference_mode_enabled())
    )


def _overlap(x: Buffer, values: torch.Tensor, indices: torch.Tensor) -> bool:
    """Whether any two may share memory; the tensors are contiguous, and strides of tensors are not negative."""
    reach = sum(map(operator.mul, x.shape, x.strides)) - sum(x.strides) + 1 if 0 not in x.shape else 0
    first, second = values.data_ptr(), indices.data_ptr()
    spans = sorted(
        (
            (x.pointer, x.pointer + reach * values.itemsize),
            (first, first + values.nbytes),
            (second, second + indices.nbytes),
        )
    )
    return spans[0][1] > spans[1][0] or spans[1][1] > spans[2][0]


def _original(input: torch.Tensor, k: int, dim: int, largest: bool, sorted: bool, out: Any) -> torch.return_types.topk:
    """Let PyTorch do what only it can, or say in its own words that it cannot."""
    result: torch.return_types.topk = torch.topk(input, k, dim, largest, sorted, out=out)
    return result


def _topk_out(out: Any) -> torch.return_types.topk:
    written: torch.return_types.topk = _types.topk_out(tuple(out))
    return written


def _translate(name: str, error: Exception) -> NoReturn:
    """Raise what PyTorch would for a tensor it has no kernel for; keep errors about arguments it lacks."""
    if str(error).startswith("x "):
        raise NotImplementedError(f"{name}(): {error}".replace(": x ", ": input ", 1)) from error
    raise error


def _kind(value: Any) -> str:
    """The name of a value's type, as PyTorch's errors have it."""
    kind = type(value)
    return f"numpy.{kind.__name__}" if kind.__module__ == "numpy" else kind.__name__


def _integer(name: str, argument: str, position: int, value: Any) -> Any:
    """An int as PyTorch's argument parser takes it: anything with ``__index__``, tensors of one integer too."""
    if isinstance(value, torch.Tensor):
        whole = value.numel() == 1 and not (value.is_floating_point() or value.is_complex())
        if whole and value.dtype is not torch.bool:
            return operator.index(value)
    elif isinstance(value, (int, torch.SymInt)):
        if not isinstance(value, bool):
            return value
    else:
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name}(): argument '{argument}' (position {position}) must be int, not {_kind(value)}")


def _check_tuple(name: str, out: Any) -> None:
    if not isinstance(out, (tuple, list)):
        raise TypeError(f"{name}(): argument 'out' must be tuple of Tensors, not {_kind(out)}")
    if len(out) != 2:
        raise TypeError(f"{name}(): argument 'out' must be a tuple of 2 Tensors, not of {len(out)}")
    for number, given in enumerate(out):
        if not isinstance(given, torch.Tensor):
            raise TypeError(f"{name}(): element {number} of argument 'out' must be Tensor, not {_kind(given)}")


def _check_out(name: str, input: torch.Tensor, out: Any) -> None:
    if torch.is_grad_enabled() and (input.requires_grad or any(t.requires_grad for t in out)):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    where = input.device
    for given, dtype in ((out[0], input.dtype), (out[1], torch.int64)):
        if given.device != where:
            raise RuntimeError(f"Expected out tensor to have device {where}, but got {given.device} instead")
        if given.dtype != dtype:
            raise RuntimeError(f"Expected out tensor to have dtype {dtype}, but got {given.dtype} instead")


def _resize(given: torch.Tensor, shape: Any) -> None:
    """Give a tensor of `out` its shape, and warn where it had elements, as PyTorch does."""
    if given.shape == shape:
        return
    if given.numel():
        warnings.warn(
            f"An output with one or more elements was resized since it had shape {list(given.shape)}, which does not "
            f"match the required output shape {list(shape)}. This behavior is deprecated, and in a future PyTorch "
            "release outputs will not be resized unless they have zero elements. You can explicitly reuse an out "
            "tensor t by resizing it, inplace, to zero elements with t.resize_(0).",
            UserWarning,
            stacklevel=4,
        )
    given.resize_(shape)
