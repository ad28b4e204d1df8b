"""Losses and weights that are not finite: noticed at once on a CPU, without waiting for the device elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from zoo.engine.overhead import LeanModule

__all__ = ["FiniteWatch", "WatchedModule", "broken_network"]

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


class WatchedModule(LeanModule):
    """A LightningModule that stops when a loss or a weight is not finite.

    Attributes:
        batch_index: index of the training batch in the run, counted over epochs and resumes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batch_index = 0
        self.finite = FiniteWatch()

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the objectives, in the order in which they are minimized."""
        return ("training",)

    def check_finite(self, phase: str, loss: Tensor) -> None:
        """Stop when a loss is not finite: at once on a CPU, at the next logging step or checkpoint elsewhere.

        Args:
            phase: name of the phase, for the message.
            loss: scalar.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        phases = self.phases
        if self.finite.is_bad(loss, self.batch_index * len(phases) + phases.index(phase)):
            self._raise_not_finite(phase, self.batch_index)

    def raise_if_not_finite(self, *, parameters: bool = False) -> None:
        """Raise if a loss was not finite since the start of the fit.

        Args:
            parameters: look at the parameters as well.

        Raises:
            FloatingPointError: names the step and the phase, or the network.
        """
        if (code := self.finite.first_bad()) is not None:
            index, phase = divmod(code, len(self.phases))
            self._raise_not_finite(self.phases[phase], index)
        if parameters and (name := broken_network(self.named_children())):
            raise FloatingPointError(
                f"weights of {name!r} are not finite at step {self.global_step}: training stopped, "
                f"no checkpoint was written{self._last_checkpoint()}"
            )

    def _raise_not_finite(self, phase: str, batch_index: int) -> None:
        raise FloatingPointError(
            f"loss of the phase {phase!r} is not finite at batch {batch_index}: training stopped"
            f"{self._last_checkpoint()}; a lower learning rate or gradient_clip may help"
        )

    def _last_checkpoint(self) -> str:
        if self._trainer is None:
            return ""
        callback = self.trainer.checkpoint_callback
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        return f", the last good checkpoint is {path}" if path else ""
