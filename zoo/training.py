"""What `zoo fit`, `validate`, `test` and `predict` do: LightningCLI with recipes and run folders."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch.callbacks as lightning_callbacks
import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.fabric.utilities.exceptions import MisconfigurationException

import zoo
from zoo.base import GenerativeModel
from zoo.run import MetricsFile, RunCheckpoint, RunFolder, global_rank

__all__ = ["run"]


class ZooCLI(LightningCLI):
    """LightningCLI that claims a run folder between parsing and building."""

    def __init__(self, command: str, options: argparse.Namespace, **kwargs: Any) -> None:
        self.command, self.options = command, options
        self.checkpoint: Path | None = None
        self.extra_loggers: list[Logger] = []
        super().__init__(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Defaults that make a plain command right."""
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.max_epochs": -1})

    def before_instantiate_classes(self) -> None:
        """Claim or resume the run folder; nothing was written before."""
        config = self.config
        trainer = config.trainer
        resolved = _plain_config(self.parser, config)
        self.run_name = self.options.name or _default_name(self.options.config, resolved)
        self.folder = RunFolder(self.options.runs_dir / self.run_name)
        if self.command == "fit":
            resolved["init"] = self.options.init
            if self.options.fresh and global_rank() == 0 and (aside := self.folder.set_aside()):
                print(f"The earlier run is now {aside}")
            fresh = self.options.fresh and global_rank() > 0  # rank zero is moving the old folder at this moment
            self.checkpoint = None if fresh else self.folder.take(resolved)
            if trainer.max_steps == -1 and trainer.max_epochs == -1:
                raise ValueError("the run would never end: set --trainer.max_steps or --trainer.max_epochs")
        trainer.default_root_dir = str(self.folder.path)
        if trainer.strategy == "auto" and _processes(trainer) > 1:
            trainer.strategy = "ddp_nets"
        self.resolved = resolved

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's own log of metrics and its checkpoint."""
        chosen = self._get(self.config_init, "trainer.logger")
        loggers: list[Logger] = []
        if self.command == "fit":
            loggers.append(MetricsFile(self.folder.path))
            if self.options.wandb:
                loggers.append(_wandb(self.run_name, self.folder.path))
            loggers += chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, Logger) else []
        trainer = super().instantiate_trainer(logger=loggers, **kwargs)
        checkpoints = [c for c in trainer.callbacks if isinstance(c, lightning_callbacks.ModelCheckpoint)]  # type: ignore[attr-defined]
        if self.command == "fit":
            for callback in checkpoints:
                if callback.dirpath is None:
                    callback.dirpath = str(self.folder.path / "checkpoints")
            # Last, so that what other callbacks measured at a step is in that step's checkpoint.
            own = RunCheckpoint(self.folder.path)
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
    for name in ("datamodules", "callbacks"):  # so that their classes can be called by their short names
        package = importlib.import_module(name)
        for export in package.__all__:
            getattr(package, export)
    for export in zoo.ARCHITECTURES:
        getattr(zoo, export)
    arguments = [word for config in configs for word in ("--config", config)] + rest
    try:
        cli = ZooCLI(
            command,
            options,
            args=arguments,
            model_class=GenerativeModel,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False},
            run=False,
        )
    except ArgumentError as error:
        raise ValueError(_explain(str(error), rest)) from error
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
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
    elif cli.options.init:
        source = zoo.load(cli.options.init)
        held = source.state_dict()
        own = model.state_dict()
        wrong = [n for n in own if n not in held or held[n].shape != own[n].shape]
        if type(source) is not type(model) or wrong:
            what = f"its {wrong[0]!r} has another shape or is missing" if wrong else f"it is a {type(source).__name__}"
            raise ValueError(f"{cli.options.init} does not fit this {type(model).__name__}: {what}")
        model.load_state_dict(held)
    for logger in cli.trainer.loggers:
        logger.log_hyperparams(cli.resolved)
    cli.trainer.fit(model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    if cli.trainer.interrupted:
        raise KeyboardInterrupt
    if cli.trainer.is_global_zero:
        print(f"Finished: {cli.trainer.global_step} steps. Everything is in {cli.folder.path}/")


def _weights(model: GenerativeModel, checkpoint: Path) -> None:
    from zoo.loop import AtomicCheckpointIO

    state = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} is of another model than this configuration's: {error!s}") from error


def _measure(cli: ZooCLI, model: GenerativeModel, split: str) -> None:
    """Fréchet distance to a split."""
    data: Any = cli.datamodule
    data.prepare_data()
    data.setup(None)
    count = min(2048, len(data.splits[split]))
    frechet_distance = importlib.import_module("callbacks").frechet_distance
    result = frechet_distance(model, data, num_samples=count, split=split)
    print(f"fd {result.value:.2f}  {result.protocol}")


def _predict(cli: ZooCLI, model: GenerativeModel) -> None:
    """As many images as the test split has, each a PNG."""
    from zoo.pretrained import picture

    data: Any = cli.datamodule
    data.prepare_data()
    data.setup("predict")
    folder = cli.folder.path / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for batch in data.predict_dataloader():
        _, fake = model.real_and_fake(batch, seed=0, first=first)
        for i, image in enumerate(fake):
            picture(image[None], 1, gap=0).save(folder / f"{first + i:06d}.png")
        first += len(fake)
    print(f"{first} images: {folder}")


# Inside --------------------------------------------------------------------------------------------------------------


def _quiet() -> None:
    """Hide what says nothing to our users: advertisements, and hints about loaders that are right as they are."""
    import logging

    for pattern in (".*does not have many workers.*", ".*LeafSpec.*", ".*smaller than the logging interval.*"):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", ".*dataloader is not resumable.*|.*checkpoint that ended before the epoch.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
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
    if devices in ("auto", -1):
        devices = torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 1
    count = len(devices) if isinstance(devices, list) else int(devices) if isinstance(devices, int) else 1
    return max(world, count * int(trainer.num_nodes))


def _plain_config(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    text = parser.dump(config, skip_none=False, skip_validation=True)
    resolved: dict[str, Any] = yaml.safe_load(text)
    resolved.pop("config", None)
    return resolved


def _default_name(configs: list[str], resolved: dict[str, Any]) -> str:
    if configs:
        return Path(configs[-1]).name.removesuffix(".yaml")
    model, data = (str(resolved[key]["class_path"]).rpartition(".")[2].lower() for key in ("model", "data"))
    return f"{model}-{data}"


def _wandb(name: str, folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    account = os.environ.get("WANDB_API_KEY") or _netrc_has_wandb()
    offline = os.environ.get("WANDB_MODE", "online" if account else "offline") != "online"
    return WandbLogger(project="generative-zoo", name=name, save_dir=folder, offline=offline)


def _netrc_has_wandb() -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return path.is_file() and "api.wandb.ai" in path.read_text(errors="replace")


def _explain(message: str, arguments: list[str]) -> str:
    """The one line of a parser's long message that tells what is wrong, and the nearest valid setting."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    unknown = re.search(r"(?:Unrecognized arguments|unrecognized arguments): (\S+)", message)
    if unknown:
        name = unknown[1].split("=")[0].lstrip("-")
        return f"there is no setting --{name}{_suggest(name)}"
    key = re.search(r"[Kk]ey [\"']?([\w.]+)[\"']? is not expected|Option '([\w.]+)' is not accepted", message)
    if key:
        name = key[1] or key[2]
        return f"there is no setting {name}{_suggest(name)}"
    return "; ".join(dict.fromkeys(lines[:1] + lines[-1:])) if len(lines) > 1 else lines[0]


def _suggest(name: str) -> str:
    import inspect

    known = [f"trainer.{parameter}" for parameter in inspect.signature(Trainer.__init__).parameters]
    known += ["model", "data", "config", "name", "runs_dir", "init", "fresh", "wandb", "seed_everything"]
    for prefix, package in (("model", zoo), ("data", importlib.import_module("datamodules"))):
        exports = zoo.ARCHITECTURES if package is zoo else package.__all__
        for export in exports:
            parameters = inspect.signature(getattr(package, export).__init__).parameters
            known += [f"{prefix}.{parameter}" for parameter in parameters]
            known += [f"{prefix}.init_args.{parameter}" for parameter in parameters]
    known = [option for option in known if not option.endswith(".self")]
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    if not close:
        last = name.rpartition(".")[2]
        close = [option for option in known if option.endswith(f".{last}")][:1]
    return f": did you mean {close[0]!r}?" if close else f" (zoo {sys.argv[1] if len(sys.argv) > 1 else 'fit'} --help)"
