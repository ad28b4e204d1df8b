"""Reconstruction, LatentTraversal and LatentScatter: what their pictures hold, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from callbacks import LatentScatter, LatentTraversal, Reconstruction
from callbacks.base import to_levels
from callbacks.latent_scatter import plot, project
from tests.monitoring.fakes import GAN, Images, trainer


class Coder(GAN):
    """A fake with a code: the mean and the first pixel of an image; reconstructs the negative."""

    def reconstruct(self, x: Tensor) -> Tensor:
        return -x

    def encode(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)

    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        ramp = torch.linspace(-1, 1, steps).view(1, steps, 1, 1, 1).expand(num, steps, 3, 8, 8)
        kind = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand(num, 3, 3, 8, 8)
        return {"kind": kind, "still": torch.zeros(num, steps, 3, 8, 8), "z0": ramp, "z1": ramp * 0.5}


def run(folder: Path, callback: Any, model: Any = None, **options: Any) -> Path:
    fit = trainer(folder, callbacks=[callback], max_epochs=1, **options)
    fit.fit(model or Coder(), datamodule=Images())
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
    assert np.array_equal(found[0][1], to_levels(images)[1])
    assert np.array_equal(found[1][1], to_levels(-images)[1])
    assert np.array_equal(found[2][1], to_levels(images)[4])
    assert np.array_equal(found[3][1], to_levels(-images)[4])
    assert (found[3][2] == 255).all()


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


def test_points_have_the_colours_of_their_classes(tmp_path: Path) -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(20, 1)
    one = np.asarray(plot(codes)).reshape(-1, 3)
    two = np.asarray(plot(codes, torch.arange(40) % 2, ["a", "b"])).reshape(-1, 3)
    blue, orange = np.array([31, 119, 180]), np.array([255, 127, 14])
    assert (np.abs(one - blue).sum(1) < 10).any()
    assert not (np.abs(one - orange).sum(1) < 10).any()
    assert (np.abs(two - orange).sum(1) < 10).any()
    samples = run(tmp_path, LatentScatter(num_images=30))
    assert [p.name for p in samples.iterdir()] == ["scatter-00000016.png"]


@pytest.mark.parametrize(
    ("callback", "missing"),
    [(Reconstruction(), "reconstruct"), (LatentTraversal(), "traversals"), (LatentScatter(), "encode")],
)
def test_what_a_model_lacks_is_named(tmp_path: Path, callback: Any, missing: str) -> None:
    with pytest.raises(TypeError, match=f"{type(callback).__name__} needs {missing}, which GAN does not have"):
        run(tmp_path, callback, GAN())


def test_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="Reconstruction: num_images must be at least 1, not 0"):
        Reconstruction(num_images=0)
    with pytest.raises(ValueError, match="LatentTraversal: steps must be at least 2, not 1"):
        LatentTraversal(steps=1)
    with pytest.raises(ValueError, match="LatentScatter: every_n_steps must be at least 1, not 0"):
        LatentScatter(0)
