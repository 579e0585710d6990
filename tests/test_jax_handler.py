"""What the custom call's handler reads lies where XLA's own header, which comes with jaxlib, puts it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

jax = pytest.importorskip("jax")

_MEMBERS = [
    # struct, member, what of the handler says where it is
    ("CallFrame", "extension_start", "frame[_EXTENSION]"),
    ("CallFrame", "api", "frame[_API]"),
    ("CallFrame", "ctx", "frame[_CONTEXT]"),
    ("CallFrame", "stage", "frame[_STAGE]"),
    ("CallFrame", "args.size", "frame[_ARGUMENTS[0]]"),
    ("CallFrame", "args.args", "frame[_ARGUMENTS[1]]"),
    ("CallFrame", "rets.size", "frame[_RESULTS[0]]"),
    ("CallFrame", "rets.rets", "frame[_RESULTS[1]]"),
    ("CallFrame", "attrs.attrs", "frame[_ATTRIBUTE]"),
    ("CallFrame", "future", "_FRAME.size"),
    ("Metadata_Extension", "metadata", "_METADATA"),
    ("Metadata", "api_version.major_version", "_VERSION"),
    ("Metadata", "api_version.minor_version", "_VERSION + 4"),
    ("Metadata", "traits", "_TRAITS"),
    ("Api", "api_version.major_version", "_API_VERSION"),
    ("Api", "XLA_FFI_Error_Create", "_ERROR_CREATE"),
    ("Api", "XLA_FFI_Stream_Get", "_STREAM_GET"),
    ("Api", "XLA_FFI_DeviceOrdinal_Get", "_DEVICE_ORDINAL_GET"),
    ("Buffer", "data", "_DATA"),
    ("ByteSpan", "len", "8"),
    ("Error_Create_Args", "message", "_Error.message.offset"),
    ("Error_Create_Args", "errc", "_Error.code.offset"),
    ("Stream_Get_Args", "ctx", "_Get.context.offset"),
    ("Stream_Get_Args", "stream", "_Get.out.offset"),
    ("DeviceOrdinal_Get_Args", "ctx", "_Get.context.offset"),
    ("DeviceOrdinal_Get_Args", "device_ordinal", "_Get.out.offset"),
]
_CONSTANTS = {
    "XLA_FFI_ExecutionStage_EXECUTE": "_EXECUTE",
    "XLA_FFI_Extension_Metadata": "_METADATA_EXTENSION",
    "XLA_FFI_Error_Code_INTERNAL": "_INTERNAL",
    "XLA_FFI_Error_Create_Args_STRUCT_SIZE": "_Error.code.offset + 4",
    "sizeof(XLA_FFI_Stream_Get_Args)": "ctypes.sizeof(_Get)",
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_layout(tmp_path: Path) -> None:
    from approxtopk.adapters.jax import handler

    wanted = [f"offsetof(XLA_FFI_{struct}, {member})" for struct, member, _ in _MEMBERS] + list(_CONSTANTS)
    lines = "\n".join(f'std::printf("%d\\n", int({expression}));' for expression in wanted)
    (tmp_path / "layout.cc").write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "xla/ffi/api/c_api.h"\nint main() {{\n{lines}\n}}\n'
    )
    program = tmp_path / "layout"
    command = ["g++", "-Wno-invalid-offsetof", "-I", jax.ffi.include_dir(), "-o", program, tmp_path / "layout.cc"]
    subprocess.run(command, check=True)
    theirs = [
        int(line) for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    ]

    class Frame:
        """Where each field of the frame's format begins."""

        def __getitem__(self, field: int) -> int:
            return offsets[field]

    offsets = _offsets(handler._FRAME.format)
    names = {**vars(handler), "frame": Frame(), "ctypes": ctypes}
    ours = [eval(where, names) for where in [*(where for _, _, where in _MEMBERS), *_CONSTANTS.values()]]
    assert dict(zip(wanted, ours, strict=True)) == dict(zip(wanted, theirs, strict=True))


def _offsets(layout: str) -> list[int]:
    """Where the fields of a struct format begin: of 8-byte words, 4-byte enums and padding."""
    offsets, at = [], 0
    count = ""
    for letter in layout.lstrip("=").replace(" ", ""):
        if letter.isdigit():
            count += letter
            continue
        repeats = int(count or 1)
        count = ""
        if letter == "x":
            at += repeats
            continue
        for _ in range(repeats):
            offsets.append(at)
            at += {"Q": 8, "i": 4}[letter]
    return offsets


def test_stream_and_device_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU's handler asks XLA for, from a frame written by hand; and an error that XLA takes over."""
    from approxtopk.adapters.jax import handler

    words = ctypes.c_uint64
    function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    messages: list[bytes] = []

    def get(value: int) -> object:
        def answer(arguments: int) -> int:
            asked = handler._Get.from_address(arguments)
            assert (asked.struct_size, asked.context) == (32, 0x77)
            if value < 2**32:  # the ordinal is an int32: what follows it is not written
                ctypes.c_int32.from_address(arguments + 24).value = value
            else:
                asked.out = value
            return 0

        return function(answer)

    def fail(arguments: int) -> int:
        messages.append(handler._Error.from_address(arguments).message)
        return 0x99

    functions = {handler._STREAM_GET: get(0x1234_5678_9ABC), handler._DEVICE_ORDINAL_GET: get(3)}
    functions[handler._ERROR_CREATE] = function(fail)
    api = (words * 32)()
    for offset, answer in functions.items():
        api[offset // 8] = ctypes.cast(answer, ctypes.c_void_p).value
    buffers = [(words * 6)(48, 0, 11, 0x1000 + i, 0, 0) for i in range(3)]
    pointers = (words * 3)(*map(ctypes.addressof, buffers))
    text = ctypes.create_string_buffer(b"what to run")
    span = (words * 2)(ctypes.addressof(text), 11)
    attributes = (words * 1)(ctypes.addressof(span))
    at = ctypes.addressof(pointers)
    frame = (words * 22)(176, 0, ctypes.addressof(api), 0x77, 3)
    frame[7], frame[9], frame[12], frame[14] = 1, at, 2, at + 8
    frame[17], frame[20] = 1, ctypes.addressof(attributes)

    calls: list[object] = []

    def ask(run: Any) -> int | None:
        answer = handler.callback(handler.Handler(run, "cuda"))(ctypes.addressof(frame))
        return None if answer is None else int(answer)

    def right(*call: object) -> None:
        calls.append(call)

    assert ask(right) is None
    once = [(b"what to run", "cuda", 3, 0x1234_5678_9ABC, [0x1000], [0x1001, 0x1002])]
    assert calls == once

    def broken(*call: object) -> None:
        raise KeyError("planted")

    assert ask(broken) == 0x99
    assert b"KeyError: 'planted'" in messages[0] and b"Traceback" in messages[0]

    class Interrupted(handler.Handler):
        """Ctrl-C on the main thread, on entry: before there is anything to catch it."""

        def __getitem__(self, at: int) -> None:
            raise KeyboardInterrupt

    interrupted = Interrupted(right, "cuda")
    interrupted.api = ctypes.addressof(api)  # XLA has called before, to register
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)  # Python 3.13 tells of it
    assert handler.callback(interrupted)(ctypes.addressof(frame)) == 0x99
    assert messages[1] == b"KeyboardInterrupt"

    extension = (words * 3)(24, 7, 0)  # of a kind that is not known
    frame[1] = ctypes.addressof(extension)
    assert ask(right) is None
    assert calls == once * 2, "it runs all the same"
    frame[1] = 0
    frame[4] = 2  # not the execution
    assert ask(broken) is None
