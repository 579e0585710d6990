"""A roofline without a GPU: what the compiler made of the hot loops, against what full bandwidth leaves room for.

NVRTC compiles without a driver and a wheel of NVIDIA's disassembles; the loop that streams the row is found in the
machine code and its instructions are counted. While memory delivers at full speed, a multiprocessor can issue so many
instructions for every element, half as many of those that compare, take minima, or do logic. A loop that needs more is
bound by instructions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from approxtopk.dtypes import DTYPES
from approxtopk.planning.devices import REFERENCES
from approxtopk.planning.machines import Machine, machine_of
from approxtopk.planning.select import ways
from approxtopk.planning.variants import Variant, variants
from approxtopk.planning.walk import KEEP
from approxtopk.request import Request

from . import nvrtc, sass

__all__ = ["Loop", "filter_loop", "loops", "planned_variant", "usage", "walk_loop", "widest_walk"]

MAIN = "sm_90"
DTYPE_NAMES = ("float32", "bfloat16", "float16", "int8", "float8_e4m3fn", "float64", "int32")
#: Slots of a multiprocessor in a cycle, of all instructions and of those at half rate.
_ISSUE, _HALF_ISSUE = 128, 64


class Loop(NamedTuple):
    """The way round a loop that takes no detour, and all blocks that a way round may pass."""

    instructions: tuple[str, ...]
    elements: int
    load_bits: int
    detours: int


# ---- Which variants -------------------------------------------------------------------------------------------


def planned_variant(request: Request, kernel: str, architecture: str = MAIN, **defines: int) -> Variant:
    """A request's kernel with these macros, in whichever mapping the planner considers."""
    launches = (launch for draft in ways(request, REFERENCES[architecture]) for launch in draft.launches)
    found = (Variant(launch.kernel, launch.defines) for launch in launches)
    return next(v for v in found if v.kernel == kernel and defines.items() <= dict(v.defines).items())


def widest_walk(dtype: str, mode: str, kept: int, kernel: str = "bucket_walk", architecture: str = MAIN) -> Variant:
    """The walk of many buckets: as many neighbours a load as the planner ever takes."""
    request = Request.build(
        "approx_top_k", (4096, 2**15), (2**15, 1), dtype, 64, mode=mode, buckets=2**10, k_per_bucket=kept
    )
    return planned_variant(request, kernel, architecture)


def long_filter(dtype: str, mode: str, architecture: str = MAIN) -> Variant:
    """The filter of long contiguous rows."""
    request = Request.build("top_k", (4096, 2**17), (2**17, 1), dtype, 64, mode=mode)
    return planned_variant(request, "filter_row", architecture, SOURCE=0)


# ---- Their loops ----------------------------------------------------------------------------------------------


def walk_loop(variant: Variant, architecture: str = MAIN) -> Loop:
    """The loop of a walk without insertions."""
    defines = dict(variant.defines)
    bits = defines["VECTOR"] * defines["BITS"]
    load = r"\bLDG\.E" + (rf"\.{bits}\b" if bits > 32 else r"(\.[US]\d+)?\b(?!\.64|\.128)")
    return _loop(variant, architecture, load, bits)


def filter_loop(variant: Variant, architecture: str = MAIN) -> Loop:
    """The loop of a filter that meets no survivor."""
    return _loop(variant, architecture, r"\bLDG\.E\.128\b", 128)


def _loop(variant: Variant, architecture: str, load: str, bits: int) -> Loop:
    blocks = sass.disassemble(nvrtc.compile_variant(variant, architecture).cubin, variant.kernel)
    loop = sass.cheapest_loop(blocks, load)
    loads, defines = sass.count(loop, load), dict(variant.defines)
    assert loads == sass.count(loop, r"\bLDG\b") == defines["UNROLL"], variant
    return Loop(loop, loads * defines["VECTOR"], bits, sass.detours(blocks, load))


# ---- Against the budget ---------------------------------------------------------------------------------------


def loops(architectures: tuple[str, ...] = (MAIN,), dtypes: tuple[str, ...] = DTYPE_NAMES) -> Iterator[dict[str, Any]]:
    """The loops of the filter, and of the walk for every k_b, by element type."""
    for architecture in architectures:
        machine = machine_of(REFERENCES[architecture])
        for dtype in dtypes:
            for mode in ("largest", "smallest"):
                variant = long_filter(dtype, mode, architecture)
                yield _row(variant, filter_loop(variant, architecture), architecture, machine, dtype, mode, 0)
            for kept in KEEP:
                variant = widest_walk(dtype, "largest", kept, architecture=architecture)
                yield _row(variant, walk_loop(variant, architecture), architecture, machine, dtype, "largest", kept)


def _row(
    variant: Variant, loop: Loop, architecture: str, machine: Machine, dtype: str, mode: str, kept: int
) -> dict[str, Any]:
    itemsize = DTYPES[dtype].itemsize
    # Cycles a multiprocessor has for an element while memory delivers as fast as it can.
    cycles = itemsize / (machine.bandwidth / machine.multiprocessors / machine.clock)
    every, half = len(loop.instructions) / loop.elements, sass.half_rate(loop.instructions) / loop.elements
    inserting = insertion_share(32, 1024, kept) if kept else 0.0
    detour = inserting * loop.detours / loop.elements
    return {
        "architecture": architecture,
        "kernel": variant.kernel,
        "dtype": dtype,
        "mode": mode,
        "k_per_bucket": kept or None,
        **usage(variant, architecture),
        "load_bits": loop.load_bits,
        "instructions": every,
        "half_rate": half,
        "insertion": detour,
        "budget": _ISSUE * cycles,
        "half_rate_budget": _HALF_ISSUE * cycles,
        # The share of the pipe that is fuller; above 1 the loop is slower than memory.
        "load": max((every + detour) / (_ISSUE * cycles), half / (_HALF_ISSUE * cycles)),
    }


def insertion_share(lanes: int, size: int, kept: int) -> float:
    """The share of steps in which some of `lanes` buckets of `size` random entries takes the next one."""
    steps = (1 - (1 - min(1.0, kept / seen)) ** lanes for seen in range(1, size + 1))
    return sum(steps) / size


def usage(variant: Variant, architecture: str) -> dict[str, Any]:
    """What the compiler reports, and how many threads of a multiprocessor it leaves room for."""
    used = nvrtc.compile_variant(variant, architecture).usage[variant.kernel]
    machine = machine_of(REFERENCES[architecture])
    # Registers are given to warps in units of 256.
    warps = machine.registers // (256 * math.ceil(used.registers * 32 / 256))
    return {
        "registers": used.registers,
        "spilled": used.spilled + used.stack,
        "shared": used.shared,
        "occupancy": min(machine.most_threads, 32 * warps) / machine.most_threads,
    }


def all_usage(architecture: str = MAIN) -> Iterator[dict[str, Any]]:
    """Of every kernel and width of elements, over all common variants: how many, and the worst of each figure."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for variant in variants(architecture):
        if variant.common:
            key = variant.kernel, dict(variant.defines)["BITS"]
            found.setdefault(key, []).append(usage(variant, architecture))
    for (kernel, bits), used in sorted(found.items()):
        yield {
            "architecture": architecture,
            "kernel": kernel,
            "bits": bits,
            "variants": len(used),
            "registers": max(use["registers"] for use in used),
            "spilled": max(use["spilled"] for use in used),
            "shared": max(use["shared"] for use in used),
            "occupancy": min(use["occupancy"] for use in used),
        }
