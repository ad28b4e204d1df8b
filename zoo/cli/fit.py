"""What `zoo fit`, `validate`, `test` and `predict` do: LightningCLI with recipes and run folders."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch.callbacks as lightning_callbacks
import torch
import yaml
from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

import zoo
from zoo import callbacks, datamodules, pretrained
from zoo.base import GenerativeModel
from zoo.callbacks.measures import frechet_distance
from zoo.cli.messages import explain, read_config
from zoo.cli.reporting import MetricsFile, RunCheckpoint, StepBar
from zoo.cli.run_folder import RunFolder, global_rank
from zoo.engine.images import image_grid

__all__ = ["run"]


class ZooCLI(LightningCLI):
    """LightningCLI that looks into the run folder between parsing and building."""

    def __init__(self, command: str, options: argparse.Namespace, **kwargs: Any) -> None:
        self.command, self.options = command, options
        self.checkpoint: Path | None = None
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
        resolved = _plain_config(self.parser, config)
        self.folder = RunFolder(_run_path(self.options, resolved))
        self.run_name = self.folder.path.name
        if self.command == "fit":
            if trainer.max_steps == -1 and trainer.max_epochs == -1:
                raise ValueError("the run would never end: set --trainer.max_steps or --trainer.max_epochs")
            # A launcher that restarts a failed run repeats its command: then --fresh has been obeyed already.
            restarts = [os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
            self.fresh = self.options.fresh and not any(count not in ("", "0") for count in restarts)
            self.checkpoint = (
                None
                if self.fresh
                else self.folder.check(resolved, scheduled=_is_scheduled(resolved["model"]["class_path"]))
            )
        trainer.default_root_dir = str(self.folder.path)
        if trainer.strategy == "auto" and _processes(trainer) > 1:
            trainer.strategy = "ddp_nets"
        # Recipes mean one device; all of them would multiply the batch.
        trainer.devices = 1 if trainer.devices == "auto" else trainer.devices
        if trainer.benchmark is None and not trainer.deterministic:
            trainer.benchmark = True  # of convolutions on CUDA
        self.resolved = resolved

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's own log of metrics and its checkpoint."""
        chosen = self._get(self.config_init, "trainer.logger")
        loggers: list[Logger] = []
        if self.command == "fit":
            loggers.append(MetricsFile(self.folder.path))
            if self.options.wandb:
                loggers.append(_wandb(self.run_name, self.folder.path, fresh=self.fresh))
            loggers += chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, Logger) else []
        bar = self._get(self.config_init, "trainer.enable_progress_bar") is not False
        if self.command == "fit" and bar:
            kwargs["callbacks"] = [*(self._get(self.config_init, "trainer.callbacks") or []), StepBar()]
        trainer = super().instantiate_trainer(logger=loggers, **kwargs)
        checkpoints = [c for c in trainer.callbacks if isinstance(c, lightning_callbacks.ModelCheckpoint)]  # type: ignore[attr-defined]
        if self.command == "fit":
            for callback in checkpoints:
                if callback.dirpath is None:
                    callback.dirpath = str(self.folder.path / "checkpoints")
            # Last, so that what other callbacks measured at a step is in that step's checkpoint.
            own = RunCheckpoint(self.folder.path, self.options.checkpoint_every)
            trainer.callbacks = [c for c in trainer.callbacks if not _is_default_checkpoint(c)] + [own]  # type: ignore[attr-defined]
        return trainer


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
    _quiet()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # those of `TrainingOptions` and its kin
    init = getattr(options, "init", None)
    configs = [read_config(Path(config)) for config in configs]
    for package in (datamodules, callbacks):  # so that their classes can be called by their short names
        for export in package.__all__:
            getattr(package, export)
    for export in zoo.ARCHITECTURES:
        getattr(zoo, export)
    try:
        cli = ZooCLI(
            command,
            options,
            args=[*(f"--config={config}" for config in configs), *rest, *([f"--init={init}"] if init else [])],
            model_class=GenerativeModel,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False},
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
    _weights(model, checkpoint)
    if command == "predict":
        _predict(cli, model)
    else:
        _measure(cli, model, "val" if command == "validate" else "test")


def _fit(cli: ZooCLI, model: GenerativeModel) -> None:
    checkpoint = cli.checkpoint
    if checkpoint is not None:
        done = cli.folder.finished(cli.trainer.max_steps, cli.trainer.max_epochs)
        if done is not None:
            print(f"{cli.folder.path} is finished ({done} steps). --fresh starts anew.")
            return
        if global_rank() == 0:
            print(f"Resuming {cli.folder.path}")
    elif cli.config.init:
        _initialize(model, cli.config.init)
    if checkpoint is None and global_rank() == 0:
        if cli.fresh and (aside := cli.folder.set_aside()):
            print(f"The earlier run is now {aside}")
        cli.folder.claim(cli.resolved)
    for logger in cli.trainer.loggers:
        logger.log_hyperparams(cli.resolved)
    if cli.trainer.world_size > 1 and cli.trainer.is_global_zero and (size := getattr(cli.datamodule, "batch_size", 0)):
        world = cli.trainer.world_size
        print(f"{world} devices with batches of {size}: a step has {world * size} images")
    start = -1
    try:
        cli.datamodule.prepare_data()
        start = cli.trainer.global_step
        cli.trainer.fit(model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    except Exception as error:
        if cli.trainer.global_step > max(start, 0):  # nothing was wrong with the command: it failed on the way
            raise RuntimeError(str(error)) from error
        raise
    if cli.trainer.interrupted:
        raise KeyboardInterrupt
    if cli.trainer.is_global_zero:
        print(f"Finished: {cli.trainer.global_step} steps. Everything is in {cli.folder.path}/")


def _initialize(model: GenerativeModel, name: str) -> None:
    """Start from the weights of a checkpoint; networks that it does not hold start as they are."""
    source = zoo.load(name)
    if type(source) is not type(model):
        raise ValueError(f"--init {name} is a {type(source).__name__}, this run trains a {type(model).__name__}")
    held, own = source.state_dict(), model.state_dict()
    # A published file holds the networks that make samples, say; the others of the loaded model are untrained.
    path = Path(name) if Path(name).is_file() else pretrained.pull(name)
    networks = [*held] if path.suffix == ".ckpt" else pretrained.read(path)[0]["networks"]
    taken = {n: v for n, v in held.items() if n in networks or n.partition(".")[0] in networks}
    for key in own:
        # Where one side has an average of the generator and the other has not, they stand for each other.
        other = key.replace("generator.", "generator_ema.") if key.startswith("generator.") else ""
        other = key.replace("generator_ema.", "generator.") if key.startswith("generator_ema.") else other
        if key not in taken and other in taken:
            taken[key] = taken[other]
    taken = {n: v for n, v in taken.items() if n in own}
    if wrong := [n for n, v in taken.items() if v.shape != own[n].shape]:
        n = wrong[0]
        raise ValueError(
            f"--init {name} does not fit: its {n} has shape {tuple(taken[n].shape)}, here it is {tuple(own[n].shape)}"
        )
    model.load_state_dict(own | taken)
    started = sorted({n.partition(".")[0] for n in taken})
    print(f"Starting from {name}: {', '.join(started)}")


def _weights(model: GenerativeModel, checkpoint: Path) -> None:
    from zoo.engine.checkpoint import AtomicCheckpointIO

    state = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} is of another model than this configuration's: {error!s}") from error


def _measure(cli: ZooCLI, model: GenerativeModel, split: str) -> None:
    """Fréchet distance to a split."""
    data: Any = cli.datamodule
    model.to(cli.trainer.strategy.root_device)
    data.prepare_data()
    data.setup(None)
    count = min(2048, len(data.splits[split]))
    result = frechet_distance(model, data, num_samples=count, split=split)
    print(f"fd {result.value:.2f}  {result.protocol}")


def _predict(cli: ZooCLI, model: GenerativeModel) -> None:
    """As many images as the test split has, each a PNG."""
    data: Any = cli.datamodule
    model.to(cli.trainer.strategy.root_device)
    data.prepare_data()
    data.setup("predict")
    folder = cli.folder.path / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for batch in data.predict_dataloader():
        batch = move_data_to_device(batch, model.device)
        _, fake = model.real_and_fake(batch, seed=0, first=first)
        for i, image in enumerate(fake):
            image_grid(image[None], 1, gap=0).save(folder / f"{first + i:06d}.png")
        first += len(fake)
    print(f"{first} images: {folder}")


# Inside --------------------------------------------------------------------------------------------------------------


def _quiet() -> None:
    """Hide messages that do not concern users: advertisements, and hints about loaders that are right as they are."""
    import logging

    for pattern in (".*does not have many workers.*", ".*LeafSpec.*", ".*smaller than the logging interval.*"):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", ".*dataloader is not resumable.*|.*checkpoint that ended before the epoch.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*You passed in a `val_dataloader` but have no `validation_step`.*")
    # It would keep the weights from before each step; ours are those after it.
    warnings.filterwarnings("ignore", "(?s).*Using ModelCheckpoint with manual optimization.*")
    warnings.filterwarnings("ignore", "(?s).*JsonargparseDeprecationWarning.*|.*was deprecated in v4.49.*")
    if not os.environ.get("ZOO_TRACEBACK"):
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def _is_default_checkpoint(callback: Any) -> bool:
    return type(callback) is lightning_callbacks.ModelCheckpoint and callback.monitor is None and not callback.save_last


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


def _run_path(options: argparse.Namespace, resolved: dict[str, Any]) -> Path:
    """Folder of the run: named, or the one whose `config.yaml` is given, or named after the recipe."""
    root: Path = options.runs_dir
    if options.name:
        return root / str(options.name)
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
