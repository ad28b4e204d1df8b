from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch import nn

from tests.monitoring.fakes import GAN, Features, Images, pixels, trainer
from tests.numerics import assert_near
from zoo.callbacks import FrechetDistance, Interpolation, SampleGrid, base
from zoo.callbacks.interpolation import walk

# Lightning counts two steps per batch of this GAN: 8 batches are 16 steps.
START_TO_END = [f"step-{step:08d}.png" for step in (0, 6, 12, 16)]


def names(folder: Path, pattern: str = "step-*") -> list[str]:
    return sorted(path.name for path in (folder / "samples").glob(pattern))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def frames(path: Path) -> tuple[int, list[int]]:
    with Image.open(path) as gif:
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
        return gif.n_frames, durations


# SampleGrid -----------------------------------------------------------------------------------------------------------


def test_grids_from_start_to_end(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[SampleGrid(6, 10, columns=5)]).fit(GAN(), datamodule=Images())
    assert names(tmp_path) == START_TO_END
    with Image.open(tmp_path / "samples" / "step-00000016.png") as picture:
        assert picture.size == (5 * 10 + 2, 2 * 10 + 2)
        shown = np.asarray(picture)
    assert (shown[:2] == 255).all()
    first = pixels(GAN().eval().sample(1, seed=0))[0]
    start = np.asarray(Image.open(tmp_path / "samples" / "step-00000000.png"))
    assert (start[2:10, 2:10] == first).all()
    count, durations = frames(tmp_path / "samples" / "progress.gif")
    assert count == 4
    assert sum(durations) == pytest.approx(7000, abs=100)  # 6 seconds, and one for the last frame
    assert not list((tmp_path / "samples").glob(".*"))  # no temporary files


def test_a_killed_and_resumed_run_has_the_frames_of_a_straight_one(tmp_path: Path) -> None:
    class Die(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 8:
                trainer.save_checkpoint(tmp_path / "8.ckpt")
            if trainer.global_step == 14:  # a frame later than the checkpoint was drawn
                raise KeyboardInterrupt

    def run(folder: Path, *more: L.Callback, ckpt: Path | None = None) -> None:
        torch.manual_seed(0)
        options: dict[str, Any] = {"max_steps": 16, "max_epochs": -1}
        fit = trainer(folder, callbacks=[SampleGrid(6, 4), *more], **options)
        fit.fit(Frozen(), datamodule=Images(), ckpt_path=ckpt)

    class Frozen(GAN):
        """Trains to a function of the step, so that the loader need not be resumable."""

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():  # type: ignore[attr-defined]
                optimizer.step(lambda: None)
            with torch.no_grad():
                self.generator[0].weight.fill_(float(self.global_step))

    run(tmp_path / "straight")
    with pytest.raises(SystemExit):
        run(tmp_path / "killed", Die())
    assert names(tmp_path / "killed") == START_TO_END[:3]
    run(tmp_path / "killed", ckpt=tmp_path / "8.ckpt")
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def test_frames_of_an_earlier_run_stay_out_of_the_animation(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for step in (5, 6, 99):
        Image.new("RGB", (9, 9)).save(folder / f"step-{step:08d}.png")
    trainer(tmp_path, callbacks=[SampleGrid(6, 4)]).fit(GAN(), datamodule=Images())
    assert frames(folder / "progress.gif")[0] == 4
    assert (folder / "step-00000099.png").is_file()  # nobody's files are deleted


def test_the_animation_has_a_limit(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[SampleGrid(2, 4, gif_frames=3)]).fit(GAN(), datamodule=Images())
    assert len(names(tmp_path)) == 9
    assert frames(tmp_path / "samples" / "progress.gif")[0] == 3
    assert base.evenly_spaced(range(9), 3) == [0, 4, 8]


def test_only_start_and_end(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[SampleGrid(None, 4, gif=False)]).fit(GAN(), datamodule=Images())
    assert names(tmp_path, "*") == [START_TO_END[0], START_TO_END[-1]]


def test_classes_cycle_in_columns(tmp_path: Path) -> None:
    seen = []

    class Conditional(GAN):
        def sample(self, n: int, **options: Any) -> torch.Tensor:
            seen.append(options["label"].tolist())
            return super().sample(n, **options)

    model = Conditional(num_classes=3)
    trainer(tmp_path, callbacks=[SampleGrid(None, 7)]).fit(model, datamodule=Images())
    assert seen[0] == [0, 1, 2, 0, 1, 2, 0]
    with Image.open(tmp_path / "samples" / START_TO_END[0]) as picture:
        assert picture.size == (3 * 10 + 2, 3 * 10 + 2)


def test_a_growing_model_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    inner = base.captioned

    def captioned(picture: Image.Image, text: str) -> Image.Image:
        texts.append(text)
        return inner(picture, text)

    monkeypatch.setattr(base, "captioned", captioned)

    class Growing(GAN):
        """4 pixels for 8 steps, then a fade."""

        @property
        def progress(self) -> dict[str, float]:
            step = self.global_step
            return {
                "resolution": 8 if step > 8 else 4,
                "alpha": step / 16 if step > 8 else 1.0,
                "images_seen": 1250.0 * step,
            }

    trainer(tmp_path, callbacks=[SampleGrid(6, 4)]).fit(Growing(), datamodule=Images())
    assert texts == [
        "4 px, alpha 1.00, 0.0k images",
        "4 px, alpha 1.00, 7.5k images",
        "8 px, alpha 0.75, 15.0k images",
        "8 px, alpha 1.00, 20.0k images",
    ]
    # The text is in the files: below the grid, which is as it would be without.
    with Image.open(tmp_path / "samples" / START_TO_END[0]) as picture:
        shown = np.asarray(picture)
    assert (shown[22:] < 128).any()
    trainer(tmp_path / "plain", callbacks=[SampleGrid(6, 4)]).fit(GAN(), datamodule=Images())
    with Image.open(tmp_path / "plain" / "samples" / START_TO_END[0]) as picture:
        assert (shown[:22, :22] == np.asarray(picture)).all()


# Interpolation --------------------------------------------------------------------------------------------------------


def test_walks(tmp_path: Path) -> None:
    callback = Interpolation(num_walks=4, columns=5, frames=7)
    model = GAN()
    trainer(tmp_path, callbacks=[callback]).fit(model, datamodule=Images())
    with Image.open(tmp_path / "samples" / "interpolation-00000016.png") as picture:
        assert picture.size == (5 * 10 + 2, 4 * 10 + 2)
    assert frames(tmp_path / "samples" / "interpolation-00000016.gif")[0] == 12  # there and back, ends once
    images = callback.images(model, 5)
    assert images.shape == (5, 4, 3, 8, 8)
    ends = model.eval().sample(8, seed=0)
    assert_near(images[0], ends[:4])
    assert_near(images[-1], ends[4:])


def test_a_conditional_model_walks_within_a_class() -> None:
    seen = []

    class Conditional(GAN):
        def generate(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
            assert label is not None
            seen.append(label.tolist())
            return super().generate(z, label)

    Interpolation(num_walks=4).images(Conditional(num_classes=3), 2)
    assert seen == [[0, 1, 2, 0]] * 2


def test_spherical_walk_keeps_the_norm_and_its_speed() -> None:
    a, b = torch.randn(5, 3, 40, dtype=torch.float64), torch.randn(5, 3, 40, dtype=torch.float64)
    points = walk(a, b, 9)
    assert torch.allclose(points[0], a)
    assert torch.allclose(points[-1], b)
    unit = nn.functional.normalize(points.flatten(2), dim=2)
    angles = (unit[1:] * unit[:-1]).sum(2).acos()
    assert torch.allclose(angles, angles[:1].expand_as(angles))
    norms = points.flatten(2).norm(dim=2)
    assert torch.allclose(norms, torch.lerp(norms[:1], norms[-1:], torch.linspace(0, 1, 9).double()[:, None]))
    assert torch.allclose(walk(a, 2 * a, 3)[1], 1.5 * a)  # no division by the sine of nothing
    assert torch.allclose(walk(a, b, 3, spherical=False)[1], (a + b) / 2)
    assert walk(a, -a, 5).isfinite().all()


# Both -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", [SampleGrid(), Interpolation()])
def test_what_the_model_lacks_is_named(tmp_path: Path, callback: L.Callback) -> None:
    needs = "sample" if isinstance(callback, SampleGrid) else "generate and latent"
    with pytest.raises(TypeError, match=f"{type(callback).__name__} needs {needs}, which BoringModel does not have"):
        trainer(tmp_path, callbacks=[callback]).fit(BoringModel())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampleGrid(0), "every_n_steps must be at least 1, not 0"),
        (lambda: SampleGrid(num_samples=-3), "num_samples must be at least 1, not -3"),
        (lambda: Interpolation(columns=1), "columns must be at least 2, not 1"),
    ],
)
def test_bad_numbers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot make the folder .*samples for pictures"):
        trainer(tmp_path, callbacks=[SampleGrid()]).fit(GAN(), datamodule=Images())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said_and_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    base.write_png(path, Image.new("RGB", (8, 8)))
    before = path.read_bytes()
    monkeypatch.setattr("builtins.open", lambda name, mode: os.fdopen(os.open("/dev/full", os.O_WRONLY), mode))
    with pytest.raises(OSError, match=r"cannot write .*picture.png: No space left on device"):
        base.write_png(path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)))
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_tensorboard_holds_the_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    watch = FrechetDistance(num_samples=60, extractor=Features(), cache_dir=tmp_path)
    trainer(tmp_path, callbacks=[SampleGrid(6, 4), Interpolation(), watch], logger=logger).fit(
        GAN(), datamodule=Images()
    )
    (path,) = tmp_path.glob("events.*")
    shown = path.read_bytes().rpartition(b"session_start_info")[2]  # the last one counts
    assert b"num_classes" in shown
    assert b"features=random-6" in shown
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("samples")] == [0, 6, 12, 16]
    assert [event.step for event in events.Images("interpolation")] == [16]


@pytest.mark.slow
def test_wandb_offline_holds_pictures_values_and_protocol(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="test")
    watch = FrechetDistance(num_samples=60, extractor=Features(), cache_dir=tmp_path)
    trainer(tmp_path, callbacks=[SampleGrid(6, 4), watch], logger=logger).fit(GAN(), datamodule=Images())
    run = logger.experiment
    assert run.summary["fd"] == pytest.approx(watch.history[-1][1])
    assert run.config["fd_protocol"] == watch.protocol
    wandb.finish()
    pictures = list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))
    assert len(pictures) == 4
    assert {path.read_bytes() != b"" for path in pictures} == {True}
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
