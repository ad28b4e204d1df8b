"""What `zoo fit`, `validate`, `test` and `predict` do: LightningCLI with recipes and run folders."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch.callbacks as lightning_callbacks
import torch
import yaml
from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

import zoo
from zoo import callbacks, datamodules
from zoo.base import GenerativeModel
from zoo.callbacks.measures import frechet_distance
from zoo.cli.changes import Change, describe, differences, refuse_other_run
from zoo.cli.linking import check_fit, given_options, link
from zoo.cli.messages import explain, read_config
from zoo.cli.quiet import quiet
from zoo.cli.reporting import Allowance, MetricsFile, RunCheckpoint, StepBar
from zoo.cli.run_folder import RunFolder, global_rank
from zoo.cli.run_lock import RunLock
from zoo.cli.summary import RunSummary
from zoo.cli.weights import initialize, load_weights, steps_to_go_on_from
from zoo.engine.images import image_grid
from zoo.engine.stopping import Stopped

__all__ = ["run"]

NUMBERS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "PL_GLOBAL_SEED"),
    *("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"),
)
"""Environment variables that launchers set to numbers."""


class ZooCLI(LightningCLI):
    """LightningCLI that looks into the run folder between parsing and building."""

    def __init__(self, command: str, options: argparse.Namespace, given: set[str], **kwargs: Any) -> None:
        self.command, self.options, self.given = command, options, given
        self.checkpoint: Path | None = None
        self.changes: list[Change] = []
        self.fresh = False
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
            if trainer.max_steps == -1 and trainer.max_epochs == -1 and trainer.max_time is None:
                raise ValueError("the run would never end: set --trainer.max_steps, max_epochs or max_time")
            # A launcher that restarts a failed run repeats its command: then --fresh has been obeyed already.
            restarts = [os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
            self.fresh = self.options.fresh and not any(count not in ("", "0") for count in restarts)
            held = self.folder.check()
            if held is not None and not self.fresh:
                scheduled = _is_scheduled(resolved["model"]["class_path"])
                self.changes = differences(held, resolved, scheduled=scheduled)
                refuse_other_run(self.folder.path, self.changes)
                self.checkpoint = self.folder.checkpoint()
        trainer.default_root_dir = self.scratch.name if self.is_trial else str(self.folder.path)
        if trainer.strategy == "auto" and _processes(trainer) > 1:
            trainer.strategy = "ddp_nets"
        self.resolved = resolved

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
                added.append(Allowance(allowance))
            kwargs["max_time"] = None
        if keeps:
            summary = RunSummary(self.folder.path)
            added = [summary, *added, RunCheckpoint(self.folder.path, self.options.checkpoint_every, summary)]
            kwargs["enable_checkpointing"] = True
        return super().instantiate_trainer(logger=loggers, callbacks=added, **kwargs)


def run(command: str, options: argparse.Namespace, configs: list[str], rest: list[str]) -> None:
    """Run one of the four commands.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        options: the command's own options.
        configs: configuration files.
        rest: settings of the model, the data and the trainer.

    Raises:
        ValueError: a setting is wrong, or the run folder holds something else.
    """
    quiet()
    _check_environment()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # those of `TrainingOptions` and its kin
    init = getattr(options, "init", None)
    configs = [read_config(Path(config)) for config in configs]
    given = given_options(configs, rest)
    for package in (datamodules, callbacks):  # so that their classes can be called by their short names
        for export in package.__all__:
            getattr(package, export)
    for export in zoo.ARCHITECTURES:
        getattr(zoo, export)
    try:
        cli = ZooCLI(
            command,
            options,
            given,
            args=[*(f"--config={config}" for config in configs), *rest, *([f"--init={init}"] if init else [])],
            model_class=GenerativeModel,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            load_from_checkpoint_support=False,  # it would add what is no hyperparameter to `hparams`
            run=False,
        )
    except (ArgumentError, ValueError) as error:
        raise ValueError(explain(str(error))) from error
    except MisconfigurationException as error:
        missing = re.search(r"No supported (\w+) backend found", str(error))
        reason = f"there is no {missing[1]} here: set --trainer.accelerator cpu or auto" if missing else str(error)
        raise ValueError(reason) from error
    model = cast(GenerativeModel, cli.model)
    if command == "fit":
        _fit(cli, model)
        return
    checkpoint = Path(options.ckpt) if options.ckpt else cli.folder.last
    if not checkpoint.exists():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}: train the run first, or give --ckpt")
    load_weights(model, checkpoint)
    if command == "predict":
        _predict(cli, model)
    else:
        _measure(cli, model, "val" if command == "validate" else "test")


def _fit(cli: ZooCLI, model: GenerativeModel) -> None:
    checkpoint, steps = cli.checkpoint, None
    if checkpoint is not None:
        steps = steps_to_go_on_from(cli.folder.path, checkpoint, model, cli.changes) if cli.changes else None
        done = cli.folder.finished(checkpoint, cli.trainer.max_steps, cli.trainer.max_epochs)
        if done is not None:
            print(f"{cli.folder.path} is finished ({done} steps): a later end goes on, --fresh starts anew.")
            return
        if global_rank() == 0:
            decay = getattr(model, "decay", None)
            line = describe(cli.changes, whole=decay is not None and decay.follows_the_run)
            print(f"Resuming {cli.folder.path}" + (f" with {line}" if cli.changes else ""))
    elif cli.config.init:
        initialize(model, cli.config.init)
    check_fit(model, cli.datamodule)
    if global_rank() != 0 or cli.is_trial:
        _train(cli, model, checkpoint, lambda: None)
        return
    lock, undo = _begin(cli, steps)
    try:
        _train(cli, model, checkpoint, undo)
    finally:
        lock.release()


def _train(cli: ZooCLI, model: GenerativeModel, checkpoint: Path | None, undo: Callable[[], None]) -> None:
    for logger in cli.trainer.loggers:
        logger.log_hyperparams(cli.resolved)
    start = -1
    try:
        cli.datamodule.prepare_data()
        start = cli.trainer.global_step
        cli.trainer.fit(model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    except SystemExit as end:
        if isinstance(end, Stopped) or cli.trainer.interrupted:
            _say_where(cli)
        if cli.trainer.interrupted and not isinstance(end, Stopped):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from end
        raise
    except Exception as error:
        notes: list[str] = getattr(error, "__notes__", [])
        if notes or cli.trainer.global_step > max(start, 0):  # nothing was wrong with the command: it failed on the way
            raise RuntimeError(notes[-1] if notes else str(error)) from error
        undo()
        raise
    if cli.is_trial:
        print(f"Tried {cli.trainer.global_step} steps: nothing is kept")
    elif cli.trainer.is_global_zero:
        print(f"Finished: {cli.trainer.global_step} steps. Everything is in {cli.folder.path}/")


def _say_where(cli: ZooCLI) -> None:
    """Where an interrupted run stands, and where the same command takes it up."""
    kept = [callback.saved_step for callback in cli.trainer.callbacks if isinstance(callback, RunCheckpoint)]  # type: ignore[attr-defined]
    if cli.trainer.is_global_zero and kept:
        step = cli.trainer.global_step
        print(f"zoo: stopped at step {step}; the same command goes on from step {max(kept)}", file=sys.stderr)


def _begin(cli: ZooCLI, steps: int | None) -> tuple[RunLock, Callable[[], None]]:
    """Take the run's folder; also what undoes this for a run that is refused before its first step.

    Args:
        cli: the command.
        steps: steps so far of a run that goes on with another configuration, None for others.
    """
    folder, begins = cli.folder.path, cli.checkpoint is None
    aside = cli.folder.set_aside() if begins and cli.fresh else None
    if aside:
        print(f"The earlier run is now {aside}")
    is_new = not folder.exists()
    lock = RunLock(folder)
    cli.folder.clean()
    if begins or steps is not None:
        cli.folder.claim(cli.resolved, steps)

    def undo() -> None:
        if begins and is_new:
            shutil.rmtree(folder, ignore_errors=True)
        if aside and not folder.exists():
            aside.rename(folder)

    return lock, undo


def _measure(cli: ZooCLI, model: GenerativeModel, split: str) -> None:
    """Fréchet distance to a split."""
    data: Any = cli.datamodule
    data.prepare_data()
    data.setup(None)
    count = min(2048, len(data.splits[split]))
    result = frechet_distance(model, data, num_samples=count, split=split)
    print(f"fd {result.value:.2f}  {result.protocol}")


def _predict(cli: ZooCLI, model: GenerativeModel) -> None:
    """As many images as the test split has, each a PNG."""
    data: Any = cli.datamodule
    data.prepare_data()
    data.setup("predict")
    folder = cli.folder.path / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for batch in data.predict_dataloader():
        _, fake = model.real_and_fake(batch, seed=0, first=first)
        for i, image in enumerate(fake):
            image_grid(image[None], 1, gap=0).save(folder / f"{first + i:06d}.png")
        first += len(fake)
    print(f"{first} images: {folder}")


def _check_environment() -> None:
    """Refuse variables of launchers that hold no number: Lightning and torch would fail far from here."""
    for name in NUMBERS:
        if (value := os.environ.get(name)) and not value.isdigit():
            raise ValueError(f"the environment variable {name} is {value!r}: set it to a whole number, or unset it")


# Inside --------------------------------------------------------------------------------------------------------------


def _processes(trainer: Namespace) -> int:
    """Number of processes that the settings ask for, as far as it can be told before the trainer is built."""
    world = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    devices = trainer.devices
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if devices in ("auto", -1):
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


def _run_path(options: argparse.Namespace, resolved: dict[str, Any]) -> Path:
    """Folder of the run: named, or the one whose `config.yaml` is given, or named after the recipe."""
    root: Path = options.runs_dir
    if options.name:
        path = os.path.normpath(options.name)
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

    account = os.environ.get("WANDB_API_KEY") or _netrc_has_wandb()
    offline = os.environ.get("WANDB_MODE", "online" if account else "offline") != "online"
    # A resumed run goes on under its identifier, which is the end of its folder's name.
    earlier = [] if fresh else sorted(folder.glob("wandb/*run-*-*"))
    run: dict[str, Any] = {"id": earlier[-1].name.rpartition("-")[2], "resume": "allow"} if earlier else {}
    return WandbLogger(project="generative-zoo", name=name, save_dir=folder, offline=offline, **run)


def _netrc_has_wandb() -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return path.is_file() and "api.wandb.ai" in path.read_text(errors="replace")
