"""Pictures of images, of animations and of codes: `zoo.grid`, `zoo.gif` and `zoo.scatter`.

Each is a picture of Pillow or the bytes of a file. A notebook shows a picture that is the last line of a cell, so there
is no class of results.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.engine.files import write_atomically
from zoo.engine.images import from_levels, image_grid

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from torch import Tensor

__all__ = ["gif", "grid", "latin", "scatter", "wrapped"]

GAP = 2
"""White pixels between and around the images of a grid."""
LINE = 11
"""Pixels from one line of a caption to the next."""


def grid(images: Tensor, columns: int | None = None, captions: Sequence[str] | None = None) -> Image.Image:
    """Images side by side on white, as a picture of Pillow, which a notebook shows.

    Args:
        images: values in [-1, 1], or of 8 bits.
        columns: images per row; by default the length of the last dimension in front of (C, H, W) where there are two
            or more, as of `traversals` and `completions`, and else what makes the grid about square.
        captions: a text below each image.

    Shape:
        images: (C, H, W) or (..., C, H, W), where C is 1 or 3.

    Raises:
        ValueError: the images have another shape, there are none of them, or another number of captions.
    """
    if images.dim() < 3 or images.shape[-3] not in (1, 3):
        raise ValueError(f"a grid takes images (..., C, H, W) with 1 or 3 channels, not {tuple(images.shape)}")
    rows = images.shape[:-3]
    images = images.detach().reshape(-1, *images.shape[-3:]).cpu()
    if not len(images):
        raise ValueError("there are no images to draw")
    if columns is None:
        columns = rows[-1] if len(rows) > 1 else math.ceil(math.sqrt(len(images)))
    if columns < 1:
        raise ValueError(f"a grid has at least 1 column, not {columns}")
    if not images.is_floating_point():
        images = from_levels(images)
    if captions is None:
        return image_grid(images, columns, GAP)
    if len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions do not fit {len(images)} images")
    return _captioned_grid(images, columns, captions)


def _captioned_grid(images: Tensor, columns: int, captions: Sequence[str]) -> Image.Image:
    """A grid whose cells are as wide as their image and as the longest word of all captions."""
    from PIL import Image, ImageDraw

    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    words = [word for caption in captions for word in latin(caption).split()]
    width = max(images.shape[-1], *(math.ceil(ruler.textlength(word)) for word in words), 1)
    texts = [wrapped(ruler, latin(caption), width) for caption in captions]
    across, down = width + 2 * GAP, images.shape[-2] + 2 * GAP + LINE * max(map(len, texts)) + GAP
    sheet = Image.new("RGB", (columns * across, -(-len(images) // columns) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, lines) in enumerate(zip(images, texts, strict=True)):
        left, top = i % columns * across, i // columns * down
        tile = image_grid(image[None], 1, GAP)
        sheet.paste(tile, (left + (across - tile.width) // 2, top))
        for j, line in enumerate(lines):
            at = left + (across - draw.textlength(line)) / 2, top + tile.height + LINE * j
            draw.text(at, line, fill="black")
    return sheet


def latin(text: str) -> str:
    """A text with question marks for letters outside Latin-1, which the built-in font lacks."""
    return text.encode("latin-1", "replace").decode("latin-1")


def wrapped(draw: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    """A text in lines that are no wider than the width; a single word that is wider is cut.

    Args:
        draw: what the lines will be drawn with.
        text: the text.
        width: pixels.
    """
    lines: list[str] = []
    for word in text.split():
        while word and draw.textlength(word) > width:
            word = word[:-1]
        if lines and draw.textlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def gif(
    frames: Sequence[Image.Image] | Tensor, path: str | Path | None = None, *, seconds: float = 4.0, hold: float = 0.0
) -> bytes:
    """An endless animation as the bytes of a GIF: `IPython.display.Image(zoo.gif(frames))` shows them in a notebook.

    Args:
        frames: pictures of one size, or images in [-1, 1], which `grid` draws.
        path: a file that is written too, whole or not at all; an earlier one is replaced.
        seconds: length of one round without the hold.
        hold: seconds that the last picture stays longer.

    Shape:
        frames: (T, C, H, W), or (T, ..., C, H, W) for a grid in each frame.

    Raises:
        ValueError: there are no frames, or they differ in size.
    """
    from PIL import Image

    pictures = [frame if isinstance(frame, Image.Image) else grid(frame) for frame in frames]
    if not pictures:
        raise ValueError("there are no frames to animate")
    if len(sizes := {picture.size for picture in pictures}) > 1:
        raise ValueError(f"the frames of an animation have one size, not {sorted(sizes)}")
    # Players slow down below 20 ms; the format counts in hundredths of a second.
    each = max(20, round(seconds * 100 / len(pictures)) * 10)
    durations = [each] * (len(pictures) - 1) + [each + round(hold * 100) * 10]
    first, *rest = [picture.convert("RGB").quantize(256, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)
    if path is not None:
        write_atomically(Path(path), buffer.getvalue())
    return buffer.getvalue()


def scatter(
    points: Tensor, labels: Tensor | None = None, names: Sequence[str] | None = None, limit: float | None = None
) -> Image.Image:
    """Codes as points in the plane, colored by label, without codes that are not finite.

    Codes of more than two dimensions are projected on their first two principal components.

    Args:
        points: codes.
        labels: classes.
        names: names of the classes, for the legend; by default their numbers.
        limit: both axes go from -limit to limit; by default they hold all points.

    Shape:
        points: (N, D); labels: (N,).

    Raises:
        ValueError: the codes have another shape, or there are not as many labels.
    """
    from zoo.engine.plane import plot

    if points.dim() != 2 or (labels is not None and labels.shape != points.shape[:1]):
        given = f"{tuple(points.shape)}" + ("" if labels is None else f" and {tuple(labels.shape)}")
        raise ValueError(f"a plot takes codes (N, D) and labels (N,), not {given}")
    return plot(points, labels, names, limit)
