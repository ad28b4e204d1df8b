"""What bounds a training step on a GPU: the host, which starts its kernels, or arithmetic."""

from __future__ import annotations

__all__ = ["LAUNCH_MICROSECONDS", "PEAKS", "arithmetic", "launching"]

PEAKS = {"H200": 790e12, "A100": 312e12}
"""Dense products in bf16, FLOPs a second. H200: four fifths of the 989e12 in NVIDIA's data sheet (2024); A100: all of
the 312e12 in NVIDIA's data sheet (2021)."""

LAUNCH_MICROSECONDS = 4.0
"""In which the host starts a kernel."""


def launching(kernels: float) -> float:
    """Milliseconds in which the host starts the kernels of a step."""
    return kernels * LAUNCH_MICROSECONDS / 1e3


def arithmetic(gflop: float, peak: float) -> float:
    """Milliseconds that the arithmetic of a step takes at half the peak.

    Args:
        gflop: of the step, in 1e9.
        peak: FLOPs a second.
    """
    return gflop * 1e9 / (peak / 2) * 1e3
