"""Pictures of a run: their captions, the files they go to, and the loggers that get them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image, ImageDraw
from torch import Tensor, nn

from zoo.engine.files import atomic_file
from zoo.engine.images import image_grid
from zoo.engine.pictures import latin, wrapped

__all__ = [
    "captioned",
    "class_count",
    "column_sheet",
    "cycled_labels",
    "evenly_spaced",
    "log_picture",
    "samples_folder",
    "stacked",
    "write_png",
]

LINE = 14  # pixels of a line of text


def class_count(model: nn.Module) -> int:
    """Number of classes of a class-conditional model, 0 for others."""
    return int(getattr(model, "hparams", {}).get("num_classes", 0) or 0)


def cycled_labels(model: nn.Module, n: int) -> Tensor | None:
    """Labels that cycle over the classes of a conditional model; None for others.

    Shape:
        Output: (n,) int64.
    """
    count = class_count(model)
    device = next((parameter.device for parameter in model.parameters()), None)
    return torch.arange(n, device=device) % count if count > 1 else None


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text below it, in a strip of white whose size does not depend on the text."""
    width = max(picture.width, 220)  # as wide as the longest lines, so that all pictures of a run are alike
    sheet = Image.new("RGB", (width, picture.height + LINE), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((3, picture.height), text, "black")
    return sheet


def stacked(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Pictures below each other, each under its title, on a sheet as wide as the widest of all.

    Args:
        pictures: the pictures.
        titles: a line of text for each; letters outside Latin-1 become question marks.
    """
    titles = [latin(title) for title in titles]
    ruler = ImageDraw.Draw(pictures[0])
    width = max(*(picture.width for picture in pictures), *(math.ceil(ruler.textlength(t)) + 4 for t in titles))
    sheet = Image.new("RGB", (width, sum(picture.height + LINE for picture in pictures)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for picture, title in zip(pictures, titles, strict=True):
        draw.text((2, top + 2), title, fill="black")
        sheet.paste(picture, (0, top + LINE))
        top += picture.height + LINE
    return sheet


def column_sheet(columns: Mapping[str, Tensor]) -> Image.Image:
    """Columns of images side by side, each under its name.

    Args:
        columns: images in [-1, 1] by name, the same number in each column.

    Shape:
        columns: (N, C, H, W).
    """
    tiles = torch.stack([column.float().expand(-1, 3, -1, -1).cpu() for column in columns.values()], 1)
    picture = image_grid(tiles.flatten(0, 1), len(columns))
    width = tiles.shape[-1] + 2
    draw = ImageDraw.Draw(picture)
    heads = [wrapped(draw, name, width) for name in columns]
    height = 3 + 11 * max(map(len, heads))
    sheet = Image.new("RGB", (picture.width, picture.height + height), "white")
    sheet.paste(picture, (0, height))
    draw = ImageDraw.Draw(sheet)
    for i, lines in enumerate(heads):
        draw.multiline_text((2 + i * width, 2), "\n".join(lines), fill="black", spacing=1)
    return sheet


def samples_folder(trainer: Trainer) -> Path:
    """The folder `samples` of a run, made if it is missing.

    It lies where Lightning keeps the run's checkpoints: in the folder of the logger's version, so that two runs do not
    overwrite each other's pictures. A Trainer without a logger has one folder for all its runs.

    Args:
        trainer: a Trainer with its loggers.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder = Path(trainer.default_root_dir)
    if trainer.loggers and (own := trainer.loggers[0]).save_dir is not None:
        version = own.version if isinstance(own.version, str) else f"version_{own.version}"
        folder = Path(own.save_dir, str(own.name), version)
    folder = folder / "samples"
    if trainer.is_global_zero:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot make the folder {folder} for pictures: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write pictures to {folder}")
    return folder


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        path: the file.
        picture: the picture.
    """
    with atomic_file(path) as file:
        picture.save(file, format="PNG")


def evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 1 else [items[-1]]


def log_picture(loggers: Iterable[Any], key: str, picture: Image.Image, step: int) -> None:
    """Give a picture to the loggers that take pictures; call on rank zero only.

    Args:
        loggers: `trainer.loggers`.
        key: its name there.
        picture: the picture.
        step: training step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(picture), step, dataformats="HWC")
