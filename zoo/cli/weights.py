"""Weights of a checkpoint: taken up by a run that goes on, started from by a new one, measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import zoo
from zoo import pretrained
from zoo.base import GenerativeModel
from zoo.cli.changes import Change, refuse_mismatch
from zoo.engine.checkpoint import AtomicCheckpointIO

__all__ = ["initialize", "load_weights", "steps_to_go_on_from"]


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


def initialize(model: GenerativeModel, name: str) -> None:
    """Start from the weights of a checkpoint; networks that it does not hold or have alike start as they are.

    Args:
        model: the model, built.
        name: name, file or address of a checkpoint.

    Raises:
        ValueError: the checkpoint is of another class, or no network fits.
    """
    # Whoever trains a class of their own trusts its code.
    source = zoo.load(name, trust=type(model).__module__)
    if type(source) is not type(model):
        raise ValueError(f"--init {name} is a {type(source).__name__}, this run trains a {type(model).__name__}")
    held, own = source.state_dict(), model.state_dict()
    # A published file holds the networks that make samples, say; the others of the loaded model are untrained.
    path = pretrained.pull(name)
    networks = [*held] if path.suffix == ".ckpt" else pretrained.read(path)[0]["networks"]
    taken = {n: v for n, v in held.items() if n in networks or n.partition(".")[0] in networks}
    for key in own:
        # Where one side has an average of the generator and the other has not, they stand for each other.
        other = key.replace("generator.", "generator_ema.") if key.startswith("generator.") else ""
        other = key.replace("generator_ema.", "generator.") if key.startswith("generator_ema.") else other
        if key not in taken and other in taken:
            taken[key] = taken[other]
    taken = {n: v for n, v in taken.items() if n in own}
    wrong = {n.partition(".")[0]: (n, tuple(v.shape)) for n, v in taken.items() if v.shape != own[n].shape}
    taken = {n: v for n, v in taken.items() if n.partition(".")[0] not in wrong}
    if wrong and not taken:
        n, shape = next(iter(wrong.values()))
        raise ValueError(f"--init {name} does not fit: its {n} has shape {shape}, here it is {tuple(own[n].shape)}")
    model.load_state_dict(own | taken)
    started = sorted({n.partition(".")[0] for n in taken})
    anew = f"; of other sizes, so untrained: {', '.join(sorted(wrong))}" if wrong else ""
    print(f"Starting from {name}: {', '.join(started)}{anew}")


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
