"""The emulated device: compiles kernels for the CPU and launches them."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .build import build

__all__ = ["Emulator", "EmulatorError", "Kernel", "Range", "Stats", "sanitizer_environment"]

_MAX_GRID = 2**31 - 1
_MAX_BLOCK = 1024
_MASK64 = 2**64 - 1


class EmulatorError(RuntimeError):
    """A launch did what no kernel may do; the message names the block, the thread and what happened."""


class Stats(NamedTuple):
    """What one launch did.

    Attributes
    ----------
    bytes_loaded, bytes_stored : int
        Global memory traffic, as the kernel's intrinsics report it.
    switches : int
        How often the running thread changed.
    """

    bytes_loaded: int
    bytes_stored: int
    switches: int


class Range(NamedTuple):
    """Memory a launch may touch: an address, a size in bytes, and whether it may be written."""

    pointer: int
    nbytes: int
    writable: bool = True


@dataclass(frozen=True)
class Kernel:
    """A compiled entry point: its name, its library and the addresses needed to launch it."""

    name: str
    path: Path
    entry: int
    params_bytes: int
    core: ctypes.CDLL


class _RangeRecord(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_uint64), ("end", ctypes.c_uint64), ("writable", ctypes.c_uint64)]


class _LaunchRecord(ctypes.Structure):
    """`LaunchRecord` of core.cpp."""

    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("params", ctypes.c_char_p),
        ("ranges", ctypes.POINTER(_RangeRecord)),
        *((name, ctypes.c_uint64) for name in ("range_count", "grid", "block", "shared_bytes", "seed", "seconds")),
        *((name, ctypes.c_uint64) for name in ("bytes_loaded", "bytes_stored", "switches", "message_bytes")),
        ("message", ctypes.c_void_p),
    ]


# The core keeps its state in globals, and all emulators share it: one launch at a time in the whole process.
_launch_lock = threading.Lock()
_message = ctypes.create_string_buffer(4096)


class Emulator:
    """A device that runs CUDA kernels on the CPU, one thread at a time, in a seeded random order.

    Parameters
    ----------
    seed : int
        Decides every schedule, the order of the blocks and what uninitialised shared memory holds. The launches
        of one emulator draw different schedules from it; the same launches in the same order, the same ones.
    sanitize : bool
        Compile with the address sanitizer. The process must have been started in `sanitizer_environment`.
    architecture : str
        What the device says it is.
    multiprocessors : int
        How many it says it has.
    shared_bytes : int
        The most dynamic shared memory a block may ask for.
    seconds : int
        Processor time after which a launch is taken to hang and given up.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        sanitize: bool = False,
        architecture: str = "sm_90",
        multiprocessors: int = 132,
        shared_bytes: int = 232448 - 1024,
        seconds: int = 120,
    ) -> None:
        if sanitize and "libasan" not in Path("/proc/self/maps").read_text():
            raise EmulatorError("sanitize=True needs a process started in emulator.sanitizer_environment()")
        self.seed = seed
        self.sanitize = sanitize
        self.architecture = architecture
        self.multiprocessors = multiprocessors
        self.shared_bytes = shared_bytes
        self.seconds = seconds
        self._launches = itertools.count()
        self._kernels: dict[tuple, Kernel] = {}

    def compile(self, source: str, defines: Iterable[tuple[str, int]], kernel: str) -> Kernel:
        """Compile one variant of a kernel, or take it from the cache.

        Parameters
        ----------
        source : str
            Its source, all includes joined.
        defines : iterable of (str, int)
            The macros that pick the variant.
        kernel : str
            The entry point, which takes one struct of 8-byte members by value.

        Returns
        -------
        Kernel
            For `launch`; valid for every emulator of this process.
        """
        key = (source, tuple(defines), kernel)
        if key not in self._kernels:  # threads that get here together are kept to one compilation by `build`
            self._kernels[key] = _load(kernel, *build(*key, self.sanitize))
        return self._kernels[key]

    def launch(
        self,
        kernel: Kernel,
        grid: int,
        block: int,
        shared_bytes: int,
        params: bytes,
        ranges: Sequence[Range | tuple] | None = None,
        *,
        seed: int | None = None,
    ) -> Stats:
        """Run a kernel to its end.

        Parameters
        ----------
        kernel : Kernel
            From `compile`.
        grid, block : int
            Blocks and threads a block, both one-dimensional.
        shared_bytes : int
            Dynamic shared memory a block.
        params : bytes
            The kernel's parameter struct.
        ranges : sequence of Range or (pointer, nbytes[, writable]), optional
            If given, a counted access or an atomic on global memory outside all of them is an error.
        seed : int, optional
            A seed for this launch alone, instead of the next one drawn from the emulator's.

        Returns
        -------
        Stats
            Traffic and switches.

        Raises
        ------
        EmulatorError
            The launch is not one a device accepts, or the kernel did something wrong.
        """
        self._check(kernel, grid, block, shared_bytes, params)
        if seed is None:
            # An odd multiplier keeps launches of one emulator, and emulators of neighbouring seeds, apart.
            seed = (self.seed * 0x9E3779B97F4A7C15 + next(self._launches) * 0xD1342543DE82EF95) & _MASK64
        record = _LaunchRecord()
        record.entry = kernel.entry
        record.params = params
        if ranges is not None:
            # A range of no bytes is allowed nothing; at least one record means "check".
            allowed = [Range(*r) for r in ranges] or [Range(0, 0)]
            bounds = ((r.pointer, r.pointer + r.nbytes, r.writable) for r in allowed)
            record.ranges = (_RangeRecord * len(allowed))(*bounds)
            record.range_count = len(allowed)
        record.grid = grid
        record.block = block
        record.shared_bytes = shared_bytes
        record.seed = seed & _MASK64
        record.seconds = self.seconds
        with _launch_lock:
            record.message = ctypes.addressof(_message)
            record.message_bytes = len(_message)
            if kernel.core.approxtopk_emulator_launch(ctypes.byref(record)):
                raise EmulatorError(f"{kernel.name}: {_message.value.decode()}")
        return Stats(record.bytes_loaded, record.bytes_stored, record.switches)

    def fill(self, pointer: int, nbytes: int, byte: int) -> None:
        """Fill `nbytes` bytes from `pointer` with one value."""
        ctypes.memset(pointer, byte, nbytes)

    def _check(self, kernel: Kernel, grid: int, block: int, shared_bytes: int, params: bytes) -> None:
        """Refuse what a device would refuse."""
        limits = (("grid", grid, 1, _MAX_GRID), ("block", block, 1, _MAX_BLOCK))
        for name, value, low, high in (*limits, ("shared_bytes", shared_bytes, 0, self.shared_bytes)):
            if not low <= value <= high:
                raise EmulatorError(f"{kernel.name}: {name} is {value}, must be between {low} and {high}")
        if len(params) != kernel.params_bytes:
            raise EmulatorError(f"{kernel.name}: takes {kernel.params_bytes} bytes of parameters, got {len(params)}")


def _load(name: str, core_path: Path, path: Path) -> Kernel:
    """Open the core and a kernel's library, and find what a launch needs of them."""
    core = ctypes.CDLL(str(core_path))
    library = ctypes.CDLL(str(path))
    entry = ctypes.cast(library.emulator_entry, ctypes.c_void_p).value
    params_bytes = ctypes.c_ulong.in_dll(library, "emulator_params_bytes").value
    return Kernel(name, path, entry, params_bytes, core)


def sanitizer_environment() -> dict[str, str]:
    """The environment in which a process must be started for ``Emulator(sanitize=True)``."""
    compiler = os.environ.get("CXX", "g++")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself leaks on exit, and has its own ideas about signal stacks.
    return {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:use_sigaltstack=0:abort_on_error=0",
    }
