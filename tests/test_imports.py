"""What importing, calling and planning import, and how long it takes."""

from __future__ import annotations

from typing import Any

import pytest

from .backends import gpu_present
from .interpreter import python


def test_importing_imports_no_framework() -> None:
    code = """
        import sys
        import approxtopk, numpy
        approxtopk.top_k(numpy.arange(5), 2)
        try:
            approxtopk.top_k([1], 1)
        except TypeError:
            pass
        print([name for name in ("torch", "jax", "jaxlib", "cupy") if name in sys.modules])
    """
    assert python(code).strip() == "[]"


def test_importing_is_quick(tmp_path: Any) -> None:
    code = """
        import time
        start = time.process_time()
        import numpy
        middle = time.process_time()
        import approxtopk
        print(middle - start, time.process_time() - middle)
    """
    # As installed: with bytecode, which the first run writes (compiling it takes longer than all the rest).
    settings = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    runs = [[float(word) for word in python(code, **settings).split()] for _ in range(6)]
    numpy, ours = (min(seconds) for seconds in zip(*runs, strict=True))
    # Beside NumPy's, 0.12 s when the machine is idle, because seconds mean little on a busy one: 0.2 of it.
    assert ours <= 0.35 * numpy, f"{ours * 1e3:.1f} ms beside {numpy * 1e3:.1f} for NumPy"


@pytest.mark.skipif(gpu_present(), reason="there is a GPU to plan for")
def test_plan_does_not_import_cupy_for_want_of_a_driver() -> None:
    code = """
        import ctypes, sys
        import approxtopk as atk
        def missing(*_): raise OSError("no driver")
        ctypes.CDLL = missing
        print(atk.plan(100, 3).device.architecture, "cupy" in sys.modules)
    """
    assert python(code).split() == ["cpu", "False"]
