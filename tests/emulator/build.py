"""Compiling the core and the kernels with g++, once each, into a cache on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BuildError", "build", "cache_directory"]

_HERE = Path(__file__).resolve().parent
_CORE_FILES = ("core.cpp", "context.h", "memory.h", "report.h", "interface.h")
_KERNEL_FILES = ("device.h", "interface.h")

# Stack probes make a frame larger than a guard page fault instead of reaching over it.
# -O1 is the best sum of compile and run time; aliasing rules are off because CUDA code casts pointers freely.
_COMMON = ("-std=c++17", "-fPIC", "-shared", "-g0", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti")
_CORE = ("-O2", "-fno-stack-protector", "-Wall", "-Wextra")
_KERNEL = ("-O1", "-w", "-fwrapv", "-fstack-clash-protection", "-fno-plt", "-fvisibility=hidden")
_SANITIZE = ("-fsanitize=address", "-fno-omit-frame-pointer", "-g1")


class BuildError(RuntimeError):
    """The compiler rejected a source; the message carries its log."""


def cache_directory() -> Path:
    """The folder of compiled libraries: ``$APPROXTOPK_EMULATOR_CACHE`` or one of the user's own in the temp dir."""
    chosen = os.environ.get("APPROXTOPK_EMULATOR_CACHE")
    path = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"approxtopk-emulator-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def _compiler_version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _text_of(names: tuple[str, ...]) -> str:
    return "\0".join((_HERE / name).read_text() for name in names)


class _OnePerKey:
    """Runs a function once per key, however many threads ask; a failure is not remembered."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._done: dict[str, Path] = {}

    def get(self, key: str, make) -> Path:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._done:
                self._done[key] = make()
            return self._done[key]


_libraries = _OnePerKey()


def _compile(stem: str, flags: Sequence[str], source: str, hashed: str) -> Path:
    """Compile `source` unless the cache has it; `hashed` is all else that the result depends on."""
    compiler = _compiler()
    parts = (_compiler_version(compiler), compiler, *flags, hashed, source)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    directory = cache_directory()
    path = directory / f"{stem}-{key}.so"

    def make() -> Path:
        if path.exists():
            return path
        # Several processes may get here together: each writes a file of its own, the last rename wins.
        descriptor, temporary = tempfile.mkstemp(prefix=f"{stem}-", suffix=".tmp", dir=directory)
        os.close(descriptor)
        try:
            command = [compiler, "-x", "c++", "-", "-x", "none", *flags, "-I", str(_HERE), "-o", temporary]
            done = subprocess.run(command, input=source, capture_output=True, text=True)
            if done.returncode:
                raise BuildError(f"{' '.join(command)}\n{done.stderr}")
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return path

    return _libraries.get(str(path), make)


def build(source: str, defines: Sequence[tuple[str, int]], kernel: str, sanitize: bool) -> tuple[Path, Path]:
    """Compile the core and one kernel.

    Parameters
    ----------
    source : str
        The kernel's joined source.
    defines : sequence of (str, int)
        Its macros.
    kernel : str
        The entry point.
    sanitize : bool
        Whether to compile with the address sanitizer.

    Returns
    -------
    core, library : Path
        The two shared libraries; the second is linked to the first.
    """
    extra = _SANITIZE if sanitize else ()
    core_source = f'#include "{_HERE / "core.cpp"}"\n'
    core = _compile("core", (*_COMMON, *_CORE, *extra), core_source, _text_of(_CORE_FILES))
    # Macros come after the emulator's header, which they could otherwise break.
    macros = "".join(f"#define {name} {value}\n" for name, value in defines)
    # The core is found beside the kernel, wherever the cache lies.
    link = (str(core), "-Wl,-rpath,$ORIGIN", "-Wl,-z,now")
    before = f'#define APPROXTOPK_EMULATED 1\n#include "device.h"\n{macros}#line 1 "kernel.cu"\n'
    joined = f"{before}{source}\nEMULATOR_ENTRY({kernel})\n"
    flags = (*_COMMON, *_KERNEL, *extra, *link)
    return core, _compile(kernel, flags, joined, _text_of(_KERNEL_FILES))
