"""Images with labels as vectors of zeros and ones, for models that change them: emoji, CelebA, any folder with a table.

Emoji come with their true pairs: the same emoji by another vendor, or in another skin tone, is what a translation of it
should look like. Training never sees the base emoji of the other splits.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.datamodules.base import ImageDataModule, ImageSet, nearest
from zoo.datamodules.celeba import CelebA
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.emoji_archive import SKIN_TONES
from zoo.datamodules.image_folder import ImageFolder
from zoo.datamodules.pictures import mirrored
from zoo.datamodules.translation import TranslationTask

__all__ = ["Attributes"]

SOURCES = ("emoji", "celeba", "folder")
CELEBA = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
FIELDS = ("vendor", "skin_tone", "gender", "category")


class Attributes(ImageDataModule):
    """Images with `attributes` (N, A) float, 0 or 1, whose names are in `class_names["attributes"]`.

    source="emoji": the fields named in `attributes`, each one-hot, of `vendor` (the default), `skin_tone`, `gender` and
    `category`. Batches hold all fields of `Emoji` too; `label` is the first named one, and `pairs` (N, domains) is the
    place of the true partners: `split(name).batch(pairs[:, d])` shows the same emoji in domain d, whose attributes are
    `domains[d]`; -1 where there is none. Domains are the vendors, or all pairs of vendor and skin tone where both are
    named, and with `skin_tone` only emoji that are drawn in several tones are taken.

    source="celeba": the attributes of that name of `CelebA`; the five of StarGAN's paper by default.

    source="folder": `table` is a CSV file with a head, whose first column names pictures of the folder (with or without
    their folders) and whose further columns are attributes: 0 or -1 for no, 1 for yes. Without a table the first level
    of folders is taken for categories, one-hot, and given as `label` too.

    Args:
        data_dir: folder of `CelebA`, or the folder of pictures; emoji ship with the package.
        source: "emoji", "celeba" or "folder".
        attributes: names of the emoji's fields or of the attributes, in this order; None takes the usual ones, or all.
        table: CSV file of labels beside or in the folder.
        vendors: whose emoji; None takes all four.
        fit: scale every emoji to the frame, as in `Emoji`.
        flip: mirror training images with probability 1/2, drawn for each image and epoch.
        cache_dir: folder for rendered or decoded images.
        image_size: side of the images.
        batch_size: images per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training order and of mirroring; None takes that of the run.

    Attributes:
        domains: attributes of each domain of the emoji, (domains, A); None for other sources.
        domain_names: their names.

    Raises:
        ValueError: an unknown source or name, or a table that does not fit the folder.

    References:
        Choi et al. 2018 (StarGAN), section 5.2, for the attributes and the mirroring.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        source: Literal["emoji", "celeba", "folder"] = "emoji",
        attributes: Sequence[str] | None = None,
        table: str | os.PathLike[str] | None = None,
        vendors: Sequence[str] | None = None,
        fit: bool = False,
        flip: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        batch_size: int = 16,
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
        for name, value, owner in (
            ("table", table, "folder"),
            ("vendors", vendors, "emoji"),
            ("fit", fit or None, "emoji"),
        ):
            if value is not None and source != owner:
                raise ValueError(f"{name} is for source={owner!r}; the source is {source!r}")
        self.source = source
        self.chosen = None if attributes is None else list(attributes)
        if self.chosen is not None and (not self.chosen or len(set(self.chosen)) < len(self.chosen)):
            raise ValueError(f"attributes must name at least one, each once; got {self.chosen}")
        self.table = None if table is None else Path(table).expanduser()
        self.flip = flip
        self.domains: Tensor | None = None
        self.domain_names: list[str] = []
        options: dict[str, Any] = {"cache_dir": cache_dir, "image_size": image_size}
        self.images: ImageDataModule
        if source == "emoji":
            for name in self.chosen or []:
                if name not in FIELDS:
                    raise ValueError(f"emoji have no field {name!r}: {nearest(name, FIELDS)}")
            self.chosen = self.chosen or ["vendor"]
            options |= {"fit": fit} | ({} if vendors is None else {"vendors": vendors})
            self.images = Emoji(data_dir, **options)
            self._name_fields()
        elif source == "celeba":
            self.images = CelebA("data" if data_dir is None else data_dir, **options)
            self.chosen = self.chosen or list(CELEBA)
            self.class_names = {"attributes": self.chosen}
        else:
            if data_dir is None:
                raise ValueError("source='folder' needs data_dir, the folder of pictures")
            self.images = ImageFolder(data_dir, **options)
        self.licence = self.images.licence
        fields = self.chosen if source == "emoji" and self.chosen else []
        added = "" if fields in ([], ["vendor"]) else f"-{'+'.join(fields)}"
        self.name = f"{self.images.name}{added}"

    def prepare_data(self) -> None:
        """Render, fetch or decode what is not in the cache yet."""
        self.images.prepare_data()

    def open(self) -> dict[str, ImageSet]:
        """The splits of the source, with attributes."""
        splits = self.images.open()
        if self.source == "emoji":
            splits = self._of_emoji(splits)
        elif self.source == "celeba":
            splits = self._of_celeba(splits)
        else:
            splits = self._of_folder(splits)
        augment = mirrored if self.flip else None
        return {name: replace(images, augment=augment if name == "train" else None) for name, images in splits.items()}

    def translation_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "test", rank: int = 0, world_size: int = 1
    ) -> Iterator[TranslationTask]:
        """The images of `reference_batches` once for each domain that they are not in; arguments as there.

        Raises:
            ValueError: an unknown split, or one with fewer images; or there are no domains.
        """
        if self.domains is None:
            raise ValueError(f"{self.name} has no domains: true pairs are those of emoji in vendor or skin_tone")
        images = self.split(split)
        chunks = self.reference_batches(num_samples, chunk_size, split=split, rank=rank, world_size=world_size)
        for _, batch in chunks:
            image, attributes, pairs = (batch[name] for name in ("image", "attributes", "pairs"))
            assert isinstance(image, Tensor) and isinstance(attributes, Tensor) and isinstance(pairs, Tensor)  # noqa: PT018
            origin = (attributes[:, None] == self.domains).all(2).long().argmax(1)
            for d, target in enumerate(self.domains):
                asked = origin != d
                place = pairs[asked, d]
                true = images.batch(place[place >= 0])["image"]
                yield TranslationTask(image[asked], origin[asked], d, attributes[asked], target, place >= 0, true)

    # Emoji -----------------------------------------------------------------------------------------------------------

    def _name_fields(self) -> None:
        """Names of all attributes and domains."""
        assert self.chosen is not None
        known = self.images.class_names
        # Tone and gender may be missing; names must tell which.
        names = {f: [f"no_{f}" if n == "none" else n for n in known[f]] for f in self.chosen}
        self.class_names = known | {"label": known[self.chosen[0]]}
        self.class_names["attributes"] = [name for field in self.chosen for name in names[field]]
        paired: list[str] = [field for field in ("vendor", "skin_tone") if field in self.chosen]
        # Of gender and category there are no true pairs.
        self._paired = paired if len(paired) == len(self.chosen) else []
        if self._paired:
            sizes = [len(names[field]) for field in self._paired]
            numbers = torch.tensor(list(product(*map(range, sizes))))
            parts = {f: F.one_hot(numbers[:, i], sizes[i]).float() for i, f in enumerate(self._paired)}
            self.domain_names = [" ".join(combination) for combination in product(*(names[f] for f in self._paired))]
            self.domains = torch.cat([parts[f] for f in self.chosen], 1)

    def _of_emoji(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert self.chosen is not None
        fields = splits["train"].fields
        onehots = []
        for name in self.chosen:
            values = fields[name]
            assert isinstance(values, Tensor)
            onehots.append(F.one_hot(values, len(self.class_names[name])).float())
        new: dict[str, Tensor | list[str]] = {"attributes": torch.cat(onehots, 1), "label": fields[self.chosen[0]]}
        # What an emoji is, but for its skin tone.
        things = ["-".join(part for part in code.split("-") if part not in SKIN_TONES) for code in fields["code"]]
        tones, vendors = fields["skin_tone"], fields["vendor"]
        assert isinstance(tones, Tensor) and isinstance(vendors, Tensor)  # noqa: PT018
        several = {thing for thing, tone in zip(things, tones.tolist(), strict=True) if tone}
        result = {}
        for split, images in splits.items():
            rows = images.rows
            assert rows is not None
            if "skin_tone" in self.chosen:
                rows = rows[torch.tensor([things[row] in several for row in rows.tolist()])]
            result[split] = replace(images, rows=rows, fields=fields | new | self._pairs(rows, fields, things))
        return result

    def _pairs(
        self, rows: Tensor, fields: dict[str, Tensor | list[str]], things: list[str]
    ) -> dict[str, Tensor | list[str]]:
        """Where each image's partners of all domains lie in a split."""
        if not self._paired:
            return {"pairs": torch.empty(len(things), 0, dtype=torch.int64)}
        values = [fields[field].tolist() for field in self._paired]  # type: ignore[union-attr]
        sizes = [len(self.class_names[field]) for field in self._paired]
        # An emoji without its tone stands for all of its tones only if tones are domains.
        same: Sequence[Any] = things if "skin_tone" in self._paired else fields["emoji"].tolist()  # type: ignore[union-attr]
        vendor = fields["vendor"].tolist()  # type: ignore[union-attr]
        who = [(same[i], None if "vendor" in self._paired else vendor[i]) for i in range(len(things))]
        domain = [0] * len(things)
        for size, column in zip(sizes, values, strict=True):
            domain = [number * size + value for number, value in zip(domain, column, strict=True)]
        places: dict[Any, Tensor] = {}
        count = len(self.domain_names)
        for place, row in enumerate(rows.tolist()):
            found = places.setdefault(who[row], torch.full((count,), -1))
            if found[domain[row]] < 0:
                found[domain[row]] = place
        pairs = torch.full((len(things), count), -1)
        for row in rows.tolist():
            pairs[row] = places[who[row]]
        return {"pairs": pairs}

    # CelebA and folders ----------------------------------------------------------------------------------------------

    def _of_celeba(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert self.chosen is not None
        # NOTE(paper): the official split; the authors' code shuffles with seed 1234 and tests on the first 1,999.
        known = self.images.class_names["attributes"]
        for name in self.chosen:
            if name not in known:
                raise ValueError(f"CelebA has no attribute {name!r}: {nearest(name, known)}")
        values = splits["train"].fields["attributes"]
        assert isinstance(values, Tensor)
        fields: dict[str, Tensor | list[str]] = {"attributes": values[:, [known.index(name) for name in self.chosen]]}
        return {split: replace(images, fields=fields) for split, images in splits.items()}

    def _of_folder(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert isinstance(self.images, ImageFolder)
        fields = splits["train"].fields
        if self.table is not None:
            names, values = self._read_table(self.images._listing())
        elif "label" in fields:
            label, names = fields["label"], self.images.class_names["label"]
            assert isinstance(label, Tensor)
            values = F.one_hot(label, len(names)).float()
            self.class_names["label"] = names
        else:
            raise ValueError(f"{self.images.folder} has no labels: give table=, a CSV file, or a folder for each class")
        chosen = names if self.chosen is None else self.chosen
        for name in chosen:
            if name not in names:
                raise ValueError(f"there is no attribute {name!r}: {nearest(name, names)}")
        if self.table is None and chosen != names:
            raise ValueError("attributes may leave out columns of a table, not folders: leave it out")
        self.class_names["attributes"] = chosen
        new = {**fields, "attributes": values[:, [names.index(name) for name in chosen]]}
        return {split: replace(images, fields=new) for split, images in splits.items()}

    def _read_table(self, pictures: list[str]) -> tuple[list[str], Tensor]:
        """Names of the attributes, and their values (pictures, attributes)."""
        assert self.table is not None
        if not self.table.is_file():
            raise FileNotFoundError(f"there is no table {self.table}: set table to a CSV file of labels")
        rows = list(csv.reader(self.table.read_text(encoding="utf-8-sig").splitlines()))
        rows = [row for row in rows if row]
        if len(rows) < 2 or len(rows[0]) < 2:
            raise ValueError(f"{self.table} must have a head, a first column of file names and columns of attributes")
        names = [name.strip() for name in rows[0][1:]]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.table} has two columns of the same name")
        known: dict[str, list[float]] = {}
        for number, row in enumerate(rows[1:], 2):
            values = [value.strip() for value in row[1:]]
            if len(values) != len(names) or not set(values) <= {"-1", "0", "1"}:
                raise ValueError(f"{self.table}: row {number} ({row[0]}) must have {len(names)} values 0 or 1 (or -1)")
            known[row[0].strip()] = [float(value == "1") for value in values]
        missing = [name for name in pictures if name not in known and Path(name).name not in known]
        if missing:
            raise ValueError(f"{self.table} has no row for {missing[0]} (and {len(missing) - 1} more pictures)")
        return names, torch.tensor([known.get(name, known.get(Path(name).name, [])) for name in pictures])
