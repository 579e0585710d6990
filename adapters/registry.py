"""Finds the adapter of an array by the names of its classes, so that no framework is imported for looking."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidType
from ..request import show
from .protocol import Adapter

__all__ = ["check", "find", "is_array"]

# Root of the module and name of a class -> module of the adapter. The first class of the MRO found here decides.
_OWNERS = {
    ("numpy", "ndarray"): "numpy",
    ("cupy", "ndarray"): "cupy",
    ("torch", "Tensor"): "torch",
    ("jax", "Array"): "jax",
    ("jax", "Tracer"): "jax",
    ("jax", "PRNGKeyArray"): "jax",
    ("jaxlib", "Array"): "jax",
    ("jaxlib", "ArrayImpl"): "jax",
}

# Classes that would be taken for arrays by inheritance and mean something else.
_REFUSED = {
    ("numpy", "matrix"): "its rows cannot be one-dimensional: pass numpy.asarray(x)",
    ("numpy", "MaskedArray"): "a mask has no place in the order: pass x.filled(value) or x.data",
}

_HINTS = {
    "scipy": "pass a dense array, x.toarray()",
    "cupyx": "pass a dense array, x.toarray()",
    "pandas": "pass x.to_numpy()",
    "dask": "for Dask arrays use approxtopk.adapters.dask.top_k or approx_top_k",
    "numpy": "pass numpy.asarray(x), of at least one axis",
}

# What an array of x's framework is called, and what makes one.
_KINDS = {
    "numpy": ("a NumPy array", "numpy.asarray({})"),
    "cupy": ("a CuPy array", "cupy.asarray({})"),
    "torch": ("a PyTorch tensor", "torch.as_tensor({}, device=x.device)"),
    "jax": ("a JAX array", "jax.numpy.asarray({})"),
    "dlpack": ("an object of x's framework, with __dlpack__ and __dlpack_device__", "one"),
}

_ALLOWED = "a NumPy, CuPy or JAX array, a PyTorch tensor, or another object with __dlpack__ and __dlpack_device__"

_found: dict[type, Adapter] = {}


def find(x: Any) -> Adapter:
    """Return the adapter that owns `x`, importing it (and so the framework, which is there already) if need be.

    Raises
    ------
    InvalidType
        When `x` is no array that approxtopk can read in place.
    """
    adapter = _found.get(type(x))
    return adapter if adapter is not None else _remember(x)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of any framework, and not a number."""
    kind = type(value)
    if issubclass(kind, (bool, int, float)):
        return False
    return hasattr(kind, "__dlpack__") or any((_root(base), base.__name__) in _OWNERS for base in kind.__mro__)


def check(name: str, array: Any, adapter: Adapter, advise: bool = True) -> None:
    """Make sure that `adapter`, which owns x, owns the argument `name` too.

    `advise` tells how to make another array of it; not where it is to be written to.

    Raises
    ------
    InvalidType
        When `array` is no array, or another framework's.
    """
    try:
        if find(array) is adapter:
            return
    except InvalidType:
        pass  # its words are about x
    kind, way = _KINDS[adapter.name]
    advice = f": pass {way.format(name)}" if advise else ""
    raise InvalidType(f"{name} must be {kind}, as x is, not {_what(array)}{advice}")


def _what(x: Any) -> str:
    """What came: a plain value and its type, else the type with its module."""
    kind = type(x)
    return show(x) if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _remember(x: Any) -> Adapter:
    adapter = _found[type(x)] = _look(x)
    return adapter


def _look(x: Any) -> Adapter:
    kind = type(x)
    name = _OWNERS.get((_root(kind), kind.__name__))
    if name is None:
        name = _inherited(x, kind)
    return _import(name)


def _inherited(x: Any, kind: type) -> str:
    for base in kind.__mro__:
        key = (_root(base), base.__name__)
        if key in _REFUSED:
            raise InvalidType(f"x must be {_ALLOWED}, not {kind.__module__}.{kind.__name__}: {_REFUSED[key]}")
        if key in _OWNERS:
            return _OWNERS[key]
    if not (hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__")):
        raise InvalidType(f"x must be {_ALLOWED}, not {show(x)}{_hint(x)}")
    return "dlpack"


def _import(name: str) -> Adapter:
    """The adapter of that name, by statements that PyTorch's compiler can trace."""
    adapter: Adapter
    if name == "numpy":
        from .numpy import ADAPTER as adapter
    elif name == "torch":
        from .torch import ADAPTER as adapter
    elif name == "jax":
        from .jax import ADAPTER as adapter
    elif name == "cupy":
        from .cupy import ADAPTER as adapter
    else:
        from .dlpack import ADAPTER as adapter
    return adapter


def _root(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _hint(x: Any) -> str:
    for base in type(x).__mro__:
        hint = _HINTS.get(_root(base))
        if hint is not None:
            return f": {hint}"
    if isinstance(x, (list, tuple)) or hasattr(type(x), "__array__"):
        return ": pass numpy.asarray(x)"
    return ""


# What PyTorch's compiler traces in place of `find`: it would compile anew whenever another type has been met.
find.__dict__["_torchdynamo_inline"] = _look
