"""Code run in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import approxtopk as atk

__all__ = ["python"]


def python(code: str, *options: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter that finds this approxtopk; what it printed."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(atk.__file__)))
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
