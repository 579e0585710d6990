"""Operators with a derivative of their own, as PyTorch's autograd meets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...operator import OPERATORS, Operator, Pullback
from .general import run
from .memory import DTYPE_OF
from .registered import is_dynamo_compiling

__all__ = ["differentiable", "needs_derivative"]

_is_mapped: Any = torch._C._functorch.is_legacy_batchedtensor


def needs_derivative(operator: Operator, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Whether autograd is to follow a call on plain tensors."""
    return (
        isinstance(operator.derivative, Pullback)
        and torch.is_grad_enabled()
        and any(array.requires_grad for array in inputs.values())
    )


def differentiable(
    operator: Operator, inputs: Mapping[str, torch.Tensor], arguments: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Run `operator` with the arguments of a valid request, differentiable in all of `inputs` to any order."""
    # Dynamo traces no function that has a forward derivative of its own.
    function: Any = _Derived if is_dynamo_compiling() else _DerivedBothWays
    names, values = list(arguments), list(arguments.values())
    outputs: tuple[torch.Tensor, ...] = function.apply(operator.name, list(inputs), names, values, *inputs.values())
    return outputs


class _Derived(torch.autograd.Function):
    """Backward, by the operator that is the derivative; by the formula where that is to be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: str, inputs: list[str], names: list[str], values: list[Any], *arrays: torch.Tensor) -> Any:
        own = dict(zip(inputs, arrays, strict=True))
        x = own.pop("x")
        return tuple(run(operator, x, own, dict(zip(names, values, strict=True))))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        operator, names, argument_names, values, *arrays = inputs
        ctx.operator, ctx.names, ctx.arguments = operator, names, dict(zip(argument_names, values, strict=True))
        derivative: Any = OPERATORS[operator].derivative
        there = dict(zip(names, arrays, strict=True)) | dict(zip(OPERATORS[operator].outputs, output, strict=True))
        ctx.kept = [name for name in derivative.saved.values() if name in there]
        ctx.save_for_backward(*[there[name] for name in ctx.kept])
        ctx.save_for_forward(*[there[name] for name in ctx.kept])
        ctx.set_materialize_grads(False)
        ctx.dtypes = [array.dtype for array in arrays]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        operator = OPERATORS[ctx.operator]
        derivative: Any = operator.derivative
        kept = dict(zip(ctx.kept, ctx.saved_tensors, strict=True))
        given = {name: g for name, g in zip(operator.outputs, cotangents, strict=True) if g is not None}
        if not given:
            return (None,) * (4 + len(ctx.names))
        first = operator.outputs[0]
        # The compiler asks for no second derivative, and reads no dispatch keys.
        if not is_dynamo_compiling() and (torch.is_grad_enabled() or list(given) != [first] or _mapped(given[first])):
            found = _by_formula(ctx, derivative.vjp, kept, given)
        else:
            mine = {own: kept[name] for own, name in derivative.saved.items() if name in kept}
            x = mine.pop("x")
            arguments = {n: v for n, v in ctx.arguments.items() if n in derivative.saved or n not in operator.inputs}
            results = run(derivative.operator.name, x, {"g": given[first], **mine}, arguments)
            found = dict(zip(derivative.operator.outputs, results, strict=True))
        cotangent = [found["d" + name].to(t) for name, t in zip(ctx.names, ctx.dtypes, strict=True)]
        return (None, None, None, None, *cotangent)


class _DerivedBothWays(_Derived):
    """Forward mode too, by formula."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        operator = OPERATORS[ctx.operator]
        derivative: Any = operator.derivative
        kept = dict(zip(ctx.kept, ctx.saved_tensors, strict=True))
        given = {name: t for name, t in zip(ctx.names, tangents[4:], strict=True) if t is not None}
        found = _by_formula(ctx, derivative.jvp, kept, given)
        outputs = [name for name in operator.outputs if name in found]
        own = ctx.dtypes[0]
        return tuple(found[name].to(own) if name == operator.outputs[0] else found[name] for name in outputs)


def _mapped(cotangent: torch.Tensor) -> bool:
    """Whether several cotangents came at once by the old vmap, that of ``is_grads_batched``, which knows no operators.

    It is that of ``torch.autograd.functional.jacobian(vectorize=True)`` too.
    """
    return bool(_is_mapped(cotangent))


def _by_formula(ctx: Any, formula: Any, kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The formula, in the type that it is computed in."""
    derivative: Any = OPERATORS[ctx.operator].derivative
    real = DTYPE_OF[derivative.real(str(ctx.dtypes[0]).removeprefix("torch."))]
    arrays, given = ({name: array.to(real) for name, array in some.items()} for some in (kept, given))
    found: dict[str, torch.Tensor] = formula(torch, ctx.arguments, arrays, given)
    return found
