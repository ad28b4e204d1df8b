"""Reconstruction, LatentTraversal and LatentScatter: what their pictures hold, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from tests.monitoring.fakes import GAN, Coder, Images, pixels, trainer
from tests.numerics import assert_near
from zoo.callbacks import Completion, LatentScatter, LatentTraversal, Reconstruction
from zoo.engine.plane import _figure, plot, project


class Labelled(Images):
    """Images that are black, grey or white as their label has it."""

    class_names = {"label": ["black", "grey", "white"]}  # noqa: RUF012

    def reference_batches(self, num_samples: int, chunk_size: int, **options: Any) -> Iterator[tuple[int, Any]]:
        for first, batch in super().reference_batches(num_samples, chunk_size, **options):
            label = (first + torch.arange(len(batch["image"]))) % 3
            yield first, {"image": (label - 1.0).view(-1, 1, 1, 1).expand_as(batch["image"]), "label": label}


def run(folder: Path, callback: Any, model: Any = None, data: Any = None, **options: Any) -> Path:
    fit = trainer(folder, callbacks=[callback], max_epochs=1, **options)
    fit.fit(model or Coder(), datamodule=data or Images())
    return folder / "samples"


def tiles(path: Path, columns: int, top: int = 0) -> Any:
    """Tiles of 8 x 8 pixels with gaps of 2, row by row."""
    sheet = np.asarray(Image.open(path))[top:]
    rows = (sheet.shape[0] - 2) // 10
    return [[sheet[10 * r + 2 : 10 * r + 10, 10 * c + 2 : 10 * c + 10] for c in range(columns)] for r in range(rows)]


def test_reconstructions_stand_under_their_images(tmp_path: Path) -> None:
    samples = run(tmp_path, Reconstruction(4, num_images=5, columns=3))
    assert sorted(p.name for p in samples.glob("*.png")) == [f"reconstruction-{s:08d}.png" for s in (4, 8, 12, 16)]
    found = tiles(samples / "reconstruction-00000016.png", 3)
    images = Images().image[:5]
    assert len(found) == 4
    assert np.array_equal(found[0][1], pixels(images)[1])
    assert np.array_equal(found[1][1], pixels(-images)[1])
    assert np.array_equal(found[2][1], pixels(images)[4])
    assert np.array_equal(found[3][1], pixels(-images)[4])
    assert (found[3][2] == 255).all()


def test_completions_stand_beside_their_image(tmp_path: Path) -> None:
    samples = run(tmp_path, Completion(8, num_images=2, num_completions=3, share=0.25))
    assert sorted(p.name for p in samples.iterdir()) == ["completion-00000008.png", "completion-00000016.png"]
    found = tiles(samples / "completion-00000016.png", 4)
    images = pixels(Images().image[:2])
    assert len(found) == 2
    for image, row in zip(images, found, strict=True):
        assert np.array_equal(row[0], image)
        for tile, level in zip(row[1:], (0, 128, 255), strict=True):
            assert np.array_equal(tile[:2], image[:2])
            assert (tile[2:] == level).all()


def test_traversal_shows_the_codes_that_move_most_in_the_models_order(tmp_path: Path) -> None:
    callback = LatentTraversal(num_rows=2, steps=5, max_codes=3)
    assert list(callback.strips(Coder())) == ["kind", "z0", "z1"]
    samples = run(tmp_path, callback)
    assert sorted(p.name for p in samples.iterdir()) == ["traversal-00000016.gif", "traversal-00000016.png"]
    first = tiles(samples / "traversal-00000016.png", 3, top=14)
    assert [int(tile.mean()) for tile in first[0]] == [0, 128, 255]
    second = tiles(samples / "traversal-00000016.png", 5, top=14 + 22 + 14)
    assert [int(tile.mean()) for tile in second[1]] == [0, 64, 128, 191, 255]
    with Image.open(samples / "traversal-00000016.gif") as gif:
        assert gif.n_frames == 8  # five there, three back
        gif.seek(4)
        frame = np.asarray(gif.convert("RGB"))
    assert frame.shape[:2] == (22, 32)
    assert frame[5, 5].tolist() == [255] * 3
    assert abs(int(frame[5, 25, 0]) - 191) <= 2


def test_the_animation_leaves_no_category_out_and_titles_are_whole(tmp_path: Path) -> None:
    samples = run(tmp_path, LatentTraversal(num_rows=1, steps=2, max_codes=2))
    with Image.open(samples / "traversal-00000016.gif") as gif:
        assert gif.n_frames == 4  # three there, one back
        seen = []
        for i in range(4):
            gif.seek(i)
            seen.append([int(np.asarray(gif.convert("RGB"))[5, x, 0]) for x in (5, 15)])
    assert [kind for kind, _ in seen] == [0, 128, 255, 128]
    assert [z0 for _, z0 in seen] == [0, 0, 255, 0]

    class Named(Coder):
        def traversals(self, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
            return {"a name of many words": super().traversals(*args, **options)["z0"]}

    samples = run(tmp_path, LatentTraversal(num_rows=1, steps=2), Named())
    title = np.asarray(Image.open(samples / "traversal-00000016.png"))[:14]
    assert title.shape[1] > 60  # the picture alone has 22
    assert (title[:, -2:] == 255).all()


def test_two_dimensions_stay_and_more_are_projected() -> None:
    codes = torch.randn(50, 2)
    points, names = project(codes)
    assert torch.equal(points, codes)
    assert names == ["z0", "z1"]
    wide = torch.cat([5 * codes, 0.01 * torch.randn(50, 3)], 1)
    points, names = project(wide)
    assert torch.allclose(points.norm(dim=1), (wide - wide.mean(0)).norm(dim=1), atol=0.05)
    shares = [int(name.partition("(")[2].partition(" ")[0]) for name in names]
    assert sum(shares) == 100
    assert shares[0] >= shares[1]
    assert_near(project(-wide)[0], -points)  # the components' signs do not depend on the codes'
    assert project(codes[:, :1])[0][:, 1].abs().max() == 0
    assert project(wide[:1])[0].tolist() == [[0, 0]]


def test_the_axes_hold_all_points_or_what_they_are_told() -> None:
    codes = torch.tensor([[-3.0, 1.0], [5.0, 2.0], [math.nan, 0.0]])
    (axes,) = _figure(codes, None, (), None).axes
    assert axes.get_xlim() == pytest.approx((1 - 4.2, 1 + 4.2))
    assert axes.get_ylim() == pytest.approx((1.5 - 4.2, 1.5 + 4.2))
    assert axes.get_xlabel() == "z0"
    assert axes.collections[0].get_offsets().tolist() == [[-3, 1], [5, 2]]
    (axes,) = _figure(codes, None, (), 2.5).axes
    assert axes.get_xlim() == axes.get_ylim() == (-2.5, 2.5)
    assert plot(torch.full((4, 5), math.nan)).size == plot(codes[:1]).size == (700, 600)  # no error


def test_the_legend_has_the_names_and_a_class_keeps_its_color() -> None:
    codes, names = torch.randn(6, 2), ["black", "grey", "white"]

    def legend(label: list[int]) -> dict[str, Any]:
        (axes,) = _figure(codes, torch.tensor(label), names, None).axes
        handles, texts = axes.get_legend_handles_labels()
        return {text: tuple(handle.get_facecolor()[0]) for handle, text in zip(handles, texts, strict=True)}

    both, one = legend([0, 2, 2, 0, 2, 0]), legend([2] * 6)
    assert list(both) == ["black", "white"]
    assert one == {"white": both["white"]}
    assert list(legend([0, 0, 0, 7, -1, 7])) == ["-1", "black", "7"]  # numbers where there are no names
    (axes,) = _figure(codes, torch.arange(6) * 5, [str(i) for i in range(30)], None).axes
    assert len({tuple(color) for color in axes.collections[0].get_facecolor()}) == 6


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("names", [[f"class {i}" for i in range(10)], ["short", "a name that is rather longer"]])
def test_nothing_is_cut_off(width: int, names: list[str]) -> None:
    codes = torch.randn(60, width, generator=torch.Generator().manual_seed(0))
    picture = np.asarray(plot(codes, torch.arange(60) % len(names), names))
    assert all((edge == 255).all() for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]))


def test_points_have_the_colors_of_their_classes(tmp_path: Path) -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(20, 1)
    one = np.asarray(plot(codes)).reshape(-1, 3)
    two = np.asarray(plot(codes, torch.arange(40) % 2, ["a", "b"])).reshape(-1, 3)
    blue, orange = np.array([31, 119, 180]), np.array([255, 127, 14])
    assert (np.abs(one - blue).sum(1) < 10).any()
    assert not (np.abs(one - orange).sum(1) < 10).any()
    assert (np.abs(two - orange).sum(1) < 10).any()
    samples = run(tmp_path, LatentScatter(num_images=900), data=Labelled())
    assert [p.name for p in samples.iterdir()] == ["scatter-00000016.png"]
    expected = torch.tensor([-1.0, 0.0, 1.0]).repeat(22)[:64, None].expand(-1, 2)
    drawn = plot(expected, torch.arange(64) % 3, Labelled.class_names["label"])
    assert np.array_equal(np.asarray(Image.open(samples / "scatter-00000016.png")), np.asarray(drawn))


ALL = [
    (Completion, "completions"),
    (Reconstruction, "reconstruct"),
    (LatentTraversal, "traversals"),
    (LatentScatter, "encode"),
]


@pytest.mark.parametrize(("kind", "missing"), ALL)
def test_what_a_model_lacks_is_named(tmp_path: Path, kind: Any, missing: str) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} needs {missing}, which GAN does not have"):
        run(tmp_path, kind(), GAN())


@pytest.mark.parametrize("kind", [Reconstruction, LatentScatter])
def test_data_that_are_not_there_are_named_before_training(tmp_path: Path, kind: Any) -> None:
    class Other(L.LightningDataModule):
        train_dataloader = Images.train_dataloader

    class Empty(Images):
        def split(self, name: str) -> torch.Tensor:
            return self.image[:0]

    fit = trainer(tmp_path, callbacks=[kind()])
    with pytest.raises(TypeError, match=f"{kind.__name__} needs a DataModule with .*give the Trainer datamodule="):
        fit.fit(Coder(), Images().train_dataloader())
    with pytest.raises(TypeError, match=f"{kind.__name__} needs reference_batches, which Other does not have"):
        run(tmp_path, kind(), data=Other())
    with pytest.raises(ValueError, match="the val split of noise8 has no images to draw"):
        run(tmp_path, kind(), data=Empty())
    assert not list(tmp_path.glob("samples/*"))


@pytest.mark.parametrize(("kind", "method"), ALL)
def test_pictures_are_drawn_once_a_step_on_rank_zero_in_the_models_precision(
    tmp_path: Path, kind: Any, method: str
) -> None:
    callback = kind(2)
    for rank_zero, expected in ((False, []), (True, [4])):
        steps: list[int] = []
        callback.draw = lambda trainer, model, step, steps=steps: steps.append(step)
        fit: Any = SimpleNamespace(global_step=2, is_global_zero=rank_zero)
        callback.on_train_start(fit, None)
        for fit.global_step in (2, 3, 4, 4):  # resumed at 2; accumulation stays at 4 for two batches
            callback.on_train_batch_end(fit, None, None, None, 0)
        callback.on_train_end(fit, None)
        assert steps == expected
    seen = []

    class Typed(Coder):
        def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return super().reconstruct(x)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return super().encode(x)

    model = Typed().double()
    fit = trainer(tmp_path, precision="64-true", callbacks=[kind()], max_steps=2, max_epochs=-1)
    fit.fit(model, datamodule=Images())
    assert set(seen) <= {torch.float64}
    assert list(tmp_path.glob("samples/*00000002.png"))


def test_tensorboard_holds_the_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callbacks = [kind(8) for kind, _ in ALL]
    trainer(tmp_path, callbacks=callbacks, logger=logger).fit(Coder(), datamodule=Images())
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    for name in ("reconstruction", "traversal", "scatter"):
        assert [event.step for event in events.Images(name)] == [8, 16]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Completion(num_completions=0), "Completion: num_completions must be at least 1, not 0"),
        (lambda: Reconstruction(num_images=0), "Reconstruction: num_images must be at least 1, not 0"),
        (lambda: Reconstruction(columns=0), "Reconstruction: columns must be at least 1, not 0"),
        (lambda: LatentTraversal(steps=1), "LatentTraversal: steps must be at least 2, not 1"),
        (lambda: LatentTraversal(max_codes=0), "LatentTraversal: max_codes must be at least 1, not 0"),
        (lambda: LatentScatter(0), "LatentScatter: every_n_steps must be at least 1, not 0"),
    ],
)
def test_numbers_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
