"""What `plan` takes for dtypes and devices, and how a plan prints."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import approxtopk as atk
from approxtopk.buffer import Device
from approxtopk.runtime import substitute

from .fakes import Machine


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("f4", "float32"),
        ("half", "float16"),
        ("double", "float64"),
        (float, "float64"),
        (np.longlong, "int64"),
        (np.uint8, "uint8"),
        (np.dtype("<i2"), "int16"),
        ("bfloat16", "bfloat16"),
        ("float8_e5m2", "float8_e5m2"),
    ],
)
def test_plan_takes_the_dtype_as_numpy_spells_it(spelling: Any, name: str) -> None:
    assert atk.plan(100, 3, dtype=spelling, device="cpu").request.dtype.name == name
    if name.startswith("int"):
        assert atk.plan(100, 3, index_dtype="i4", device="cpu").request.index_dtype == "int32"


def test_plan_takes_every_frameworks_dtypes_and_devices() -> None:
    torch, jax, ml_dtypes = map(pytest.importorskip, ("torch", "jax", "ml_dtypes"))
    for dtype in (torch.bfloat16, jax.numpy.bfloat16, ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        assert atk.plan(100, 3, dtype=dtype, device="cpu").request.dtype.name == "bfloat16"
    for index in (torch.int32, jax.numpy.int32, np.int32, np.dtype("i4"), "i4", "int32"):
        assert atk.plan(100, 3, index_dtype=index, device="cpu").request.index_dtype == "int32"
    for device in ("cpu:0", torch.device("cpu"), torch.device("cpu", 0), jax.devices("cpu")[0], Device("cpu")):
        assert atk.plan(100, 3, device=device).device.architecture == "cpu"
    with substitute("cuda", Machine()):
        for device in ("cuda", torch.device("cuda"), torch.device("cuda:1"), Device("cuda", 2)):
            assert atk.plan(100, 3, device=device).device.architecture == "sm_90"


def test_print_of_a_plan() -> None:
    plan = atk.plan(2**20, 64, buckets=2**13, k_per_bucket=4, device="sm_90")
    assert 0.9999995 < plan.expected_recall < 1 and "  expected recall  1 - " in str(plan)
    for recall, shown in ((1 - 2.0**-30, "1 - 9.3e-10"), (1.0, "1"), (0.95, "0.95"), (0.999999, "0.999999")):
        assert f"  expected recall  {shown}\n" in str(dataclasses.replace(plan, expected_recall=recall))
    assert "  bytes read       0 B\n" in str(atk.plan((4, 100), 0, device="sm_90"))
    assert "(1 x the input)" in str(atk.plan((4, 100), 3, device="cpu"))
    first, other = atk.plan(2**20, 64, device="sm_90").steps[0], atk.plan((4, 100), 3, device="cpu").steps[0]
    lines = str(dataclasses.replace(plan, steps=(first, first, first, other, first))).splitlines()
    steps = lines[lines.index("  launches         5") + 1 : -2]
    assert len(steps) == 3 and steps[0].endswith(", x 3") and steps[0].startswith(steps[2])
