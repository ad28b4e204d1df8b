"""What devices differ in: float64, generators, copies from the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["double", "generators", "has_float64", "upload"]


def has_float64(device: torch.device | str | None) -> bool:
    """Whether a device computes in float64: Apple's GPUs do not, nor do some of Intel's.

    Args:
        device: the device; None is the CPU.
    """
    kind = torch.device(device or "cpu")
    if kind.type == "xpu":
        return bool(torch.xpu.get_device_properties(kind).has_fp64)
    return kind.type != "mps"


def double(x: Tensor) -> Tensor:
    """The values in float64: where they are, or on the CPU if their device has no float64.

    Shape:
        Input and output: any.
    """
    return x.double() if has_float64(x.device) else x.cpu().double()


def upload(x: Tensor, device: torch.device) -> Tensor:
    """A copy of a tensor of the CPU on a device, for which the host does not wait.

    Shape:
        Input and output: any.
    """
    return x.to(device, non_blocking=True)


def generators(device: torch.device) -> list[torch.Generator]:
    """torch's own generators of random numbers that a model on a device draws from: the CPU's and the device's.

    Args:
        device: the model's.
    """
    own = [torch.default_generator]
    if device.type == "cuda":
        own.append(torch.cuda.default_generators[device.index or 0])
    elif device.type == "xpu":
        own.append(torch.xpu.default_generators[device.index or 0])
    elif device.type == "mps":
        own.append(torch.mps._get_default_mps_generator())
    return own
