"""What people type that has another name here, and what they get instead."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

from lightning.pytorch import Trainer

import zoo
from zoo import datamodules, recipes
from zoo.engine.files import nearest
from zoo.pretrained.cards import default_arguments
from zoo.pretrained.changes import CHANGES

__all__ = ["about_setting", "about_word"]

GOING_ON = "the same command resumes its run; --init FILE begins another one with a checkpoint's weights"
DECIDED = "each model has its own: --model.help NAME lists what can be set"
MEANT = {
    "--trainer.devices": ("gpus", "num_gpus", "n_gpus", "ngpu", "num_processes", "num_devices", "trainer.gpus"),
    "--trainer.accelerator": ("device", "cuda", "cpu", "gpu", "use_cuda"),
    "--trainer.max_epochs": ("epochs", "num_epochs", "n_epochs", "nepochs", "niter"),
    "--trainer.max_steps": ("steps", "num_steps", "iterations", "num_iterations", "iters", "max_iters"),
    "--trainer.precision": ("fp16", "bf16", "amp", "half"),
    "--model.learning_rate": ("lr", "rate", "learning_rate"),
    "--model.latent_dim": ("nz", "z_dim", "zdim", "latent_size", "noise_dim"),
    "--model.base_channels": ("ngf", "ndf", "nf", "channels"),
    "--model.image_channels": ("nc", "in_channels", "num_channels"),
    "--data.data_dir": ("root", "dataroot", "data_root", "data_path", "path", "folder", "datadir", "dir"),
    "--data.batch_size": ("bs", "batch", "batchsize", "train_batch_size"),
    "--data.image_size": ("resolution", "size", "img_size", "imsize", "isize"),
    "--data.num_workers": ("workers", "nworkers"),
    "--seed_everything": ("seed", "manual_seed", "manualseed", "random_seed"),
    "--runs_dir and --name": ("output_dir", "outdir", "save_dir", "log_dir", "logdir", "checkpoint_dir", "out", "outf"),
    "--config NAME": ("recipe", "cfg", "preset", "config_file"),
    "--data NAME": ("dataset", "data_set"),
    "--model NAME": ("arch", "architecture", "network"),
    GOING_ON: ("resume", "ckpt_path", "ckpt", "checkpoint", "resume_from_checkpoint", "trainer.resume_from_checkpoint",
               "resume_from", "from_checkpoint", "pretrained"),
    DECIDED: ("optimizer", "optim", "lr_scheduler", "scheduler"),
}  # fmt: skip
"""What is meant by names that people know from elsewhere."""

OWN = ("config", "name", "runs_dir", "init", "fresh", "checkpoint_every", "wandb", "seed_everything")


def about_setting(name: str, group: str = "", kind: str = "") -> str:
    """The end of a message about a setting that does not exist.

    Args:
        name: the setting, without dashes.
        group: `model` or `data` if the parser found it to be of this group.
        kind: class path of the group's class.
    """
    last = name.rpartition(".")[2]
    for change in CHANGES.values():
        if today := change.renamed.get(last):
            return f": it is called {today!r} now"
    prefix = group or (name.partition(".")[0] if "." in name else "")
    for meant, names in MEANT.items():
        if name in names or (last in names and (meant.startswith(f"--{prefix}.") or not meant.startswith("--"))):
            return f": {'take ' if meant.startswith('--') else ''}{meant}"
    if kind:
        close = difflib.get_close_matches(name, default_arguments(kind), 1)
        return (
            f": did you mean '{group}.{close[0]}'?"
            if close
            else f"; --{group}.help {kind.rpartition('.')[2]} lists them"
        )
    known = [f"trainer.{option}" for option in inspect.signature(Trainer.__init__).parameters if option != "self"]
    known += ["model", "data", *OWN]
    for place, classes in (("model", _paths(zoo.ARCHITECTURES)), ("data", _paths(datamodules.__all__, "datamodules."))):
        known += [f"{place}.{option}" for path in classes for option in default_arguments(path)]
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    if not close:
        ends = {option.rpartition(".")[2]: option for option in known}
        close = [ends[end] for end in difflib.get_close_matches(last, ends, 1)]
    return f": did you mean {close[0]!r}?" if close else "; `zoo fit --help` says more"


def about_word(word: str) -> str:
    """The end of a message about a word that is no option.

    Args:
        word: the word.
    """
    if word in zoo.ARCHITECTURES:
        return f": take --model {word}"
    if word in datamodules.__all__:
        return f": take --data {word}"
    if word in recipes.list_recipes() or word.endswith((".yaml", ".yml")):
        return f": take --config {word}"
    close = nearest(word, recipes.list_recipes(), "zoo list shows them")
    return f": options begin with --, recipes are given by --config NAME; {close}"


def _paths(names: Iterable[str], package: str = "") -> list[str]:
    return [f"zoo.{package}{name}" for name in names]
