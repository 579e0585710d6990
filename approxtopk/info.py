"""What approxtopk finds on this machine, what is missing, and how to install it."""

from __future__ import annotations

import ctypes
import os
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from . import __version__
from .buffer import Device
from .errors import ApproxTopKError
from .runtime import serving

__all__ = ["report"]

_CUPY = ("cupy-cuda12x", "cupy-cuda13x")


def report() -> str:
    """Return a few lines for a person: frameworks, GPUs, CUDA, NVRTC, the kernel cache, and what is missing."""
    driver = _driver()
    torch_line, torch_cuda = _torch()
    major = _major(driver, torch_cuda)
    rows = [
        ("approxtopk", f"{__version__}, {os.path.dirname(__file__)}"),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        ("PyTorch", torch_line),
        ("JAX", _jax()),
        ("NVIDIA driver", f"for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "not found"),
    ]
    cupy, missing = _cupy(major, bool(driver))
    rows += cupy
    for name, line in (("torch", torch_line), ("jax", rows[4][1])):
        if line == "not installed":
            missing.append(f'{name} arrays: pip install "approxtopk[{name}]"')
    for package in ("sklearn", "tqdm"):
        if not _has(package):
            missing.append(f'{package}, for the demo: pip install "approxtopk[demo]"')
    lines = [f"{name:<15} {text}" for name, text in rows]
    lines.append(f"{'missing':<15} {missing[0] if missing else 'nothing'}")
    lines += [f"{'':<15} {text}" for text in missing[1:]]
    return "\n".join(lines)


def _driver() -> int:
    """CUDA version of the NVIDIA driver as it writes it (12090 is 12.9); 0 without one."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        found = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(found)) == 0:
            return found.value
    return 0


def _major(driver: int, torch_cuda: str | None) -> int:
    """The CUDA to install CuPy for: PyTorch's, as one process should hold one, else the driver's."""
    if torch_cuda:
        return 13 if int(torch_cuda.split(".")[0]) >= 13 else 12
    return 13 if driver >= 13000 else 12


def _torch() -> tuple[str, str | None]:
    torch, line = _import("torch")
    cuda = getattr(torch.version, "cuda", None) if torch else None
    if torch:
        line += f", built for CUDA {cuda}" if cuda else ", CPU build"
    return line, cuda


def _jax() -> str:
    # Not asked for its devices: that would reserve most of a GPU's memory.
    jax, line = _import("jax")
    if jax:
        plugins = [name for major in (12, 13) if (found := _version(name := f"jax-cuda{major}-plugin")) is not None]
        line += f", with {plugins[0]} {found}" if plugins else ", CPU only"
    return line


def _cupy(major: int, driver: bool) -> tuple[list[tuple[str, str]], list[str]]:
    """The lines on CuPy, NVRTC, GPUs and the cache, and what is missing of them."""
    missing = []
    install = f'pip install "approxtopk[cuda{major}]"'
    wheels = [name for name in _CUPY if _version(name)]
    if len(wheels) > 1:
        missing.append(f"one CuPy: {' and '.join(wheels)} break each other; pip uninstall both, then {install}")
    cupy, line = _import("cupy")
    rows = [("CuPy", line)]
    gpus = "none"
    if cupy is None:
        missing.append(f"CuPy, for arrays on a GPU: {install}")
    else:
        try:
            runtime = cupy.cuda.runtime.runtimeGetVersion()
            rows[0] = ("CuPy", f"{line}, with CUDA {runtime // 1000}.{runtime % 1000 // 10}")
        except Exception as error:
            rows[0] = ("CuPy", f"{line}; its CUDA runtime does not load: {_first(error)}")
        try:
            nvrtc = "{}.{}".format(*cupy.cuda.nvrtc.getVersion())
        except Exception as error:
            nvrtc = f"does not load: {_first(error)}"
            missing.append(f"NVRTC, which compiles the kernels: {install}")
        rows.append(("NVRTC", nvrtc))
        cache = cupy.cuda.compiler.get_cache_dir()
        rows.append(("kernel cache", f"{cache} (CuPy's; CUPY_CACHE_DIR moves it)"))
        try:
            count = cupy.cuda.runtime.getDeviceCount()
            infos = [serving(Device("cuda")).device_info(Device("cuda", i)) for i in range(count)]
            gpus = "; ".join(
                f"{i}: {info.name} ({info.architecture}, {info.multiprocessors} multiprocessors)"
                for i, info in enumerate(infos)
            )
        except ApproxTopKError as error:
            gpus = _first(error)
        except Exception as error:
            gpus = f"none ({_first(error)})"
    rows.append(("GPUs", gpus or "none"))
    if not driver:
        missing.append("a GPU with NVIDIA's driver: arrays on the CPU are served without")
    return rows, missing


def _import(name: str) -> tuple[Any, str]:
    """The module, or None, and what to say of it."""
    try:
        module = import_module(name)
    except ImportError as error:
        return None, "not installed" if error.name == name else f"installed, but does not import: {_first(error)}"
    except Exception as error:
        return None, f"installed, but does not import: {_first(error)}"
    return module, str(module.__version__)


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _first(error: Exception) -> str:
    """The error's first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
