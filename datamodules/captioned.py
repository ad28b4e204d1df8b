"""Images with sentences that describe them: emoji, folders with captions, CUB-200-2011 and Oxford-102.

Each image of a batch comes with a `caption` of its own and a `mismatched_caption` that describes an image of another
class and not this one. Both are functions of (seed, epoch, image), the same on any number of ranks and after a resume;
in evaluation they are drawn once. The embeddings of all captions are computed once and kept as safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from zoo.datamodules.base.caption_layouts import PICTURES, CaptionLayout
from zoo.datamodules.base.captions import CaptionedImages, Captions, classes_by_sharing
from zoo.datamodules.base.draws import cropped_and_mirrored
from zoo.datamodules.base.embeddings import cached_embeddings
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.tables import caption_table, text_lines
from zoo.datamodules.base.templates import checked_templates, sentences, usual_templates
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.image_folder import ImageFolder
from zoo.engine.files import nearest
from zoo.nn.text import load_text_encoder

__all__ = ["Captioned"]

SOURCES = ("emoji", "folder", "cub", "flowers")


class Captioned(ImageDataModule):
    """Images with sentences.

    Batches hold

    - `image`, `caption` and `mismatched_caption` (lists of str), where each image of another class is equally likely to
      give the mismatch, and a sentence that the image itself has, too, is drawn again;
    - `caption_class` (int64), the class that mismatches differ in;
    - with a text encoder `caption_embedding` and `mismatched_embedding` (N, D) float;
    - the labels of the source.

    source="emoji": several sentences for each emoji and vendor, made from templates; a class is an emoji.
    source="folder": a folder of pictures with `captions.csv` (a head; file names in the first column, captions in the
    others; a picture may have several rows) or with a text file of the same name next to each picture, one caption per
    line. A class is a first-level folder; without such folders, pictures without a common caption differ in class.
    source="cub" and "flowers": pictures and `text_c10/<class>/<picture>.txt` as the authors of the captions ship them,
    with `trainvalclasses.txt`, `testclasses.txt` and perhaps `valclasses.txt` next to `text_c10`. The classes of the
    test split are in no other split, those of the validation split in training only with `train_on_val`.

    Args:
        data_dir: the folder; emoji ship with the package.
        source: "emoji", "folder", "cub" or "flowers".
        text_encoder: encoder of the embeddings: name or file of a published `TextEncoder`, "sentence", or the settings
            of an untrained encoder; None gives sentences only.
        average: captions drawn per image, whose embeddings are averaged; `caption` is the first of them.
        near: share of mismatched captions of emoji that differ from the right one in skin tone or gender alone.
        holdout: "combinations" keeps two of the ten pairs of skin tone and gender of every profession among the emoji
            out of training and makes them the test split: known words in a new pairing. The usual test split, of
            unknown emoji, is then called `unseen`.
        templates: sentences for emoji, as in `datamodules/data/captions/emoji.txt`; None takes those.
        vendors: vendors of the emoji; None takes all four.
        train_on_val: train on the validation classes of "cub" and "flowers", too, as the paper does.
        load_size: side of the images before a square is cut out, at random in training; None is 76/64 of `image_size`
            for "cub" and "flowers", else `image_size`.
        flip: mirror training images with probability 1/2; None does so for "cub" and "flowers".
        squeeze: scale the sides of whole pictures to a square, instead of cutting out the central square; None does so
            for "cub" and "flowers".
        image_size: side of the images.

    Attributes:
        encoder_digest: digest of the text encoder's weights; None without an encoder.

    Raises:
        ValueError: an unknown source or word, options of another source, or a picture without a caption.

    References:
        Reed et al. 2016, section 5, for the captions of CUB and Oxford-102; the authors' code for crop and averaging.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        source: Literal["emoji", "folder", "cub", "flowers"] = "emoji",
        text_encoder: str | dict[str, Any] | None = None,
        average: int = 1,
        near: float = 0.0,
        holdout: Literal["combinations"] | None = None,
        templates: Sequence[str] | None = None,
        vendors: Sequence[str] | None = None,
        train_on_val: bool = False,
        load_size: int | None = None,
        flip: bool | None = None,
        squeeze: bool | None = None,
        image_size: int = 64,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
        if source not in SOURCES:
            raise ValueError(f"unknown source {source!r}: {nearest(source, SOURCES)}")
        is_paper = source in PICTURES  # one of the two data sets of the paper
        if squeeze and source == "emoji":
            raise ValueError("squeeze is for folders of pictures: emoji are square")
        emoji = {"near": near, "holdout": holdout, "templates": templates, "vendors": vendors}
        for name, value in emoji.items():
            if value and source != "emoji":
                raise ValueError(f"{name} is for source='emoji'; the source is {source!r}")
        if train_on_val and not is_paper:
            raise ValueError(f"train_on_val is for source='cub' and 'flowers'; the source is {source!r}")
        if average < 1 or (average > 1 and text_encoder is None):
            raise ValueError("average must be at least 1, and above 1 it needs a text_encoder: embeddings are averaged")
        self.load_size = (round(image_size * 76 / 64) if is_paper else image_size) if load_size is None else load_size
        if self.load_size < image_size:
            raise ValueError(f"load_size must be at least image_size {image_size}, not {load_size}")
        self.source = source
        self.text_encoder = text_encoder
        self.average = average
        self.near = near
        self.holdout = holdout
        self.train_on_val = train_on_val
        self.flip = is_paper if flip is None else flip
        self.encoder_digest: str | None = None
        of_images: dict[str, Any] = {"cache_dir": self.cache_dir, "image_size": self.load_size}
        self.images: ImageDataModule
        if source == "emoji":
            self.templates = usual_templates() if templates is None else checked_templates(templates)
            chosen: dict[str, Any] = {} if vendors is None else {"vendors": vendors}
            self.images = Emoji(data_dir, holdout=holdout, **chosen, **of_images)
            self.class_names = dict(self.images.class_names)
            self.name = str(self.images.name).replace(f"emoji{self.load_size}", f"emoji{image_size}")
        else:
            if data_dir is None:
                raise ValueError(f"source={source!r} needs data_dir, the folder of pictures and captions")
            self.folder = Path(data_dir).expanduser()
            # The authors' code squeezes pictures of any shape.
            whole = is_paper if squeeze is None else squeeze
            pictures = CaptionLayout(self.folder, source).pictures if is_paper else self.folder
            self.images = ImageFolder(pictures, squeeze=whole, **of_images)
            self.name = f"{source}{image_size}" if is_paper else f"{self.images.folder.name}{image_size}"
            if whole != is_paper:
                self.name += "-squeezed" if whole else "-centre"
        self.license = self.images.license

    def prepare_data(self) -> None:
        """Render or decode the images and embed the captions, where the cache does not have them yet."""
        self.images.prepare_data()
        if self.text_encoder is not None:
            self.open()

    def open(self) -> dict[str, ImageSet]:
        """The splits, with captions."""
        splits = self.images.open()
        if self.source == "emoji":
            captions, classes, groups = self._of_emoji(splits["train"])
        else:
            captions, classes, groups = *self._of_pictures(splits), None
        if self.source in PICTURES:
            splits = self._by_class(splits["train"])
        if self.holdout:
            splits = splits | {"test": splits["combinations"], "unseen": splits["test"]}
            del splits["combinations"]
        known = Captions.of(captions, classes, groups=groups, average=self.average, near=self.near)
        if self.text_encoder is not None:
            encoder = load_text_encoder(self.text_encoder)
            self.encoder_digest = encoder.digest()
            folder = self.cache_dir / "embeddings"
            known.embeddings = cached_embeddings(encoder, self.encoder_digest, known.texts, folder, self.name)
        cut = self.load_size > self.image_size
        augment = partial(cropped_and_mirrored, size=self.image_size, flip=self.flip) if cut or self.flip else None
        result: dict[str, ImageSet] = {
            name: CaptionedImages(
                images.arrays,
                {field: values for field, values in images.fields.items() if field != "caption"},
                images.rows,
                augment if name == "train" else None,
                captions=known,
                size=self.image_size,
            )
            for name, images in splits.items()
        }
        train = result["train"]
        assert isinstance(train, CaptionedImages)
        if not train.has_mismatches:
            raise ValueError(
                f"training images of {self.name} have no mismatched caption: they are all of one class, or one has "
                "every sentence of the other classes itself"
            )
        return result

    # Captions --------------------------------------------------------------------------------------------------------

    def _of_emoji(self, images: ImageSet) -> tuple[list[list[str]], Tensor, Tensor]:
        """Sentences, emoji and base emoji of each image."""
        assert isinstance(self.images, Emoji)
        emoji, vendor, names = images.tensor("emoji"), images.tensor("vendor"), self.images.class_names
        captions = []
        for number, v in zip(emoji.tolist(), vendor.tolist(), strict=True):
            row = self.images.table[number]
            captions.append(sentences(self.templates, row | {"vendor": names["vendor"][v]}))
        bases = {base: i for i, base in enumerate(sorted({row["base"] for row in self.images.table}))}
        groups = torch.tensor([bases[row["base"]] for row in self.images.table])
        return captions, emoji, groups[emoji]

    def _of_pictures(self, splits: dict[str, ImageSet]) -> tuple[list[list[str]], Tensor]:
        """Sentences and class of each picture of a folder."""
        assert isinstance(self.images, ImageFolder)
        names = self.images.listing()
        if self.source in PICTURES:
            layout = CaptionLayout(self.folder, self.source)
            given = layout.captions()
            self._refuse([name for name in names if Path(name).stem not in given], layout.texts)
            classes = sorted({given[Path(name).stem][0] for name in names})
            self.class_names = {"label": classes}
            label = torch.tensor([classes.index(given[Path(name).stem][0]) for name in names])
            for images in splits.values():
                images.fields = {"label": label}
            return [given[Path(name).stem][1] for name in names], label
        table = self.folder / "captions.csv"
        rows = caption_table(table) if table.is_file() else {}
        captions = []
        for name in names:
            text = (self.folder / name).with_suffix(".txt")
            in_file = text_lines(text) if text.is_file() else []
            captions.append(rows.get(name, []) or rows.get(Path(name).name, []) or in_file)
        self._refuse([name for name, own in zip(names, captions, strict=True) if not own], self.folder)
        self.class_names = self.images.class_names
        has_folders = "label" in splits["train"].fields
        return captions, splits["train"].tensor("label") if has_folders else classes_by_sharing(captions)

    def _by_class(self, images: ImageSet) -> dict[str, ImageSet]:
        """All pictures dealt out by their classes."""
        label, names = images.tensor("label"), self.class_names["label"]
        chosen = CaptionLayout(self.folder, self.source).classes(train_on_val=self.train_on_val)
        return {
            split: replace(images, rows=torch.tensor([name in wanted for name in names])[label].nonzero().flatten())
            for split, wanted in chosen.items()
        }

    def _refuse(self, missing: list[str], folder: Path) -> None:
        if missing:
            raise ValueError(
                f"{folder} has no caption for {missing[0]} (and {len(missing) - 1} more pictures): give captions.csv "
                "or a .txt file for each"
            )
