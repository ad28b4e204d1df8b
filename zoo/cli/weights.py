"""Weights of a checkpoint: taken up by a run that goes on, started from by a new one, measured."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo import pretrained
from zoo.base import AdversarialModel, GenerativeModel
from zoo.base.loaded import absent_networks
from zoo.cli.changes import Change, refuse_mismatch
from zoo.engine.checkpoint import AtomicCheckpointIO

__all__ = ["WARMUP", "initialize", "load_weights", "steps_to_go_on_from"]

WARMUP = 200
"""Steps in which a discriminator that starts untrained trains alone, beside a generator that is trained."""


def steps_to_go_on_from(folder: Path, checkpoint: Path, model: GenerativeModel, changes: Sequence[Change]) -> int:
    """Steps of a run so far, if the model can take up its checkpoint.

    Args:
        folder: the run's folder.
        checkpoint: its last one.
        model: the model as it is to go on.
        changes: what differs in the configuration.

    Raises:
        ValueError: the checkpoint's networks are not the model's.
    """
    held = AtomicCheckpointIO().load_checkpoint(checkpoint)
    if any(change.key.startswith("model.") for change in changes):
        with contextlib.suppress(ValueError):  # which names no option of the command
            model.on_load_checkpoint(held)
        refuse_mismatch(folder, changes, held["state_dict"], model.state_dict())
    return int(held["global_step"])


def initialize(model: GenerativeModel, name: str, *, strict: bool = True) -> None:
    """Start from the weights of a checkpoint, of its full file where there is one.

    A network whose average alone is held starts as a copy of the average. Networks that the checkpoint does not hold
    start untrained; those of an adversarial model then train alone for `WARMUP` steps.

    Args:
        model: the model, built.
        name: name, file or address of a checkpoint.
        strict: refuse weights of other sizes; False takes the layers that fit.

    Raises:
        ValueError: the checkpoint is of another class, or its weights do not fit.
    """
    path = pretrained.pull(name, full=True)
    source = zoo.load(path, trust=type(model).__module__)  # whoever trains a class of their own trusts its code
    if type(source) is not type(model):
        raise ValueError(f"--init {name} is a {type(source).__name__}, this run trains a {type(model).__name__}")
    absent = set(absent_networks(source))
    own = model.state_dict()
    held = {key: value for key, value in source.state_dict().items() if key.partition(".")[0] not in absent}
    for key in own:  # one of the two may keep an average, and the other none
        other = key.replace("_ema.", ".", 1)
        if key not in held and other in held:
            held[key] = held[other]
    held = {key: value for key, value in held.items() if key in own}
    wrong = {key: tuple(value.shape) for key, value in held.items() if value.shape != own[key].shape}
    if wrong and strict:
        key, shape = next(iter(wrong.items()))
        raise ValueError(
            f"--init {name} does not fit: its {key} has shape {shape}, here it is {tuple(own[key].shape)}; "
            "--init_strict false takes the layers that fit"
        )
    taken = {key: value for key, value in held.items() if key not in wrong}
    if not taken:
        raise ValueError(f"--init {name} does not fit: no layer has the size that it has here")
    model.load_state_dict(own | taken)
    warmup = WARMUP if absent and isinstance(model, AdversarialModel) else 0
    model.start = {"name": _called(name), "sha256": pretrained.sha256(path), "warmup": warmup} | _trained(name, path)
    print(f"Starting from {name}: {_words(own, taken, wrong)}")
    if absent:
        alone = f", and train alone for {warmup} steps" if warmup else ""
        print(f"  not in its file, so untrained{alone}: {', '.join(sorted(absent))}")


def _called(name: str) -> str:
    """What a card calls a checkpoint: a file of this machine by its run or its own name, without the folder."""
    path = Path(name)
    if not path.is_file():
        return name
    return f"run {path.absolute().parts[-3]}" if path.parent.name == "checkpoints" else path.name


def _trained(name: str, path: Path) -> dict[str, Any]:
    """Steps and seconds of training of a checkpoint, as far as it tells them."""
    if path.suffix == ".ckpt":
        saved = AtomicCheckpointIO().load_checkpoint(path)
        facts = {"steps": saved.get("global_step"), "seconds": saved.get("zoo", {}).get("seconds")}
    else:
        training = pretrained.entry_of(name).get("training", {})
        facts = {key: training.get(key) for key in ("steps", "seconds")}
    return {key: value for key, value in facts.items() if value is not None}


def _words(own: Mapping[str, Any], taken: Mapping[str, Any], wrong: Mapping[str, Any]) -> str:
    """Which networks start from a checkpoint, and which of their layers do not."""
    networks = {key.partition(".")[0] for key in taken}
    layers = sorted({key.rpartition(".")[0] or key for key in wrong})
    shown = ", ".join(layers[:6]) + (f" and {len(layers) - 6} more" if len(layers) > 6 else "")
    return ", ".join(sorted(networks)) + (f"; of other sizes, so untrained: {shown}" if layers else "")


def load_weights(model: GenerativeModel, checkpoint: Path) -> None:
    """Load the weights of a run's checkpoint, all of them.

    Args:
        model: the model, built.
        checkpoint: the file.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    state = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} is of another model than this configuration's: {error!s}") from error
