"""A CPU emulator of the CUDA kernels: g++ compiles the very same source, every CUDA thread is a fiber.

It finds what a GPU hides: missing and divergent barriers, wrong masks, accesses out of bounds, uninitialised
shared memory. It says nothing about speed, bank conflicts or the memory model between blocks.
"""

from .build import BuildError
from .emulator import Emulator, EmulatorError, Kernel, Range, Stats, sanitizer_environment

__all__ = ["BuildError", "Emulator", "EmulatorError", "Kernel", "Range", "Stats", "sanitizer_environment"]
