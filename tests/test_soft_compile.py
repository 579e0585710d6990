"""The soft kernels compile as CuPy compiles them, beside what test_compile.py asks of all: no GPU, no driver."""

from __future__ import annotations

import random
from functools import cache

import pytest

from approxtopk.buffer import row_major
from approxtopk.dtypes import DTYPES
from approxtopk.plan import Launch
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.soft import plan_soft
from approxtopk.planning.variants import Variant, variants
from approxtopk.soft_request import KINDS, SoftRequest
from bench import nvrtc, sass

from .soft_calls import REALS
from .test_compile import MAIN, OTHERS, compiles_quickly, complaints, needs_nvdisasm, needs_nvrtc, skip_unless_compiled

#: The reference GPU with the least shared memory.
LEAST = min(REFERENCES, key=lambda name: REFERENCES[name].shared_bytes)


@cache
def soft_variants(architecture: str) -> tuple[Variant, ...]:
    """List them, in a fixed order."""
    return tuple(variant for variant in variants(architecture) if variant.kernel.startswith("soft_"))


# ---- The list ------------------------------------------------------------------------------------------------


def test_the_list_is_short() -> None:
    for architecture in (MAIN, LEAST):
        assert len(soft_variants(architecture)) == 96, "they are all compiled in tests"


@pytest.mark.parametrize("seed", range(2))
def test_random_requests_stay_in_the_list(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        request, architecture = random_request(rng), rng.choice((MAIN, LEAST))
        for step in plan_soft(request, REFERENCES[architecture]).steps:
            assert isinstance(step, Launch)
            assert Variant(step.kernel, step.defines) in soft_variants(architecture), request
            assert step.shared_bytes <= REFERENCES[architecture].shared_bytes


def random_request(rng: random.Random) -> SoftRequest:
    """A valid call, nothing allocated: rows of up to 2**33 entries, any strides, numbers alone or one a row."""
    rank = rng.choice((1, 2, 2, 3, 4, 5))
    shape = [rng.choice((1, 2, 3, 16)) for _ in range(rank)]
    axis = rng.randrange(rank)
    shape[axis] = int(2 ** rng.uniform(0, rng.choice((10, 20, 33))))
    order = rng.sample(range(rank), rank)
    step, strides = rng.choice((1, 1, 2)), [0] * rank
    for at in order:
        strides[at], step = step * rng.choice((1, 1, -1)), step * (shape[at] + rng.choice((0, 0, 1)))
    if rng.random() < 0.2:
        strides[rng.randrange(rank)] = 0
    dtype = rng.choice(REALS)
    real = "float64" if dtype == "float64" else "float32"
    batch = tuple(shape[:axis] + shape[axis + 1 :])
    name = rng.choice(SoftRequest.OPERATORS)
    one_a_row = (real, batch, tuple(stride * rng.choice((0, 1, 2)) for stride in row_major(batch)))
    given: dict[str, object] = {"l": rng.choice((0.1, one_a_row))}
    if not name.endswith("_vjp"):
        given["k"] = rng.choice((2.5, one_a_row))
    else:
        given["g"] = (dtype, tuple(shape), row_major(tuple(shape)))
    if name == "soft_top_k_magnitude_vjp":
        given["tau"] = one_a_row
    kind = "pnorm" if "magnitude" in name else rng.choice(KINDS)
    p = rng.choice((4 / 3, 2.0, 1.7, 5.0))
    return SoftRequest.build(name, tuple(shape), tuple(strides), dtype, axis=axis, kind=kind, p=p, **given)


# ---- What the compiler makes of them -------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("architecture", OTHERS)
def test_the_greatest_on_other_architectures(architecture: str) -> None:
    skip_unless_compiled(architecture)
    work = (v for v in widest(architecture) if v.kernel in ("soft_mask", "soft_magnitude"))
    assert not [line for variant in work for line in complaints(variant, architecture)]


def widest(architecture: str) -> tuple[Variant, ...]:
    """Those that take most registers: of 16 bits, with eight neighbours a load, not on chip."""
    wanted = {("BITS", 16), ("WIDE", 0), ("LARGEST_NUMBER", DTYPES["bfloat16"].largest_number)}
    found = (v for v in soft_variants(architecture) if wanted <= set(v.defines))
    return tuple(v for v in found if dict(v.defines).get("SOURCE", 0) == 0 and dict(v.defines).get("VECTOR", 8) == 8)


@needs_nvrtc
@pytest.mark.parametrize("kernel", ["soft_mask", "soft_magnitude"])
def test_they_compile_quickly(kernel: str) -> None:
    compiles_quickly(next(variant for variant in widest(MAIN) if variant.kernel == kernel), 0.6)


# ---- Machine code --------------------------------------------------------------------------------------------


def code(kernel: str, dtype: str, **wanted: int) -> tuple[str, ...]:
    """The instructions of a common variant."""
    bits, number = DTYPES[dtype].bits, DTYPES[dtype].largest_number
    facts = {("BITS", bits), ("LARGEST_NUMBER", number), ("WIDE", 0), *wanted.items()}
    variant = next(v for v in soft_variants(MAIN)[::-1] if v.kernel == kernel and facts <= set(v.defines))
    blocks = sass.disassemble(nvrtc.compile_variant(variant, MAIN).cubin, kernel)
    return tuple(text for block in blocks for text in block.instructions)


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_no_instruction_of_the_powers_takes_subnormals_for_zero(dtype: str) -> None:
    # What the emulator cannot see: it converts without being told to keep them.
    # Conversions in divisions of integers may, and what the library's powers look at of an exponent.
    flushing = r"\b(FADD|V?FMNMX|F2F)\S*\.FTZ|\bFSETP\S*\.FTZ(?!.*, 4\.(19|22))"
    forward = [code("soft_mask", dtype, SMOOTH=0, SOURCE=3), code("soft_magnitude", dtype, SOURCE=3)]
    for text in (*forward, code("soft_mask_vjp", dtype, SMOOTH=0), code("soft_magnitude_vjp", dtype)):
        assert sass.count(text, flushing) == 0
        assert sass.count(text, r"\bF2F\.F64\.F32\b") > 0 and sass.count(text, r"\bF2F\.F32\.F64\b") > 0


@needs_nvrtc
@needs_nvdisasm
def test_float16_is_converted_by_the_machine() -> None:
    for kernel, more in (("soft_mask", {"SMOOTH": 1, "SOURCE": 3}), ("soft_mask_vjp", {"SMOOTH": 1})):
        text = code(kernel, "float16", **more)
        assert sass.count(text, r"\bHADD2\.F32\b") > 0 and sass.count(text, r"\bF2FP\.F16\.F32") > 0


@needs_nvrtc
@needs_nvdisasm
def test_a_curve_of_float32_is_computed_in_float32() -> None:
    for kernel, more in (("soft_mask", {"SMOOTH": 1, "SOURCE": 3}), ("soft_mask_vjp", {"SMOOTH": 1})):
        text = code(kernel, "float32", **more)
        assert sass.count(text, r"\bMUFU\.EX2\b" if kernel == "soft_mask" else r"\bFFMA\b") > 0
        # No float is added by an atomic, whose order is anyone's.
        assert sass.count(text, r"\b(ATOM|RED)\S*\.(F16|F32|F64|BF16)") == 0
