"""``torch.topk`` by name and signature, exact and approximate."""

from __future__ import annotations

import operator
import warnings
from fractions import Fraction
from typing import Any, NoReturn

import torch

from ...approx_top_k import OPERATOR as APPROXIMATE
from ...call import call
from ...errors import DeviceMismatch, InvalidArgument, InvalidType, UnsupportedDType
from ...request import integer
from ...top_k import OPERATOR as EXACT

__all__ = ["approx_topk", "topk"]

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

    Ties, which ``torch.topk`` leaves open, go to the lower index; see `approxtopk.top_k` for the whole order.

    Parameters
    ----------
    input, k, dim, largest, sorted, out
        As ``torch.topk``; 0-d tensors too.

    Returns
    -------
    torch.return_types.topk
        ``(values, indices)``; differentiable. ``torch.return_types.topk_out`` where `out` is given.
    """
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
        As ``torch.topk``, whose errors they raise.
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
    options: dict[str, Any] = {"recall_target": recall_target, "interleaved": interleaved}
    if j is not None or k_mult is not None:
        count = _integer("approx_topk", "k", 2, k)
        _check_64_bits(count)
        buckets, k_per_bucket = _modern_names(count, buckets, k_per_bucket, j, k_mult)
    options |= {"buckets": buckets, "k_per_bucket": k_per_bucket}
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


def _select(
    name: str,
    record: Any,
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
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    k = _integer(name, "k", 2, k)
    dim = _integer(name, "dim", 3, dim)
    for argument, position, flag in (("largest", 4, largest), ("sorted", 5, sorted)):
        if not isinstance(flag, bool):
            kind = type(flag).__name__
            raise TypeError(f"{name}(): argument '{argument}' (position {position}) must be bool, not {kind}")
    _check_64_bits(k, dim)
    rank = max(input.dim(), 1)
    if not -rank <= dim < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    scalar = input.dim() == 0
    if not 0 <= k <= (1 if scalar else input.size(dim)):
        raise RuntimeError("selected index k out of range")
    if out is not None:
        _check_out(name, input, out)
    try:
        values, indices = call(
            record,
            input.reshape(1) if scalar else input,
            1 if scalar else k,  # torch.topk of a 0-d tensor returns it for k = 0 too
            axis=dim,
            mode="largest" if largest else "smallest",
            sorted=sorted,
            **options,
        )
    except (UnsupportedDType, DeviceMismatch) as error:
        raise NotImplementedError(f"{name}(): {error}".replace(": x ", ": input ", 1)) from error
    except (InvalidType, InvalidArgument) as error:
        _translate(name, error, input)
    if scalar:
        values, indices = values.reshape(()), indices.reshape(())
    if out is None:
        return torch.return_types.topk((values, indices))
    for given, result in zip(out, (values, indices), strict=True):
        _copy_out(given, result)
    written: torch.return_types.topk = _types.topk_out(tuple(out))
    return written


def _translate(name: str, error: Exception, input: torch.Tensor) -> NoReturn:
    """Raise what PyTorch would for a tensor it has no kernel for; keep errors about arguments it lacks."""
    if str(error).startswith("x "):
        raise NotImplementedError(f"{name}(): {error}".replace(": x ", ": input ", 1)) from error
    raise error


def _integer(name: str, argument: str, position: int, value: Any) -> int:
    """An int as PyTorch's argument parser takes it: anything with ``__index__``, 0-d integer tensors too."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name}(): argument '{argument}' (position {position}) must be int, not {type(value).__name__}")


def _check_64_bits(*values: int) -> None:
    for value in values:
        if not -(2**63) <= value < 2**63:
            raise ValueError("Overflow when unpacking long long")


def _check_out(name: str, input: torch.Tensor, out: Any) -> None:
    if not isinstance(out, (tuple, list)) or not all(isinstance(t, torch.Tensor) for t in out):
        raise TypeError(f"{name}(): argument 'out' must be tuple of Tensors, not {type(out).__name__}")
    if len(out) != 2:
        raise TypeError(f"{name}(): argument 'out' must be a tuple of 2 Tensors, not of {len(out)}")
    if torch.is_grad_enabled() and (input.requires_grad or any(t.requires_grad for t in out)):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    for given, dtype in zip(out, (input.dtype, torch.int64), strict=True):
        if given.device != input.device:
            raise RuntimeError(f"Expected out tensor to have device {input.device}, but got {given.device} instead")
        if given.dtype != dtype:
            raise RuntimeError(f"Expected out tensor to have dtype {dtype}, but got {given.dtype} instead")


def _copy_out(given: torch.Tensor, result: torch.Tensor) -> None:
    if given.shape != result.shape:
        if given.numel():
            warnings.warn(
                f"An output with one or more elements was resized since it had shape {list(given.shape)}, which does "
                f"not match the required output shape {list(result.shape)}.",
                UserWarning,
                stacklevel=4,
            )
        given.resize_(result.shape)
    given.copy_(result)
