"""The one training loop of all adversarial papers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any, Literal

from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base.model import Batch, GenerativeModel, Terms
from zoo.engine.distributed import MultiNetStrategy

__all__ = ["AdversarialModel"]


class AdversarialModel(GenerativeModel):
    """A model whose networks play against each other: the one training loop of all adversarial papers.

    Each name in `phases` has one optimizer (`configure_optimizers` returns them in this order) and one method
    `<phase>_loss(batch, shared)` that returns the terms of its objective. What several phases need of a batch, such as
    its fakes, `forward_shared(batch)` makes once.

    update = "alternating": for each phase in turn, freeze all other networks, backward, step. So the second phase sees
    the first one's new weights, and no gradient is computed that nobody uses.
    update = "simultaneous": backward for every phase at the same weights, then all steps; phases may share whole
    graphs through `forward_shared`.

    Args:
        update: see above.
        every: a phase steps in every k-th step only; n_critic = 5 is {"generator": 5}, first at the fifth step.
        accumulate: number of batches whose gradients make one step. A step then runs phase after phase over all of
            them, as it would over one large batch; what phases share is made again for each phase.
        gradient_clip: largest norm of an optimizer's gradient, after the average over ranks; None does not clip.

    Attributes:
        phases: names of the phases, in the order in which they step.
        due: phases that step with the present batch; `forward_shared` may leave out what they do not need.
    """

    phases: tuple[str, ...] = ("discriminator", "generator")
    automatic_optimization = False

    def __init__(
        self,
        *,
        update: Literal["alternating", "simultaneous"] = "alternating",
        every: dict[str, int] | None = None,
        accumulate: int = 1,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__()
        # On the instance too: LightningModule keeps it as an instance attribute.
        self.automatic_optimization = False
        if update not in ("alternating", "simultaneous"):
            raise ValueError(f"update must be 'alternating' or 'simultaneous', not {update!r}")
        if unknown := sorted(set(every or {}) - set(self.phases)):
            raise ValueError(f"every names {unknown[0]!r}, but {type(self).__name__} has the phases {self.phases}")
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, not {accumulate}")
        self.update = update
        self.every = dict(every or {})
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.due = self.phases
        self._pending: list[tuple[int, Batch]] = []

    def forward_shared(self, batch: Batch) -> Any:
        """What several phases need of this batch, made once; None if there is nothing to share."""
        return None

    def is_due(self, phase: str, step: int) -> bool:
        """Whether a phase steps in the given step, counted from 0."""
        return (step + 1) % self.every.get(phase, 1) == 0

    def optimizer_options(self, phase: str, step: int) -> dict[str, Any]:
        """What of an optimizer's options depends on the step, such as {"lr": 0.1}: a schedule that needs no state."""
        return {}

    def after_step(self, phase: str) -> None:
        """Called for each phase that stepped, once the batch's buffers have been averaged over ranks."""

    def setup(self, stage: str) -> None:
        """Refuse strategies that give wrong gradients for models with several optimizers."""
        super().setup(stage)
        strategy = self.trainer.strategy
        if stage == "fit" and not isinstance(strategy, SingleDeviceStrategy | MultiNetStrategy):
            raise ValueError(
                f"{type(self).__name__} trains on one device or with strategy='ddp_nets'; "
                f"{type(strategy).__name__} would mix up the gradients of its networks"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch through all phases that are due."""
        self._pending.append((self.batch_index, batch))
        if len(self._pending) < self.accumulate:
            return
        batches, self._pending = self._pending, []
        step = self.batch_index // self.accumulate
        due = tuple(phase for phase in self.phases if self.is_due(phase, step))
        configured = self.optimizers()
        configured = configured if isinstance(configured, list) else [configured]
        optimizers = dict(zip(self.phases, configured, strict=True))
        for phase in due:
            if options := self.optimizer_options(phase, step):
                for group in optimizers[phase].param_groups:
                    group.update(options)

        run = self._alternate if self.update == "alternating" else self._simultaneous
        terms = run(batches, due, optimizers)

        if isinstance(strategy := self.trainer.strategy, MultiNetStrategy):
            strategy.average_buffers()
        for phase in due:
            self.after_step(phase)
        if self.trainer._logger_connector.should_update_logs:
            self.log_dict(terms, prog_bar=True, batch_size=1)

    def _alternate(
        self, batches: list[tuple[int, Batch]], due: tuple[str, ...], optimizers: dict[str, LightningOptimizer]
    ) -> Terms:
        logged: Terms = {}
        shared = None
        if len(batches) == 1:
            shared = self._share(*batches[0], due)
        for phase in due:
            optimizer = optimizers[phase]
            with self._only(phase, optimizers):
                for index, batch in batches:
                    if len(batches) > 1:
                        shared = self._share(index, batch, (phase,))
                    loss = self._objective(phase, batch, shared, logged)
                    self.manual_backward(loss / len(batches))
                optimizer.step()
            optimizer.zero_grad()
        return logged

    def _simultaneous(
        self, batches: list[tuple[int, Batch]], due: tuple[str, ...], optimizers: dict[str, LightningOptimizer]
    ) -> Terms:
        logged: Terms = {}
        for index, batch in batches:
            shared = self._share(index, batch, due)
            # `inputs` sends each objective's gradient to its own networks only, and skips all others' weight gradients.
            for phase in due:
                inputs = [p for p in _parameters(optimizers[phase]) if p.requires_grad]
                loss = self._objective(phase, batch, shared, logged)
                self.manual_backward(loss / len(batches), inputs=inputs, retain_graph=phase != due[-1])
        for phase in due:
            optimizers[phase].step()
            optimizers[phase].zero_grad()
        return logged

    def _share(self, index: int, batch: Batch, due: tuple[str, ...]) -> Any:
        self.batch_index = index
        self.due = due
        return self.forward_shared(batch)

    def _objective(self, phase: str, batch: Batch, shared: Any, logged: Terms) -> Tensor:
        terms: Terms = getattr(self, f"{phase}_loss")(batch, shared)
        logged.update({f"{phase}/{name}": value.detach() for name, value in terms.items()})
        loss = reduce(add, terms.values())
        self.check_finite(phase, loss)
        return loss

    @contextmanager
    def _only(self, phase: str, optimizers: dict[str, LightningOptimizer]) -> Iterator[None]:
        """Freeze every parameter that belongs to other phases' optimizers and not to this one's."""
        own = {id(p) for p in _parameters(optimizers[phase])}
        frozen = [
            p
            for name, optimizer in optimizers.items()
            if name != phase
            for p in _parameters(optimizer)
            if p.requires_grad and id(p) not in own
        ]
        for p in frozen:
            p.requires_grad = False
        try:
            yield
        finally:
            for p in frozen:
                p.requires_grad = True

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: here gradients are averaged over ranks and unscaled already."""
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), self.gradient_clip)

    def rank_state_dict(self) -> dict[str, Any]:
        """Batches that wait for the rest of their step."""
        return {"pending": self._pending} if self._pending else {}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""
        self._pending = [(index, batch) for index, batch in state.get("pending", [])]

    def on_train_start(self) -> None:
        """Move restored batches to the device, which is not known yet when a checkpoint is loaded."""
        self._pending = [(index, move_data_to_device(batch, self.device)) for index, batch in self._pending]


def _parameters(optimizer: Optimizer | LightningOptimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
