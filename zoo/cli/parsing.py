"""LightningCLI with recipes and run folders: what is settled between parsing and building."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, cast

import lightning.pytorch.callbacks as lightning_callbacks
import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from zoo.cli.changes import Change, differences, refuse_other_run
from zoo.cli.linking import link
from zoo.cli.reporting import Allowance, MetricsFile, RunCheckpoint, StepBar
from zoo.cli.run_folder import RunFolder, global_rank
from zoo.cli.summary import RunSummary
from zoo.engine.devices import slow_in_bf16
from zoo.pretrained.artifacts import logs_offline, run_id

__all__ = ["ZooCLI"]


class ZooCLI(LightningCLI):
    """LightningCLI that looks into the run folder between parsing and building."""

    def __init__(
        self, command: str, options: argparse.Namespace, given: set[str], *, own_precision: bool = False, **kwargs: Any
    ) -> None:
        self.command, self.options, self.given, self.own_precision = command, options, given, own_precision
        self.checkpoint: Path | None = None
        self.changes: list[Change] = []
        self.fresh = False
        self.budget: dict[str, Any] = {}
        super().__init__(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Defaults that make a plain command right."""
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.max_epochs": -1})
        # Part of the configuration, so that a run's config.yaml can be given as --config.
        parser.add_argument("--init", type=str | None, default=None)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; `args` come from the command line by way of `zoo.cli`, so there is nothing to warn of."""
        self.config = parser.parse_args(cast(list[str], args))

    def before_instantiate_classes(self) -> None:
        """Find what the run folder holds; nothing is written before everything is built."""
        config = self.config
        trainer = config.trainer
        local, world = (int(os.environ.get(name) or 0) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        if local and world:  # torchrun has decided; Lightning would expect one process on a CPU, and one node
            trainer.devices = local if trainer.devices == "auto" else trainer.devices
            trainer.num_nodes = world // local if trainer.num_nodes == 1 else trainer.num_nodes
        if isinstance(trainer.devices, str) and not re.fullmatch(r"auto|-1|\d+(,\d+)*,?", trainer.devices):
            raise ValueError(f"trainer.devices cannot be {trainer.devices!r}: give a number, a list as 0,2, or auto")
        link(self.parser, config, self.given)
        resolved = _plain_config(self.parser, config)
        self.folder = RunFolder(_run_path(self.options, resolved))
        self.run_name = self.folder.path.name
        self.is_trial = bool(trainer.fast_dev_run)
        if self.is_trial:
            self.scratch = tempfile.TemporaryDirectory()  # for what callbacks write
        elif self.command == "fit":
            for name in ("max_steps", "max_epochs", "limit_train_batches"):
                if trainer[name] == 0:
                    raise ValueError(f"trainer.{name} is 0, so nothing would be trained: take at least 1")
            self.budget = _budget(resolved)
            if trainer.max_steps == -1 and trainer.max_epochs == -1 and trainer.max_time is None and not self.budget:
                raise ValueError("the run would never end: set --trainer.max_steps, max_epochs or max_time")
            # A launcher that restarts a failed run repeats its command: then --fresh has been obeyed already.
            restarts = [os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
            self.fresh = self.options.fresh and not any(count not in ("", "0") for count in restarts)
            held = self.folder.check()
            if held is not None and self.fresh:
                held = None
            if not self.own_precision:
                self._settle_precision(resolved["trainer"], held)
            if held is not None:
                scheduled = _is_scheduled(resolved["model"]["class_path"])
                self.changes = differences(held, resolved, scheduled=scheduled)
                refuse_other_run(self.folder.path, self.changes)
                self.checkpoint = self.folder.checkpoint()
        trainer.default_root_dir = self.scratch.name if self.is_trial else str(self.folder.path)
        if trainer.strategy == "auto" and _processes(trainer) > 1:
            trainer.strategy = "ddp_nets"
        # Recipes mean one device; all of them would multiply the batch.
        trainer.devices = 1 if trainer.devices == "auto" else trainer.devices
        if trainer.benchmark is None and not trainer.deterministic:
            trainer.benchmark = True  # of convolutions on CUDA
        self.resolved = resolved

    def _settle_precision(self, trainer: dict[str, Any], held: dict[str, Any] | None) -> None:
        """A configuration's bf16 is for hardware that has it; a run that has begun keeps its precision.

        Args:
            trainer: the trainer's part of the configuration, which is changed, and the parsed one with it.
            held: the configuration of the run that has begun, if any.
        """
        if trainer["precision"] != "bf16-mixed":
            return
        on_cpu = trainer["accelerator"] == "cpu" or not torch.accelerator.is_available()
        if held is not None:
            trainer["precision"] = held["trainer"].get("precision")
        elif on_cpu and slow_in_bf16(torch.device("cpu")):
            trainer["precision"] = "32-true"
            if global_rank() == 0:
                print(
                    "This CPU computes bf16 in software, many times slower than float32: the run takes float32 "
                    "(--trainer.precision bf16-mixed takes bf16 all the same)"
                )
        self.config.trainer.precision = trainer["precision"]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's own log of metrics and its checkpoint."""
        chosen = self._get(self.config_init, "trainer.logger")
        loggers: list[Logger] = []
        keeps = self.command == "fit" and not self.is_trial
        if keeps:
            loggers.append(MetricsFile(self.folder.path))
            if self.options.wandb:
                loggers.append(_wandb(self.run_name, self.folder.path, fresh=self.fresh))
            loggers += chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, Logger) else []
        bar = self._get(self.config_init, "trainer.enable_progress_bar") is not False
        added = [*(self._get(self.config_init, "trainer.callbacks") or [])]
        for callback in added:
            if isinstance(callback, lightning_callbacks.ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.folder.path / "checkpoints")
        if self.command == "fit":
            added += [StepBar()] if bar else []
            if (allowance := self._get(self.config_init, "trainer.max_time")) is not None:
                try:
                    added.append(Allowance(allowance))
                except (MisconfigurationException, TypeError) as error:
                    what = f"trainer.max_time cannot be {allowance!r}"
                    raise ValueError(f"{what}: give DD:HH:MM:SS, such as 00:01:30:00 for 90 minutes") from error
            kwargs["max_time"] = None
        if keeps:
            summary = RunSummary(self.folder.path)
            own = RunCheckpoint(self.folder.path, self.options.checkpoint_every, summary, self.resolved)
            added = [summary, *added, own]
            kwargs["enable_checkpointing"] = True
        return super().instantiate_trainer(logger=loggers, callbacks=added, **kwargs)


# Inside --------------------------------------------------------------------------------------------------------------


def _processes(trainer: Namespace) -> int:
    """Number of processes that the settings ask for, as far as it can be told before the trainer is built."""
    world = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    devices = trainer.devices
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if devices == -1:
        devices = torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 1
    count = len(devices) if isinstance(devices, list) else int(devices) if isinstance(devices, int) else 1
    return max(world, count * int(trainer.num_nodes))


def _plain_config(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    text = parser.dump(config, skip_unset=False, skip_validation=True)
    resolved: dict[str, Any] = yaml.safe_load(text)
    resolved.pop("config", None)
    return resolved


def _is_scheduled(class_path: str) -> bool:
    """Whether a model says by itself how many images a step has."""
    module, _, name = class_path.rpartition(".")
    return hasattr(getattr(importlib.import_module(module), name), "schedule")


def _budget(resolved: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the callback `Budget`, if there is one."""
    found = [c for c in resolved["trainer"]["callbacks"] or [] if c["class_path"].rpartition(".")[2] == "Budget"]
    return dict(found[0].get("init_args") or {}) if found else {}


def _run_path(options: argparse.Namespace, resolved: dict[str, Any]) -> Path:
    """Folder of the run: named, or the one whose `config.yaml` is given, or named after the recipe."""
    root: Path = options.runs_dir
    if options.name:
        path = os.path.normpath(str(options.name))
        if path == "." or path.startswith("..") or os.path.isabs(path):
            raise ValueError(f"{options.name} leads out of {root}: give a --name within it, or another --runs_dir")
        return root / path
    if options.config:
        last = Path(options.config[-1])
        if last.name == "config.yaml" and (last.parent / "checkpoints").is_dir():
            return last.parent if last.parent.name else last.resolve().parent
        return root / last.name.removesuffix(".yaml")
    model, data = (str(resolved[key]["class_path"]).rpartition(".")[2].lower() for key in ("model", "data"))
    return root / f"{model}-{data}"


def _wandb(name: str, folder: Path, *, fresh: bool) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    # A resumed run goes on under its identifier.
    earlier = [] if fresh else sorted(folder.glob("wandb/*run-*-*"))
    run: dict[str, Any] = {"id": run_id(earlier[-1]), "resume": "allow"} if earlier else {}
    return WandbLogger(project="generative-zoo", name=name, save_dir=folder, offline=logs_offline(), **run)
