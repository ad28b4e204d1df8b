"""A killed run of a model that grows goes on bit for bit, wherever in its schedule, and on other numbers of ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from tests.cli.parts import checkpoint, command, die, same
from tests.ranks import on_ranks
from zoo import ProgressiveGAN
from zoo.engine.background import WRITER
from zoo.nn.progressive_gan_growth import Growth

STEPS = 12
ARGS = [
    "fit",
    "--model=tests.cli.test_resume_growing.Growing",
    "--data=tests.cli.parts.Noise",
    "--data.batch_size=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    f"--trainer.max_steps={STEPS}",
    "--checkpoint_every=1",
    "--trainer.callbacks+=zoo.callbacks.SampleGrid",
    "--trainer.callbacks.every_n_steps=4",
    "--trainer.callbacks.num_samples=4",
]


class Growing(ProgressiveGAN):
    """4 pixels for 3 steps of 8 images, 3 steps of 4 fade, then 8 pixels; the penalty in every other step."""

    def __init__(self, image_size: int = 8) -> None:
        super().__init__(
            image_size,
            3,
            4,
            fmap_base=16,
            max_channels=4,
            minibatch_stddev_group=2,
            growth=Growth(16, 20, global_batch_size=4, global_batch_sizes={4: 8}, steps_per_schedule_check=1),
            penalty_every=2,
            channels_last=True,
        )


def run_growing(place: str, step: int, args: list[str]) -> int:
    """The command in a process of its own, which dies before the step after so many."""
    torch.set_num_threads(1)
    os.chdir(place)
    inner = Growing.training_step

    def training_step(self: Growing, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == step:
            WRITER.wait()  # so that the checkpoint of this very step is on the disk
            die()
        inner(self, batch, batch_idx)

    Growing.training_step = training_step  # type: ignore[method-assign]
    return command(*args)


def spawned(rank: int, *args: Any) -> None:
    run_growing(*args)


def compare(killed: Path, straight: Path) -> None:
    ours, theirs = checkpoint(killed), checkpoint(straight)
    assert ours["global_step"] == STEPS
    for saved in (ours, theirs):
        saved["zoo"].pop("seconds", None)
    for key in ("state_dict", "optimizer_states", "global_step", "epoch", "zoo", "Noise"):
        same(ours[key], theirs[key], key)
    names = sorted(path.name for path in (straight / "samples").iterdir())
    for name in names:
        assert (killed / "samples" / name).read_bytes() == (straight / "samples" / name).read_bytes(), name


# 4 pixels: steps 0 to 2; the fade: 3 to 5; 8 pixels from step 6 on.
@pytest.mark.slow
@pytest.mark.parametrize(("step", "workers"), [(2, 0), (3, 2), (5, 2), (6, 0), (9, 1)])
def test_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, workers: int) -> None:
    monkeypatch.chdir(tmp_path)
    args = [*ARGS, f"--data.num_workers={workers}"]
    assert command(*args, "--name=straight") == 0
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        mp.spawn(spawned, (str(tmp_path), step, [*args, "--name=killed"]), nprocs=1)
    state = checkpoint(tmp_path / "runs/killed")["state_dict"]
    images = [0, 8, 16, 24, 28, 32, 36, 40, 44, 48]
    assert int(state["images_seen"]) == images[step]
    assert command(*args, "--name=killed") == 0
    compare(tmp_path / "runs/killed", tmp_path / "runs/straight")


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5, 9])
def test_two_ranks(tmp_path: Path, step: int) -> None:
    # Killed a step later: not while the other rank still writes the checkpoint, which would then wait for this one.
    args = [*ARGS, "--trainer.devices=2", f"--checkpoint_every={step}"]
    assert on_ranks(2, run_growing, str(tmp_path), -1, [*args, "--name=straight"]) == [0, 0]
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        on_ranks(2, run_growing, str(tmp_path), step + 1, [*args, "--name=killed"])
    assert checkpoint(tmp_path / "runs/killed")["global_step"] == step
    assert on_ranks(2, run_growing, str(tmp_path), -1, [*args, "--name=killed"]) == [0, 0]
    compare(tmp_path / "runs/killed", tmp_path / "runs/straight")


@pytest.mark.slow
def test_begun_on_one_rank_it_goes_on_on_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images in the same batches: what is left is the order of sums."""
    monkeypatch.chdir(tmp_path)
    double = [*ARGS, "--trainer.precision=64-true"]
    assert command(*double, "--name=straight") == 0
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        mp.spawn(spawned, (str(tmp_path), 5, [*double, "--name=moved"]), nprocs=1)
    args = [*double, "--trainer.devices=2", "--name=moved"]
    assert on_ranks(2, run_growing, str(tmp_path), -1, args) == [0, 0]
    ours, theirs = (checkpoint(tmp_path / "runs" / name) for name in ("moved", "straight"))
    assert ours["global_step"] == STEPS
    same(ours["Noise"], theirs["Noise"])
    for name, value in theirs["state_dict"].items():
        assert torch.allclose(ours["state_dict"][name], value, rtol=0, atol=1e-10), name
