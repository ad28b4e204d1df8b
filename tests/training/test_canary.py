"""The private names of Lightning that zoo relies on: if a test fails, a new Lightning needs a look at the code."""

from __future__ import annotations

import inspect
import re

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.optimization.manual import _ManualOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector


def test_manual_loop_hooks() -> None:
    for name in ("on_run_start", "on_run_end", "_on_before_step", "_on_after_step"):
        assert callable(getattr(_ManualOptimization, name))
    source = inspect.getsource(_ManualOptimization)
    assert "optim_step_progress" in source
    assert "_on_before_step" in inspect.getsource(LightningOptimizer.step)


def test_global_step_reads_the_manual_loop() -> None:
    source = inspect.getsource(_TrainingEpochLoop.global_step.fget)  # type: ignore[attr-defined]
    assert "manual_optimization.optim_step_progress.total.completed" in source


def test_trainer_names() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert isinstance(trainer.fit_loop.epoch_loop.manual_optimization, _ManualOptimization)
    assert trainer.fit_loop.epoch_loop.batch_progress.total.processed == 0
    assert isinstance(trainer._logger_connector.should_update_logs, bool)
    assert type(trainer.strategy.checkpoint_io) is TorchCheckpointIO


def test_strategy_calls_the_closure_before_unscaling_and_clipping() -> None:
    source = inspect.getsource(MixedPrecision.optimizer_step)
    order = ["closure_result = closure()", "self.scaler.unscale_", "self._after_closure", "self.scaler.step"]
    positions = [source.index(text) for text in order]
    assert positions == sorted(positions)


def test_ddp_setup_applies_the_layer_sync_then_configures() -> None:
    source = inspect.getsource(DDPStrategy.setup)
    assert source.index("self._layer_sync.apply") < source.index("self.configure_ddp()")
    assert {"apply", "revert"} <= LayerSync.__abstractmethods__


def test_what_loops_leave_out_still_exists() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
    assert "self._accelerator_graph_capture_health_check()" in inspect.getsource(torch.optim.Adam.step)
    assert "pl_module._current_fx_name = hook_name" in inspect.getsource(call)


def test_loops_have_the_places_between_batches() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert type(trainer.fit_loop) is _FitLoop
    assert type(trainer.fit_loop.epoch_loop) is _TrainingEpochLoop
    epoch = inspect.getsource(_TrainingEpochLoop)
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    assert "self._save_loggers_on_train_batch_end()" in inspect.getsource(_TrainingEpochLoop.on_advance_end)
    run = inspect.getsource(_TrainingEpochLoop.run)
    order = ["self.reset()", "self.on_run_start(", "self.advance(", "self.on_advance_end("]
    assert [run.index(text) for text in order] == sorted(run.index(text) for text in order)
    assert "self.batch_progress.reset_on_run()" in epoch
    state = trainer.fit_loop.state_dict()
    assert {"epoch_progress", "epoch_loop.batch_progress"} <= state.keys()
    assert state["epoch_loop.batch_progress"].keys() == {"total", "current", "is_last_batch"}


def test_signals_are_registered_once_a_run() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert type(trainer._signal_connector) is _SignalConnector
    assert "self._signal_connector.register_signal_handlers()" in inspect.getsource(Trainer._run)
    assert "self._signal_connector.teardown()" in inspect.getsource(Trainer._teardown)
    assert "_launch_process_observer(self.procs)" in inspect.getsource(_SubprocessScriptLauncher)


def test_the_lean_loop_does_all_that_lightnings_does_in_a_batch() -> None:
    """`LeanEpochLoop` follows these two line by line: what is new in them may belong there."""
    advance, end = (inspect.getsource(f) for f in (_TrainingEpochLoop.advance, _TrainingEpochLoop.on_advance_end))
    calls = r"(?:call|_logger_connector|batch_progress|lightning_module|precision_plugin|optimization)\.(\w+)\("
    assert re.findall(calls, advance) == [
        *("convert_input", "_on_before_batch_transfer", "_call_strategy_hook", "increment_ready", "on_batch_start"),
        *("_call_callback_hooks", "_call_lightning_module_hook", "_call_strategy_hook", "increment_by"),
        *("increment_started", "run", "run", "increment_processed", "_call_callback_hooks"),
        *("_call_lightning_module_hook", "on_batch_end", "increment_completed", "update_train_step_metrics"),
    ]
    assert re.findall(r"self\.(\w+)\(", end) == [
        *("_should_check_val_fx", "_should_accumulate", "update_lr_schedulers", "_should_accumulate"),
        "_save_loggers_on_train_batch_end",
    ]
