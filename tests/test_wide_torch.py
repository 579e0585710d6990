"""PyTorch: rows sharded over the ranks of a process group, on two and three processes that talk by Gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import approxtopk as atk

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("needs torch.distributed with Gloo", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks(ranks: int, tmp_path: Path) -> None:
    """Every scenario of torch_ranks.py: one test, because starting the processes is what takes long."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.torch_ranks", str(rank), str(ranks), str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        told = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(told)
    for rank in range(ranks):
        outcomes = json.loads((tmp_path / f"outcomes-{rank}.json").read_text())
        failed = [f"{name}, rank {rank}: {outcome}" for name, outcome in outcomes.items() if outcome]
        assert outcomes and not failed, "\n".join(failed)


def test_without_a_group() -> None:
    from approxtopk.adapters.torch import distributed

    with pytest.raises(atk.InvalidArgument, match="torch.distributed is not initialized"):
        distributed.top_k(torch.arange(3.0), 1)


@contextmanager
def alone(backend: str, folder: Path) -> Iterator[None]:
    """A group of this process."""
    store = torch.distributed.FileStore(str(folder / "store"), 1)
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_a_compiled_caller(tmp_path: Path) -> None:
    """The call has to stand outside of the graph, and says how."""
    from approxtopk.adapters.torch import distributed

    def select(x: Any) -> Any:
        return distributed.top_k(x, 4, sizes=[20]).values

    def compiled(select: Any) -> Any:
        return torch.compile(lambda x: select(x * 2) + 1, backend="eager")

    with alone("gloo", tmp_path):
        x = torch.randn(3, 20)
        assert torch.equal(compiled(torch.compiler.disable(select))(x), atk.top_k(x * 2, 4).values + 1)
        with pytest.raises(atk.InvalidArgument, match=r"torch\.compiler\.disable"):
            compiled(select)(x)


def test_other_frameworks_of_devices(tmp_path: Path) -> None:
    from approxtopk.adapters.torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    with alone("gloo", tmp_path):
        mesh = init_device_mesh("cpu", (1,))
        x = distribute_tensor(torch.randn(3, 20), mesh, [Shard(1)])
        with pytest.raises(atk.InvalidType, match=r"x is a DTensor; .* pass x\.to_local\(\)"):
            distributed.top_k(x, 2)
        with pytest.raises(atk.InvalidType, match=r"not DeviceMesh: pass group\.get_group\(\)"):
            distributed.top_k(x.to_local(), 2, group=mesh)
        assert torch.equal(distributed.top_k(x.to_local(), 2, group=mesh.get_group()).values, x.to_local().topk(2)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nccl_and_no_waiting(tmp_path: Path) -> None:
    """With sizes given the host waits for nothing."""
    from approxtopk.adapters.torch import distributed

    with alone("nccl", tmp_path):
        x = torch.randint(-50, 50, (5, 4000), device="cuda").half()
        for options in ({}, {"buckets": 128, "k_per_bucket": 2}):
            ours, theirs = (distributed.approx_top_k, atk.approx_top_k) if options else (distributed.top_k, atk.top_k)
            ours(x, 64, **options)
            torch.cuda.set_sync_debug_mode("error")
            try:
                got = ours(x, 64, sizes=[4000], **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            for a, b in zip(got, theirs(x, 64, **options), strict=True):
                assert torch.equal(a, b)
