"""The main job on real input: nearest neighbours of handwritten digits, exactly and approximately.

The data are the 1,797 digits of 8 x 8 pixels that ship with scikit-learn. To make rows long enough for buckets
to pay, the base that is searched holds every image nine times, as it is and moved by a pixel in all directions
(ordinary data augmentation), in random order. Every original is a query; its own nine copies do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from .approx_top_k import approx_top_k
from .buffer import Device
from .call import TopK
from .errors import ApproxTopKError, BackendMissing, InvalidArgument
from .preview import plan
from .runtime import serving
from .top_k import top_k

__all__ = ["demo"]

_REPEATS = 5
_RECALL = 0.95


class _Search(NamedTuple):
    """A similarity matrix and what its entries mean.

    Attributes
    ----------
    similarity : array, float32, (queries, entries)
        Cosine of the angle between two images; -inf between copies of one.
    label : ndarray of int, (queries,)
        The digit that a query shows.
    entry_label : ndarray of int, (entries,)
        The digit that an entry of the base shows.
    """

    similarity: Any
    label: np.ndarray[Any, Any]
    entry_label: np.ndarray[Any, Any]


def demo(*, k: int = 20, device: str | None = None) -> None:
    """Print a table: exact, planned and named (b, k_b) side by side.

    Parameters
    ----------
    k : int, default 20
        Neighbours of each image, from 1 to 1796.
    device : {"cpu", "cuda"}, optional
        The first GPU if there is one and CuPy is installed, else the CPU.

    Raises
    ------
    BackendMissing
        Without scikit-learn, or for ``device="cuda"`` without CuPy or a GPU.
    InvalidArgument
        For k out of range.
    """
    if not 1 <= k <= 1796:
        raise InvalidArgument(f"k = {k} is out of range; the demo's allowed are 1 to 1796, the number of other digits")
    search = _search()
    search, synchronize = _placed(search, device)
    x = search.similarity
    where = serving(Device("cuda" if device != "cpu" and not isinstance(x, np.ndarray) else "cpu"))
    print(f"each of {x.shape[0]} handwritten digits against {x.shape[1]}: the {k} most similar others")
    print(f"a {x.shape[0]} x {x.shape[1]} matrix of cosines, float32, on {where.device_info(Device('cuda')).name}\n")
