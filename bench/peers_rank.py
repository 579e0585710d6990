"""Who counts ranks: approxtopk, and what its users write instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import approxtopk as atk

from .case import RankCase
from .contender import COPY, READ, TORCH_MAX, Call, Contender, Field, any_case, tensor

__all__ = ["RANK"]

#: Entries that are sorted, or compared with all targets, at most: on a CPU it is half a minute's work.
_MOST = {"cpu": 2**24, "cuda": 2**40}


def _counted(case: RankCase, x: Any, index: Any) -> Call:
    return lambda: atk.rank_counts(x, index)


def _ranked(case: RankCase, x: Any, index: Any) -> Call:
    return lambda: atk.rank(x, index)


def _single(case: RankCase) -> str:
    return "" if case.targets == 1 else "one target a row"


def _sortable(device: str) -> Callable[[RankCase], str]:
    def serves(case: RankCase) -> str:
        return "" if case.rows * case.n <= _MOST[device] else "takes too long"

    return serves


def _each(device: str) -> Callable[[RankCase], str]:
    def serves(case: RankCase) -> str:
        return "" if case.rows * case.n * case.targets <= 8 * _MOST[device] else "takes too long"

    return serves


# ---- Both counts ----------------------------------------------------------------------------------------------


def _counts(x: Any, index: Any) -> Any:
    value = x.gather(1, index[:, None])
    return (x > value).sum(1), (x == value).sum(1)


def _eager(case: RankCase, x: Any, index: Any) -> Call:
    """Count for one target after another: comparing with all at once takes room for each of them."""
    x, index = tensor(x), tensor(index)
    if case.targets == 1:
        return lambda: _counts(x, index)
    import torch

    def call() -> Any:
        found = [_counts(x, column) for column in index.unbind(1)]
        return torch.stack([greater for greater, _ in found], 1), torch.stack([equal for _, equal in found], 1)

    return call


@cache
def _compiled_for(case: RankCase) -> Any:
    """Compile for one shape; anew for each, for PyTorch gives up after some."""
    import torch

    torch._dynamo.reset()
    return torch.compile(_counts, dynamic=False)


def _compiled(case: RankCase, x: Any, index: Any) -> Call:
    x, index, counts = tensor(x), tensor(index), _compiled_for(case)
    return lambda: counts(x, index)


def _numpy(case: RankCase, x: Any, index: Any) -> Call:
    def call() -> Any:
        values = [row[i] for row, i in zip(x, index, strict=True)]
        greater = [np.count_nonzero(row > value) for row, value in zip(x, values, strict=True)]
        equal = [np.count_nonzero(row == value) for row, value in zip(x, values, strict=True)]
        return np.array(greater), np.array(equal)

    return call


def _sorted(case: RankCase, x: Any, index: Any) -> Call:
    """Sort once, and look the targets up: what serves many."""
    import torch

    x, index = tensor(x), tensor(index)
    columns = index if index.ndim > 1 else index[:, None]

    def call() -> Any:
        ordered = x.sort(1).values
        values = x.gather(1, columns)
        below, until = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
        greater, equal = x.shape[1] - until, until - below
        return greater.reshape(index.shape), equal.reshape(index.shape)

    return call


# ---- One count ------------------------------------------------------------------------------------------------


def _long(case: RankCase, x: Any, index: Any) -> Call:
    x, index = tensor(x), tensor(index)
    return lambda: (x > x.gather(1, index[:, None])).long().sum(1)


def _argsort(case: RankCase, x: Any, index: Any) -> Call:
    """Give the rank that a stable sort does: equal entries by lower index."""
    import torch

    x, index = tensor(x), tensor(index)
    columns = index if index.ndim > 1 else index[:, None]

    def call() -> Any:
        order = torch.argsort(x, dim=1, descending=True, stable=True)
        places = torch.arange(x.shape[1], device=x.device).expand_as(order)
        return torch.empty_like(order).scatter_(1, order, places).gather(1, columns).reshape(index.shape)

    return call


def _peers(device: str) -> list[Contender]:
    return [
        Contender("(x > v).sum, (x == v).sum", ("torch",), _each(device), _eager),
        Contender("the same, torch.compile", ("torch",), _single, _compiled),
        Contender("(x > v).long().sum [greater only]", ("torch",), _single, _long),
        Contender("sort, searchsorted", ("torch",), _sortable(device), _sorted),
        Contender("argsort, stable [rank only]", ("torch",), _sortable(device), _argsort),
    ]


RANK = Field(
    [Contender("approxtopk", (), any_case, _counted), Contender("approxtopk, rank", (), any_case, _ranked)],
    [*_peers("cpu"), Contender("NumPy, count_nonzero", (), _single, _numpy), COPY],
    [*_peers("cuda"), READ, COPY, TORCH_MAX],
)
