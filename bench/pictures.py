"""The picture of docs/soft.md: what becomes of one entry as it rises past the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import approxtopk as atk

__all__ = ["CURVES", "OTHERS", "K", "L", "curves", "draw"]

Array = np.ndarray[Any, Any]

K, L = 2, 1.0
#: The entries that stay where they are: the moving one is among the best two from 1 on.
OTHERS = (-0.5, 0.5, 1.0, 2.5)

#: Name -> arguments of the soft operator; None for the hard one.
CURVES: dict[str, dict[str, Any] | None] = {
    "hard": None,
    "p = 2": {"p": 2.0},
    "p = 4/3": {"p": 4 / 3},
    "sigmoid": {"kind": "sigmoid"},
}

# Colours of Okabe and Ito; dashes and widths tell the lines apart without them.
_STYLES: dict[str, dict[str, Any]] = {
    "hard": {"color": "black", "lw": 1.5, "ls": (0, (4, 2)), "zorder": 3},
    "p = 2": {"color": "#D55E00", "lw": 1.8},
    "p = 4/3": {"color": "#0072B2", "lw": 2.8},
    "sigmoid": {"color": "#009E73", "lw": 1.2, "ls": (0, (1, 1))},
}


def curves(operator: str, t: Array) -> dict[str, Array]:
    """What an operator makes of rows of an entry from `t` and, after it, `OTHERS`.

    Parameters
    ----------
    operator : {"mask", "magnitude"}
        Which one.
    t : ndarray, shape (points,)
        The entry that moves.

    Returns
    -------
    dict of str to ndarray
        For each name in `CURVES` whole rows, shape (points, 1 + others).
    """
    rows = np.column_stack([t, np.broadcast_to(OTHERS, (len(t), len(OTHERS)))])
    soft, hard = {
        "mask": (atk.soft_top_k_mask, atk.hard_top_k_mask),
        "magnitude": (atk.soft_top_k, atk.hard_top_k_magnitude),
    }[operator]
    return {
        name: hard(rows, K) if options is None else soft(rows, K, l=L, **options) for name, options in CURVES.items()
    }


def draw(folder: Path) -> list[Path]:
    """Write the picture to `folder`; return its path."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "mask", np.linspace(-1.5, 3.5, 1001), list(CURVES), "its share of the mask"),
        # The sigmoid is no operator of magnitudes: it is the entry times the mask.
        (right, "magnitude", np.linspace(-3.0, 3.0, 1201), ["hard", "p = 2", "p = 4/3"], "what is left of it"),
    )
    for axes, operator, t, names, label in panels:
        found = curves(operator, t)
        for name in names:
            axes.plot(t, found[name][:, 0], label=name, **_STYLES[name])
        axes.set_xlabel("the entry that moves")
        axes.set_ylabel(label)
        axes.grid(True, alpha=0.25)
        axes.legend(fontsize=9, loc="upper left")
    others = ", ".join(f"{other:g}" for other in OTHERS)
    left.set_title("soft_top_k_mask", fontsize=10)
    right.set_title("soft_top_k", fontsize=10)
    figure.suptitle(f"One entry among {others}: k = {K}, l = {L:g}", fontsize=11)
    bottom = -0.09
    left.set_ylim(bottom, 1.05)
    left.plot(OTHERS, [bottom / 2] * len(OTHERS), "^", color="0.45", markersize=6)
    left.annotate("the others", (OTHERS[-1], bottom / 2), (6, 0), "data", "offset points", fontsize=8, va="center")
    path = folder / "soft-top-k.png"
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return [path]
