"""Losses and weights that are not finite: noticed at once on a CPU, without waiting for the device elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["FiniteWatch", "broken_network"]

_NONE_BAD = torch.iinfo(torch.int64).max


class FiniteWatch:
    """Remembers the first loss of a fit that was not finite, as a number on the device of the losses."""

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None

    def forget(self) -> None:
        """Start anew, at the start of a fit."""
        self._first_bad = None

    def is_bad(self, loss: Tensor, code: int) -> bool:
        """Look at a loss.

        Args:
            loss: scalar.
            code: number of the batch and the phase, in the order of time.

        Returns:
            Whether the loss is not finite; on devices other than a CPU always False, and `first_bad` tells later.
        """
        if loss.device.type == "cpu":
            return not math.isfinite(loss.item())
        if self._first_bad is None:
            self._first_bad = torch.full((), _NONE_BAD, dtype=torch.int64, device=loss.device)
        self._first_bad.clamp_(max=torch.where(loss.detach().isfinite(), _NONE_BAD, code))
        return False

    def first_bad(self) -> int | None:
        """Code of the first loss that was not finite; waits for the device."""
        if self._first_bad is None or (code := int(self._first_bad.item())) == _NONE_BAD:
            return None
        return code


def broken_network(networks: Iterable[tuple[str, nn.Module]]) -> str | None:
    """Name of the first network with a parameter that is not finite; waits for the device.

    Args:
        networks: names and networks.
    """
    for name, network in networks:
        tensors = [p.detach() for p in network.parameters()]
        if tensors and not all(torch.isfinite(norm) for norm in torch._foreach_norm(tensors)):
            return name
    return None
