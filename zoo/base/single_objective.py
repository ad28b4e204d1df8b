"""Models that have one objective, trained by Lightning's automatic optimization."""

from __future__ import annotations

from functools import reduce
from operator import add

from torch import Tensor
from torch.optim import Optimizer

from zoo.base.model import Batch, GenerativeModel, Terms
from zoo.engine.capture import CapturedStep
from zoo.engine.lean_loop import logs_now
from zoo.nn.schedules import Decay

__all__ = ["SingleObjectiveModel"]


class SingleObjectiveModel(GenerativeModel):
    """A model with one objective, trained by Lightning's automatic optimization.

    Subclasses define `objective(batch)`, which returns the terms of the loss. Training logs them as `train/<term>`,
    validation and test as `val/<term>` and `test/<term>`, each with the sum as `loss`.

    Attributes:
        decay: schedule of the optimizer's learning rate; None leaves the rate as it is.
    """

    decay: Decay | None = None

    def objective(self, batch: Batch) -> Terms:
        """Terms whose sum is minimized, each a mean over the batch."""
        raise NotImplementedError(f"{type(self).__name__} defines no objective")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of the schedule: a function of the step or epoch, so that a checkpoint holds none."""
        if self.decay is not None:
            for optimizer in self.trainer.optimizers:
                rate = self.decayed(optimizer.defaults["lr"], self.decay, self.trainer.global_step)
                for group in optimizer.param_groups:
                    group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        terms = self.objective(batch)
        loss = reduce(add, terms.values())
        self.check_finite("training", loss)
        if logs_now(self.trainer):
            self._log_training(loss, terms)
        return loss

    def captured_step(self, captured: CapturedStep, batch: Batch, optimizer: Optimizer) -> Tensor:
        """A whole step as one graph, in place of `training_step` and what follows from it.

        Args:
            captured: runs it.
            batch: the batch.
            optimizer: the model's.

        Returns:
            The loss, without gradients.
        """

        def body(batch: Batch) -> Terms:
            with self.trainer.precision_plugin.train_step_context():
                terms = self.objective(batch)
                loss = reduce(add, terms.values())
                self.check_finite("training", loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()  # gradients live within a step
            self.finite.look()
            return {name: value.detach() for name, value in terms.items()} | {"": loss.detach()}

        terms = captured.run(self, batch, None, [optimizer], body)
        if self.device.type == "cpu":
            self.raise_if_not_finite()
        loss = terms[""].clone()  # the next step writes over it
        if logs_now(self.trainer):
            self._log_training(loss, {name: value.clone() for name, value in terms.items() if name})
        return loss

    def _log_training(self, loss: Tensor, terms: Terms) -> None:
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        self.log_dict({"train/loss": loss.detach(), **logged}, prog_bar=True, batch_size=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The mean of each term over exactly the validation images, whatever the number of ranks."""
        self._log_terms("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same for the test images."""
        self._log_terms("test", batch)

    def _log_terms(self, split: str, batch: Batch) -> None:
        terms = self.objective(batch)
        terms = {"loss": reduce(add, terms.values()), **terms}
        logged = {f"{split}/{name}": value for name, value in terms.items()}
        self.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(batch["image"]))
