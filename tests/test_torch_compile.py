"""torch.compile, torch.export and the compilers ahead of time: one graph of any shape, run on either machine.

A graph holds the operator, not its plan: what is compiled once runs on the CPU and in the emulator.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .emulated import emulated
from .frameworks import objective, rows
from .interpreter import python

torch = pytest.importorskip("torch")
from approxtopk.adapters.torch import approx_topk, topk  # noqa: E402 (PyTorch first)

MACHINES = (contextlib.nullcontext, emulated)
CERTIFIED = {"buckets": 8, "k_per_bucket": 1, "certify": True}


def sample(*shape: int) -> Any:
    return torch.from_numpy(rows(shape, len(shape) - 1, seed=1).astype(np.float32))


def same(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for have, want in zip(ours, theirs, strict=True):
        assert have.dtype == want.dtype and torch.equal(have, want)


def compiled(function: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], Any]:
    """`function` as one graph, and the counter of its compilations."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend(options.pop("backend", "aot_eager"))
    return torch.compile(function, fullgraph=True, backend=counter, **options), counter


def every(x: Any, lengths: Any, k: Any = 3) -> Any:
    """All public forms in one graph."""
    return (
        *atk.approx_top_k(x * 2, k, starts=lengths, lengths=lengths, **CERTIFIED),
        *atk.top_k(x, k - 1, axis=0, mode="smallest", sorted=False, index_dtype="int32"),
        *atk.top_k(x, x.shape[-1] // 4, index_dtype=torch.int32),
        *topk(x, k, 0),
        *approx_topk(x, k, recall_target=0.9),
    )


def test_it_needs_no_call_and_imports_no_compiler() -> None:
    code = """
        import sys
        import torch
        import approxtopk as atk
        import approxtopk.adapters.torch
        x = torch.arange(12.0).reshape(2, 6)
        atk.top_k(x, 2)
        print("torch._dynamo" in sys.modules)
    """
    assert python(code).split() == ["False"]
    code = """
        import numpy, torch
        from torch._dynamo.testing import CompileCounter
        import approxtopk as atk
        counter = CompileCounter()
        first = torch.compile(lambda x: atk.top_k(x, 2), backend=counter, fullgraph=True)
        x = torch.arange(12.0).reshape(2, 6)
        print(first(x).indices.tolist())
        atk.top_k(numpy.arange(5), 2)
        first(x)
        print(counter.frame_count)
    """
    assert python(code).splitlines() == ["[[5, 4], [5, 4]]", "1"]


def test_dynamic_shapes_compile_once() -> None:
    run, counter = compiled(every, dynamic=True)
    counts = []
    for shape, k in (((5, 6, 32), 3), ((4, 6, 32), 3), ((4, 7, 41), 3), ((9, 5, 40), 5)):
        x = sample(*shape)
        lengths = torch.arange(shape[0] * shape[1]).reshape(shape[:-1])
        for machine in MACHINES:
            with machine():
                same(run(x, lengths, k), every(x, lengths, k))
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1


def test_static_and_marked_shapes() -> None:
    x, lengths = sample(4, 6, 32), torch.arange(24).reshape(4, 6)
    run, counter = compiled(every, dynamic=False)
    for machine in MACHINES:
        with machine():
            same(run(x, lengths), every(x, lengths))
    assert counter.frame_count == 1
    run, counter = compiled(lambda x: atk.approx_top_k(x, 4, recall_target=0.9))
    for rows_ in (5, 3, 8):
        x = sample(rows_, 2000)
        torch._dynamo.mark_dynamic(x, 0)
        same(run(x), atk.approx_top_k(x, 4, recall_target=0.9))
    assert counter.frame_count == 1


def test_a_prepared_call() -> None:
    x, lengths = sample(4, 40), torch.tensor([40, 2, 17, 0])
    exact = atk.prepare((4, 40), 3, exact=True, axis=0, index_dtype="int32")
    ragged = atk.prepare((4, 40), 3, lengths="int64", **CERTIFIED)
    default = atk.prepare((4, 40), 3)

    def work(x: Any, lengths: Any) -> Any:
        return (*exact(x), *ragged(x, lengths=lengths), *default(x))

    run, counter = compiled(work)
    want = (
        *atk.top_k(x, 3, axis=0, index_dtype="int32"),
        *atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED),
        *atk.approx_top_k(x, 3),
    )
    for machine in MACHINES:
        with machine():
            same(run(x, lengths), want)
    assert counter.frame_count == 1
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"x is float64 of shape \(4, 40\); prepared for is"):
        run(x.double(), lengths)
    broken = torch.compile(lambda x: exact(x, out=(x, x)), backend="eager")
    with pytest.raises(atk.InvalidArgument, match="out is given and x is compiled"):
        broken(x)


def test_numpy_arrays() -> None:
    def work(x: Any, lengths: Any) -> Any:
        return atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED)

    x, lengths = rows((4, 40), 1), np.array([40, 2, 17, 0])
    run, _ = compiled(work)
    for machine in MACHINES:
        with machine():
            for have, want in zip(run(x, lengths), work(x, lengths), strict=True):
                assert isinstance(have, np.ndarray) and have.dtype == want.dtype
                np.testing.assert_array_equal(have, want)


ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "k": ({"k": 99}, atk.InvalidArgument, "k = 99 is out of range; allowed are 0 to 32"),
    "mode": ({"mode": "best"}, atk.InvalidArgument, "mode = 'best' is unknown"),
    "lengths": ({"lengths": torch.arange(3)}, atk.InvalidArgument, r"lengths has shape \(3,\); allowed is \(2,\)"),
    "index_dtype": ({"index_dtype": "what"}, atk.InvalidArgument, "index_dtype = 'what' is unknown"),
    "NumPy's lengths": ({"lengths": np.arange(2)}, atk.InvalidType, "lengths must be a PyTorch tensor"),
    "a float": ({"k": 2.0}, atk.InvalidType, "k must be an integer"),
    "a flag": ({"sorted": 1}, atk.InvalidType, "sorted must be True or False"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    """The call's own where a graph may break; the compiler's, with the message where it has one, where not."""
    arguments, error, message = ERRORS[name]
    arguments = {"k": 3, **arguments}
    k = arguments.pop("k")

    def work(x: Any) -> Any:
        return atk.top_k(x, k, **arguments)

    torch._dynamo.reset()
    with pytest.raises(error, match=message):
        torch.compile(work, backend="eager")(sample(2, 32))
    if error is atk.InvalidArgument:
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match=message.replace("'", r"\\*'")):
            torch.compile(work, backend="eager", fullgraph=True)(sample(2, 32))


def test_the_compiler_does_not_look_into_the_operator() -> None:
    """Where it runs outside of graphs; what the CPU does in NumPy is not for PyTorch's compiler."""

    @torch.compiler.disable(recursive=False)
    def outside(x: Any) -> Any:
        return torch.ops.approxtopk.select(x, None, None, "top_k", 3)

    x = sample(2, 32)
    torch._dynamo.reset()
    run = torch.compile(lambda x: outside(x + 1), backend="eager")
    for machine in MACHINES:
        with machine():
            same(run(x), torch.topk(x + 1, 3))


class Sparse(torch.nn.Module):
    """A layer that keeps the best activations, as sparse autoencoders do."""

    def __init__(self, select: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.decode, self.select = torch.nn.Linear(20, 33), torch.nn.Linear(33, 20), select

    def forward(self, x: Any) -> Any:
        hidden = self.encode(x)
        values, indices = self.select(hidden, 5)
        return ((self.decode(torch.zeros_like(hidden).scatter(-1, indices, values)) - x) ** 2).mean()


def train(model: Any, run: Any) -> list[Any]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        torch.manual_seed(step)
        optimizer.zero_grad()
        run(torch.randn(4 + step, 20)).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_a_training_step() -> None:
    reference = Sparse(torch.topk)
    want = train(reference, reference)
    for machine in MACHINES:
        with machine():
            model = Sparse(atk.top_k)
            run, counter = compiled(model, dynamic=True)
            same(train(model, run), want)
            assert counter.frame_count == 1


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_ragged_rows_in_training(backend: str) -> None:
    lengths = torch.tensor([0, 2, 17, 40])

    def work(x: Any) -> Any:
        values, indices = atk.top_k(x, 3, lengths=lengths)
        return torch.where(indices < 0, 7, values).sum()

    run, _ = compiled(work, backend=backend)
    for machine in MACHINES:
        with machine():
            leaf = sample(4, 40).requires_grad_()
            run(leaf).backward()
            assert leaf.grad.sum(1).tolist() == [0, 2, 3, 3]


def test_inductor() -> None:
    """Through the default backend, which compiles what is around the operator."""

    def work(x: Any) -> Any:
        values, indices = atk.approx_top_k(x * 2 + 1, 3, buckets=8, k_per_bucket=1)
        return values.sum(-1), indices

    run, counter = compiled(work, backend="inductor", dynamic=True)
    counts = []
    for x in (sample(4, 32), sample(3, 40)):
        for machine in MACHINES:
            with machine(), torch.no_grad():
                same(run(x), work(x))
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


def test_transforms_inside_a_graph() -> None:
    from torch.func import grad, jvp, vmap

    def work(select: Any) -> Any:
        def inner(x: Any) -> Any:
            tangents = jvp(lambda row: select(row, 3)[0], (x,), (x + 1,))[1]
            return vmap(grad(objective(select)))(x), tangents, *vmap(lambda row: tuple(select(row, 2)))(x)

        return inner

    run, _ = compiled(work(atk.top_k))
    x = sample(4, 32)
    for machine in MACHINES:
        with machine():
            same(run(x), work(torch.topk)(x))


class Module(torch.nn.Module):
    def forward(self, x: Any, lengths: Any) -> Any:
        return (*atk.approx_top_k(x, 3, lengths=lengths, **CERTIFIED), *topk(x, 2, 0))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_export(strict: bool, dynamic: bool) -> None:
    x, lengths, model = sample(4, 6, 32), torch.arange(24).reshape(4, 6), Module()
    batch, n = torch.export.Dim("batch", min=2, max=100), torch.export.Dim("n", min=8, max=1000)
    shapes = {"x": {0: batch, 2: n}, "lengths": {0: batch}} if dynamic else None
    program = torch.export.export(model, (x, lengths), dynamic_shapes=shapes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    inputs = [(x, lengths)]
    if dynamic:
        inputs.append((sample(7, 6, 50), torch.arange(42).reshape(7, 6)))
    for machine in MACHINES:
        with machine():
            for arguments in inputs:
                same(loaded(*arguments), model(*arguments))
                same(program.run_decompositions().module()(*arguments), model(*arguments))


def test_export_refuses_bad_arguments_by_their_names() -> None:
    class Bad(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return atk.top_k(x, 99)

    with pytest.raises(atk.InvalidArgument, match="k = 99 is out of range"):
        torch.export.export(Bad(), (sample(2, 32),), strict=False)


def test_ahead_of_time() -> None:
    from functorch.compile import aot_function, aot_module, nop

    x, lengths = sample(4, 6, 32), torch.arange(24).reshape(4, 6)
    run = aot_function(objective(atk.top_k), fw_compiler=nop, bw_compiler=nop)
    model = aot_module(Module(), fw_compiler=nop)
    for machine in MACHINES:
        with machine():
            gradients = []
            for function in (run, objective(torch.topk)):
                leaf = x.clone().requires_grad_()
                function(leaf).backward()
                gradients.append(leaf.grad)
            assert torch.equal(*gradients)
            same(model(x, lengths), Module()(x, lengths))


@pytest.mark.nightly
def test_ahead_of_time_inductor(tmp_path: Any) -> None:
    x, lengths = sample(4, 6, 32), torch.arange(24).reshape(4, 6)
    batch = torch.export.Dim("batch", min=2, max=100)
    program = torch.export.export(Module(), (x, lengths), dynamic_shapes={"x": {0: batch}, "lengths": {0: batch}})
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    for arguments in ((x, lengths), (sample(7, 6, 32), torch.arange(42).reshape(7, 6))):
        for machine in MACHINES:
            with machine():
                same(loaded(*arguments), Module()(*arguments))


def test_the_operator_checks() -> None:
    x, bounds = sample(4, 6, 32), torch.arange(24, dtype=torch.int32).reshape(4, 6)
    select = torch.ops.approxtopk.select.default
    for operator, options in (
        ("top_k", {}),
        ("top_k", {"mode": "smallest", "sorted": False, "index_dtype": "int32"}),
        ("approx_top_k", {"recall_target": 0.5}),
        ("approx_top_k", {**CERTIFIED, "interleaved": False}),
    ):
        for starts, lengths in ((None, None), (None, bounds), (bounds, bounds)):
            torch.library.opcheck(select, (x, starts, lengths, operator, 3), options)
    for axis in (0, 1, -2):
        torch.library.opcheck(select, (x, None, None, "top_k", 3), {"axis": axis})
    torch.library.opcheck(select, (x[..., :0], None, None, "top_k", 0))
    torch.library.opcheck(select, (x.to(torch.bfloat16).transpose(0, 2), None, None, "top_k", 3))
