"""What the cost model knows of GPUs: from data sheets, estimated, or measured.

Measured constants, as ``python -m bench sweep --measure --json approxtopk/measured/NAME.json`` writes them, are found
by the device's own name and come before all others. There are none yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..plan import DeviceInfo
from .devices import REFERENCES

__all__ = ["MEASURED", "Machine", "machine_of"]

#: Where measured constants lie, one JSON file for each device.
MEASURED = Path(__file__).parent.parent / "measured"


@dataclass(frozen=True)
class Machine:
    """The constants of one GPU, in bytes, seconds and multiprocessor cycles.

    Attributes
    ----------
    provenance : str
        Where they come from.
    multiprocessors : int
        Streaming multiprocessors.
    clock : float
        Cycles of a second.
    bandwidth, cached_bandwidth : float
        Bytes a second that memory and L2 deliver to the whole GPU.
    cache_bytes : float
        Of L2.
    port_bandwidth : float
        Bytes a second that one multiprocessor can take in.
    latency, cached_latency : float
        Seconds from asking memory, or L2, to the answer, under load.
    launch : float
        Seconds of a kernel or a fill that does nothing, in a stream that is not idle.
    most_threads, most_blocks, registers, shared_bytes : int
        What one multiprocessor has for the blocks that are resident on it.
    """

    provenance: str
    multiprocessors: int
    clock: float
    bandwidth: float
    cached_bandwidth: float
    cache_bytes: float
    port_bandwidth: float
    latency: float
    cached_latency: float
    launch: float
    most_threads: int
    most_blocks: int
    registers: int
    shared_bytes: int

    def holds(self, nbytes: float) -> bool:
        """Whether L2 still has what was read or written `nbytes` ago: half of it is taken by what else passes."""
        return nbytes <= self.cache_bytes / 2


class _Sheet(NamedTuple):
    """What the vendor states: boost clock, memory bandwidth, L2, resident threads and blocks of a multiprocessor."""

    clock: float
    bandwidth: float
    cache_bytes: float
    most_threads: int
    most_blocks: int


#: Data sheets of the reference GPUs, and the CUDA C++ Programming Guide, "Compute Capabilities".
_SHEETS = {
    "sm_70": _Sheet(1.53e9, 0.90e12, 6e6, 2048, 32),
    "sm_75": _Sheet(1.59e9, 0.32e12, 4e6, 1024, 16),
    "sm_80": _Sheet(1.41e9, 2.04e12, 40e6, 2048, 32),
    "sm_86": _Sheet(1.70e9, 0.94e12, 6e6, 1536, 16),
    "sm_89": _Sheet(2.52e9, 0.86e12, 96e6, 1536, 24),
    "sm_90": _Sheet(1.98e9, 4.80e12, 60e6, 2048, 32),
    "sm_100": _Sheet(1.85e9, 8.00e12, 126e6, 2048, 32),
    "sm_120": _Sheet(2.41e9, 1.79e12, 96e6, 1536, 24),
}
# Estimates for all, until measured. An H200 copies at about 0.9 of its data sheet's bandwidth.
_ACHIEVABLE = 0.9
_PORT_BYTES = 64
_CACHED_BYTES = 24  # of a multiprocessor and cycle, while all draw from L2
_LATENCY, _CACHED_LATENCY = 0.7e-6, 0.3e-6
_LAUNCH = 2.5e-6
_REGISTERS = 65536


@lru_cache(maxsize=64)
def machine_of(device: DeviceInfo, measured: Path = MEASURED) -> Machine:
    """The constants of `device`: measured, or those of its architecture's reference GPU, scaled by multiprocessors."""
    # Of an architecture that came later, the last one known before it.
    number = _number(device.architecture)
    architecture = max((name for name in _SHEETS if _number(name) <= number), key=_number, default="sm_70")
    sheet = _SHEETS[architecture]
    share = device.multiprocessors / REFERENCES[architecture].multiprocessors
    machine = Machine(
        provenance=f"data sheet of the {REFERENCES[architecture].name}, and estimates",
        multiprocessors=device.multiprocessors,
        clock=sheet.clock,
        bandwidth=sheet.bandwidth * _ACHIEVABLE * share,
        cached_bandwidth=max(_CACHED_BYTES * sheet.clock * device.multiprocessors, sheet.bandwidth * share),
        cache_bytes=sheet.cache_bytes * share,
        port_bandwidth=_PORT_BYTES * sheet.clock,
        latency=_LATENCY,
        cached_latency=_CACHED_LATENCY,
        launch=_LAUNCH,
        most_threads=sheet.most_threads,
        most_blocks=sheet.most_blocks,
        registers=_REGISTERS,
        # The system takes 1 KiB of a block's, and of the most that one may ask for.
        shared_bytes=device.shared_bytes + 1024,
    )
    names = {field.name for field in fields(Machine)} - {"provenance"}
    for path in sorted(measured.glob("*.json")):
        found = json.loads(path.read_text())
        if found["device"]["name"] == device.name:
            constants = {name: value for name, value in found["machine"].items() if name in names}
            return replace(machine, provenance=f"measured, {found['date']}, {path.name}", **constants)
    return machine


def _number(architecture: str) -> int:
    return int(architecture.rpartition("_")[2])
