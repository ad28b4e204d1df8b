"""Drawn shapes: the factors can be read off the images, splits are fixed, the stream is that of every data set."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from zoo.datamodules import Shapes
from zoo.datamodules.base.image_set import Batch

SHAPE, SCALE, ROTATION, X, Y = range(5)


def light(image: Tensor) -> Tensor:
    return ((image[:, 0] + 1) / 2).double()


def centroid(image: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the centroids along x and y in [-1, 1]."""
    weight = light(image)
    grid = (torch.arange(weight.shape[1]).double() + 0.5) * (2 / weight.shape[1]) - 1
    total = weight.sum((1, 2))
    return (weight.sum(1) * grid).sum(1) / total, (weight.sum(2) * grid).sum(1) / total


def combinations(**fixed: int) -> Tensor:
    """All factor values, with some of them fixed."""
    names, sizes = Shapes.factor_names, Shapes.factor_sizes
    values = (torch.tensor([fixed[n]]) if n in fixed else torch.arange(s) for n, s in zip(names, sizes, strict=True))
    return torch.cartesian_prod(*values)


@pytest.mark.parametrize(("size", "pixels"), [(16, 0.2), (64, 0.1), (128, 0.1)])
def test_the_centroid_is_where_x_and_y_say(size: int, pixels: float) -> None:
    tolerance = pixels * 2 / size  # neighbouring places are 0.65 pixels apart at 16, 2.6 at 64
    factors = combinations(scale=2)[::7]
    x, y = centroid(Shapes(image_size=size).render(factors))
    places = torch.linspace(-0.53, 0.53, 14).double()
    assert (x - places[factors[:, X]]).abs().max() < tolerance
    assert (y - places[factors[:, Y]]).abs().max() < tolerance


def test_the_area_is_that_of_the_scale_for_every_shape_and_angle() -> None:
    factors = combinations(x=3, y=8)
    area = light(Shapes(image_size=128).render(factors)).mean((1, 2)) * 4
    expected = (2 * torch.linspace(0.125, 0.25, 5).double()[factors[:, SCALE]]) ** 2
    assert (area / expected - 1).abs().max() < 0.01


def test_angles_turn_clockwise_over_the_period_of_the_shape() -> None:
    """Moments z^k of the light around its centre turn by k times the angle; k is the shape's symmetry."""
    for shape, symmetry in ((0, 4), (1, 2), (2, 1)):
        image = light(Shapes(image_size=128).render(combinations(shape=shape, scale=4, x=7, y=7)))
        grid = (torch.arange(128).double() + 0.5) / 64 - 1 - float(torch.linspace(-0.53, 0.53, 14)[7])
        z = torch.complex(*torch.broadcast_tensors(grid, grid[:, None]))
        # The heart's own first moment is 0, as z counts from its centroid: far light, that of the tip, counts more.
        moment = (image * z**symmetry * z.abs() ** 5).sum((1, 2))
        turned = (moment / moment[0]) / torch.polar(torch.ones(12), torch.arange(12) * math.tau / 12)
        assert turned.angle().abs().max() < math.radians(5)  # a sixth of a step


@pytest.mark.parametrize(("size", "every"), [(16, 1), (64, 5)])
def test_no_two_combinations_look_alike(size: int, every: int) -> None:
    module, factors = Shapes(image_size=size), combinations()[::every]
    assert len(factors) == 35280 // every
    seen: set[bytes] = set()
    for part in factors.split(2000):
        seen |= {image.tobytes() for image in ((module.render(part) + 1) * 127.5).round().byte().numpy()}
    assert len(seen) == len(factors)


def test_shapes_are_white_on_black_and_whole() -> None:
    image = Shapes().render(combinations(scale=4)[::5])
    assert image.max() == 1
    assert image.min() == -1
    assert image[:, :, [0, -1]].max() == image[..., [0, -1]].max() == -1, "nothing touches the border"
    edge = (image > -1) & (image < 1)
    assert 0.2 < float(edge.sum() / (image > -1).sum()) < 0.5, "antialiased along the outline, and only there"


def test_splits_share_out_all_combinations_whatever_the_seed() -> None:
    rows = {name: split.rows for name, split in ((n, Shapes(seed=1).split(n)) for n in ("train", "val", "test"))}
    assert {name: len(r) for name, r in rows.items() if r is not None} == {"train": 28224, "val": 3528, "test": 3528}
    assert torch.cat([r for r in rows.values() if r is not None]).sort().values.equal(torch.arange(35280))
    other = Shapes(seed=2, image_size=16).split("test").rows
    assert other is not None
    assert rows["test"] is not None
    assert torch.equal(other, rows["test"])
    factors = Shapes().split("test").batch(torch.arange(3528))["factors"]
    for column, size in zip(factors.T, Shapes.factor_sizes, strict=True):
        assert column.bincount(minlength=size).min() > 0.7 * 3528 / size


def test_batches_are_what_render_draws() -> None:
    module = Shapes(batch_size=16)
    for batch in (next(iter(module.train_dataloader())), next(iter(module.test_dataloader()))):
        assert set(batch) == {"image", "factors"}
        assert batch["image"].shape == (16, 1, 64, 64)
        assert batch["image"].dtype == torch.float32
        assert batch["factors"].shape == (16, 5)
        assert batch["factors"].dtype == torch.int64
        assert torch.equal(module.render(batch["factors"]), batch["image"])
    assert module.name == "shapes64"
    split = module.split("val")
    sent = pickle.loads(pickle.dumps(split)).batch(torch.arange(5))["image"]
    assert torch.equal(sent, split.batch(torch.arange(5))["image"])


class Recorder(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(batch["factors"].tolist())
        loss: Tensor = self.weight * batch["image"].mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(steps: int, workers: int = 0, path: Path | None = None) -> tuple[Recorder, L.Trainer]:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(**quiet, accelerator="cpu", max_steps=steps, limit_val_batches=0, enable_checkpointing=False)
    model = Recorder()
    trainer.fit(model, Shapes(image_size=16, batch_size=8, num_workers=workers), ckpt_path=path)
    return model, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch_is_exact(workers: int, tmp_path: Path) -> None:
    whole, _ = fitted(7)
    first, trainer = fitted(4, workers)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    second, _ = fitted(7, workers, tmp_path / "x.ckpt")
    assert first.seen + second.seen == whole.seen


def test_one_line_for_each_mistake() -> None:
    with pytest.raises(ValueError, match=r"^image_size of Shapes must lie in 16\.\.128, not 8$"):
        Shapes(image_size=8)
    with pytest.raises(ValueError, match=r"^Shapes are drawn and take no data_dir$"):
        Shapes("data")
    with pytest.raises(ValueError, match=r"^factor rotation has the values 0 to 11, not 12$"):
        Shapes().render(torch.tensor([[0, 0, 12, 0, 0]]))
    with pytest.raises(
        ValueError, match=r"^factors must be int64 of shape \(N, 5\) for .*, not float32 of shape \(2,\)$"
    ):
        Shapes().render(torch.zeros(2))
