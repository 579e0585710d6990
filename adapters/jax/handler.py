"""The custom call that XLA makes, as ctypes reads it: a handler of XLA's typed FFI (``xla/ffi/api/c_api.h``).

Python runs on XLA's own stream, with the addresses of XLA's buffers, as in ``jax.experimental.buffer_callback``. But
what is to run is named by an attribute of the call and not by a number of the program's callbacks: those numbers are
wrong inside a partitioned call, and neither ``jax.export`` nor the compilation cache takes programs that have any.
"""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Callable
from functools import partial
from struct import Struct
from threading import get_ident
from typing import Any

import jax

from ...errors import ApproxTopKError

__all__ = ["TARGET", "register"]

#: The custom call's name in XLA's programs.
TARGET = "approxtopk"

#: Runs what a call names: ``run(name, kind of device, its index, stream, inputs, outputs)``, the last two addresses.
Run = Callable[[bytes, str, int, int, "list[int]", "list[int]"], None]

# The fields are those of the header's struct; its enums take 4 bytes and padding. tests/test_jax_handler.py compares.
# XLA_FFI_CallFrame: size, extension; api, context, stage; then args, rets and attrs, each
# size, extension, count, types and pointers (attrs: names before them).
_FRAME = Struct("=2Q 2Qi4x 5Q 5Q 6Q")
_EXTENSION, _API, _CONTEXT, _STAGE = 1, 2, 3, 4
_ARGUMENTS, _RESULTS, _ATTRIBUTE = (7, 9), (12, 14), 20
_METADATA_EXTENSION, _EXECUTE = 1, 3
# XLA_FFI_Metadata_Extension: its type and the metadata; of these the version, major and minor, and the traits.
_TYPE, _METADATA, _VERSION, _TRAITS = 8, 24, 24, 32
_API_VERSION = 16 + 16
# XLA_FFI_Api: where its functions are.
_ERROR_CREATE, _STREAM_GET, _DEVICE_ORDINAL_GET = 48, 80, 184
_DATA = 24  # of XLA_FFI_Buffer
_SPAN = Struct("=2Q")  # XLA_FFI_ByteSpan
_WORDS = tuple(Struct(f"={count}Q") for count in range(16))
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL

_capsule: Any = jax.ffi.pycapsule
_read = ctypes.string_at
_pointer = ctypes.c_void_p.from_address
_Function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_HasKey = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.py_object)
_kept: list[Any] = []  # what XLA calls must live as long as XLA


class _Error(ctypes.Structure):
    """XLA_FFI_Error_Create_Args."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    )


class _Get(ctypes.Structure):
    """XLA_FFI_Stream_Get_Args; those of the device's ordinal have an int32 as their last."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("out", ctypes.c_uint64),
    )


def register(run: Run) -> None:
    """Let XLA's custom calls of `TARGET` call `run`, on CPUs and on NVIDIA GPUs."""
    for platform, kind in (("cpu", "cpu"), ("CUDA", "cuda")):
        function = callback(Handler(run, kind))
        _kept.append(function)
        capsule = _capsule(ctypes.cast(function, ctypes.c_void_p).value)
        jax.ffi.register_ffi_target(TARGET, capsule, platform=platform)


def callback(handler: Handler) -> Any:
    """`handler` as a C function, of a frame, that returns an error of XLA's or nothing.

    On the main thread Python may raise KeyboardInterrupt at any entry of a function, before its first statement. A
    callback of ctypes that raises returns what was in the register, which XLA would take for an error's address. So
    what ctypes calls is written in C up to the end: PyMapping_HasKey asks for ``handler[frame]``, lets no exception
    pass and says whether there was none, and a dictionary turns that into the result.
    """
    has_key: Any = _HasKey(("PyMapping_HasKey", ctypes.pythonapi))
    has_key.restype = _Results(handler).__getitem__
    return _Function(partial(has_key, handler))


class Handler:
    """Makes the calls, as ``handler[frame]``, which raises when one fails."""

    def __init__(self, run: Run, kind: str) -> None:
        self.run = run
        self.kind = kind
        self.api = 0
        self.failures: dict[int, str] = {}  # by thread

    def __getitem__(self, at: int) -> None:
        try:
            frame = _FRAME.unpack(_read(at, _FRAME.size))
            api = self.api = frame[_API]
            if frame[_EXTENSION] and _describe(frame[_EXTENSION], api):
                return
            if frame[_STAGE] != _EXECUTE:
                return
            gpu, context = self.kind != "cpu", frame[_CONTEXT]
            index = _get(api, _DEVICE_ORDINAL_GET, context) & 0xFFFFFFFF if gpu else 0
            stream = _get(api, _STREAM_GET, context) if gpu else 0
            # The call's one attribute is a string.
            name = _read(*_SPAN.unpack(_read(_pointer(frame[_ATTRIBUTE]).value or 0, _SPAN.size)))
            self.run(name, self.kind, index, stream, _buffers(frame, *_ARGUMENTS), _buffers(frame, *_RESULTS))
        except BaseException as error:
            ours = isinstance(error, ApproxTopKError)
            text = f"{type(error).__name__}: {error}" if ours else "".join(traceback.format_exception(error))
            self.failures[get_ident()] = text
            raise KeyError from None  # of which PyMapping_HasKey makes no noise


class _Results(dict[int, int]):
    """What XLA gets of a call, by whether it ended: nothing, or an error, which XLA frees and raises as its own."""

    def __init__(self, handler: Handler) -> None:
        super().__init__({1: 0})
        self.handler = handler

    def __missing__(self, ended: int) -> int:
        text = self.handler.failures.pop(get_ident(), "KeyboardInterrupt")
        arguments = _Error(ctypes.sizeof(_Error), None, text.encode(errors="replace"), _INTERNAL)
        return _Function(_pointer(self.handler.api + _ERROR_CREATE).value or 0)(ctypes.addressof(arguments)) or 0


def _buffers(frame: tuple[int, ...], count: int, pointers: int) -> list[int]:
    """The addresses of a call's arguments or results."""
    words = _WORDS[frame[count]]
    return [_pointer(buffer + _DATA).value or 0 for buffer in words.unpack(_read(frame[pointers], words.size))]


def _describe(extension: int, api: int) -> bool:
    """Answer XLA's question, asked at registration, which version this handler speaks: XLA's own.

    False when what extends the frame is not this question.
    """
    if ctypes.c_int.from_address(extension + _TYPE).value != _METADATA_EXTENSION:
        return False
    metadata = _pointer(extension + _METADATA).value or 0
    version = _read(api + _API_VERSION, 8) if api else _SPAN.pack(1 << 32, 0)[:8]
    ctypes.memmove(metadata + _VERSION, version, 8)
    ctypes.c_uint32.from_address(metadata + _TRAITS).value = 0
    return True


def _get(api: int, function: int, context: int) -> int:
    """Ask XLA for the call's stream or device."""
    arguments = _Get(ctypes.sizeof(_Get), None, context, 0)
    error = _Function(_pointer(api + function).value or 0)(ctypes.addressof(arguments))
    if error:
        raise RuntimeError("XLA does not tell a custom call its stream and device")
    return int(arguments.out)
