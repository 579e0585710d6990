"""Selection from rows that are sharded over the ranks of a process group (``torch.distributed``)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist

from ...buffer import Buffer
from ...call import TopK
from ...errors import ApproxTopKError, InvalidArgument, InvalidType
from ...request import Request, integer, short, show
from ...sharded import Arrays, Part, Split
from .arrays import ADAPTER
from .registered import wrapped

__all__ = ["approx_top_k", "top_k"]

_ALIGNMENT = 8  # of the widest elements: what a rank sends is a multiple of it
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_dist: Any = dist  # partly untyped, and on some platforms empty
# The name since PyTorch 2.13, and the one before.
_COLLECTIVE = "all_gather_single" if hasattr(_dist, "all_gather_single") else "all_gather_into_tensor"


def top_k(
    x: torch.Tensor,
    k: int,
    /,
    *,
    group: dist.ProcessGroup | None = None,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    index_dtype: Any = None,
    sizes: Sequence[int] | None = None,
) -> TopK:
    """Pick the k best entries of every row of which each rank holds a part, exactly.

    Every rank selects from its own shard, one all-gather carries k values and indices a row and rank, and every rank
    selects from those. All ranks of `group` call it together, with the same arguments but for `x`.

    Parameters
    ----------
    x : torch.Tensor
        This rank's shard: consecutive entries of every row along `axis`, those of rank 0 first; any number of them,
        none too. The other axes and the dtype are the same on every rank. On a device that the group's backend
        serves: CPU with Gloo, CUDA with NCCL.
    k : int
        Entries to pick, from 0 to the length of the whole axis; a shard may have fewer.
    group : torch.distributed.ProcessGroup or None, default None
        The ranks that share the rows; None is the default group, that is all.
    axis, mode, sorted, index_dtype
        As in `approxtopk.top_k`. What is said there of the axis' length is meant of the whole one.
    sizes : sequence of int or None, default None
        How many entries along `axis` each rank has, in rank order. With None a small all-gather tells, once a call,
        and the host waits for it; it also compares the arguments. Name them where they are known, for calls without
        any waiting; then nothing is compared.

    Returns
    -------
    TopK
        ``(values, indices)``, the same on every rank, to the bit those of `approxtopk.top_k` on the whole row;
        indices count along the whole row. Differentiable in `x` (reverse mode) without communication: the entries
        picked from this rank's shard get the gradient, for every rank is taken to compute the same loss of the result.
        A loss that differs from rank to rank needs its gradients summed over the ranks first.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As `approxtopk.top_k`, before anything but the lengths is communicated. Without `sizes` all ranks raise when
        one does; with `sizes`, the others wait for it until their backend's timeout.

    See Also
    --------
    approx_top_k : The approximate selection.

    Examples
    --------
    Logits of which each of the ranks has a part of the vocabulary::

        values, tokens = top_k(logits, 50, group=tensor_parallel, sizes=[32064] * 8)
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    return _select("top_k", x, k, group, sizes, options)


def approx_top_k(
    x: torch.Tensor,
    k: int,
    /,
    *,
    group: dist.ProcessGroup | None = None,
    axis: int = -1,
    mode: str = "largest",
    sorted: bool = True,
    recall_target: float = 0.95,
    buckets: int | None = None,
    k_per_bucket: int | None = None,
    interleaved: bool = True,
    index_dtype: Any = None,
    sizes: Sequence[int] | None = None,
) -> TopK:
    """Pick the k best entries of every row of which each rank holds a part, up to an expected recall, by bucketing.

    As `top_k`, but that every rank hands on the k_b best of each bucket of its shard. The buckets are those of the
    whole row, wherever shards begin, so the answer is that of `approxtopk.approx_top_k` on the whole row, to the bit.

    Parameters
    ----------
    x, k, group, axis, mode, sorted, index_dtype, sizes
        As in `top_k`.
    recall_target, buckets, k_per_bucket
        As in `approxtopk.approx_top_k`, for the whole row.
    interleaved : bool, default True
        Only True: contiguous buckets are not served here.

    Returns
    -------
    TopK
        As in `top_k`.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch
        As in `top_k`, and for the arguments that it lacks.
    """
    options = {"axis": axis, "mode": mode, "sorted": sorted, "index_dtype": index_dtype}
    options |= {"recall_target": recall_target, "buckets": buckets, "k_per_bucket": k_per_bucket}
    return _select("approx_top_k", x, k, group, sizes, {**options, "interleaved": interleaved})


class _Arrays(Arrays):
    """Tensors whose elements are held as signed integers of the same width: float8 and others lack ``gather``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def select(self, x: Any, k: int, **options: Any) -> Any:
        return super().select(x.view(self.dtype), k, **options)

    def take(self, x: Any, indices: Any) -> Any:
        return torch.gather(x, -1, indices)

    def argsort(self, x: Any) -> Any:
        return torch.argsort(x, dim=-1)

    def join(self, arrays: Sequence[Any]) -> Any:
        return torch.cat(list(arrays), dim=-1)

    def pad(self, x: Any, count: int, value: int) -> Any:
        return torch.cat([x, x.new_full((*x.shape[:-1], count), value)], dim=-1)

    def roll(self, x: Any, shift: int) -> Any:
        return torch.roll(x, shift, dims=-2)


def _select(name: str, x: Any, k: Any, group: Any, sizes: Any, options: dict[str, Any]) -> TopK:
    _check_tensor(x)
    x = x.resolve_neg()
    rank, ranks = _place(group)
    if sizes is None:
        extents = _exchange(name, x, k, options, group, ranks)
    else:
        extents = _given(sizes, rank, ranks, _local(name, x, k, options))
    facts = ADAPTER.facts(x)
    shape = list(facts.shape)
    shape[integer("axis", options["axis"])] = sum(extents)
    request = _build(name, tuple(shape), facts, k, options)
    split = Split.of(request)
    rows = x.detach().movedim(request.axis, -1)
    if 0 in request.output_shape:
        answer = (*rows.shape[:-1], request.k)
        values, indices = rows.new_empty(answer), rows.new_empty(answer, dtype=torch.int64)
    else:
        values, indices = _sharded(rows, split, extents, rank, group)
    if x.requires_grad and torch.is_grad_enabled() and request.dtype.kind == "f" and request.dtype.bits >= 16:
        start = sum(extents[:rank])
        values = _own(x.movedim(request.axis, -1), values, indices, start, start + extents[rank])
    return TopK(
        values.movedim(-1, request.axis).contiguous(),
        indices.movedim(-1, request.axis).to(getattr(torch, request.index_dtype)).contiguous(),
    )


def _check_tensor(x: Any) -> None:
    if not isinstance(x, torch.Tensor):
        raise InvalidType(f"x must be a PyTorch tensor, this rank's shard, not {show(x)}")
    if hasattr(x, "to_local"):
        raise InvalidType(f"x is a {type(x).__name__}; allowed is this rank's shard as a tensor: pass x.to_local()")
    if wrapped(x.resolve_neg()):
        raise InvalidArgument(
            "x is being traced, mapped or differentiated by torch.func or in forward mode, or is of a tensor subclass; "
            "allowed are plain tensors, with reverse-mode derivatives; under torch.compile, call from a function that "
            "torch.compiler.disable decorates"
        )


def _place(group: Any) -> tuple[int, int]:
    """Which of the ranks of `group` this process is, and how many they are."""
    if not (_dist.is_available() and _dist.is_initialized()):
        raise InvalidArgument(
            "group has no processes, torch.distributed is not initialized; allowed are calls after "
            "torch.distributed.init_process_group"
        )
    if group is not None and not isinstance(group, (_dist.ProcessGroup, int)):  # an int says: not a member
        advice = ": pass group.get_group()" if hasattr(group, "get_group") else ""  # a DeviceMesh
        raise InvalidType(f"group must be a torch.distributed.ProcessGroup or None, not {show(group)}{advice}")
    rank = _dist.get_rank(group)
    if rank < 0:
        raise InvalidArgument("group does not include this process; allowed are calls by its members")
    return rank, _dist.get_world_size(group)


def _build(name: str, shape: tuple[int, ...], facts: Buffer, k: Any, options: dict[str, Any]) -> Request:
    default = ADAPTER.default_index
    return Request.build(name, shape, (0,) * len(shape), facts.dtype, k, default_index=default, **options)


def _local(name: str, x: torch.Tensor, k: Any, options: dict[str, Any]) -> int:
    """How many entries along the axis this rank has, after checking what needs no other rank."""
    facts = ADAPTER.facts(x)
    axis = integer("axis", options["axis"])
    integer("k", k)
    if not -x.ndim <= axis < x.ndim:
        _build(name, facts.shape, facts, k, options)  # which says so
    return facts.shape[axis]


def _given(sizes: Any, rank: int, ranks: int, extent: int) -> list[int]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise InvalidType(f"sizes must be a sequence of integers, one for every rank, or None, not {show(sizes)}")
    extents = [integer(f"sizes[{r}]", size) for r, size in enumerate(sizes)]
    if len(extents) != ranks or min(extents, default=0) < 0:
        raise InvalidArgument(
            f"sizes = {short(str(extents))}; allowed are {ranks} numbers from 0 on, one for every rank"
        )
    if extents[rank] != extent:
        raise InvalidArgument(
            f"sizes[{rank}] = {extents[rank]} and x has {extent} entries along the axis on this rank; they must agree"
        )
    return extents


def _exchange(name: str, x: torch.Tensor, k: Any, options: dict[str, Any], group: Any, ranks: int) -> list[int]:
    """How many entries each rank has; every rank raises when one has an error or other arguments."""
    wrong: ApproxTopKError | None = None
    extent, digest = -1, 0
    try:
        extent = _local(name, x, k, options)
        batch = list(x.shape)
        del batch[options["axis"]]
        digest = zlib.crc32(repr((name, batch, x.dtype, int(k), options)).encode())
    except ApproxTopKError as error:
        wrong = error
    told = torch.tensor([extent, digest], device=x.device)
    heard = _all_gather(told, ranks, group)
    if wrong is not None:
        raise wrong
    extents, digests = heard.T.tolist()
    for rank, (theirs, other) in enumerate(zip(extents, digests, strict=True)):
        if theirs < 0:
            raise InvalidArgument(
                f"rank {rank} of group was given an argument that is not allowed; its own error says which"
            )
        if other != digest:
            raise InvalidArgument(
                f"rank {rank} of group was called with other arguments than this one; x's dtype and shape without the "
                "axis, k and all options must be the same on every rank"
            )
    return list(extents)


def _sharded(
    x: torch.Tensor, split: Split, extents: list[int], rank: int, group: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select along the last axis, of which `x` is this rank's part; what the ranks have is in `extents`."""
    arrays = _Arrays(x.dtype)
    bits = x.view(_BITS[x.itemsize])
    starts = [0, *accumulate(extents)]
    where: torch.Tensor | None = None
    if not split.whole(extents[rank]):
        bits, where = split.candidates_of(arrays, bits, starts[rank])
    most = min(max(extents), split.candidates)
    # Of whole shards all know the indices.
    index = None if all(map(split.whole, extents)) else torch.int32 if max(extents) < 2**31 else torch.int64
    gathered = _share(bits, where, index, most, len(extents), group)
    parts = []
    for (values, indices), start, extent in zip(gathered, starts, extents, strict=False):
        if split.whole(extent):
            values = values[..., :extent]
            indices = torch.arange(extent, device=x.device).expand(values.shape)
        parts.append(Part(values, indices + start, start, start + extent))
    values, indices = split.finish(arrays, parts)
    return values.view(x.dtype), indices


def _share(
    values: torch.Tensor, indices: torch.Tensor | None, index: torch.dtype | None, most: int, ranks: int, group: Any
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every rank's values and indices, the latter as int64, in one collective of bytes, which every backend carries.

    All ranks send `most` a row; what is behind a rank's own is undefined. Without a type `index`, no indices are sent,
    and what comes for them is empty.
    """
    batch = values.shape[:-1]
    blocks = []
    for array, dtype in ((values, values.dtype), (indices, index)):
        if dtype is not None:
            block = values.new_zeros((*batch, most), dtype=dtype)
            if array is not None:
                block[..., : array.shape[-1]] = array
            blocks.append(block)
    # The wider elements first, so that all are aligned.
    order = sorted(range(len(blocks)), key=lambda i: -blocks[i].itemsize)
    sizes = [blocks[i].numel() * blocks[i].itemsize for i in order]
    sent = [blocks[i].flatten().view(torch.uint8) for i in order]
    mine = torch.cat([*sent, sent[0].new_zeros(-sum(sizes) % _ALIGNMENT)])
    found = []
    for theirs in _all_gather(mine, ranks, group):
        pieces = theirs.split([*sizes, theirs.numel() - sum(sizes)])
        read = {i: pieces[place].view(blocks[i].dtype).reshape(blocks[i].shape) for place, i in enumerate(order)}
        found.append((read[0], read[1].long() if 1 in read else values.new_empty(0, dtype=torch.int64)))
    return found


def _all_gather(mine: torch.Tensor, ranks: int, group: Any) -> torch.Tensor:
    """What every rank of `group` has in place of `mine`, a tensor of one axis: a row for each."""
    everyone = mine.new_empty(ranks * mine.numel())  # one axis: all that Gloo takes
    getattr(_dist, _COLLECTIVE)(everyone, mine, group=group)
    return everyone.view(ranks, mine.numel())


def _own(x: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """`values` once more, those that are of `x`, entries [start, stop) of the rows, with their derivative."""
    mine = (indices >= start) & (indices < stop)
    # A rank with no entries takes part in the derivative all the same: its loss must have one.
    source = (
        x.sum(-1, keepdim=True) if start == stop else torch.gather(x, -1, (indices - start).clamp(0, stop - start - 1))
    )
    return torch.where(mine, source, values)
