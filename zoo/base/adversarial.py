"""The one training loop of all adversarial papers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base.averaging import AveragedModel
from zoo.base.batches import Batch
from zoo.base.conventions import refuse_single_optimizer
from zoo.base.model import Terms
from zoo.base.validating import log_objectives
from zoo.engine.capture import CapturedStep
from zoo.engine.distributed import MultiNetStrategy
from zoo.engine.lean_loop import logs_now
from zoo.engine.lean_step import hooks_are_idle
from zoo.engine.scaling import one_scale
from zoo.engine.schedulers import step_schedulers, warn_of_plateaus
from zoo.nn.schedules import Decay

__all__ = ["AdversarialModel", "Objective", "TrainingOptions"]

Objective = Callable[[Batch, Any], Terms]
"""What one phase minimizes: a function of a batch and of what `forward_shared` made of this batch."""


class TrainingOptions(TypedDict, total=False):
    """How an adversarial model is trained, whatever its paper."""

    accumulate: int
    """Batches whose gradients make one step (1)."""
    gradient_clip: float | None
    """Largest gradient norm of each phase (none)."""
    ema_decay: float | None
    """Decay of an average of the generator's weights; the average then makes the samples (none)."""
    channels_last: bool
    """Lay out convolutions channels last, which is faster on most devices (false)."""
    compile: bool
    """Compile the networks with torch.compile (false)."""
    capture: bool
    """Run each step as one CUDA graph: the host launches nothing else; a CPU runs the same step eagerly (false)."""


class AdversarialModel(AveragedModel):
    """A model whose networks play against each other.

    `objectives()` names the phases and their losses, and `configure_optimizers` returns one optimizer for each phase,
    in the same order. A step is

        shared = forward_shared(batch)                        # fakes and whatever else several phases use
        for phase, loss in objectives().items():              # "alternating"
            if should_step(phase):
                freeze the parameters of all other phases
                sum(loss(batch, shared).values()).backward()
                average the gradients over ranks, clip, step
        on_phase_stepped(phase) for each phase that stepped   # the average of the generator moves

    update = "alternating": the second phase sees the first one's new weights, and no gradient is computed that nobody
    uses. update = "simultaneous": the backward passes of all phases at the same weights, then all steps; phases may
    share whole graphs through `forward_shared`.

    Args:
        update: see above.
        step_every: a phase steps in every k-th step only; n_critic = 5 is {"generator": 5}, first at the fifth step.
        accumulate: number of batches whose gradients make one step. A step then runs phase after phase over all of
            them, as over one large batch; what phases share is made again for each phase.
        gradient_clip: largest norm of an optimizer's gradient, after the average over ranks; None does not clip.
        ema_decay: decay of an average of `averaged_networks`, which then serve inference; None keeps none.
        channels_last: memory layout of convolutions and images in training.
        compile: compile the networks at the start of a fit.
        capture: run a step, all phases of it, as one CUDA graph (see `zoo.engine.capture`).

    Attributes:
        averaging_phase: the phase after whose steps the average moves.
        detached_phases: phases that need no gradient through what `forward_shared` makes.
        unsupported_options: options that the architecture does not take, each with the reason.
        decay: schedule of the hyperparameter `learning_rate`; None keeps it.
    """

    automatic_optimization = False
    averaging_phase = "generator"
    detached_phases: tuple[str, ...] = ("discriminator",)
    unsupported_options: Mapping[str, str] = {}
    decay: Decay | None = None

    def __init__(
        self,
        *,
        update: Literal["alternating", "simultaneous"] = "alternating",
        step_every: dict[str, int] | None = None,
        accumulate: int = 1,
        gradient_clip: float | None = None,
        ema_decay: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
        capture: bool = False,
    ) -> None:
        super().__init__()
        # On the instance too: LightningModule keeps it as an instance attribute.
        self.automatic_optimization = False
        if update not in ("alternating", "simultaneous"):
            raise ValueError(f"update must be 'alternating' or 'simultaneous', not {update!r}")
        wanted = {
            "accumulate": accumulate > 1,
            "gradient_clip": gradient_clip is not None,
            "ema_decay": ema_decay is not None,
            "channels_last": channels_last,
            "compile": compile,
            "capture": capture,
        }
        for option, reason in self.unsupported_options.items():
            if wanted[option]:
                raise ValueError(f"{type(self).__name__} does not take {option}: {reason}")
        self.update = update
        self.step_every = dict(step_every or {})
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.ema_decay = ema_decay
        self.lies_channels_last = channels_last
        self.compiled = compile
        self.capture = capture
        self._active: tuple[str, ...] | None = None
        self._hooks_are_idle = False
        self._pending: list[tuple[int, Batch]] = []

    # What an architecture defines ------------------------------------------------------------------------------------

    def objectives(self) -> dict[str, Objective]:
        """The loss of each phase, in the order in which the phases step."""
        return {"discriminator": self.discriminator_loss, "generator": self.generator_loss}

    def forward_shared(self, batch: Batch) -> Any:
        """What several phases need of this batch, made once; None if there is nothing to share.

        Whatever none of `active_phases` needs may be left out.
        """
        return None

    def discriminator_loss(self, batch: Batch, shared: Any) -> Terms:
        """Terms of the discriminator's objective."""
        raise NotImplementedError(f"{type(self).__name__} defines no discriminator_loss")

    def generator_loss(self, batch: Batch, shared: Any) -> Terms:
        """Terms of the generator's objective."""
        raise NotImplementedError(f"{type(self).__name__} defines no generator_loss")

    def should_step(self, phase: str, step: int) -> bool:
        """Whether a phase steps in the given step, counted from 0."""
        return (step + 1) % self.step_every.get(phase, 1) == 0

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """Options of an optimizer that depend on the step; by default the learning rate, which `decay` lets fall."""
        return {} if self.decay is None else {"lr": self.decayed(self.hparams["learning_rate"], self.decay, step)}

    def on_phase_stepped(self, phase: str) -> None:
        """Called for each phase that stepped, once the batch's buffers have been averaged over ranks."""
        if phase == self.averaging_phase:
            self.move_averages()

    def step_pattern(self) -> Hashable:
        """What the host decides about a step, beside the active phases and the optimizers' options."""
        return None

    # The step --------------------------------------------------------------------------------------------------------

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases, in the order in which they step."""
        return tuple(self.objectives())

    @property
    def active_phases(self) -> tuple[str, ...]:
        """The phases that step with the present batch; all of them outside a fit."""
        return self.phases if self._active is None else self._active

    def setup(self, stage: str) -> None:
        """Refuse strategies that give wrong gradients for several optimizers; lay out and compile the networks."""
        super().setup(stage)
        if stage != "fit":
            return
        strategy = self.trainer.strategy
        if not isinstance(strategy, SingleDeviceStrategy | MultiNetStrategy):
            raise ValueError(
                f"{type(self).__name__} trains on one device or with strategy='ddp_nets'; "
                f"{type(strategy).__name__} would mix up the gradients of its networks"
            )
        if unknown := sorted(set(self.step_every) - set(self.phases)):
            raise ValueError(f"step_every names {unknown[0]!r}, but {type(self).__name__} has the phases {self.phases}")
        # Its own hook clips and does nothing else: `_step` does it.
        own = ["on_before_optimizer_step"] * (
            type(self).on_before_optimizer_step is AdversarialModel.on_before_optimizer_step
        )
        self._hooks_are_idle = hooks_are_idle(self.trainer, self, *own)
        self.lay_out()
        if self.compiled:
            for network in _networks(self):
                if any(p.requires_grad for p in network.parameters()):
                    network.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch through all phases that step."""
        self._pending.append((self.batch_index, {name: self.laid_out(value) for name, value in batch.items()}))
        if len(self._pending) < self.accumulate:
            return
        batches, self._pending = self._pending, []
        step = self.batch_index // self.accumulate
        objectives = self.objectives()
        waits = self.start is not None and step < self.start["warmup"]  # for a discriminator that is new
        active = tuple(
            phase
            for phase in objectives
            if self.should_step(phase, step) and not (waits and phase not in self.detached_phases)
        )
        configured = self.optimizers()
        configured = configured if isinstance(configured, list) else [configured]
        optimizers = dict(zip(objectives, configured, strict=True))
        for phase in active:
            if options := self.optimizer_overrides(phase, step):
                for group in optimizers[phase].param_groups:
                    group.update(options)

        objectives = {phase: objectives[phase] for phase in active}
        if self.captured is None:
            terms = self._whole_step(batches, objectives, optimizers)
        else:
            terms = self._captured_step(self.captured, *batches[0], objectives, optimizers)
        step_schedulers(self.trainer, self, "step", step + 1)
        if logs_now(self.trainer):
            self.log_dict(terms, prog_bar=True, batch_size=1)

    def _whole_step(
        self,
        batches: list[tuple[int, Batch]],
        objectives: dict[str, Objective],
        optimizers: dict[str, LightningOptimizer],
    ) -> Terms:
        """All that the device does in a step."""
        run = self._alternate if self.update == "alternating" else self._simultaneous
        terms = run(batches, objectives, optimizers)
        if isinstance(strategy := self.trainer.strategy, MultiNetStrategy):
            strategy.average_buffers()
        for phase in objectives:
            self.on_phase_stepped(phase)
        return terms

    def _captured_step(
        self,
        captured: CapturedStep,
        index: int,
        batch: Batch,
        objectives: dict[str, Objective],
        optimizers: dict[str, LightningOptimizer],
    ) -> Terms:
        """The same as one graph, which calls no Python."""

        def body(batch: Batch) -> Terms:
            terms = self._whole_step([(index, batch)], objectives, optimizers)
            self.finite.look()
            return terms

        pattern = (*objectives, self.step_pattern())
        terms = captured.run(self, batch, pattern, [o.optimizer for o in optimizers.values()], body)
        for phase in objectives:
            optimizers[phase]._on_after_step()  # the loop counts
        if self.device.type == "cpu":
            self.raise_if_not_finite()
        if logs_now(self.trainer):
            terms = {name: value.clone() for name, value in terms.items()}  # the next step writes over them
        return terms

    def on_train_start(self) -> None:
        """Say which schedulers nobody steps."""
        super().on_train_start()
        warn_of_plateaus(self.trainer)

    def on_train_epoch_end(self) -> None:
        """Step the schedulers that count epochs."""
        super().on_train_epoch_end()
        step_schedulers(self.trainer, self, "epoch", self.current_epoch + 1)

    def check_trainer(self) -> None:
        """Refuse what Lightning does for a single optimizer only."""
        super().check_trainer()
        refuse_single_optimizer(self.trainer, type(self).__name__)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """The mean of each term of each phase over exactly the validation images, whatever the number of ranks."""
        log_objectives(self, "val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """The same for the test images."""
        log_objectives(self, "test", batch, batch_idx)

    def _alternate(
        self,
        batches: list[tuple[int, Batch]],
        objectives: dict[str, Objective],
        optimizers: dict[str, LightningOptimizer],
    ) -> Terms:
        logged: Terms = {}
        shared = None
        if len(batches) == 1:
            shared = self._share(*batches[0], tuple(objectives))
        for phase, loss in objectives.items():
            with self.only(phase, optimizers):
                for index, batch in batches:
                    if len(batches) > 1:
                        shared = self._share(index, batch, (phase,))
                    self._backward(self._total(phase, loss(batch, shared), logged), len(batches))
                self._step(optimizers[phase])
            optimizers[phase].zero_grad()
        return logged

    def _simultaneous(
        self,
        batches: list[tuple[int, Batch]],
        objectives: dict[str, Objective],
        optimizers: dict[str, LightningOptimizer],
    ) -> Terms:
        logged: Terms = {}
        last = tuple(objectives)[-1:]
        for index, batch in batches:
            shared = self._share(index, batch, tuple(objectives))
            # `inputs` sends each objective's gradient to its own networks only, and skips all others' weight gradients.
            for phase, loss in objectives.items():
                inputs = [p for p in _parameters(optimizers[phase]) if p.requires_grad]
                total = self._total(phase, loss(batch, shared), logged)
                self._backward(total, len(batches), inputs=inputs, retain_graph=(phase,) != last)
        with one_scale(getattr(self.trainer.precision_plugin, "scaler", None)):
            for phase in objectives:
                self._step(optimizers[phase])
                optimizers[phase].zero_grad()
        return logged

    def _backward(self, total: Tensor, batches: int, **options: Any) -> None:
        """Gradients of a loss, of which a batch has its share."""
        loss = total if batches == 1 else total / batches
        if self._hooks_are_idle:
            torch.autograd.backward(loss, **options)
        else:
            self.manual_backward(loss, **options)

    def _step(self, optimizer: LightningOptimizer) -> None:
        """One step of an optimizer, which the loop counts."""
        if self._hooks_are_idle:
            if self.gradient_clip is not None:
                self.on_before_optimizer_step(optimizer.optimizer)
            optimizer._on_before_step()
            optimizer.optimizer.step()
            optimizer._on_after_step()
        else:
            optimizer.step()

    def _share(self, index: int, batch: Batch, active: tuple[str, ...]) -> Any:
        self.batch_index = index
        self._active = active
        with torch.set_grad_enabled(self.update == "simultaneous" or not set(active) <= set(self.detached_phases)):
            return self.forward_shared(batch)

    def _total(self, phase: str, terms: Terms, logged: Terms) -> Tensor:
        logged.update({f"{phase}/{name}": value.detach() for name, value in terms.items()})
        total = reduce(add, terms.values())
        self.check_finite(phase, total)
        return total

    @contextmanager
    def only(self, phase: str, optimizers: Mapping[str, Optimizer | LightningOptimizer]) -> Iterator[None]:
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

    def laid_out(self, value: Any) -> Any:
        """Images in the memory layout of the networks; other values as they are."""
        if isinstance(value, Tensor) and value.dim() == 4:
            return value.contiguous(memory_format=self.memory_format)
        return value

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: here gradients are averaged over ranks and unscaled already."""
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), self.gradient_clip)

    def adam_for_each(
        self, networks: Iterable[nn.Module], learning_rate: float, betas: Iterable[float], **options: Any
    ) -> list[Optimizer]:
        """One Adam for each network, with the same options.

        Args:
            networks: the networks, in the order of the phases.
            learning_rate: step size.
            betas: decay rates.
            options: further arguments of `torch.optim.Adam`.
        """
        return [self.adam(n.parameters(), learning_rate, betas=tuple(betas), **options) for n in networks]

    def rank_state_dict(self) -> dict[str, Any]:
        """Batches that wait for the rest of their step."""
        return {"pending": self._pending} if self._pending else {}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""
        self._pending = [(index, batch) for index, batch in state.get("pending", [])]


def _networks(model: nn.Module) -> Iterator[nn.Module]:
    """The networks of a model, those in a dict or list one by one."""
    for network in model.children():
        yield from _networks(network) if isinstance(network, nn.ModuleDict | nn.ModuleList) else (network,)


def _parameters(optimizer: Optimizer | LightningOptimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
