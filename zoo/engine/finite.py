"""Losses and weights that are not finite: noticed at once on a CPU, without waiting for the device elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo.engine.capture import CapturedStep, StepNumbers
from zoo.engine.cross_rank import world_size
from zoo.engine.devices import upload
from zoo.engine.overhead import LeanModule

__all__ = ["FiniteWatch", "WatchedModule", "broken_network"]

_NONE_BAD = torch.iinfo(torch.int64).max


class FiniteWatch:
    """Remembers the first loss of a fit that was not finite, without waiting for the device of the losses."""

    keeps = 256
    """Losses that are kept until they are looked at together."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, at the start of a fit."""
        self._first_bad: Tensor | None = None
        self._losses: list[tuple[int, Tensor]] = []
        self._captured: list[tuple[Tensor, Tensor]] = []

    def is_bad(self, loss: Tensor, code: int) -> bool:
        """Look at a loss.

        Args:
            loss: scalar.
            code: number of the batch and the phase, in the order of time.

        Returns:
            Whether the loss is not finite, of one process on a CPU. Elsewhere always False, and `first_bad` tells
            later: looking would wait for a GPU, and one of several ranks that stops would leave the others waiting.
        """
        if loss.device.type == "cpu" and world_size() == 1:
            return not math.isfinite(loss.item())
        self._losses.append((code, loss.detach()))
        if len(self._losses) == self.keeps:
            self._look(loss.device)
        return False

    def first_bad(self, device: torch.device) -> int | None:
        """Code of the first loss on any rank that was not finite; waits for the device, and every rank must call this.

        Args:
            device: of the model.
        """
        self._look(device)
        if (first := self._first_bad) is None:
            if world_size() == 1:
                return None
            first = torch.tensor(_NONE_BAD, device=device)
        if world_size() > 1:
            dist.all_reduce(first, dist.ReduceOp.MIN)
        return None if (code := int(first.item())) == _NONE_BAD else code

    def start_capture(self, device: torch.device) -> None:
        """Make the place where captured steps note the number of the first bad loss.

        Args:
            device: of the model.
        """
        self._first_bad = torch.full((), _NONE_BAD, device=device)

    def keep(self, loss: Tensor, code: Tensor) -> None:
        """Remember the loss of a captured step until `look`; arguments as for `is_bad`, all on the device."""
        self._captured.append((code, loss.detach()))

    def look(self) -> None:
        """Look at the losses of a captured step, on the device."""
        if self._captured and (bad := self._first_bad) is not None:
            finite = torch.stack([loss.float() for _, loss in self._captured]).isfinite()
            codes = torch.stack([code for code, _ in self._captured])
            torch.minimum(bad, torch.where(finite, _NONE_BAD, codes).min(), out=bad)
        self._captured = []

    def _look(self, device: torch.device) -> None:
        """Take the kept losses into the number of the first bad one."""
        if not self._losses:
            return
        codes = upload(torch.tensor([code for code, _ in self._losses]), device)
        finite = torch.stack([loss.float() for _, loss in self._losses]).isfinite()
        first = torch.where(finite, _NONE_BAD, codes).min()
        self._first_bad = first if self._first_bad is None else torch.minimum(self._first_bad, first)
        self._losses = []


@torch.no_grad()
def broken_network(networks: Iterable[tuple[str, nn.Module]]) -> str | None:
    """Name of the first network with a parameter that is not finite, on any rank; waits for the device once.

    Args:
        networks: names and networks; every rank must call this.
    """
    names: list[str] = []
    flags: list[Tensor] = []
    for name, network in networks:
        tensors: list[Tensor] = list(network.parameters())
        if tensors:
            names.append(name)
            norms = [norm.float() for norm in torch._foreach_norm(tensors)]
            flags.append(torch.stack(norms).isfinite().all())
    if not names:
        return None
    fine = torch.stack(flags).int()
    if world_size() > 1:
        dist.all_reduce(fine, dist.ReduceOp.MIN)
    return next((name for name, flag in zip(names, fine.tolist(), strict=True) if not flag), None)


class WatchedModule(LeanModule):
    """A LightningModule that stops when a loss or a weight is not finite.

    Attributes:
        batch_index: index of the training batch in the run, counted over epochs and resumes.
        captured: runs the steps of a fit as graphs; None for ordinary steps.
        step_numbers: the numbers of a captured step while it runs.
    """

    captured: CapturedStep | None = None
    step_numbers: StepNumbers | None = None

    def __init__(self) -> None:
        super().__init__()
        self.batch_index = 0
        self.finite = FiniteWatch()

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the objectives, in the order in which they are minimized."""
        return ("training",)

    def check_finite(self, phase: str, loss: Tensor) -> None:
        """Stop when a loss is not finite: at once in one process on a CPU, else at the next logging step or checkpoint.

        Args:
            phase: name of the phase, for the message.
            loss: scalar.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        phases = self.phases
        if (numbers := self.step_numbers) is not None:
            place = phases.index(phase)
            code = numbers.integer(f"loss {phase}", lambda: self.batch_index * len(phases) + place)
            self.finite.keep(loss, code)
            return
        if self.finite.is_bad(loss, self.batch_index * len(phases) + phases.index(phase)):
            self._raise_not_finite(phase, self.batch_index)

    def raise_if_not_finite(self, *, parameters: bool = False) -> None:
        """Raise if a loss was not finite since the start of the fit, on all ranks alike; every rank must call this.

        Args:
            parameters: look at the parameters as well.

        Raises:
            FloatingPointError: names the step and the phase, or the network.
        """
        if (code := self.finite.first_bad(self.device)) is not None:
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
