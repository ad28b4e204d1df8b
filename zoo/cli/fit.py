"""What `zoo fit`, `validate`, `test` and `predict` do."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentError, set_parsing_settings
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule

import zoo
from zoo import callbacks, datamodules
from zoo.base import GenerativeModel
from zoo.callbacks.measures import image_metrics
from zoo.cli.changes import describe
from zoo.cli.evaluate import lines
from zoo.cli.linking import given_options
from zoo.cli.messages import explain, read_config
from zoo.cli.parsing import ZooCLI
from zoo.cli.quiet import quiet
from zoo.cli.reporting import Allowance, RunCheckpoint
from zoo.cli.run_folder import global_rank
from zoo.cli.run_lock import RunLock
from zoo.cli.sample_files import save_picture
from zoo.cli.weights import initialize, load_weights, steps_to_go_on_from
from zoo.engine.images import image_grid
from zoo.engine.stopping import Stopped
from zoo.pretrained.evaluation import measure_once
from zoo.pretrained.measures import configured_measures

__all__ = ["run"]

NUMBERS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "PL_GLOBAL_SEED"),
    *("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"),
)
"""Environment variables that launchers set to numbers."""


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
            own_precision=any(argument.startswith("--trainer") and "precision" in argument for argument in rest),
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
        if cli.changes:
            steps = steps_to_go_on_from(cli.folder.path, checkpoint, model, cli.changes)
        done = cli.folder.finished(checkpoint, cli.trainer.max_steps, cli.trainer.max_epochs, cli.budget)
        if done is not None:
            print(f"{cli.folder.path} is finished ({done} steps): a later end goes on, --fresh starts anew.")
            return
        if global_rank() == 0:
            decay = getattr(model, "decay", None)
            line = describe(cli.changes, whole=decay is not None and decay.follows_the_run)
            print(f"Resuming {cli.folder.path}" + (f" with {line}" if cli.changes else ""))
    elif cli.config.init:
        initialize(model, cli.config.init, strict=cli.options.init_strict == "true")
    model.check_unopened(cli.datamodule)
    if cli.is_trial:
        cli.trainer.fit(model, datamodule=cli.datamodule)
        print(f"Tried {cli.trainer.global_step} steps: nothing is kept")
    elif global_rank() == 0:
        with _claimed(cli, steps):
            _train(cli, model)
    else:
        _train(cli, model)


@contextmanager
def _claimed(cli: ZooCLI, steps: int | None) -> Iterator[None]:
    """The run's folder, locked, with this configuration; as it was before if the run fails before its first step.

    Args:
        cli: the command.
        steps: steps of the run under the configuration that it had; None if this is the same, or the first one.
    """
    folder, path = cli.folder, cli.folder.path
    aside = folder.set_aside() if cli.checkpoint is None and cli.fresh else None
    if aside:
        print(f"The earlier run is now {aside}")
    is_new = not path.exists()
    lock = RunLock(path)
    kept: Path | None = None
    try:
        folder.clean()
        if cli.checkpoint is None or steps is not None:
            kept = folder.claim(cli.resolved, steps)
        yield
    except Exception:
        lock.release()
        if is_new and not cli.trainer.global_step:
            shutil.rmtree(path, ignore_errors=True)
            if aside:
                aside.rename(path)
        elif kept and cli.trainer.global_step <= (steps or 0):
            folder.reclaim(kept)
        raise
    finally:
        lock.release()


def _train(cli: ZooCLI, model: GenerativeModel) -> None:
    if cli.trainer.world_size > 1 and cli.trainer.is_global_zero and (size := getattr(cli.datamodule, "batch_size", 0)):
        world = cli.trainer.world_size
        print(f"{world} devices with batches of {size}: a step has {world * size} images")
    (own,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, RunCheckpoint))  # type: ignore[attr-defined]
    try:
        cli.datamodule.prepare_data()
        if cli.trainer.is_global_zero:
            name = getattr(cli.datamodule, "name", type(cli.datamodule).__name__)
            print(f"Training {type(model).__name__} on {name}; everything goes to {cli.folder.path}/")
        cli.trainer.fit(model, datamodule=cli.datamodule, ckpt_path=cli.checkpoint)
    except SystemExit as end:
        if isinstance(end, Stopped) or cli.trainer.interrupted:
            _say_where(cli, own)
        if cli.trainer.interrupted and not isinstance(end, Stopped):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from end
        raise
    except Exception as error:
        notes: list[str] = getattr(error, "__notes__", [])
        if notes or (own.has_begun and cli.trainer.global_step):  # nothing was wrong with the command
            raise RuntimeError(notes[-1] if notes else str(error)) from error
        raise
    if cli.trainer.is_global_zero:
        is_over = any(isinstance(c, Allowance) and (c.time_remaining() or 0) <= 0 for c in cli.trainer.callbacks)  # type: ignore[attr-defined]
        how = "Time is up, the same command goes on" if is_over else "Finished"
        print(f"{how}: {cli.trainer.global_step} steps. Everything is in {cli.folder.path}/")
        if not is_over:
            _say_what_came_out(cli, model)


def _say_what_came_out(cli: ZooCLI, model: GenerativeModel) -> None:
    """The values that the run's callbacks measured at its end, and what can be done next."""
    summary = cli.folder.path / "run.json"
    if not summary.is_file():  # a run that was stopped goes on with fewer steps than it has
        print(f"  No step was left, so nothing was measured: `zoo evaluate {cli.folder.path}` measures")
    values = json.loads(summary.read_text())["values"] if summary.is_file() else {}
    width = max(map(len, values), default=0)
    for name, found in values.items():
        error = found.get("error")
        print(f"  {name:<{width}}  {found['value']:.4g}" + ("" if error is None else f" ± {error:.2g}"))
    last = cli.folder.path / "checkpoints" / "last.ckpt"
    use = f"zoo translate {last} in/ out/ --to DOMAIN" if hasattr(model, "translate") else None
    use = use or (f"zoo sample {last} --out grid.png" if model.makes_images else f"zoo evaluate {cli.folder.path}")
    print(f"Next:  {use}\n       zoo publish {cli.folder.path}")


def _say_where(cli: ZooCLI, own: RunCheckpoint) -> None:
    """Where an interrupted run stands, and where the same command takes it up."""
    if cli.trainer.is_global_zero:
        step, kept = cli.trainer.global_step, own.saved_step
        print(f"zoo: stopped at step {step}; the same command goes on from step {kept}", file=sys.stderr)


def _measure(cli: ZooCLI, model: GenerativeModel, split: str) -> None:
    """What the run's callbacks measure, of a split; of a run that measures nothing, the usual metrics of images."""
    data: Any = cli.datamodule
    model.to(cli.trainer.strategy.root_device)
    data.prepare_data()
    data.setup(None)
    own = [(found.measure, found.arguments) for found in configured_measures(cli.resolved)]
    for measure, arguments in own or [(image_metrics.name, {})]:
        # Splits of a data set's own, such as unseen captions, stay what they are.
        chosen = split if arguments.get("split", split) in ("train", "val", "test") else arguments["split"]
        for line in lines(measure_once(measure, model, data, arguments | {"split": chosen})):
            print(line)


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
            save_picture(image_grid(image[None], 1, gap=0), folder / f"{first + i:06d}.png")
        first += len(fake)
    print(f"{first} images: {folder}")


def _check_environment() -> None:
    """Refuse variables of launchers that hold no number: Lightning and torch would fail far from here."""
    for name in NUMBERS:
        if (value := os.environ.get(name)) and not value.isdigit():
            raise ValueError(f"the environment variable {name} is {value!r}: set it to a whole number, or unset it")


# Inside --------------------------------------------------------------------------------------------------------------
