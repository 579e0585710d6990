"""What approxtopk finds on this machine, what is missing, and how to install it."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from . import __version__
from .buffer import Device
from .runtime import serving

__all__ = ["report"]

_CUPY = ("cupy-cuda12x", "cupy-cuda13x")


def report() -> str:
    """Return a few lines for a person: frameworks, GPUs, CUDA, NVRTC, the kernel cache, and what is missing.

    Needs nothing but NumPy. Frameworks that are installed are imported; none is asked to start on a GPU but CuPy.
    """
    driver = _driver()
    torch, torch_line = _import("torch")
    torch_cuda = getattr(getattr(torch, "version", None), "cuda", None)
    if torch is not None:
        torch_line += f", built for CUDA {torch_cuda}" if torch_cuda else ", built for CPUs"
    # CuPy's CUDA should be PyTorch's, which shares the process, else the driver's.
    newest = int(torch_cuda.split(".")[0]) if torch_cuda else driver // 1000
    install = f'pip install "approxtopk[cuda{13 if newest >= 13 else 12}]"'

    rows = [
        ("approxtopk", f"{__version__} in {os.path.dirname(__file__)}"),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        ("PyTorch", torch_line),
        ("JAX", _jax()),
        *_cupy(),
        ("NVIDIA driver", _dotted(driver, "for CUDA ") if driver else "not found"),
        ("GPUs", _gpus()),
    ]
    found = dict(rows)
    missing = []
    for name, package in (("PyTorch", "torch"), ("JAX", "jax")):
        if found[name] == "not installed":
            missing.append(f'{name}, for its arrays: pip install "approxtopk[{package}]"')
    if not driver:
        missing.append("an NVIDIA GPU and its driver, for arrays on a GPU; those on a CPU are served without")
    wheels = [name for name in _CUPY if _version(name)]
    if len(wheels) > 1:
        missing.append(f"one CuPy: {' and '.join(wheels)} break each other; pip uninstall both, then {install}")
    elif not found["NVRTC"][0].isdigit():
        missing.append(f"CuPy with NVRTC, which compiles the kernels for a GPU: {install}")
    lacks = [name for name, module in (("scikit-learn", "sklearn"), ("tqdm", "tqdm")) if find_spec(module) is None]
    if lacks:
        missing.append(f'{" and ".join(lacks)}, for the demo: pip install "approxtopk[demo]"')
    rows += [("missing" if i == 0 else "", text) for i, text in enumerate(missing or ["nothing"])]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _driver() -> int:
    """The newest CUDA that NVIDIA's driver serves, as it writes it (12090 is 12.9); 0 without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        newest = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(newest)) == 0:
            return newest.value
    return 0


def _jax() -> str:
    """JAX and its GPU plugin; its devices are not asked for, which would reserve most of a GPU's memory."""
    jax, line = _import("jax")
    if jax is None:
        return line
    plugins = [f"{name} {found}" for major in (12, 13) if (found := _version(name := f"jax-cuda{major}-plugin"))]
    return f"{line}, {' and '.join(plugins) or 'for CPUs'}"


def _cupy() -> list[tuple[str, str]]:
    """CuPy, the NVRTC it compiles with, and where it keeps compiled kernels."""
    cupy, line = _import("cupy")
    if cupy is None:
        return [("CuPy", line), ("NVRTC", "unknown without CuPy"), ("kernel cache", "none without CuPy")]
    line += f", CUDA runtime {_tried(lambda: _dotted(cupy.cuda.runtime.runtimeGetVersion()))}"
    # As CuPy computes it (cupy.cuda._compiler_cache), which has no public name for it.
    cache = os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache")
    return [
        ("CuPy", line),
        ("NVRTC", _tried(lambda: "{}.{}".format(*cupy.cuda.nvrtc.getVersion()))),
        ("kernel cache", f"{cache} (CuPy's; the environment variable CUPY_CACHE_DIR moves it)"),
    ]


def _gpus() -> str:
    """The GPUs that approxtopk can use."""
    if find_spec("cupy") is None:
        return "unknown without CuPy"

    def named() -> str:
        import cupy

        runtime = serving(Device("cuda"))
        infos = [runtime.device_info(Device("cuda", i)) for i in range(cupy.cuda.runtime.getDeviceCount())]
        return "; ".join(f"{info.name} ({info.architecture})" for info in infos)

    return _tried(named, "none: ")


def _tried(ask: Callable[[], str], otherwise: str = "does not load: ") -> str:
    """What `ask` answers, or the first line of its error: a broken installation is what `info` is for."""
    try:
        return ask()
    except Exception as error:
        return otherwise + _first(error)


def _import(name: str) -> tuple[Any, str]:
    """The module, or None, and what to say of it."""
    if find_spec(name) is None:
        return None, "not installed"
    try:
        module = import_module(name)
    except Exception as error:
        return None, f"installed, but does not import: {_first(error)}"
    return module, str(module.__version__)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _dotted(cuda: int, before: str = "") -> str:
    """CUDA's version for a person."""
    return f"{before}{cuda // 1000}.{cuda % 1000 // 10}"


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
