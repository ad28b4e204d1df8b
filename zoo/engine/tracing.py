"""Whether tensors have values now, or whether a graph is being made in which any values may stand later."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["is_exported", "is_traced"]


def is_traced() -> bool:
    """Whether the call is compiled, exported or traced: then no value of a tensor can be looked at."""
    return torch.compiler.is_compiling() or _jit_traces()


def is_exported() -> bool:
    """Whether the call becomes a graph for other devices and runtimes, by `torch.export` or `torch.jit.trace`."""
    return torch.compiler.is_exporting() or _jit_traces()


def _jit_traces() -> bool:
    jit: Any = torch.jit
    return bool(jit.is_tracing())
