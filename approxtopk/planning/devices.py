"""Reference GPUs, one per architecture, for planning and compiling where there is no GPU.

Multiprocessors and shared memory per block are the vendor's (CUDA C++ Programming Guide, "Compute
Capabilities"; the data sheets of the named products).
"""

from __future__ import annotations

from ..plan import DeviceInfo

__all__ = ["REFERENCES"]

REFERENCES: dict[str, DeviceInfo] = {
    info.architecture: info
    for info in (
        DeviceInfo("reference V100", "sm_70", 80, 96 * 1024),
        DeviceInfo("reference T4", "sm_75", 40, 64 * 1024),
        DeviceInfo("reference A100", "sm_80", 108, 163 * 1024),
        DeviceInfo("reference RTX 3090", "sm_86", 82, 99 * 1024),
        DeviceInfo("reference L40S", "sm_89", 142, 99 * 1024),
        DeviceInfo("reference H200", "sm_90", 132, 227 * 1024),
        DeviceInfo("reference B200", "sm_100", 148, 227 * 1024),
        DeviceInfo("reference RTX 5090", "sm_120", 170, 99 * 1024),
    )
}
