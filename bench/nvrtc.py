"""NVRTC without a driver: what CuPy would compile, and what the compiler made of it."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from approxtopk.planning.variants import Variant
from approxtopk.runtime.source import OPTIONS, source

__all__ = ["Compiled", "Usage", "available", "compile_text", "compile_variant", "version"]


class Usage(NamedTuple):
    """What one entry point needs, as ptxas reports it: registers of a thread, the rest in bytes."""

    registers: int
    stack: int
    spilled: int
    shared: int


class Compiled(NamedTuple):
    """A cubin, its entry points by name, and the processor seconds it took: those of an idle machine, nearly."""

    cubin: bytes
    usage: dict[str, Usage]
    seconds: float


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def compile_variant(variant: Variant, architecture: str) -> Compiled:
    """Compile as ``CudaRuntime`` does through CuPy, with its report of resources on.

    Raises
    ------
    RuntimeError
        With the compiler's log, when it refuses.
    """
    # What CuPy 14 adds (cupy/cuda/compiler.py), in its order; only the ptxas flag is ours.
    flags = (
        *OPTIONS,
        "-ftz=true",
        f"-arch={architecture}",
        "--device-as-default-execution-space",
        "--ptxas-options=-v",
    )
    return compile_text(source(variant), flags)  # type: ignore[arg-type]


def compile_text(text: str, flags: Sequence[str]) -> Compiled:
    """Compile a source with just these flags."""
    library = _library()
    assert library is not None, "no NVRTC: pip install nvidia-cuda-nvrtc-cu12"
    start = time.thread_time()
    program = ctypes.c_void_p()
    status = library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    assert status == 0, f"nvrtcCreateProgram: {status}"
    try:
        array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        status = library.nvrtcCompileProgram(program, len(flags), array)
        log = _output(library, program, "ProgramLog").rstrip(b"\0").decode()
        if status:
            raise RuntimeError(f"NVRTC, with {' '.join(flags)}:\n{log}")
        cubin = _output(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    seconds = time.thread_time() - start
    usage = {}
    for entry in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        usage[entry["name"]] = Usage(
            int(entry["registers"]),
            int(entry["stack"]),
            int(entry["stores"]) + int(entry["loads"]),
            int(shared[1]) if shared else 0,
        )
    return Compiled(cubin, usage, seconds)


def available() -> bool:
    """Whether NVRTC is installed."""
    return _library() is not None


def version() -> tuple[int, int]:
    """NVRTC's own."""
    library = _library()
    assert library is not None
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


@cache
def _library() -> ctypes.CDLL | None:
    """The library of NVIDIA's wheel, found as CuPy finds it (cuda-pathfinder comes with CuPy)."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        path = load_nvidia_dynamic_lib("nvrtc").abs_path
    except (ImportError, RuntimeError):
        return None
    return ctypes.CDLL(path) if path else None


def _output(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw
