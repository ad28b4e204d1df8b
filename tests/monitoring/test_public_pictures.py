"""`zoo.grid`, `zoo.gif` and `zoo.scatter`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo


def test_a_grid_is_about_square_and_keeps_the_order() -> None:
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    picture = zoo.grid(images)
    assert picture.size == (3 * 10 + 2, 2 * 10 + 2)
    pixels = np.asarray(picture)
    centers = [pixels[6 + 10 * (i // 3), 6 + 10 * (i % 3)].tolist() for i in range(6)]
    assert centers == [[v] * 3 for v in (0, 64, 128, 191, 255, 255)]  # the sixth place is empty


def test_the_last_dimension_in_front_of_an_image_is_a_row() -> None:
    strips = torch.zeros(3, 7, 1, 4, 4)
    assert zoo.grid(strips).size == (7 * 6 + 2, 3 * 6 + 2)
    assert zoo.grid(strips, columns=3).size == (3 * 6 + 2, 7 * 6 + 2)
    assert zoo.grid(strips[0, 0]).size == (8, 8)


def test_bytes_are_drawn_as_they_are() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert np.asarray(zoo.grid(levels))[2:-2, 2:-2, 0].tolist() == levels[0, 0].tolist()


def test_captions_stand_below_their_images_whole() -> None:
    images = torch.ones(4, 3, 16, 16)
    plain, told = zoo.grid(images), zoo.grid(images, captions=["", "a", "several words here", "fürchterlich…"])
    assert told.width > plain.width, "as wide as the longest word"
    ink = np.asarray(told.convert("L")) < 128
    height, width = told.height // 2, told.width // 2
    cells = [ink[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    assert [bool(cell.any()) for cell in cells] == [False, True, True, True]
    assert not any(cell[:18].any() for cell in cells), "the images are white, the text is below"
    assert all(cells[2][top : top + 9].any() for top in (20, 31)), "two lines"


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 2, 8, 8), {}, "1 or 3 channels, not (2, 2, 8, 8)"),
        (torch.zeros(8, 8), {}, "not (8, 8)"),
        (torch.zeros(0, 1, 8, 8), {}, "no images"),
        (torch.zeros(2, 1, 8, 8), {"captions": ["one"]}, "1 captions do not fit 2 images"),
        (torch.zeros(2, 1, 8, 8), {"columns": 0}, "at least 1 column, not 0"),
    ],
)
def test_what_is_no_grid_is_named(images: torch.Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        zoo.grid(images, **options)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_an_animation_has_its_frames_its_time_and_its_file(tmp_path: Path) -> None:
    frames = torch.linspace(-1, 1, 5).view(5, 1, 1, 1, 1).expand(5, 4, 3, 8, 8)
    content = zoo.gif(frames, tmp_path / "walk.gif", seconds=1.0, hold=0.5)
    assert (tmp_path / "walk.gif").read_bytes() == content
    animation = Image.open(io.BytesIO(content))
    assert (animation.n_frames, animation.size, animation.info["loop"]) == (5, (22, 22), 0)  # type: ignore[attr-defined]
    durations, grays = [], []
    for i in range(5):
        animation.seek(i)
        durations.append(animation.info["duration"])
        grays.append(animation.convert("L").getpixel((5, 5)))
    assert durations == [200] * 4 + [700]
    assert grays == [0, 64, 128, 191, 255]
    assert zoo.gif([zoo.grid(frame) for frame in frames], seconds=1.0, hold=0.5) == content


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one size, not \[\(8, 8\), \(9, 8\)\]"):
        zoo.gif([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))])
    with pytest.raises(ValueError, match="no frames"):
        zoo.gif([])


def test_points_have_the_colors_of_their_labels() -> None:
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).repeat(50, 1)
    labels = torch.arange(2).repeat(50)
    picture = np.asarray(zoo.scatter(points, labels)).astype(int)
    blue = (abs(picture - [31, 119, 180]).sum(-1) < 30).nonzero()[1]
    orange = (abs(picture - [255, 127, 14]).sum(-1) < 30).nonzero()[1]
    assert blue.min() < orange.min(), "class 0 lies on the left"
    with pytest.raises(ValueError, match=r"not \(100, 2\) and \(3,\)"):
        zoo.scatter(points, labels[:3])


def test_names_are_found_without_torch() -> None:
    code = "import sys, zoo; zoo.grid, zoo.gif, zoo.scatter; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
