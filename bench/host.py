"""``python -m bench host``: what a call costs on the host, beside what its users would call instead.

The kernels are taken away: a runtime that does nothing stands for the machine, as a GPU's does from the host's point of
view, and what is left is validation, planning (cached), allocation, and the framework's own way to an operator. On a
machine with a GPU the real calls are timed as well, until they are on the stream. All contenders of a framework run in
turn, so that a busy machine disturbs them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

import approxtopk as atk
from approxtopk.planning.devices import REFERENCES
from approxtopk.runtime import substitute

from .clock import CpuClock, Timing, interleaved

SHAPE, K = (2, 64), 8
#: Where PyTorch's own kernel would be slower, so that `enable` takes the call; nobody reads it.
LARGE = (4, 50000)
#: Microseconds a call may cost, by the project's goals.
EAGER_TORCH, PREPARED_TORCH, INSIDE_JIT = 12.0, 6.0, 12.0
#: Selections in one jitted function, of which each costs its share.
IN_ONE_JIT = 16


class Nothing:
    """A machine that reports itself a GPU and runs nothing."""

    def device_info(self, device: Any) -> atk.DeviceInfo:
        return REFERENCES["sm_90"]

    def guard(self, device: Any) -> AbstractContextManager[object]:
        return nullcontext()

    def prepare(self, plan: Any, device: Any) -> None:
        pass

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        pass


class Enqueue(CpuClock):
    """The wall clock until all is on the stream; what the GPU still has to do is waited for afterwards."""

    def __init__(self, around: Callable[[], AbstractContextManager[Any]] = nullcontext, wait: Any = None) -> None:
        self.around = around
        self.wait = wait

    def seconds(self, round: Callable[[], Any], calls: int) -> float:
        with self.around():
            spent = super().seconds(round, calls)
        if self.wait is not None:
            self.wait()
        return spent


class Contender(NamedTuple):
    """One call.

    Attributes
    ----------
    call : callable
    limit : float or None
        Microseconds it may cost.
    selections : int
        How many it makes.
    clock : CpuClock
    """

    call: Callable[[], Any]
    limit: float | None = None
    selections: int = 1
    clock: CpuClock = CpuClock()


Contenders = dict[str, Contender]


def numpy_contenders() -> Contenders:
    x = np.zeros(SHAPE, np.float32)
    best = atk.prepare(SHAPE, K, exact=True)
    return {
        "numpy.argpartition": Contender(lambda: np.argpartition(x, -K, axis=-1)),
        "top_k": Contender(lambda: atk.top_k(x, K)),
        "approx_top_k": Contender(lambda: atk.approx_top_k(x, K)),
        "prepared": Contender(lambda: best(x)),
    }


def torch_contenders(device: str = "cpu") -> Contenders:
    import torch
    from approxtopk.adapters.torch import approx_topk, enable, topk

    x, large = torch.zeros(SHAPE, device=device), torch.zeros(LARGE, device=device)
    out = tuple(torch.topk(x, K))
    best = atk.prepare(SHAPE, K, exact=True)
    wait = torch.cuda.synchronize if device == "cuda" else None
    plain, enabled = Enqueue(wait=wait), Enqueue(enable, wait)
    calls = {
        "torch.topk": Contender(lambda: torch.topk(x, K)),
        "top_k": Contender(lambda: atk.top_k(x, K), EAGER_TORCH),
        "approx_top_k": Contender(lambda: atk.approx_top_k(x, K), EAGER_TORCH),
        "adapters.torch.topk": Contender(lambda: topk(x, K), EAGER_TORCH),
        "adapters.torch.topk, out=": Contender(lambda: topk(x, K, out=out), EAGER_TORCH),
        "adapters.torch.approx_topk": Contender(lambda: approx_topk(x, K), EAGER_TORCH),
        "prepared": Contender(lambda: best(x), PREPARED_TORCH),
        "prepared, out=": Contender(lambda: best(x, out=out), PREPARED_TORCH),
    }
    calls = {name: contender._replace(clock=plain) for name, contender in calls.items()}
    calls["torch.topk, enabled, theirs"] = Contender(lambda: torch.topk(x, K), clock=enabled)
    calls["torch.topk, enabled, ours"] = Contender(lambda: torch.topk(large, K), EAGER_TORCH, clock=enabled)
    return calls


def jax_contenders() -> Contenders:
    import jax
    from approxtopk.adapters.jax import top_k

    x = jax.device_put(np.zeros(SHAPE, np.float32), jax.devices("cpu")[0])
    best = atk.prepare(SHAPE, K, exact=True, index_dtype="int32")

    def chain(select: Any) -> Callable[[], Any]:
        """A jitted function of so many selections, each from what the one before has changed."""

        def work(x: Any) -> Any:
            for _ in range(IN_ONE_JIT):
                values, indices = select(x, K)
                x = x.at[0, 0].set(values[0, 0] + indices[0, 0])
            return x

        jitted = jax.jit(work)
        return lambda: jax.block_until_ready(jitted(x))

    one, none = jax.jit(lambda x: top_k(x, K)), jax.jit(lambda x: jax.lax.top_k(x, K))
    return {
        "jax.lax.top_k": Contender(lambda: jax.block_until_ready(jax.lax.top_k(x, K))),
        "top_k": Contender(lambda: jax.block_until_ready(atk.top_k(x, K))),
        "approx_top_k": Contender(lambda: jax.block_until_ready(atk.approx_top_k(x, K))),
        "prepared": Contender(lambda: jax.block_until_ready(best(x))),
        "jax.lax.top_k, a jit of one": Contender(lambda: jax.block_until_ready(none(x))),
        "adapters.jax.top_k, a jit of one": Contender(lambda: jax.block_until_ready(one(x))),
        f"jax.lax.top_k, a jit of {IN_ONE_JIT}": Contender(chain(jax.lax.top_k), selections=IN_ONE_JIT),
        f"adapters.jax.top_k, a jit of {IN_ONE_JIT}": Contender(chain(top_k), INSIDE_JIT, IN_ONE_JIT),
        f"no selection, a jit of {IN_ONE_JIT}": Contender(chain(lambda x, k: (x, x)), selections=IN_ONE_JIT),
    }


def cupy_contenders() -> Contenders:
    import cupy

    x = cupy.zeros(SHAPE, cupy.float32)
    best = atk.prepare(SHAPE, K, exact=True)
    clock = Enqueue(wait=cupy.cuda.Device().synchronize)
    return {
        "cupy.argpartition": Contender(lambda: cupy.argpartition(x, -K, axis=-1), clock=clock),
        "top_k": Contender(lambda: atk.top_k(x, K), clock=clock),
        "approx_top_k": Contender(lambda: atk.approx_top_k(x, K), clock=clock),
        "prepared": Contender(lambda: best(x), clock=clock),
    }


def suites(gpu: bool) -> Iterator[tuple[str, Callable[[], Contenders], AbstractContextManager[Any]]]:
    """Of each framework: a title, what makes its contenders, and the machine they run on."""
    for title, make in (("NumPy", numpy_contenders), ("PyTorch", torch_contenders), ("JAX", jax_contenders)):
        yield f"{title}, nothing runs", make, substitute("cpu", Nothing())
    if gpu:
        yield "PyTorch on the GPU, until enqueued", lambda: torch_contenders("cuda"), nullcontext()
        yield "CuPy on the GPU, until enqueued", cupy_contenders, nullcontext()


def measure(contenders: Contenders, calls: int, seconds: float, least: int = 5) -> dict[str, Timing]:
    """Microseconds of each contender's selections."""
    rounds = {}
    for name, contender in contenders.items():
        with contender.clock.around() if isinstance(contender.clock, Enqueue) else nullcontext():
            round = contender.clock.prepare([contender.call] * max(1, calls // contender.selections), "eager")
        rounds[name] = (contender.clock, round, max(1, calls // contender.selections) * contender.selections)
    return interleaved(rounds, seconds, least=least)


def measured(gpu: bool, seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """The frameworks that are here, one after the other, `seconds` for each."""
    calls, seconds, least = (2, 0.0, 1) if quick else (200, seconds, 5)
    for title, make, machine in suites(gpu):
        try:
            with machine:
                contenders = make()
                times = measure(contenders, calls, seconds, least)
        except ImportError as error:
            yield {"suite": title, "absent": str(error), "us": {}, "limits": {}}
            continue
        yield {"suite": title, "us": times, "limits": {n: c.limit for n, c in contenders.items() if c.limit}}
