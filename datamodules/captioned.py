"""Images with sentences that describe them: emoji, folders with captions, CUB-200-2011 and Oxford-102.

A batch has for each image a `caption` of its own and a `mismatched_caption`, which describes an image of another class
and is none of its own. Which ones these are is a function of (seed, epoch, image), so they are the same on any number
of ranks and after a resume; in evaluation they are drawn once. Embeddings of all captions are computed once and kept
as safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from zoo.datamodules.base import ImageDataModule, nearest
from zoo.datamodules.captions import (
    CaptionedImages,
    Captions,
    caption_table,
    checked_templates,
    classes_by_sharing,
    sentences,
    text_lines,
    usual_templates,
)
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.image_folder import ImageFolder
from zoo.datamodules.stream import ImageSet
from zoo.datamodules.unpaired import augmented
from zoo.nn.text import load_text_encoder

__all__ = ["Captioned"]

SOURCES = ("emoji", "folder", "cub", "flowers")
PICTURES = {"cub": ("CUB_200_2011/images", "images"), "flowers": ("jpg", "102flowers/jpg", "102flowers", "images")}
CHUNK = 256


class Captioned(ImageDataModule):
    """Images with sentences.

    Batches hold `image`, `caption` (a list of str), `mismatched_caption` (of an image of another class, each image as
    likely; a sentence that the image has too is drawn again), `caption_class` (int64; what counts as a class), and with
    a text encoder `caption_embedding` and `mismatched_embedding` (N, D) float; also the labels of the source.

    source="emoji": several sentences for each emoji and vendor, made from templates; a class is an emoji.
    source="folder": any folder of pictures with `captions.csv` (a head; file names in the first column, captions in the
    further ones; a picture may have several rows) or with a text file of the same name beside each picture, a caption a
    line. A class is a first-level folder; without such, pictures that share no caption are of different classes.
    source="cub" and "flowers": pictures and `text_c10/<class>/<picture>.txt` as the authors of the captions ship them,
    with `trainvalclasses.txt`, `testclasses.txt` and perhaps `valclasses.txt` beside `text_c10`: no class of the test
    split is in another, and no class of the validation split in training unless `train_on_val` puts it there too.

    Args:
        data_dir: the folder; emoji ship with the package.
        source: "emoji", "folder", "cub" or "flowers".
        text_encoder: whose embeddings the batches hold: name or file of a published `TextEncoder`, "sentence", or the
            settings of an untrained encoder; None gives sentences only.
        average: captions drawn per image, whose embeddings are averaged; `caption` is the first of them.
        near: share of mismatched captions of emoji that differ from the right one in skin tone or gender alone.
        holdout: "combinations" keeps two of the ten pairs of skin tone and gender of every profession among the emoji
            out of training and makes them the test split, so that its words are known and their pairing is not; the
            usual test split, of emoji that are not known, is then called `unseen`.
        templates: sentences for emoji, as in `datamodules/data/captions/emoji.txt`; None takes those.
        vendors: whose emoji; None takes all four.
        train_on_val: of "cub" and "flowers" train on the validation classes too, as the paper does.
        load_size: side of the images before a square is cut out, at random in training; None is 76/64 of `image_size`
            for "cub" and "flowers", and `image_size` for others.
        flip: mirror training images with probability 1/2; None does so for "cub" and "flowers".
        squeeze: of folders the whole picture, its sides scaled to the square, rather than its middle square; None does
            so for "cub" and "flowers".
        cache_dir: folder for images and embeddings.
        image_size: side of the images.
        batch_size: images per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training order, of captions and of the augmentation; None takes that of the run.

    Attributes:
        encoder_digest: tells the text encoder's weights from others; None without one.

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
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            data_dir,
            cache_dir=cache_dir,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if source not in SOURCES:
            raise ValueError(f"unknown source {source!r}: {nearest(source, SOURCES)}")
        birds = source in PICTURES
        if squeeze and source == "emoji":
            raise ValueError("squeeze is for folders of pictures: emoji are square")
        emoji = {"near": near, "holdout": holdout, "templates": templates, "vendors": vendors}
        for name, value in emoji.items():
            if value and source != "emoji":
                raise ValueError(f"{name} is for source='emoji'; the source is {source!r}")
        if train_on_val and not birds:
            raise ValueError(f"train_on_val is for source='cub' and 'flowers'; the source is {source!r}")
        if average < 1 or (average > 1 and text_encoder is None):
            raise ValueError("average must be at least 1, and above 1 it needs a text_encoder: embeddings are averaged")
        if not 0 <= near <= 1:
            raise ValueError(f"near is a share between 0 and 1, not {near}")
        self.load_size = (round(image_size * 76 / 64) if birds else image_size) if load_size is None else load_size
        if self.load_size < image_size:
            raise ValueError(f"load_size must be at least image_size {image_size}, not {load_size}")
        self.source = source
        self.text_encoder = text_encoder
        self.average = average
        self.near = near
        self.holdout = holdout
        self.train_on_val = train_on_val
        self.flip = birds if flip is None else flip
        self.encoder_digest: str | None = None
        options: dict[str, Any] = {"cache_dir": cache_dir, "image_size": self.load_size}
        self.images: ImageDataModule
        if source == "emoji":
            self.templates = usual_templates() if templates is None else checked_templates(templates)
            chosen: dict[str, Any] = {} if vendors is None else {"vendors": vendors}
            self.images = Emoji(data_dir, holdout=holdout, **chosen, **options)
            self.class_names = dict(self.images.class_names)
            self.name = str(self.images.name).replace(f"emoji{self.load_size}", f"emoji{image_size}")
        else:
            if data_dir is None:
                raise ValueError(f"source={source!r} needs data_dir, the folder of pictures and captions")
            self.folder = Path(data_dir).expanduser()
            # As in the authors' code, which looks at no picture's shape.
            whole = birds if squeeze is None else squeeze
            self.images = ImageFolder(self._pictures() if birds else self.folder, squeeze=whole, **options)
            self.name = f"{source}{image_size}" if birds else f"{self.images.folder.name}{image_size}"
            if whole != birds:
                self.name += "-squeezed" if whole else "-centre"
        self.licence = self.images.licence

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
            splits = self._class_splits(splits["train"])
        if self.holdout:
            splits = splits | {"test": splits["combinations"], "unseen": splits["test"]}
            del splits["combinations"]
        known = Captions.of(captions, classes, groups=groups, average=self.average, near=self.near)
        if self.text_encoder is not None:
            known.embeddings = self._embedded(known.texts)
        cut = self.load_size > self.image_size
        augment = partial(augmented, size=self.image_size, flip=self.flip) if cut or self.flip else None
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
        fields, names = images.fields, self.images.class_names
        emoji, vendor = fields["emoji"], fields["vendor"]
        assert isinstance(emoji, Tensor) and isinstance(vendor, Tensor)  # noqa: PT018
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
        names = self.images._listing()
        if self.source in PICTURES:
            given = self._texts()
            missing = [name for name in names if Path(name).stem not in given]
            self._refuse(missing, self._text_folder())
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
            beside = text_lines(text) if text.is_file() else []
            captions.append(rows.get(name, []) or rows.get(Path(name).name, []) or beside)
        self._refuse([name for name, own in zip(names, captions, strict=True) if not own], self.folder)
        self.class_names = self.images.class_names
        label_field = splits["train"].fields.get("label")
        return captions, label_field if isinstance(label_field, Tensor) else classes_by_sharing(captions)

    def _refuse(self, missing: list[str], folder: Path) -> None:
        if missing:
            raise ValueError(
                f"{folder} has no caption for {missing[0]} (and {len(missing) - 1} more pictures): give captions.csv "
                "or a .txt file for each"
            )

    def _embedded(self, texts: list[str]) -> Tensor:
        """The embedding of each sentence, from the cache or computed."""
        assert self.text_encoder is not None
        encoder = load_text_encoder(self.text_encoder)
        self.encoder_digest = encoder.digest()
        content = blake2b("\n".join([str(self.encoder_digest), *texts]).encode(), digest_size=8).hexdigest()
        path = self.cache_dir / "embeddings" / f"{self.name}-{content}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                parts = range(0, len(texts), CHUNK)
                bar = tqdm(parts, desc="Embedding captions", unit="batch", leave=False, disable=len(texts) < 5000)
                with torch.no_grad():
                    rows = torch.cat([encoder(texts[start : start + CHUNK]) for start in bar])
                temporary = path.with_name(f".{path.name}.tmp")
                save_file({"embedding": rows.float().contiguous()}, temporary)
                os.replace(temporary, path)
        return load_file(path)["embedding"]

    # The layouts of CUB and Oxford-102 -------------------------------------------------------------------------------

    def _pictures(self) -> Path:
        """The folder of pictures: the first that is there, else the first."""
        places = [self.folder / name for name in PICTURES[self.source]]
        return next((place for place in places if place.is_dir()), places[0])

    def _text_folder(self) -> Path:
        found = [*self.folder.glob("text_c10"), *sorted(self.folder.glob("*/text_c10"))]
        if not found:
            raise FileNotFoundError(f"{self.folder} has no folder text_c10 with the captions of {self.source}")
        return found[0]

    def _texts(self) -> dict[str, tuple[str, list[str]]]:
        """Class and captions by the name of a picture."""
        return {path.stem: (path.parent.name, text_lines(path)) for path in sorted(self._text_folder().glob("*/*.txt"))}

    def _class_splits(self, images: ImageSet) -> dict[str, ImageSet]:
        """All pictures dealt out by their classes."""
        folder, label = self._text_folder().parent, images.fields["label"]
        assert isinstance(label, Tensor)
        lists = {}
        for split in ("trainval", "val", "test"):
            path = folder / f"{split}classes.txt"
            if not path.is_file() and split != "val":
                raise FileNotFoundError(f"{path} is missing: it lists the classes of the split, one a line")
            lists[split] = set(text_lines(path)) if path.is_file() else set()
        lists["train"] = lists["trainval"] - (set() if self.train_on_val else lists["val"])
        names = self.class_names["label"]
        result = {}
        for split in ("train", "val", "test"):
            wanted = torch.tensor([name in lists[split] for name in names])
            rows = wanted[label].nonzero().flatten()
            result[split] = ImageSet(images.arrays, images.fields, rows)
        return result
