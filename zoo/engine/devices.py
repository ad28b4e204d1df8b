"""What devices differ in: float64, generators, copies from the CPU, how CUDA and CPUs round float32.

On CUDA a fit in float32 multiplies in TF32, which keeps 10 bits of each factor: convolutions because torch does so, and
products of matrices, for which torch asks, because `tf32_products` says so. NVIDIA_TF32_OVERRIDE=0 in the environment,
or `torch.backends.cudnn.allow_tf32 = False` in Python, leaves both in float32. Measures are exact and deterministic
always: `exact_kernels`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "double",
    "exact_kernels",
    "flushed_denormals",
    "generators",
    "has_float64",
    "name_of",
    "processor",
    "slow_in_bf16",
    "tf32_products",
    "upload",
]


def has_float64(device: torch.device | str | None) -> bool:
    """Whether a device computes in float64: Apple's GPUs do not, nor do some of Intel's.

    Args:
        device: the device; None is the CPU.
    """
    kind = torch.device(device or "cpu")
    if kind.type == "xpu":
        return bool(torch.xpu.get_device_properties(kind).has_fp64)
    return kind.type != "mps"


def processor() -> str:
    """Name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def name_of(device: torch.device | str) -> str:
    """Name of a device; devices of the same name round alike."""
    kind = torch.device(device).type
    if kind in ("cuda", "xpu"):
        name: str = torch.get_device_module(kind).get_device_name(device)
        return name
    if kind == "mps":
        return f"{processor()} GPU"
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()})"


def slow_in_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 in software, at a third of float32's speed or less: most CPUs do.

    oneDNN says that it supports bf16 wherever it can convert; products need instructions of their own, which on x86
    are AVX512-BF16, on newer processors beside AMX.

    Args:
        device: the device.
    """
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return not torch.cpu._is_avx512_bf16_supported()
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


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


@contextmanager
def tf32_products(device: torch.device) -> Iterator[None]:
    """Products of matrices on CUDA as convolutions are there: in TF32, unless the user has chosen otherwise.

    Args:
        device: the model's.
    """
    before = torch.get_float32_matmul_precision()
    chosen = before != "highest" or torch.backends.cudnn.conv.fp32_precision != "tf32"  # type: ignore[attr-defined]
    if device.type != "cuda" or chosen:
        yield
        return
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """CPUs that can do so take numbers below 1e-38 for 0, with which they compute several times more slowly.

    Adam's means of a weight whose gradient has become 0, as at an image's blank border, fall that low within 900 steps.
    Threads that torch has started before keep what they do: enter this before anything is computed.
    """
    before = bool(torch.full((), 1e-40).mul(1) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def exact_kernels() -> Iterator[None]:
    """Products and convolutions on CUDA in full float32, and always by the same algorithm."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.deterministic
    precisions = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision
    # torch has these settings twice, and refuses to read the older ones where the newer ones differ: set both.
    older = _readable(lambda: cudnn.allow_tf32), _readable(torch.get_float32_matmul_precision)
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = False, True, False
    torch.set_float32_matmul_precision("highest")
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        if older[0] is not None:
            cudnn.allow_tf32 = older[0]
        if older[1] is not None:
            torch.set_float32_matmul_precision(older[1])
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision = precisions


def _readable(setting: Callable[[], Any]) -> Any:
    try:
        return setting()
    except RuntimeError:
        return None
