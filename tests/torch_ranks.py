"""What one process of a group does for test_wide_torch: every scenario, and what became of it.

``python -m tests.torch_ranks RANK RANKS FOLDER``: they meet by a file in FOLDER and write their outcomes there.
"""

from __future__ import annotations

import datetime
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from approxtopk.adapters.torch import distributed

import approxtopk as atk

from .emulated import emulated

SCENARIOS: dict[str, Callable[[], None]] = {}
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
INF, NAN = float("inf"), float("nan")


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    SCENARIOS[function.__name__] = function
    return function


def same(got: Any, want: Any) -> None:
    """Both are TopK: equal to the bit."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.is_contiguous(), (a, b)
        assert torch.equal(a.view(BITS[a.itemsize]), b.view(BITS[b.itemsize])), (a, b)


def cut(n: int, rng: np.random.Generator) -> list[int]:
    """Extents of the shards, some of them empty."""
    edges = np.sort(rng.integers(0, n + 1, dist.get_world_size() - 1))
    return np.diff([0, *edges, n]).tolist()


def shard(x: torch.Tensor, sizes: list[int], axis: int = -1) -> torch.Tensor:
    return x.split(sizes, axis)[dist.get_rank()]


def row_of_all_kinds(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """float32 with ties, infinities, NaNs of either sign and payload, and both zeros, whatever the shard."""
    x = rng.integers(-3, 4, shape).astype(np.float32)
    for bits in (0xFF800000, 0xFF800000, 0x7F800000, 0x7FC00001, 0xFF800123, 0x80000000, 0x80000001, 0x00000001):
        x.view(np.uint32)[rng.random(shape) < 0.05] = bits
    return torch.from_numpy(x)


def check(x: torch.Tensor, k: int, sizes: list[int], given: bool, axis: int = -1, **options: Any) -> None:
    """Select from shards and from the whole."""
    ours, theirs = (
        (distributed.approx_top_k, atk.approx_top_k)
        if "buckets" in options or "recall_target" in options
        else (distributed.top_k, atk.top_k)
    )
    want = theirs(x, k, axis=axis, **options)
    same(ours(shard(x, sizes, axis), k, axis=axis, sizes=sizes if given else None, **options), want)


@scenario
def exact() -> None:
    rng = np.random.default_rng(1)
    for trial in range(60):
        n = int(rng.integers(1, 60))
        x = row_of_all_kinds((3, n), rng)
        options = {"mode": ("largest", "smallest")[trial % 2], "index_dtype": ("int32", "int64")[trial % 3 == 0]}
        check(x, int(rng.integers(0, n + 1)), cut(n, rng), trial % 4 > 0, **options)


@scenario
def bucketed() -> None:
    rng = np.random.default_rng(2)
    for trial in range(120):
        n = int(rng.integers(1, 120))
        b, kept = int(rng.integers(1, n // 2 + 2)), int(rng.integers(1, 4))
        b = min(b, n)
        x = row_of_all_kinds((2, n), rng)
        k = int(rng.integers(0, min(n, b * kept) + 1))
        options = {"mode": ("largest", "smallest")[trial % 2], "buckets": b, "k_per_bucket": kept}
        check(x, k, cut(n, rng), trial % 4 > 0, **options)


@scenario
def planned() -> None:
    """(b, k_b) as they are chosen for the whole row."""
    rng = np.random.default_rng(3)
    n = 40_000
    assert atk.plan(n, 20, recall_target=0.9).route == "bucketed"
    x = torch.from_numpy(rng.permuted(np.tile(np.arange(n, dtype=np.float32), (2, 1)), axis=1))
    for sizes in (cut(n, rng), cut(n, rng), [n // dist.get_world_size()] * (dist.get_world_size() - 1)):
        sizes = [*sizes, n - sum(sizes)] if len(sizes) < dist.get_world_size() else sizes
        check(x, 20, sizes, True, recall_target=0.9)
        check(x, 20, sizes, True, recall_target=1)
        check(x, 20, sizes, True, recall_target=0.9, k_per_bucket=2)


@scenario
def axes_and_strides() -> None:
    rng = np.random.default_rng(4)
    for axis in (0, 1, -1):
        x = row_of_all_kinds((13, 11, 12), rng).transpose(0, 2)
        check(x, 5, cut(x.shape[axis], rng), True, axis)
        check(x, 4, cut(x.shape[axis], rng), False, axis, buckets=3, k_per_bucket=2)
    check(torch.empty(0, 9), 4, cut(9, rng), False)
    check(torch.empty(3, 0), 0, [0] * dist.get_world_size(), False)
    same(
        distributed.top_k(shard(torch.arange(9.0), [0] * (dist.get_world_size() - 1) + [9]), 9),
        atk.top_k(torch.arange(9.0), 9),
    )


@scenario
def dtypes() -> None:
    rng = np.random.default_rng(5)
    names = "float16 bfloat16 float32 float64 float8_e4m3fn float8_e5m2"
    names += " int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    for name in names.split():
        dtype = getattr(torch, name)
        x = torch.from_numpy(rng.integers(0, 256, (3, 47 * dtype.itemsize), dtype=np.uint8)).view(dtype)
        sizes = cut(47, rng)
        check(x, 7, sizes, True)
        check(x, 7, sizes, True, buckets=5, k_per_bucket=2)


@scenario
def unsorted() -> None:
    x = row_of_all_kinds((2, 50), np.random.default_rng(6))
    sizes = cut(50, np.random.default_rng(7))
    for options, want in (
        ({}, atk.top_k(x, 9)),
        ({"buckets": 6, "k_per_bucket": 2}, atk.approx_top_k(x, 9, buckets=6, k_per_bucket=2)),
    ):
        call = distributed.approx_top_k if options else distributed.top_k
        got = call(shard(x, sizes), 9, sorted=False, sizes=sizes, **options)
        order = got.indices.sort(-1).indices
        expected = want.indices.sort(-1)
        assert torch.equal(got.indices.gather(-1, order), expected.values)
        values = got.values.gather(-1, order).view(torch.int32)
        assert torch.equal(values, want.values.gather(-1, expected.indices).view(torch.int32))


@scenario
def on_the_emulated_gpu() -> None:
    rng = np.random.default_rng(8)
    with emulated() as runtime:
        for n, options in ((70, {}), (70, {"buckets": 8, "k_per_bucket": 2}), (9, {"buckets": 4, "k_per_bucket": 2})):
            check(row_of_all_kinds((2, n), rng), 6, cut(n, rng), True, **options)
        assert runtime.launched


@scenario
def derivative() -> None:
    """Each shard gets its part of the gradient, an empty one too, by no more communication."""
    rng = np.random.default_rng(9)
    ranks, rank = dist.get_world_size(), dist.get_rank()
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        for options in ({}, {"buckets": 8, "k_per_bucket": 2}):
            for axis, sizes in ((1, cut(40, rng)), (0, [40] + [0] * (ranks - 1))):
                whole = torch.from_numpy(rng.permuted(np.tile(np.arange(40.0), (40, 1)), axis=axis)).to(dtype)
                whole.requires_grad_()
                call, reference = (
                    (distributed.approx_top_k, atk.approx_top_k) if options else (distributed.top_k, atk.top_k)
                )
                (reference(whole, 6, axis=axis, **options).values ** 3).sum().backward()
                mine = shard(whole.detach(), sizes, axis).clone().requires_grad_()
                values = call(mine, 6, axis=axis, sizes=sizes, **options).values
                with counted() as sent:
                    (values**3).sum().backward()
                assert not sent
                assert torch.equal(mine.grad, shard(whole.grad, sizes, axis)), rank
    x = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    (first,) = torch.autograd.grad((distributed.top_k(x, 2).values ** 3).sum(), x, create_graph=True)
    first.sum().backward()
    assert x.grad.tolist() == ([0.0, 18.0, 0.0] if rank < 2 else [0.0, 0.0, 0.0])
    for empty in (distributed.top_k(x, 0).values, distributed.top_k(x.expand(0, 3), 2).values):
        assert empty.requires_grad and not empty.numel()
    with torch.no_grad():
        assert not distributed.top_k(x, 2).values.requires_grad


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes that this rank sends, by collective."""
    sent: list[int] = []
    names = [name for name in dir(dist) if name.startswith(("all_", "reduce", "broadcast", "gather", "send", "isend"))]
    originals = {name: getattr(dist, name) for name in names if callable(getattr(dist, name))}

    def counting(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            assert name in ("all_gather_into_tensor", "all_gather_single"), name
            sent.append(arguments[1].numel() * arguments[1].itemsize)
            return originals[name](*arguments, **options)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield sent
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


@scenario
def volume() -> None:
    """One collective of the candidates: values and 32-bit indices."""
    ranks = dist.get_world_size()
    x = torch.arange(6 * 1000.0).reshape(6, 1000)
    sizes = [1000] * ranks
    for k, options, entries, width in (
        (16, {}, 16, 8),
        (16, {"buckets": 32, "k_per_bucket": 2}, 64, 8),
        (1000, {}, 1000, 4),  # whole shards: nobody needs to be told the indices
        (0, {}, 0, 0),
    ):
        call = distributed.approx_top_k if options else distributed.top_k
        with counted() as sent:
            call(x, k, sizes=sizes, **options)
        assert sent == ([6 * entries * width] if k else []), sent
    with counted() as sent:
        distributed.top_k(x, 16)
    assert sent == [16, 6 * 16 * 8]
    with counted() as sent:
        distributed.top_k(x.to(torch.uint8), 3, sizes=sizes)
    assert sent == [-(-6 * 3 * 5 // 8) * 8]


@scenario
def groups() -> None:
    """A group that is not all; ranks count in the group."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    last = dist.new_group([ranks - 1])
    x = torch.tensor([1.0, 5.0, 3.0])
    if rank == ranks - 1:
        same(distributed.top_k(x, 2, group=last), atk.top_k(x, 2))
    else:
        assert "group does not include this process" in refusal(x, 2, group=last)


def refusal(*arguments: Any, **options: Any) -> str:
    call = distributed.approx_top_k if "interleaved" in options else distributed.top_k
    try:
        call(*arguments, **options)
    except atk.ApproxTopKError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


@scenario
def refused_alike() -> None:
    """All ranks raise, and are ready for the next call."""
    mapped: list[str] = []
    rank, ranks = dist.get_rank(), dist.get_world_size()
    x = torch.zeros(2, 4)
    n = 4 * ranks
    for given in (None, [4] * ranks):
        assert f"k = {n + 1} is out of range; allowed are 0 to {n}" in refusal(x, n + 1, sizes=given)
        assert "axis = 2 is out of range" in refusal(x, 1, axis=2, sizes=given)
        assert refusal(x, 1.0, sizes=given).startswith("InvalidType: k must be an integer")
        assert refusal(x.bool(), 1, sizes=given).startswith("UnsupportedDType: x has dtype torch.bool")
        assert "interleaved = False is not for rows in parts" in refusal(x, 1, interleaved=False, sizes=given)
        assert refusal(x, 1, mode="best", sizes=given).startswith("InvalidArgument: mode = 'best' is unknown")
    assert refusal([1.0], 1).startswith("InvalidType: x must be a PyTorch tensor, this rank's shard, not list")
    assert "group must be a torch.distributed.ProcessGroup" in refusal(x, 1, group="all")
    assert "sizes must be a sequence" in refusal(x, 1, sizes=4)
    assert "one for every rank" in refusal(x, 1, sizes=[4])
    assert "allowed are" in refusal(x, 1, sizes=[-1] * ranks)
    assert f"sizes[{rank}] = 5 and x has 4" in refusal(x, 1, sizes=[5] * ranks)
    torch.func.vmap(lambda row: mapped.append(refusal(row, 1)) or row)(x)
    assert mapped[0].startswith("InvalidArgument: x is being traced, mapped or differentiated")
    # One rank's error, and ranks that disagree.
    message = refusal(x if rank else x.bool(), 1)
    assert message.startswith("InvalidArgument: rank 0 of group was given" if rank else "UnsupportedDType"), message
    message = refusal(x, 1 + (rank == 1))
    assert f"rank {0 if rank == 1 else 1} of group was called with other arguments" in message, message
    same(distributed.top_k(torch.ones(3), 1), atk.top_k(torch.ones(3), 1))


def main() -> None:
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / "store"), ranks),
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=30),
    )
    outcomes = {}
    for name, function in SCENARIOS.items():
        try:
            function()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()
        dist.barrier()
    (folder / f"outcomes-{rank}.json").write_text(json.dumps(outcomes))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
