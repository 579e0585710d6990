"""The loops that the compiler makes of the kernels of ranks are lean. No GPU, no driver."""

from __future__ import annotations

import re
from functools import cache

import pytest

from approxtopk.dtypes import DTYPES
from approxtopk.plan import Launch
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.rank import FEW, mappings
from approxtopk.planning.variants import Variant, variants
from approxtopk.rank_request import RankRequest
from bench import nvrtc, sass

from .test_compile import MAIN, OTHERS, needs_nvdisasm, needs_nvrtc

#: Instructions of the loop for one entry and target, all and those that run at half rate. A Hopper GPU reads at full
#: bandwidth with about 28 and 14 for 4 bytes, 14 and 7 for 2, 7 and 3.4 for 1.
LOOP: dict[str, tuple[float, float]] = {
    "float32": (5.5, 4.7),
    "float64": (7.0, 5.4),
    "float16": (2.5, 2.3),
    "bfloat16": (2.5, 2.3),
    "float8_e4m3fn": (2.8, 2.7),
    "float8_e5m2": (2.8, 2.7),
    "int8": (3.0, 2.9),
    "int16": (5.6, 4.8),
    "int32": (6.6, 5.7),
    "int64": (11.0, 9.3),
}
#: Compares and dot products of packed entries, beside what `bench.sass` counts.
PACKED = r"^(?:@!?U?P\w+ +)?(HSET2|FSET|IDP)\b"


def of_rank(architecture: str) -> tuple[Variant, ...]:
    """The variants of these kernels."""
    return tuple(variant for variant in variants(architecture) if variant.kernel.startswith("rank"))


def test_the_list_has_every_kind() -> None:
    found = of_rank(MAIN)
    # 12 kinds of floats and 4 of integers; one target, a few, many; neighbours or not; narrow and general.
    assert len(found) == 16 * 3 * 2 * 2
    for index in (("int64", (9,), (1,)), ("int8", (9, 0), (0, 1)), ("int32", (9, FEW), (FEW, 1)), 5):
        request = RankRequest.build("rank", (9, 77), (77, 1), "int16", index=index)
        for architecture in (MAIN, *OTHERS):
            for draft in mappings(request, REFERENCES[architecture]):
                for launch in draft.launches:
                    assert Variant(launch.kernel, launch.defines) in of_rank(architecture)


# ---- Machine code --------------------------------------------------------------------------------------------


def long_rows(dtype: str, mode: str, m: int, architecture: str = MAIN) -> Variant:
    """The kernel for many long contiguous rows."""
    request = RankRequest.build(
        "rank", (8192, 151552), (151552, 1), dtype, index=("int64", (8192, m), (m, 1)), mode=mode
    )
    (launch,) = (step for step in next(iter(mappings(request, REFERENCES[architecture]))).steps)
    assert isinstance(launch, Launch)
    return Variant(launch.kernel, launch.defines)


@cache
def machine_code(variant: Variant, architecture: str) -> list[sass.Block]:
    return sass.disassemble(nvrtc.compile_variant(variant, architecture).cubin, variant.kernel)


def stream(variant: Variant, architecture: str = MAIN) -> tuple[str, ...]:
    """The loop over loads that all exist and hold no target: one block that comes after itself."""
    blocks = machine_code(variant, architecture)
    loops = [block.instructions for at, block in enumerate(blocks) if at in block.following]
    unroll = dict(variant.defines)["UNROLL"]
    (loop,) = (loop for loop in loops if sass.count(loop, r"\bLDG\.E\.128\b") == unroll)
    return loop


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", LOOP)
def test_instructions_an_entry(dtype: str) -> None:
    most, most_half_rate = LOOP[dtype]
    for mode in ("largest", "smallest") if DTYPES[dtype].kind == "f" else ("largest",):
        variant = long_rows(dtype, mode, 1)
        loop, defines = stream(variant), dict(variant.defines)
        entries = defines["UNROLL"] * defines["VECTOR"]
        assert defines["VECTOR"] * DTYPES[dtype].itemsize == 16
        assert len(loop) / entries <= most, loop
        assert (sass.half_rate(loop) + sass.count(loop, PACKED)) / entries <= most_half_rate, loop
        assert sass.count(loop, r"\b(LD[LSCG]|ST[LSG]?|ATOM\w*|RED|SHFL|BAR)\b") == defines["UNROLL"], loop


# What the emulator cannot see: it runs portable twins of these instructions.


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_nan_counts_where_it_ranks_first(dtype: str) -> None:
    compare = r"\b[DFH]SETP?2?\S*\.({})\b"
    for mode, names in (("largest", ("GTU", "GEU")), ("smallest", ("LT", "LE"))):
        variant = long_rows(dtype, mode, 1)
        loop, defines = stream(variant), dict(variant.defines)
        # Not less than the bound, or NaN; of the smallest, at most the bound. Either may be said the other way round.
        entries = defines["UNROLL"] * defines["VECTOR"] // (2 if defines["BITS"] < 32 else 1)
        either = {"GTU": "GTU", "GEU": "GEU", "LT": "LT|GEU", "LE": "LE|GTU"}
        assert sass.count(loop, compare.format("|".join(either[name] for name in names))) == 2 * entries
        assert sass.count(loop, r"\b[DFH]SETP?2?\b") == 2 * entries
        for name in names:
            assert sass.count(loop, compare.format(either[name])) == entries
        assert (sass.count(loop, r"\bHSET2\.BF16") > 0) == (dtype in ("bfloat16", "float8_e4m3fn"))


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("mode", ["largest", "smallest"])
def test_no_instruction_takes_subnormals_for_zero(mode: str) -> None:
    cases = [(MAIN, "float32", 1), (MAIN, "float32", 9), (MAIN, "float16", 1), (MAIN, "bfloat16", 1)]
    for architecture, dtype, m in (*cases, ("sm_80", "bfloat16", 1), ("sm_80", "float8_e4m3fn", 1)):
        variant = long_rows(dtype, mode, m, architecture)
        text = [i for block in machine_code(variant, architecture) for i in block.instructions]
        # Conversions in integer divisions may.
        assert not [i for i in text if re.search(r"\b(FADD|V?[FH]MNMX2?|[FH]SETP?2?)\S*\.FTZ", i)], variant
        assert any(re.search(r"\b[FH]SETP?2?\b", i) for i in text), variant
