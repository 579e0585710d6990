"""The errors approxtopk raises: every message names the argument, what came and what is allowed."""

from __future__ import annotations

__all__ = [
    "ApproxTopKError",
    "BackendMissing",
    "CompileError",
    "DeviceMismatch",
    "InvalidArgument",
    "InvalidType",
    "UnsupportedDType",
]


class ApproxTopKError(Exception):
    """Base class of every error raised by approxtopk."""


class InvalidArgument(ApproxTopKError, ValueError):
    """An argument of the right type has a value that is not allowed."""


class InvalidType(ApproxTopKError, TypeError):
    """An argument has a type that is not allowed."""


class UnsupportedDType(ApproxTopKError, TypeError):
    """The array's element type has no order to select by (complex, string, object, ...)."""


class DeviceMismatch(ApproxTopKError, ValueError):
    """Arrays of one call live on different devices, or on one that approxtopk does not serve."""


class CompileError(ApproxTopKError, RuntimeError):
    """A CUDA kernel did not compile or load; the message carries the compiler's log."""


class BackendMissing(ApproxTopKError, ImportError):
    """A package needed for this array or device is not installed; the message says how to get it."""
