"""All operators but the selections as one registered operator, for tensors that are not plain memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import ApproxTopKError
from ...planning.cached import request_of
from .memory import DTYPE_OF
from .registered import all_given, batched, execute_on, is_dynamo_compiling, register

__all__ = ["run", "valid"]


def run(
    operator: str, x: torch.Tensor, others: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> list[torch.Tensor]:
    """Run the operator of that name through the dispatcher, with the arguments of its request."""
    words, reals, integers = (
        {name: value for name, value in options.items() if isinstance(value, kind)} for kind in (str, float, int)
    )
    keys = [*words, *reals, *integers]
    arrays: list[torch.Tensor] = torch.ops.approxtopk.run(
        x, list(others.values()), list(others), operator, list(words.values()), list(integers.values()), keys,
        *reals.values(),
    )  # fmt: skip
    return arrays


def valid(operator: str, x: Any, others: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the valid request; those of the caller where Dynamo traces this: the fake kernel looks at them.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As the public function.
    """
    if is_dynamo_compiling():
        return {name: value for name, value in options.items() if value is not None}
    own, given = all_given(x, others)
    return request_of(operator, own, given, options).arguments


def _options(words: Any, integers: Any, keys: Any, reals: Any) -> dict[str, Any]:
    """Put together what `run` takes apart."""
    return dict(zip(keys, (*words, *reals, *integers), strict=True))


def _run(
    x: Any, others: Any, names: Any, operator: str, words: Any, integers: Any, keys: Any, *reals: Any
) -> list[torch.Tensor]:
    inputs = {"x": x, **dict(zip(names, others, strict=True))}
    return execute_on(operator, inputs, _options(words, integers, keys, reals))


def _fake(
    x: Any, others: Any, names: Any, operator: str, words: Any, integers: Any, keys: Any, *reals: Any
) -> list[torch.Tensor]:
    """The outputs without their contents, of a valid call."""
    try:
        own, given = all_given(x, dict(zip(names, others, strict=True)))
        r = request_of(operator, own, given, _options(words, integers, keys, reals))
    except ApproxTopKError as error:
        # Of all errors this is the one at which Dynamo breaks the graph, so that the call itself can raise its own.
        raise NotImplementedError(str(error)) from error
    return [x.new_empty(shape, dtype=DTYPE_OF[dtype]) for _, shape, dtype in r.results]


def _vmap(
    info: Any,
    in_dims: Any,
    x: Any,
    others: Any,
    names: Any,
    operator: str,
    words: Any,
    integers: Any,
    keys: Any,
    *reals: Any,
) -> tuple[list[torch.Tensor], Any]:
    arrays = [batched(info, t, d) for t, d in zip((x, *others), (in_dims[0], *in_dims[1]), strict=True)]
    named = zip(keys[len(keys) - len(integers) :], integers, strict=True)
    moved = [number + 1 if name == "axis" and number >= 0 else number for name, number in named]
    results = torch.ops.approxtopk.run(arrays[0], arrays[1:], names, operator, words, moved, keys, *reals)
    return results, [0] * len(results)


# `keys` names the words, the reals and the integers, in this order. A list of reals would be constant in a graph.
register(
    "run(Tensor x, Tensor[] others, str[] names, str operator, str[] words, SymInt[] integers, str[] keys, "
    "Scalar? real=None, Scalar? real2=None, Scalar? real3=None) -> Tensor[]",
    _run,
    _fake,
    _vmap,
)
