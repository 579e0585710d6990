"""The drop-ins beside ``torch.topk``: the same calls, the same results, the same refusals."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .emulated import emulated
from .frameworks import rows

torch = pytest.importorskip("torch")

Topk = Callable[..., Any]
SHAPES = [(), (1,), (7,), (0,), (3, 5), (3, 0), (0, 4), (2, 3, 4), (2, 1, 3), (2, 0, 3), (2, 3, 2, 4)]


@pytest.fixture(params=["host", "emulated"], autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """NumPy and, for the same CPU tensors, the emulated GPU."""
    if request.param == "host":
        yield
    else:
        with emulated():
            yield


@pytest.fixture
def topk() -> Topk:
    from approxtopk.adapters.torch import topk

    return topk


def sample(shape: tuple[int, ...], dim: int = -1, seed: int = 0) -> Any:
    """float32, distinct along `dim`."""
    if not shape:
        return torch.tensor(2.0)
    return torch.from_numpy(rows(shape, dim, seed).astype(np.float32))


def empty(*shape: int, dtype: Any = None, **options: Any) -> Any:
    return torch.empty(shape, dtype=dtype or torch.float32, **options)


def long(*shape: int, **options: Any) -> Any:
    return torch.empty(shape, dtype=torch.int64, **options)


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.device == b.device
        assert a.stride() == b.stride() and a.requires_grad == b.requires_grad
        assert a.is_meta or torch.equal(a, b)
    assert ours.values is ours[0] and ours.indices is ours[1]


def outcome(call: Callable[[Topk], Any], topk: Topk) -> tuple[Any, Exception | None, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result, error = call(topk), None
        except Exception as raised:
            result, error = None, raised
    return result, error, [str(w.message).partition(" (Triggered")[0] for w in told]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dim_k_and_flag(shape: tuple[int, ...], topk: Topk) -> None:
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        x = sample(shape, dim)
        n = shape[dim] if shape else 1
        for k, largest in itertools.product(range(n + 1), (True, False)):
            same(topk(x, k, dim, largest), torch.topk(x, k, dim, largest))
            some = topk(x, k, dim, largest, False)  # in no particular order
            best, where = torch.topk(x, k, dim, largest)
            for got, want in ((some.values, best), (some.indices, where)):
                assert torch.equal(got.sort(dim)[0], want.sort(dim)[0]) if shape else torch.equal(got, want)
        for k, wrong in ((n + 1, dim), (-1, dim), (0, 4), (0, -5)):
            calls = [outcome(lambda t, k=k, d=wrong, x=x: t(x, k, d), t) for t in (topk, torch.topk)]
            assert type(calls[0][1]) is type(calls[1][1]) and str(calls[0][1]) == str(calls[1][1])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 2),
        lambda x: x.permute(1, 2, 0),
        lambda x: x[:, ::2],
        lambda x: x[1:, :, 1:],
        lambda x: torch.as_strided(x, (3, 4, 5), (1, 2, 6)),
        lambda x: torch._neg_view(x),
        lambda x: x[:, :1].expand(4, 5, 6),
        lambda x: x[..., None, 2].expand(4, 5, 3).transpose(1, 2),
    ],
)
def test_views(view: Any, topk: Topk) -> None:
    x = view(sample((4 * 5 * 6,)).reshape(4, 5, 6))
    for dim in range(3):
        ours, theirs = topk(x, 2, dim), torch.topk(x, 2, dim)
        if x.stride(dim):
            same(ours, theirs)
        else:  # equal entries: torch.topk takes any
            assert torch.equal(ours.values, theirs.values) and ours.indices.unique().tolist() == [0, 1]


NAMES = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"]


@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, topk: Topk) -> None:
    x = sample((3, 8)).to(getattr(torch, name))
    for largest in (True, False):
        same(topk(x, 3, largest=largest), torch.topk(x, 3, largest=largest))


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"])
def test_dtypes_beyond_those_of_torch(name: str, topk: Topk) -> None:
    from approxtopk.adapters.torch import approx_topk

    x = sample((3, 8))
    for function in (topk, approx_topk):
        values, indices = function(x.to(getattr(torch, name)), 3)
        assert values.dtype == getattr(torch, name) and torch.equal(values.to(torch.float32), torch.topk(x, 3)[0])
        assert torch.equal(indices, torch.topk(x, 3)[1])
    values, indices = empty(0, dtype=getattr(torch, name)), long(0)
    topk(x.to(values.dtype), 3, out=(values, indices))
    assert torch.equal(indices, torch.topk(x, 3)[1])


class Two:
    def __index__(self) -> int:
        return 2


X = torch.arange(30.0).reshape(3, 10)
WAYS: dict[str, Callable[[Topk], Any]] = {
    "keywords": lambda t: t(input=X, k=2, dim=0, largest=False, sorted=True),
    "numpy int": lambda t: t(X, np.int64(2), np.int32(1)),
    "0-d tensor": lambda t: t(X, torch.tensor(2), torch.tensor(1)),
    "tensor of one": lambda t: t(X, torch.tensor([2], dtype=torch.int16)),
    "index": lambda t: t(X, Two()),
    "out None": lambda t: t(X, 2, out=None),
    "bool k": lambda t: t(X, True),
    "bool tensor dim": lambda t: t(X, 2, True),
    "numpy bool k": lambda t: t(X, np.bool_(True)),
    "float k": lambda t: t(X, 2.0),
    "numpy float k": lambda t: t(X, np.float64(2)),
    "float tensor k": lambda t: t(X, torch.tensor(2.0)),
    "k of two": lambda t: t(X, torch.tensor([2, 2])),
    "str dim": lambda t: t(X, 2, "a"),
    "int largest": lambda t: t(X, 2, 1, 1),
    "numpy largest": lambda t: t(X, 2, 1, np.bool_(True)),
    "sorted None": lambda t: t(X, 2, 1, True, None),
    "no k": lambda t: t(X),
    "nothing": lambda t: t(),
    "unknown": lambda t: t(X, 2, order=1),
    "twice": lambda t: t(X, 2, k=2),
    "too many": lambda t: t(X, 2, 1, True, True, None),
    "list": lambda t: t([1.0, 2.0], 1),
    "None": lambda t: t(None, 1),
    "2**63": lambda t: t(X, 2**63),
    "dim before k": lambda t: t(X, 99, 9),
    "bool": lambda t: t(X.bool(), 2),
    "bool and k": lambda t: t(X.bool(), 99),
    "complex": lambda t: t(X.to(torch.complex64), 2),
    "sparse": lambda t: t(X.to_sparse(), 2),
    "sparse and k": lambda t: t(X.to_sparse(), 99),
    "csr": lambda t: t(X.to_sparse_csr(), 2),
    "nested": lambda t: t(torch.nested.nested_tensor([X, X]), 2),
    "jagged": lambda t: t(torch.nested.nested_tensor([X, X], layout=torch.jagged), 2),
    "meta": lambda t: t(X.to("meta"), 2, 0),
    "meta view": lambda t: t(torch.empty(3, 4, 5, device="meta").permute(2, 0, 1), 2, 0),
    "meta and k": lambda t: t(X.to("meta"), 99),
    "meta, 0-d": lambda t: t(torch.empty((), device="meta"), 0),
    "negative view out": lambda t: t(torch._neg_view(X), 2, out=(empty(3, 2), long(3, 2))),
    "meta out": lambda t: t(X.to("meta"), 2, out=(empty(0, device="meta"), long(3, 2, device="meta"))),
    "out of one": lambda t: t(X, 2, out=(empty(0),)),
    "out of three": lambda t: t(X, 2, out=(empty(0), long(0), long(0))),
    "out tensor": lambda t: t(X, 2, out=empty(0)),
    "out of None": lambda t: t(X, 2, out=(None, None)),
    "out of arrays": lambda t: t(X, 2, out=(np.zeros((3, 2), np.float32), np.zeros((3, 2), int))),
    "out iterator": lambda t: t(X, 2, out=iter((empty(0), long(0)))),
    "out values double": lambda t: t(X, 2, out=(empty(0).double(), long(0))),
    "out indices int": lambda t: t(X, 2, out=(empty(0), long(0).int())),
    "out indices float": lambda t: t(X, 2, out=(empty(0), empty(0))),
    "out on meta": lambda t: t(X, 2, out=(empty(0, device="meta"), long(0))),
    "out expanded": lambda t: t(X, 2, out=(empty(1).expand(3, 2), long(0))),
    "out requires grad": lambda t: t(X, 2, out=(empty(0).requires_grad_(), long(0))),
    "out and grad": lambda t: t(X.clone().requires_grad_(), 2, out=(empty(0), long(0))),
    "out of inference": lambda t: t(X, 2, out=(inference(3, 2), long(3, 2))),
}


def inference(*shape: int) -> Any:
    with torch.inference_mode():
        return torch.empty(shape)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_answer_or_the_same_error(way: str, topk: Topk) -> None:
    ours, theirs = (outcome(WAYS[way], t) for t in (topk, torch.topk))
    assert type(ours[1]) is type(theirs[1]), (ours, theirs)
    if theirs[1] is None:
        same(ours[0], theirs[0])
    elif str(theirs[1]).startswith(("topk(): ", "Dimension", "Overflow", "selected")):
        assert str(ours[1]) == str(theirs[1])


def test_a_tensor_of_bool_is_no_number(topk: Topk) -> None:
    with pytest.raises(TypeError, match="'k' .* must be int, not Tensor"):  # torch.topk: an internal assertion
        topk(X, torch.tensor(True))


def test_approximate_shapes_on_meta() -> None:
    from approxtopk.adapters.torch import approx_topk

    x = torch.empty(3, 40, 5, device="meta", dtype=torch.float16).transpose(0, 2)
    for given in ({}, {"recall_target": 0.9}, {"j": 1, "k_mult": 2}):
        same(approx_topk(x, 4, 1, **given), torch.topk(x, 4, 1))
    out = (empty(0, dtype=torch.float16, device="meta"), long(5, 4, 3, device="meta"))
    assert approx_topk(x, 4, 1, out=out).values is out[0] and out[0].shape == (5, 4, 3)
    with pytest.raises(atk.InvalidArgument, match="recall_target = 2"):
        approx_topk(x, 4, 1, recall_target=2.0)
    with pytest.raises(NotImplementedError, match="dtype bool"):
        approx_topk(x.bool(), 4, 1)
    with torch.device("meta"):
        assert approx_topk(torch.empty(2, 50), 3).indices.is_meta


def test_quantized_is_left_to_torch(topk: Topk) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.quantize_per_tensor(sample((3, 8)), 0.1, 0, torch.quint8)
        ours, theirs = topk(x, 3), torch.topk(x, 3)
    assert torch.equal(ours.values.int_repr(), theirs.values.int_repr()) and torch.equal(ours.indices, theirs.indices)


OUTS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "fits": lambda: (empty(3, 2), long(3, 2)),
    "empty": lambda: (empty(0), long(0)),
    "one empty": lambda: (empty(3, 2), long(0)),
    "resized": lambda: (empty(7), long(9, 9)),
    "resized view": lambda: (empty(5, 4).t(), long(0)),
    "strided": lambda: (empty(2, 3).t(), long(2, 3).t()),
    "sliced": lambda: (empty(3, 6)[:, ::3], long(3, 2)),
    "shared": lambda: (lambda b: (b.view(torch.float32)[:6].view(3, 2), b[3:9].view(3, 2)))(long(9)),
    "negative view": lambda: (torch._neg_view(empty(3, 2)), long(3, 2)),
    "other shape, as many": lambda: (empty(2, 3), long(6)),
}


@pytest.mark.parametrize("name", OUTS)
def test_out(name: str, topk: Topk) -> None:
    results = []
    for function in (topk, torch.topk):
        out = OUTS[name]()
        before = [t._version for t in out]
        result, error, told = outcome(lambda t, out=out: t(X, 2, out=out), function)
        assert error is None and result.values is out[0] and result.indices is out[1]
        assert all(t._version > version for t, version in zip(out, before, strict=True))
        results.append((result, told))
    same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("function", ["topk", "approx_topk"])
@pytest.mark.parametrize("name", ["fits", "empty", "one empty"])
def test_out_is_written_in_place(function: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import approxtopk.adapters.torch as ours

    for method in ("copy_", "new_empty"):
        monkeypatch.setattr(torch.Tensor, method, None)
    monkeypatch.setattr(ours.drop_in, "call", None)
    with emulated(), monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", torch._C.TensorBase.new_empty)  # the workspace, where there is one
        out = OUTS[name]()
        result = getattr(ours, function)(X, 2, out=out)
    assert result.values.tolist() == [[9, 8], [19, 18], [29, 28]] and out[1].tolist() == [[9, 8]] * 3


def test_out_that_is_the_input(topk: Topk) -> None:
    x = sample((3, 4))
    want = torch.topk(x, 4)
    mine = x.clone()
    result = topk(mine, 4, out=(mine, long(0)))
    assert result.values is mine and torch.equal(mine, want.values) and torch.equal(result.indices, want.indices)
    mine = x.clone()
    topk(mine, 2, out=(mine[:, :2], long(0)))  # torch.topk itself gives arbitrary values here
    assert torch.equal(mine[:, :2], want.values[:, :2])


def test_out_and_derivatives(topk: Topk) -> None:
    leaf = X.clone().requires_grad_()
    with torch.no_grad():
        topk(leaf, 2, out=(empty(3, 2), long(3, 2)))
    values = torch.ones(3, 2)
    squares = (leaf[:, :2] * values).pow(2).sum()  # keeps values for its derivative
    topk(X, 2, out=(values, long(3, 2)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares.backward()


def test_out_in_inference_mode(topk: Topk) -> None:
    normal = empty(3, 2)
    with torch.inference_mode():
        out = (empty(3, 2), long(3, 2))
        result = topk(X, 2, out=out)
        assert result.values is out[0] and result.values.is_inference()
        topk(X, 2, out=(normal, long(0)))
        assert topk(X, 2).values.is_inference()
    assert torch.equal(normal, torch.topk(X, 2)[0]) and not normal.is_inference() and normal._version == 1


def test_gradients(topk: Topk) -> None:
    for dim, k, largest in itertools.product((0, 1), (0, 1, 2), (True, False)):
        leaves = [X.clone().requires_grad_() for _ in range(2)]
        for function, leaf in zip((topk, torch.topk), leaves, strict=True):
            values, indices = function(leaf, k, dim, largest)
            assert values.requires_grad and not indices.requires_grad
            (values**2).sum().backward()
        assert torch.equal(leaves[0].grad, leaves[1].grad)
    leaf = torch.tensor(3.0, requires_grad=True)
    topk(leaf, 1).values.backward()
    assert leaf.grad == 1


class Mine(torch.Tensor):
    pass


class Logged(torch.Tensor):
    calls: list[Any] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


class Duck:
    """No tensor; knows ``torch.topk`` and nothing else."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return ("quack", args[1:], kwargs) if func is torch.topk else NotImplemented


def test_subclasses(topk: Topk) -> None:
    from approxtopk.adapters.torch import approx_topk

    for kind in (Mine, Logged):
        Logged.calls.clear()
        x = X.clone().as_subclass(kind)
        same(topk(x, 2), torch.topk(x, 2))
        assert type(approx_topk(x, 2).values) is kind
        out = topk(x, 2, out=(empty(3, 2), long(3, 2)))
        same(out, torch.topk(x, 2, out=(empty(3, 2), long(3, 2))))
        assert type(topk(X, 2, out=(empty(3, 2).as_subclass(kind), long(0))).values) is kind
    assert {topk, approx_topk} <= set(Logged.calls)


def test_what_is_no_tensor(topk: Topk) -> None:
    from approxtopk.adapters.torch import approx_topk

    assert topk(Duck(), 2, 1) == ("quack", (2, 1, True, True), {})
    assert topk(X, 2, out=(Duck(), Duck()))[0] == "quack"
    with pytest.raises(TypeError, match=r"no implementation found for '.*approx_topk'"):
        approx_topk(Duck(), 2)


def test_modes(topk: Topk) -> None:
    from torch.overrides import TorchFunctionMode

    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((func, args[1:], kwargs))
            return func(*args, **(kwargs or {}))

    with Mode():
        result = topk(X, 2)
    same(result, torch.topk(X, 2))
    assert seen == [(topk, (2, -1, True, True), {})]
    with torch.device("meta"):
        same(topk(X, 2), torch.topk(X, 2))


def test_traced_into_one_graph(topk: Topk) -> None:
    from approxtopk.adapters.torch import approx_topk

    def work(x: Any) -> Any:
        values, indices = topk(x * 2, 3, dim=0, largest=False)
        some = approx_topk(x, 2, -1, buckets=5, k_per_bucket=1)
        out = (torch.empty(3, x.shape[1]), torch.empty(3, x.shape[1], dtype=torch.int64))
        written = topk(x, 3, 0, out=out)
        return values, indices, some.values, some.indices, *written, out[0] + 1

    torch._dynamo.reset()
    for dynamic in (False, True):
        compiled = torch.compile(work, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for x in (sample((6, 10)), sample((7, 12), seed=1)):
            for got, want in zip(compiled(x), work(x), strict=True):
                assert torch.equal(got, want)
