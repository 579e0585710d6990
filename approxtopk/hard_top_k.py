"""Hard top-k in the form of the soft one: a mask, or the entries themselves among zeros."""

from __future__ import annotations

from typing import Any

from .adapters import registry
from .dtypes import DTYPES
from .errors import UnsupportedDType
from .request import dtype_name
from .top_k import top_k

__all__ = ["hard_top_k_magnitude", "hard_top_k_mask"]


def hard_top_k_mask(x: Any, k: int, /, *, axis: int = -1) -> Any:
    """Mark the k best entries of every row: 1 in their places, 0 elsewhere.

    Parameters
    ----------
    x : array
        A NumPy, CuPy or JAX array or a PyTorch tensor of at least one axis, any strides, of floats of 16 to 64 bits or
        integers.
    k : int
        Entries to mark, from 0 to the axis' length.
    axis : int, default -1
        The axis along which rows lie.

    Returns
    -------
    array
        Of x's framework, device, shape and type. Its derivative is 0.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `top_k`, whose order decides, ties included: exactly k are marked.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> atk.hard_top_k_mask(np.array([-5.0, -2.0, 3.0, 1.0]), 2)
    array([0., 0., 1., 1.])
    """
    adapter = registry.find(x)
    ones = adapter.ones(x)
    _check(x)
    indices = top_k(x, k, axis=axis, sorted=False).indices
    return adapter.keep(ones, indices, axis)


def hard_top_k_magnitude(x: Any, k: int, /, *, axis: int = -1) -> Any:
    """Keep the k entries of largest magnitude of every row, and put 0 in the place of the others.

    Parameters
    ----------
    x, k, axis
        As in `hard_top_k_mask`.

    Returns
    -------
    array
        Of x's framework, device, shape and type; differentiable in x through what is kept.

    Raises
    ------
    InvalidArgument, InvalidType, UnsupportedDType, DeviceMismatch, BackendMissing
        As `top_k`.

    Examples
    --------
    >>> import numpy as np
    >>> import approxtopk as atk
    >>> atk.hard_top_k_magnitude(np.array([-5.0, -2.0, 3.0, 1.0]), 2)
    array([-5.,  0.,  3.,  0.])
    """
    adapter = registry.find(x)
    # The least integer of a type has no magnitude there; less is more, then.
    if _check(x) == "i":
        indices = top_k(-abs(x), k, axis=axis, mode="smallest", sorted=False).indices
    else:
        indices = top_k(abs(x), k, axis=axis, sorted=False).indices
    return adapter.keep(x, indices, axis)


def _check(x: Any) -> str:
    """The kind of x's type, which has an arithmetic in its framework."""
    allowed = "allowed are floats of 16 to 64 bits and integers"
    name = dtype_name("x", x.dtype, allowed, UnsupportedDType)
    dtype = DTYPES.get(name)
    if dtype is None or (dtype.kind == "f" and dtype.bits == 8):
        raise UnsupportedDType(f"x has dtype {name}; {allowed}")
    return dtype.kind
