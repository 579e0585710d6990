"""What each adapter promises: types in = types out, every dtype, any strides and axis, drop-ins, derivatives."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
import sys
import textwrap
import threading
import types
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk import DeviceInfo
from approxtopk.buffer import Device
from approxtopk.dtypes import DTYPES
from approxtopk.runtime import serving, substitute

from .backends import gpu_present
from .emulated import emulated

# 0 to 7 are exact in every element type, float8_e5m2 included.
N = 8


def rows(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """float64 of `shape`, distinct along `axis`."""
    extents = [1] * len(shape)
    extents[axis] = shape[axis]
    line = np.arange(shape[axis], dtype=np.float64).reshape(extents)
    return np.ascontiguousarray(np.random.default_rng(seed).permuted(np.broadcast_to(line, shape), axis=axis))


def expected(x: np.ndarray, k: int, axis: int, mode: str = "largest") -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of rows without ties."""
    order = np.argsort(-x if mode == "largest" else x, axis=axis, kind="stable")
    indices = np.take(order, range(k), axis=axis)
    return np.take_along_axis(x, indices, axis), indices


class Framework:
    """How a test makes arrays of one framework and reads them back."""

    def dtypes(self) -> list[str]:
        return list(DTYPES)

    def make(self, x: np.ndarray, dtype: str) -> Any:
        raise NotImplementedError

    def back(self, x: Any) -> np.ndarray:
        return np.asarray(x).astype(np.float64)

    def context(self, dtype: str) -> AbstractContextManager[Any]:
        return nullcontext()


class NumPy(Framework):
    kind, default_index = np.ndarray, "int64"

    def make(self, x: np.ndarray, dtype: str) -> Any:
        if hasattr(np, dtype):
            return x.astype(dtype)
        return x.astype(getattr(pytest.importorskip("ml_dtypes"), dtype))


class Torch(Framework):
    default_index = "int64"

    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch")
        self.kind = self.torch.Tensor

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return self.torch.from_numpy(x).to(getattr(self.torch, dtype))

    def back(self, x: Any) -> np.ndarray:
        return x.to(self.torch.float64).numpy()


class Jax(Framework):
    default_index = "int32"

    def __init__(self) -> None:
        self.jax = pytest.importorskip("jax")
        self.kind = self.jax.Array

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return self.jax.numpy.asarray(NumPy().make(x, dtype))

    def context(self, dtype: str) -> AbstractContextManager[Any]:
        if not dtype.endswith("64"):
            return nullcontext()
        return self.jax.enable_x64(True) if hasattr(self.jax, "enable_x64") else self.jax.experimental.enable_x64()


CODES = {"f": 2, "i": 0, "u": 1}
SPECIAL_CODES = {"bfloat16": 4, "float8_e4m3fn": 10, "float8_e5m2": 12}


class Fields(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class Old(ctypes.Structure):
    _fields_ = [("tensor", Fields), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class New(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Fields),
    ]


_KEPT: list[Any] = []  # exported memory has to outlive its exporter


class Foreign:
    """A hand-written exporter of NumPy memory, of the old protocol or the new."""

    def __init__(
        self, x: np.ndarray, versioned: bool = True, strides: bool = True, flags: int = 0, skip: int = 0
    ) -> None:
        self.x, self.versioned, self.strides, self.flags, self.skip = x, versioned, strides, flags, skip
        self.dtype = DTYPES[x.dtype.name]
        self.deleted = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, *, stream: Any = None, **new: Any) -> object:
        if new and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        x, size = self.x, self.x.itemsize
        extents = (ctypes.c_int64 * x.ndim)(*x.shape)
        steps = (ctypes.c_int64 * x.ndim)(*(s // size for s in x.strides))
        code = SPECIAL_CODES.get(self.dtype.name, CODES[self.dtype.kind])
        fields = Fields(x.ctypes.data - self.skip, 1, 0, x.ndim, code, self.dtype.bits, 1)
        fields.shape = ctypes.addressof(extents)
        fields.strides = ctypes.addressof(steps) if self.strides else None
        fields.byte_offset = self.skip

        def delete(_: Any) -> None:
            self.deleted += 1

        deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(delete)
        at = ctypes.cast(deleter, ctypes.c_void_p)
        managed: Any = New(1, 1, None, at, self.flags, fields) if self.versioned else Old(fields, None, at)
        _KEPT.append((x, extents, steps, deleter, managed))
        create = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
            ("PyCapsule_New", ctypes.pythonapi)
        )
        return create(ctypes.addressof(managed), b"dltensor_versioned" if self.versioned else b"dltensor", None)


class DLPack(Framework):
    kind, default_index = np.ndarray, "int64"

    def make(self, x: np.ndarray, dtype: str) -> Any:
        return Foreign(NumPy().make(x, dtype))


FRAMEWORKS = {"numpy": NumPy, "torch": Torch, "jax": Jax, "dlpack": DLPack}


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]()


class Machine:
    """Answers as a GPU, so that plans take workspace, checks every buffer, and computes with NumPy."""

    def __init__(self) -> None:
        self.host = serving(Device("cpu"))
        self.info = DeviceInfo("reference H200", "sm_90", 132, 227 * 1024)
        self.runs = 0
        self.prepared = 0

    def device_info(self, device: Any) -> DeviceInfo:
        return self.info

    def guard(self, device: Any) -> AbstractContextManager[object]:
        return nullcontext()

    def prepare(self, plan: Any, device: Any) -> None:
        self.prepared += 1

    def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
        self.runs += 1
        if step is not plan.steps[-1]:
            return
        if plan.workspace_bytes:
            workspace = buffers["workspace"]
            assert workspace.shape == (plan.workspace_bytes,) and workspace.pointer % 16 == 0
            ctypes.memset(workspace.pointer, 0xA5, plan.workspace_bytes)
        assert all(buffer.device == Device("cpu") for buffer in buffers.values())
        assert buffers["values"].shape == buffers["indices"].shape == plan.request.output_shape
        self.host.run(step, plan, buffers, stream)


# --- every framework ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_in_are_types_out(framework: Framework, dtype: str, axis: int) -> None:
    with framework.context(dtype):
        reference = rows((N, N, N), axis)
        x = framework.make(reference, dtype)
        for mode in ("largest", "smallest"):
            values, indices = atk.top_k(x, 3, axis=axis, mode=mode)
            best, where = expected(reference, 3, axis, mode)
            assert isinstance(values, framework.kind) and isinstance(indices, framework.kind)
            name = str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch.")
            assert str(values.dtype).removeprefix("torch.") == name == dtype
            assert str(indices.dtype).removeprefix("torch.") == framework.default_index
            np.testing.assert_array_equal(framework.back(indices), where)
            np.testing.assert_array_equal(framework.back(values), best)


def test_on_a_machine_with_workspace(framework: Framework) -> None:
    reference = rows((5, 4000), 1)
    x = framework.make(reference, "float32")
    machine = Machine()
    with substitute("cpu", machine):
        values, indices = atk.top_k(x, 50)
        np.testing.assert_array_equal(framework.back(values), expected(reference, 50, 1)[0])
        np.testing.assert_array_equal(framework.back(indices), expected(reference, 50, 1)[1])
    assert machine.runs
    before = machine.runs
    atk.top_k(x, 50)
    assert machine.runs == before, "a substituted machine served a call after its context"


def test_on_the_emulated_gpu(framework: Framework) -> None:
    reference = rows((6, 1500), 1)
    x = framework.make(reference, "float32")
    with emulated(0):
        for axis, k in ((1, 20), (0, 2)):
            order = np.take(np.argsort(-reference, axis=axis, kind="stable"), range(k), axis=axis)
            values, indices = atk.top_k(x, k, axis=axis)
            np.testing.assert_array_equal(framework.back(indices), order)
            np.testing.assert_array_equal(framework.back(values), np.take_along_axis(reference, order, axis))
        values = framework.back(atk.approx_top_k(x, 8, buckets=8, k_per_bucket=1)[0])
        best = np.stack([reference[:, i::8].max(axis=1) for i in range(8)], 1)
        np.testing.assert_array_equal(values, -np.sort(-best, axis=1))


def test_index_dtype_is_kept(framework: Framework) -> None:
    x = framework.make(rows((3, N), 1), "float32")
    assert str(atk.top_k(x, 2, index_dtype="int32")[1].dtype).endswith("int32")
    with framework.context("int64"):
        assert str(atk.top_k(x, 2, index_dtype="int64")[1].dtype).endswith("int64")
        assert str(atk.top_k(x, 2, index_dtype=np.int64)[1].dtype).endswith("int64")


@pytest.mark.parametrize(
    ("shape", "k", "axis"), [((0, 5), 2, 1), ((5, 0), 0, 1), ((4, 5), 0, 1), ((0,), 0, 0), ((3, 0, 2), 1, 0)]
)
def test_nothing_to_return_launches_nothing(framework: Framework, shape: tuple[int, ...], k: int, axis: int) -> None:
    machine = Machine()
    with substitute("cpu", machine):
        values, indices = atk.top_k(framework.make(np.zeros(shape), "float32"), k, axis=axis)
    result = (*shape[:axis], k, *shape[axis + 1 :])
    assert tuple(values.shape) == tuple(indices.shape) == result
    assert str(values.dtype).endswith("float32") and machine.runs == 0


def test_approximate(framework: Framework) -> None:
    reference = rows((4, 64), 1)
    values, indices = atk.approx_top_k(framework.make(reference, "float32"), 8, buckets=8, k_per_bucket=1, sorted=False)
    best = reference.reshape(4, 8, 8).max(axis=1)
    np.testing.assert_array_equal(np.sort(framework.back(values), 1), np.sort(best, 1))
    picked = np.take_along_axis(reference, framework.back(indices).astype(int), 1)
    np.testing.assert_array_equal(picked, framework.back(values))


def test_many_threads(framework: Framework) -> None:
    reference = rows((3, 500), 1)
    x = framework.make(reference, "float32")
    wrong: list[Any] = []

    def work(k: int) -> None:
        try:
            for _ in range(5):
                np.testing.assert_array_equal(framework.back(atk.top_k(x, k)[1]), expected(reference, k, 1)[1])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(1 + i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- NumPy ----------------------------------------------------------------------------------------------------------


def strided_views() -> dict[str, np.ndarray]:
    x = rows((6, 8, 10), 2, seed=3).astype(np.float32)
    packed = np.zeros((6, 10), [("flag", "i1"), ("value", "f4")])
    packed["value"] = x[:, 0]
    locked = x.copy()
    locked.flags.writeable = False
    return {
        "transposed": x.T,
        "reversed": x[:, ::-1, ::-1],
        "stepped": x[::2, 1::3, ::2],
        "broadcast": np.broadcast_to(x[:1], (4, 8, 10)),
        "fortran": np.asfortranarray(x),
        "read-only": locked,
        "packed field": packed["value"],
        "misaligned": np.frombuffer(b"\0" + x[0].tobytes(), np.float32, offset=1).reshape(8, 10),
        "record array": x.view(np.recarray),
    }


@pytest.mark.parametrize("name", strided_views())
@pytest.mark.parametrize("axis", [0, -1])
def test_numpy_strides(name: str, axis: int) -> None:
    x = strided_views()[name]
    before = x.copy()
    values, indices = atk.top_k(x, 2, axis=axis)
    order = np.take(np.argsort(-np.asarray(x), axis=axis, kind="stable"), range(2), axis=axis)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(np.asarray(x), order, axis))
    np.testing.assert_array_equal(x, before)
    assert type(values) is np.ndarray


def test_numpy_memory_map(tmp_path: Any) -> None:
    reference = rows((3, 100), 1).astype(np.int16)
    reference.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.int16, "r", shape=(3, 100))
    np.testing.assert_array_equal(atk.top_k(x, 4)[1], expected(reference, 4, 1)[1])


# --- PyTorch --------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> types.ModuleType:
    return pytest.importorskip("torch")


@pytest.fixture
def sample(torch: Any) -> Any:
    return torch.from_numpy(rows((4, 6, 32), 2, seed=1).astype(np.float32))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("largest", [True, False])
def test_torch_drop_in(torch: Any, dim: int, largest: bool) -> None:
    from approxtopk.adapters.torch import approx_topk, topk

    x = torch.from_numpy(rows((4, 6, 32), dim, seed=2).astype(np.float32)).transpose(0, 1)
    dim = {0: 1, 1: 0}.get(dim, dim)
    theirs = torch.topk(x, 3, dim, largest, True)
    for ours in (topk(x, 3, dim, largest), topk(input=x, k=np.int64(3), dim=dim, largest=largest, sorted=True)):
        assert isinstance(ours, torch.return_types.topk)
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    ours = approx_topk(x, 3, dim, largest, recall_target=1.0)
    assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    assert set(topk(x, 3, dim, largest, sorted=False).indices.flatten().tolist()) == set(
        theirs.indices.flatten().tolist()
    )


def test_torch_drop_in_takes_scalars_and_integer_tensors(torch: Any) -> None:
    from approxtopk.adapters.torch import topk

    x = torch.tensor(3.0)
    for k in (0, 1):
        theirs, ours = torch.topk(x, k), topk(x, k)
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.indices, theirs.indices)
    assert topk(torch.arange(5), torch.tensor(2)).indices.tolist() == [4, 3]


def test_torch_drop_in_out(torch: Any, sample: Any) -> None:
    from approxtopk.adapters.torch import topk

    theirs = torch.topk(sample, 3)
    for shape in ((0,), theirs.values.shape):
        values, indices = torch.empty(shape), torch.empty(shape, dtype=torch.int64)
        ours = topk(sample, 3, out=(values, indices))
        assert type(ours) is torch.return_types.topk_out is type(torch.topk(sample, 3, out=ours))
        assert ours.values is values and torch.equal(values, theirs.values) and torch.equal(indices, theirs.indices)
    strided = torch.empty(4, 3, 6).transpose(1, 2)
    topk(sample, 3, out=(strided, torch.empty(0, dtype=torch.int64)))
    assert torch.equal(strided, theirs.values)
    with pytest.warns(UserWarning, match="resized"):
        topk(sample, 3, out=(torch.empty(5), torch.empty(0, dtype=torch.int64)))


def test_torch_older_names(torch: Any, sample: Any) -> None:
    from approxtopk.adapters.torch import approx_topk

    want = approx_topk(sample, 4, buckets=8, k_per_bucket=2)
    for given in (
        {"j": 2, "k_mult": 4},
        {"j": 2, "k_mult": 4.0},
        {"k_per_bucket": 2, "k_mult": 4},
        {"j": 2, "buckets": 8},
    ):
        have = approx_topk(sample, 4, **given)
        assert torch.equal(have.values, want.values) and torch.equal(have.indices, want.indices)


def test_torch_views_and_subclasses(torch: Any, sample: Any) -> None:
    negative = torch.view_as_complex(torch.stack([sample, sample], -1)).conj().imag
    assert negative.is_neg()
    values, indices = atk.top_k(negative, 3)
    assert torch.equal(values, torch.topk(negative, 3)[0]) and torch.equal(indices, torch.topk(negative, 3)[1])

    class Mine(torch.Tensor):
        pass

    assert isinstance(atk.top_k(sample.as_subclass(Mine), 3)[0], Mine)
    assert torch.equal(atk.top_k(torch.nn.Parameter(sample), 3)[0], torch.topk(sample, 3)[0])
    with torch.inference_mode():
        assert torch.equal(atk.top_k(sample, 3)[0], torch.topk(sample, 3)[0])


def objective(select: Any) -> Any:
    return lambda x: (select(x, 3)[0] ** 3).sum()


def test_torch_derivatives(torch: Any, sample: Any) -> None:
    import torch.autograd.forward_ad as forward
    from torch.func import grad, hessian, jvp, vmap

    x = sample[0]
    ours, theirs = objective(lambda x, k: atk.top_k(x, k)), objective(torch.topk)
    gradients = []
    for f in (ours, theirs):
        leaf = x.clone().requires_grad_()
        f(leaf).backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    assert torch.equal(grad(ours)(x), grad(theirs)(x))
    assert torch.equal(jvp(ours, (x,), (x + 1,))[1], jvp(theirs, (x,), (x + 1,))[1])
    assert torch.equal(vmap(grad(ours))(x), vmap(grad(theirs))(x))
    assert torch.equal(hessian(ours)(x[0]), hessian(theirs)(x[0]))
    with forward.dual_level():
        dual = forward.make_dual(x, x + 1)
        tangents = [forward.unpack_dual(select(dual, 3)[0]).tangent for select in (atk.top_k, torch.topk)]
        assert torch.equal(*tangents)
    leaf = x.clone().requires_grad_()
    values, indices = atk.top_k(leaf, 3)
    assert values.requires_grad and not indices.requires_grad
    with torch.no_grad():
        assert not atk.top_k(leaf, 3)[0].requires_grad
    assert torch.autograd.gradcheck(lambda x: atk.top_k(x, 3)[0], x[:2].double().requires_grad_())
    assert not atk.top_k(x.to(torch.float8_e5m2).requires_grad_(), 3)[0].requires_grad


@pytest.mark.parametrize("in_dim", [0, 1, -1])
def test_torch_vmap(torch: Any, sample: Any, in_dim: int) -> None:
    distinct = torch.from_numpy(rows((4 * 6 * 32,), 0).astype(np.float32)).reshape(4, 6, 32)
    for axis in (0, -1):
        for ours, theirs in zip(
            torch.vmap(lambda x, a=axis: tuple(atk.top_k(x, 2, axis=a)), in_dim)(distinct),
            torch.vmap(lambda x, a=axis: tuple(torch.topk(x, 2, a)), in_dim)(distinct),
            strict=True,
        ):
            assert torch.equal(ours, theirs)
    integers = sample.to(torch.uint8)
    got = torch.vmap(lambda x: atk.top_k(x, 2)[0])(integers)
    assert torch.equal(got, torch.topk(integers, 2)[0])


def test_torch_operator_checks(torch: Any, sample: Any) -> None:
    for options in (atk.plan(9, 3, exact=True).request.options, atk.plan(9, 3, buckets=4).request.options):
        torch.library.opcheck(torch.ops.approxtopk.select.default, (sample, 2, *options))


@pytest.mark.parametrize("options", [{}, {"mode": "smallest", "index_dtype": "int32"}, {"sorted": False}])
@pytest.mark.parametrize("named", [{}, {"buckets": 8, "k_per_bucket": 2, "interleaved": False}])
def test_one_cache_holds_every_plan(torch: Any, sample: Any, options: dict[str, Any], named: dict[str, Any]) -> None:
    """What is met again below a dispatcher or under vmap is planned as the call is, in the cache that tests clear."""
    from approxtopk.call import cached_plan as used
    from approxtopk.planning.cached import cached_plan, replan

    assert used is cached_plan
    plan = atk.plan(tuple(sample.shape), 5, device="sm_90", **options, **named)
    r = plan.request
    assert replan(r.options, r.shape, r.strides, r.dtype.name, r.axis, plan.device) == plan
    x = sample.transpose(0, 1)
    want = atk.approx_top_k(x, 5, **options, **named)
    cached_plan.cache_clear()
    got = torch.vmap(lambda row: tuple(atk.approx_top_k(row, 5, **options, **named)))(x)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert cached_plan.cache_info().currsize == 2  # of the row as it is traced, and of the batch


# --- JAX ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def jax() -> types.ModuleType:
    return pytest.importorskip("jax")


def test_jax_transformations(jax: Any) -> None:
    x = jax.numpy.asarray(rows((5, 6), 1, seed=4), "float32")
    ours = objective(lambda x, k: atk.top_k(x, k))
    theirs = objective(lambda x, k: jax.lax.top_k(x, k))
    changes = {
        "jit": jax.jit,
        "grad": jax.grad,
        "hessian": jax.hessian,
        "vmap": jax.vmap,
        "vmap of grad": lambda f: jax.vmap(jax.grad(f)),
        "vmap of columns": lambda f: jax.vmap(f, in_axes=1),
        "vmap of vmap": lambda f: jax.vmap(lambda y: jax.vmap(lambda z: f(z * jax.numpy.ones(6)))(y[:, None])),
        "jit of vmap of grad": lambda f: jax.jit(jax.vmap(jax.grad(f))),
        "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x + 1,))[1],
        "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    }
    for name, change in changes.items():
        if name == "vmap of columns":
            continue  # columns hold ties
        np.testing.assert_allclose(change(ours)(x), change(theirs)(x), rtol=1e-6, err_msg=name)
    columns = jax.vmap(lambda y: atk.top_k(y, 2)[0], in_axes=1)(x)
    np.testing.assert_array_equal(columns, jax.lax.top_k(x.T, 2)[0])
    total = jax.lax.scan(lambda c, row: (c + atk.top_k(row, 2)[0].sum(), None), 0.0, x)[0]
    assert total == jax.lax.top_k(x, 2)[0].sum()


def test_jax_traced_backend_is_not_stale(jax: Any) -> None:
    x = jax.numpy.asarray(rows((5, 4000), 1), "float32")
    machine = Machine()
    atk.top_k(x, 7)
    with substitute("cpu", machine):
        jax.block_until_ready(atk.top_k(x, 7))
    assert machine.runs and machine.prepared


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_jax_drop_ins(jax: Any, axis: int) -> None:
    from approxtopk.adapters.jax import approx_max_k, approx_min_k, top_k

    x = jax.numpy.asarray(rows((6, 7), axis, seed=5), "float32")
    for ours, theirs in (
        (top_k(x, 3, axis=axis), jax.lax.top_k(x, 3, axis=axis)),
        (approx_max_k(x, 3, axis, 1.0), jax.lax.approx_max_k(x, 3, axis, 1.0)),
        (approx_min_k(x, 3, reduction_dimension=axis), jax.lax.approx_min_k(x, 3, axis)),
    ):
        assert type(ours) is type(theirs) and len(ours) == 2
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1].dtype == theirs[1].dtype
    np.testing.assert_array_equal(top_k(np.asarray(x), 2)[1], jax.lax.top_k(x, 2)[1])
    flags = x > 3
    assert top_k(flags, 2)[0].dtype == bool and type(top_k(flags, 2)) is type(jax.lax.top_k(flags, 2))
    alike = [jax.tree.structure(jax.eval_shape(lambda x, f=f: f(x, 3), x)) for f in (top_k, jax.lax.top_k)]
    assert alike[0] == alike[1]
    np.testing.assert_array_equal(top_k(flags, 2)[0], jax.lax.top_k(flags, 2)[0])


def test_jax_sharded_is_refused(jax: Any) -> None:
    code = """
        import jax, jax.numpy as jnp, numpy as np, approxtopk as atk
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
        x = jax.device_put(jnp.zeros((4, 8)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))
        try:
            atk.top_k(x, 2)
        except atk.DeviceMismatch as error:
            print(error)
    """
    assert "x is sharded over 2 devices; allowed is one" in python(
        code, XLA_FLAGS="--xla_force_host_platform_device_count=2"
    )


# --- CuPy -----------------------------------------------------------------------------------------------------------


def test_cupy_description() -> None:
    cupy = pytest.importorskip("cupy")
    from approxtopk.adapters import registry

    host = np.zeros(60, np.float32)
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
    x = cupy.ndarray((3, 4, 5), np.float32, cupy.cuda.MemoryPointer(memory, 0))
    adapter = registry.find(x)
    assert (adapter.name, adapter.default_index) == ("cupy", "int64")
    facts = adapter.facts(x[1:, ::-1].transpose(2, 0, 1))
    assert facts.shape == (5, 2, 4) and facts.strides == (1, 20, -5)
    assert facts.pointer == host.ctypes.data + (20 + 15) * 4
    assert (facts.dtype, facts.device) == ("float32", Device("cuda", 0))


def test_cupy_run_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter's own steps, with CuPy's driver calls replaced and its arrays on the host."""
    cupy = pytest.importorskip("cupy")
    from approxtopk.adapters import cupy as adapter

    log: list[Any] = []

    def empty(shape: Any, dtype: Any) -> Any:
        host = np.empty(shape, dtype)
        log.append(("empty", host.dtype.name))
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        array = cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))
        hosts[array.data.ptr] = host
        return array

    def device(index: int) -> AbstractContextManager[Any]:
        log.append(("device", index))
        return nullcontext()

    class Gpu(Machine):
        def run(self, step: Any, plan: Any, buffers: Any, stream: int) -> None:
            assert all(buffer.device == Device("cuda", 0) for buffer in buffers.values())
            if step is plan.steps[-1]:
                log.append(("stream", stream))
                self.host.run(step, plan, buffers, stream)

    hosts: dict[int, np.ndarray] = {}
    runtime = types.SimpleNamespace(is_hip=False)
    stream = types.SimpleNamespace(ptr=7)
    cuda = types.SimpleNamespace(runtime=runtime, Device=device, get_current_stream=lambda: stream)
    monkeypatch.setattr(adapter, "cupy", types.SimpleNamespace(cuda=cuda, empty=empty))
    reference = rows((5, 300), 1).astype(np.float32)
    memory = cupy.cuda.UnownedMemory(reference.ctypes.data, reference.nbytes, reference, 0)
    x = cupy.ndarray(reference.shape, np.float32, cupy.cuda.MemoryPointer(memory, 0))
    with substitute("cuda", Gpu()):
        values, indices = atk.top_k(x, 9)
    np.testing.assert_array_equal(hosts[indices.data.ptr], expected(reference, 9, 1)[1])
    np.testing.assert_array_equal(hosts[values.data.ptr], expected(reference, 9, 1)[0])
    assert log[:3] == [("device", 0), ("empty", "float32"), ("empty", "int64")] and log[-1] == ("stream", 7)


# --- DLPack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("strides", [True, False])
def test_dlpack_reader(versioned: bool, strides: bool) -> None:
    reference = rows((4, 20), 1).astype(np.float32)
    x = Foreign(reference, versioned, strides, flags=1, skip=12)
    indices = atk.top_k(x, 3).indices
    np.testing.assert_array_equal(indices, expected(reference, 3, 1)[1])
    assert x.deleted == 1


def test_dlpack_strides() -> None:
    reference = rows((4, 20), 1).astype(np.int16)
    x = Foreign(reference.T[::-1])
    np.testing.assert_array_equal(atk.top_k(x, 3, axis=0)[1], expected(reference.T[::-1], 3, 0)[1])


def test_dlpack_memory_is_given_back_once_on_errors() -> None:
    x = Foreign(rows((4, 20), 1).astype(np.float32))
    for count in (1, 2):
        with pytest.raises(atk.InvalidArgument) as caught:
            atk.top_k(x, 21)
        del caught
        assert x.deleted == count

    class Fails(Machine):
        def run(self, *_: Any) -> None:
            raise RuntimeError("planted")

    with substitute("cpu", Fails()), pytest.raises(RuntimeError, match="planted"):
        atk.top_k(x, 2)
    assert x.deleted == 3


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dlpack_result_by_the_namespace(torch: Any, dtype: str) -> None:
    class Foreigner:
        def __init__(self, x: Any) -> None:
            self.x = x

        def __dlpack__(self, **keywords: Any) -> object:
            return self.x.__dlpack__(**keywords)

        def __dlpack_device__(self) -> Any:
            return self.x.__dlpack_device__()

        def __array_namespace__(self) -> Any:
            return torch

    reference = rows((4, N), 1)
    values, indices = atk.top_k(Foreigner(torch.from_numpy(reference).to(getattr(torch, dtype))), 3)
    assert values.dtype is getattr(torch, dtype) and indices.dtype is torch.int64
    np.testing.assert_array_equal(indices.numpy(), expected(reference, 3, 1)[1])
    np.testing.assert_array_equal(values.double().numpy(), expected(reference, 3, 1)[0])


class Housed(Foreign):
    """Of a namespace that is given: a callable that `__array_namespace__` is, or the error it raises."""

    def __init__(self, x: np.ndarray, namespace: Any) -> None:
        super().__init__(x)
        self.namespace = namespace

    def __array_namespace__(self) -> Any:
        if isinstance(self.namespace, Exception):
            raise self.namespace
        return self.namespace


def refuse(x: Any) -> Any:
    raise BufferError("not from strangers")


def take_no_integers(x: Any) -> Any:
    return refuse(x) if isinstance(x, np.ndarray) and x.dtype == np.int64 else np.from_dlpack(x)


NAMESPACES = {
    "NumPy's": np,
    "wrapped NumPy": types.SimpleNamespace(from_dlpack=np.from_dlpack),
    "raises": RuntimeError("no standard here"),
    "lacks it": types.SimpleNamespace(),
    "None": None,
    "not callable": types.SimpleNamespace(from_dlpack=3),
    "refuses": types.SimpleNamespace(from_dlpack=refuse),
    "refuses indices": types.SimpleNamespace(from_dlpack=take_no_integers),
    "no bfloat16": types.SimpleNamespace(from_dlpack=lambda x: np.from_dlpack(x)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("name", NAMESPACES)
def test_dlpack_result_where_the_namespace_does_not_take_it(name: str, dtype: str) -> None:
    reference = rows((4, N), 1)
    x = Housed(NumPy().make(reference, dtype), NAMESPACES[name])
    values, indices = atk.top_k(x, 3)
    assert type(values) is type(indices) is np.ndarray
    assert (values.dtype.name, indices.dtype.name) == (dtype, "int64")
    np.testing.assert_array_equal(values.astype(float), expected(reference, 3, 1)[0])
    np.testing.assert_array_equal(indices, expected(reference, 3, 1)[1])
    assert x.deleted == 1
    assert atk.top_k(x, 0).values.shape == (4, 0)


def test_dlpack_without_ml_dtypes_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from approxtopk.adapters import dlpack

    def missing(name: str) -> Any:
        raise atk.BackendMissing("x has dtype bfloat16, which NumPy has through ml_dtypes only")

    x = Housed(NumPy().make(rows((4, N), 1), "bfloat16"), np)
    monkeypatch.setattr(dlpack, "_numpy_dtype", missing)
    machine = Machine()
    with substitute("cpu", machine), pytest.raises(atk.BackendMissing, match="ml_dtypes"):
        atk.top_k(x, 3)
    assert (machine.runs, x.deleted) == (0, 1)


# --- plan -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("f4", "float32"),
        ("half", "float16"),
        ("double", "float64"),
        (float, "float64"),
        (np.longlong, "int64"),
        (np.uint8, "uint8"),
        (np.dtype("<i2"), "int16"),
        ("bfloat16", "bfloat16"),
        ("float8_e5m2", "float8_e5m2"),
    ],
)
def test_plan_takes_the_dtype_as_numpy_spells_it(spelling: Any, name: str) -> None:
    assert atk.plan(100, 3, dtype=spelling, device="cpu").request.dtype.name == name
    if name.startswith("int"):
        assert atk.plan(100, 3, index_dtype="i4", device="cpu").request.index_dtype == "int32"


def test_plan_takes_every_frameworks_dtypes_and_devices(torch: Any, jax: Any) -> None:
    import ml_dtypes

    for dtype in (torch.bfloat16, jax.numpy.bfloat16, ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        assert atk.plan(100, 3, dtype=dtype, device="cpu").request.dtype.name == "bfloat16"
    for index in (torch.int32, jax.numpy.int32, np.int32, np.dtype("i4"), "i4", "int32"):
        assert atk.plan(100, 3, index_dtype=index, device="cpu").request.index_dtype == "int32"
    for device in ("cpu:0", torch.device("cpu"), torch.device("cpu", 0), jax.devices("cpu")[0], Device("cpu")):
        assert atk.plan(100, 3, device=device).device.architecture == "cpu"
    with substitute("cuda", Machine()):
        for device in ("cuda", torch.device("cuda"), torch.device("cuda:1"), Device("cuda", 2)):
            assert atk.plan(100, 3, device=device).device.architecture == "sm_90"


def test_print_of_a_plan() -> None:
    plan = atk.plan(2**20, 64, buckets=2**13, k_per_bucket=4, device="sm_90")
    assert 0.9999995 < plan.expected_recall < 1 and "  expected recall  1 - " in str(plan)
    for recall, shown in ((1 - 2.0**-30, "1 - 9.3e-10"), (1.0, "1"), (0.95, "0.95"), (0.999999, "0.999999")):
        assert f"  expected recall  {shown}\n" in str(dataclasses.replace(plan, expected_recall=recall))
    assert "  bytes read       0 B\n" in str(atk.plan((4, 100), 0, device="sm_90"))
    assert "(1 x the input)" in str(atk.plan((4, 100), 3, device="cpu"))
    first, other = atk.plan(2**20, 64, device="sm_90").steps[0], atk.plan((4, 100), 3, device="cpu").steps[0]
    lines = str(dataclasses.replace(plan, steps=(first, first, first, other, first))).splitlines()
    steps = lines[lines.index("  launches         5") + 1 : -2]
    assert len(steps) == 3 and steps[0].endswith(", x 3") and steps[0].startswith(steps[2])


@pytest.mark.skipif(gpu_present(), reason="there is a GPU to plan for")
def test_plan_does_not_import_cupy_for_want_of_a_driver() -> None:
    code = """
        import ctypes, sys
        import approxtopk as atk
        def missing(*_): raise OSError("no driver")
        ctypes.CDLL = missing
        print(atk.plan(100, 3).device.architecture, "cupy" in sys.modules)
    """
    assert python(code).split() == ["cpu", "False"]


# --- importing ------------------------------------------------------------------------------------------------------


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter that finds this approxtopk; what it printed."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(atk.__file__)))
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_imports_no_framework() -> None:
    code = """
        import sys
        import approxtopk, numpy
        approxtopk.top_k(numpy.arange(5), 2)
        try:
            approxtopk.top_k([1], 1)
        except TypeError:
            pass
        print([name for name in ("torch", "jax", "jaxlib", "cupy") if name in sys.modules])
    """
    assert python(code).strip() == "[]"


def test_importing_is_quick(tmp_path: Any) -> None:
    code = """
        import numpy, time
        start = time.process_time()
        import approxtopk
        print(time.process_time() - start)
    """
    # As installed: with bytecode, which the first run writes (compiling it takes longer than all the rest).
    settings = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    best = min(float(python(code, **settings)) for _ in range(5))
    assert best <= 0.030, f"{best * 1e3:.1f} ms"
