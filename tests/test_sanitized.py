"""Every kernel under the address sanitizer: a launch that touches memory it should not ends the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from .emulator import sanitizer_environment

SCRIPT = """
    import numpy as np

    import approxtopk as atk
    from tests.backends import tuned
    from tests.emulated import emulated

    rng = np.random.default_rng(0)
    ran = set()
    for multiprocessors, n in ((132, 700), (1, 700), (132, 9001), (1, 9001)):
        x = rng.integers(-50, 50, (2, n)).astype(np.float32)
        want = np.argsort(-x, axis=1, kind="stable")
        with emulated(sanitize=True, multiprocessors=multiprocessors) as runtime:
            blocks = dict(least_steps=2, threads=32, split_entries=64, row_threads=32, tile=16)
            radix = dict(small_entries=0, chip_entries=0, filter_entries=0)
            for numbers in ({}, dict(fused_bytes=0, **radix), dict(**radix, **blocks), dict(chip_entries=0)):
                with tuned(**numbers):
                    assert (atk.top_k(x, 20).indices == want[:, :20]).all()
                    assert (atk.top_k(x, 60).indices == want[:, :60]).all()
                    assert (atk.top_k(x, n - 5, sorted=True).indices == want[:, : n - 5]).all()
                    atk.approx_top_k(x, 20, buckets=16, k_per_bucket=2, certify=True)
                    atk.approx_top_k(x, 20, buckets=4, k_per_bucket=19, certify=True, lengths=np.array([n, n // 3]))
                    atk.approx_top_k(x.T, 20, axis=0, buckets=5, k_per_bucket=19, interleaved=False)
            # What follows depends neither on how many multiprocessors there are nor, much, on the length of rows.
            for axis, array in ((1, x), (0, x.T)) if multiprocessors == 132 and n == 700 else ():
                for form in ({}, dict(kind="laplace")):
                    for vjp in (atk.soft_top_k_mask_vjp, atk.soft_top_k_vjp):
                        for numbers in ({}, dict(copy_bytes=0)):
                            with tuned(**numbers):
                                y, pullback = vjp(array, 20.5, l=3.0, axis=axis, **form)
                                pullback(y)
                for m in (1, 3, 40):
                    index = np.moveaxis(want[:, :m], 1, axis)
                    lengths = np.array([n, n // 3])
                    atk.rank(array, index, axis=axis, lengths=lengths)
                    with tuned(split_blocks=4, split_entries=64, row_threads=32, thread_loads=1):
                        got = np.moveaxis(atk.rank(array, index, ties="first", axis=axis), axis, 1)
                        assert (got == np.arange(m)).all()
            ran |= {kernel for kernel, _ in runtime.launched}
    print(*sorted(ran))
"""


def test_no_kernel_leaves_its_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        env=sanitizer_environment(),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    sources = {path.stem for path in (Path(__file__).parents[1] / "kernels").glob("*.cu")}
    assert sources <= set(done.stdout.split()), f"not reached: {sources - set(done.stdout.split())}"
