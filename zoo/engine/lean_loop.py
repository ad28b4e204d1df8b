"""Lightning's loop over batches without the hooks that nobody uses.

Around the step of a small model Lightning asks hundreds of times what it asked a batch before: which loop is active,
whose hooks there are, whether new values were logged. What happens in a batch, and in which order, is as in Lightning;
what is asked for is asked once an epoch. Ranks, accumulation, profilers and loops that go on in the middle of a batch
take Lightning's own way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from zoo.engine.overhead import LeanModule, NoProfiler

__all__ = ["TRANSFER", "LeanEpochLoop", "logs_now", "overrides", "transfers_plainly"]

TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""Hooks around the transfer of a batch, of the model or of the DataModule."""

Hook = Callable[..., Any]


class LeanEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, which looks once an epoch for hooks that are used."""

    _is_lean = _is_plain_transfer = _never_validates = False
    _callbacks: tuple[Callback, ...] = ()
    _starts: tuple[Hook, ...] = ()
    _ends: tuple[Hook, ...] = ()

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Look for hooks that are used."""
        super().on_run_start(data_fetcher)
        trainer, model = self.trainer, self.trainer.lightning_module
        self._is_lean = (
            isinstance(model, LeanModule)
            and type(trainer.strategy) is SingleDeviceStrategy
            and type(trainer.profiler) in (NoProfiler, PassThroughProfiler)
            and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
            and trainer.accumulate_grad_batches == 1
        )
        self._is_plain_transfer = transfers_plainly(model, cast(Any, trainer).datamodule)
        self._never_validates = not trainer.enable_validation
        self._find_hooks()

    def _should_check_val_epoch(self) -> bool:
        return not (self._is_lean and self._never_validates) and super()._should_check_val_epoch()

    def _find_hooks(self) -> None:
        self._callbacks = tuple(self.trainer.callbacks)

        def used(name: str) -> tuple[Hook, ...]:
            return tuple(getattr(callback, name) for callback in self._callbacks if overrides(callback, name))

        self._starts, self._ends = used("on_train_batch_start"), used("on_train_batch_end")

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on one batch.

        Raises:
            StopIteration: a hook of the model has ended the epoch.
        """
        if not self._is_lean or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.batch_progress
        connector, model = trainer._logger_connector, cast(LeanModule, trainer.lightning_module)
        if self._callbacks != tuple(trainer.callbacks):
            self._find_hooks()
        if self.val_loop.restarting:
            self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = self._transferred(trainer.precision_plugin.convert_input(batch))
        progress.increment_ready()
        connector._first_loop_iter = connector._first_loop_iter is None
        results = self._results
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

        output: Any = None
        is_over = self._call("on_train_batch_start", self._starts, batch, index) == -1
        if is_over:
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            kwargs = self._build_kwargs(OrderedDict(), batch, index)
            if model.automatic_optimization:
                output = self.automatic_optimization.run(trainer.optimizers[0], index, kwargs)
            else:
                output = self.manual_optimization.run(kwargs)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        if is_over:
            raise StopIteration

        self._call("on_train_batch_end", self._ends, output, batch, index)
        if model.has_logged:
            model.has_logged = False
            connector.on_batch_end()
        results.batch, results.batch_size = None, None
        progress.increment_completed()
        if logs_now(trainer) or cast(Any, trainer).fast_dev_run:
            connector.update_train_step_metrics()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Count the batch; validation and what else may follow is Lightning's."""
        trainer = self.trainer
        follows = trainer.lr_scheduler_configs or trainer.should_stop or trainer.received_sigterm
        if not self._is_lean or follows or self._skip_next_val or self._should_check_val_fx(data_fetcher):
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _transferred(self, batch: Any) -> Any:
        """A batch on the device, as the model takes batches."""
        trainer, model = self.trainer, self.trainer.lightning_module
        if self._is_plain_transfer:
            return model.on_after_batch_transfer(_moved(batch, trainer.strategy.root_device), 0)
        batch = model._on_before_batch_transfer(batch, dataloader_idx=0)
        return call._call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=0)

    def _call(self, name: str, hooks: tuple[Hook, ...], *args: Any) -> Any:
        """Call a hook of the callbacks and of the model; returns what the model's returns."""
        trainer, model = self.trainer, self.trainer.lightning_module
        model._current_fx_name = name
        for hook in hooks:
            hook(trainer, model, *args)
        response = getattr(model, name)(*args)
        model._current_fx_name = None
        return response


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device; where all of it is there already, as Lightning gives it too: another dict."""
    if type(batch) is dict and all(type(v) is Tensor and v.device.type == device.type == "cpu" for v in batch.values()):
        return dict(batch)
    return move_data_to_device(batch, device)


def logs_now(trainer: Trainer) -> bool:
    """Whether values of the training batch that is being done are logged, as Lightning's `should_update_logs` says."""
    steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    due = steps and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % steps == 0
    return bool(due or (steps and trainer.should_stop))


def overrides(callback: Callback, name: str) -> bool:
    """Whether a callback has a hook of its own.

    Args:
        callback: the callback.
        name: name of the hook.
    """
    return getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name)


def transfers_plainly(model: LightningModule, data: Any) -> bool:
    """Whether a batch is moved to the device and then given to the model's `on_after_batch_transfer`, nothing else.

    Args:
        model: the model.
        data: the DataModule, or None.
    """
    own = any(getattr(type(model), name) is not getattr(LightningModule, name) for name in TRANSFER[:2])
    return not own and not any(is_overridden(name, data, LightningDataModule) for name in TRANSFER)
