"""What a figure depends on besides the code: machine, versions, date, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import approxtopk as atk

__all__ = ["gpu_here", "processors", "provenance"]

_PACKAGES = ("numpy", "torch", "jax", "jaxlib", "cupy-cuda12x", "cupy-cuda13x", "triton", "flashinfer-python",
             "pylibraft-cu12", "pylibraft-cu13", "approx-topk", "entmax")  # fmt: skip


def provenance(command: str, device: str) -> dict[str, Any]:
    """Note when, where and with what; `device` is ``"cpu"`` or ``"cuda"``."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([command, *sys.argv[1:]]),
        "commit": _commit(),
        "host": {
            "cpu": _cpu(),
            "threads": processors(),
            "system": platform.platform(),
            **({"load": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {}),
        },
        "device": _gpu() if device == "cuda" else {"name": _cpu()},
        "versions": {
            "python": platform.python_version(),
            "approxtopk": atk.__version__,
            **{name: version for name in _PACKAGES if (version := _version(name))},
        },
    }


def processors() -> int:
    """How many threads this process may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_here() -> bool:
    """Whether there is a GPU that CuPy can use."""
    try:
        import cupy

        return bool(cupy.cuda.is_available())
    except ImportError:
        return False


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    """The checkout's commit, with a mark where files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    told = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _gpu() -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "name": properties["name"].decode(),
        "architecture": f"sm_{properties['major']}{properties['minor']}",
        "multiprocessors": int(properties["multiProcessorCount"]),
        "memory": int(properties["totalGlobalMem"]),
        "l2": int(properties["l2CacheSize"]),
        "driver": runtime.driverGetVersion(),
        "cuda": runtime.runtimeGetVersion(),
        "nvrtc": list(cupy.cuda.nvrtc.getVersion()),
    }
