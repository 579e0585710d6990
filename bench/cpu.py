"""``python -m bench.cpu``: the NumPy path beside what its users would call instead.

All contenders of a shape run in turn, so that a busy machine disturbs them alike; median and minimum are of
the same repetitions. Results are sorted, best first, with indices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import numpy as np

import approxtopk as atk

SHAPES = [
    (1, 1 << 20, 64),
    (32, 50257, 50),
    (128, 65536, 64),
    (128, 65536, 4096),
    (16, 1 << 20, 65536),
    (65536, 64, 2),
    (4096, 512, 8),
    (1, 1024, 8),
]
"""Rows, n, k."""

Array = np.ndarray[Any, Any]
Contenders = dict[str, Callable[[], object]]


def numpy_route(x: Array, k: int) -> tuple[Array, Array]:
    """Do what NumPy's documentation leads to: argpartition, gather, sort the k (NaN aside)."""
    some = np.argpartition(x, x.shape[-1] - k, axis=-1)[..., -k:]
    values = np.take_along_axis(x, some, axis=-1)
    order = np.argsort(-values, axis=-1)
    return np.take_along_axis(values, order, axis=-1), np.take_along_axis(some, order, axis=-1)


def contenders(x: Array, k: int, threads: int) -> Contenders:
    """Make the calls to compare, by name; peers that are not installed are left out."""
    calls: Contenders = {
        "approx": lambda: atk.approx_top_k(x, k),
        "one pass": lambda: atk.approx_top_k(x, k, buckets=k, k_per_bucket=1),
        "exact": lambda: atk.top_k(x, k),
        "numpy": lambda: numpy_route(x, k),
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(threads)
        tensor = torch.from_numpy(x)
        calls["torch"] = lambda: torch.topk(tensor, k)
    try:
        import jax
    except ImportError:
        pass
    else:
        with jax.default_device(jax.devices("cpu")[0]):
            array = jax.numpy.asarray(x)
        top_k = jax.jit(jax.lax.top_k, static_argnums=1)
        calls["jax"] = lambda: jax.block_until_ready(top_k(array, k))
    return calls


def measure(calls: Contenders, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of each call: interleaved repetitions until `seconds` are over, three at least."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while len(times["approx"]) < 3 or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: {"median": statistics.median(t), "minimum": min(t), "repeats": len(t)} for name, t in times.items()}


def environment(threads: int) -> dict[str, Any]:
    """Note what a figure depends on besides the code."""
    versions = {}
    for name in ("numpy", "torch", "jax"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.cpu", *sys.argv[1:]]),
        "machine": {"cpu": cpu, "threads": threads, "system": platform.platform()},
        "versions": {"python": platform.python_version(), "approxtopk": atk.__version__, **versions},
    }


def main() -> None:
    """Print a table, in milliseconds: minimum (median)."""
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="also write figures, machine and versions here")
    parser.add_argument("--seconds", type=float, default=6.0, help="spent on each shape (default 6)")
    parser.add_argument("--dtype", default="float32", choices=["float16", "float32", "float64", "int32"])
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    report = environment(threads)
    print(f"{options.dtype}, {threads} threads, milliseconds: minimum (median)")
    results = []
    for rows, n, k in SHAPES:
        noise = np.random.default_rng(0).standard_normal((rows, n), dtype=np.float32)
        x = (noise * 1000 if options.dtype == "int32" else noise).astype(options.dtype)
        plan = atk.plan((rows, n), k, dtype=options.dtype, device="cpu")
        figures = measure(contenders(x, k, threads), options.seconds)
        results.append({"rows": rows, "n": n, "k": k, "dtype": options.dtype, "route": plan.route,
                        "buckets": plan.buckets, "k_per_bucket": plan.k_per_bucket, "ms": figures})  # fmt: skip
        cells = "  ".join(f"{name} {f['minimum']:.3f} ({f['median']:.3f})" for name, f in figures.items())
        print(f"{f'{rows} x {n}, k = {k}':22} {plan.route:8} {cells}", flush=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({**report, "results": results}, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
