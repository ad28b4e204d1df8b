"""How near two results of the same maths must be.

In float64 the bound is on the maths. In float32 kernels sum in the order that suits the machine, the batch size and the
memory layout, and an element that is the difference of larger terms holds little but their rounding. So the measure is
the norm of all elements, of one tensor or of all gradients of a network, never an element's own size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def distance(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor]) -> float:
    """||found - expected|| / ||expected|| over all elements, of several tensors together."""
    pairs = [(found, expected)] if isinstance(expected, Tensor) else list(zip(found, expected, strict=True))
    apart = size = 0.0
    for a, b in pairs:
        assert a.shape == b.shape, f"{tuple(a.shape)} is not {tuple(b.shape)}"
        a, b = a.detach().double(), b.detach().double()
        apart += float((a - b).square().sum())
        size += float(b.square().sum())
    return (apart / size) ** 0.5 if size else 0.0 if apart == 0 else float("inf")


def assert_near(
    found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor], tolerance: float | None = None
) -> None:
    """The distance is at most `tolerance`: by default 1e-10 between float64 results and 1e-5 if one is float32."""
    if tolerance is None:
        tensors = [x for side in (found, expected) for x in ([side] if isinstance(side, Tensor) else side)]
        tolerance = max(TOLERANCES[x.dtype] for x in tensors)
    apart = distance(found, expected)
    assert apart <= tolerance, f"{apart:.3g} apart, of the norm; at most {tolerance:g}"
