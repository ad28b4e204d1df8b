"""Images with labels as vectors of zeros and ones, for models that change them: emoji, CelebA, any folder with a table.

Emoji have true pairs: the same emoji by another vendor, or in another skin tone, is what its translation should equal.
Training never sees the base emoji of the other splits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.datamodules.base.draws import mirrored
from zoo.datamodules.base.emoji_archive import SKIN_TONES
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import ImageDataModule, ReadingOptions
from zoo.datamodules.base.tables import attribute_table
from zoo.datamodules.base.translation import TranslationTask
from zoo.datamodules.celeba import CelebA
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.image_folder import ImageFolder
from zoo.engine.files import nearest

__all__ = ["Attributes"]

SOURCES = ("emoji", "celeba", "folder")
CELEBA = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
FIELDS = ("vendor", "skin_tone", "gender", "category")


class Attributes(ImageDataModule):
    """Images with `attributes` (N, A) float, 0 or 1, whose names are in `class_names["attributes"]`.

    source="emoji": one-hot fields, of `vendor` (the default), `skin_tone`, `gender` and `category`, as `attributes`
    names them. Batches also hold all fields of `Emoji`, with the first named field as `label`, and `pairs`
    (N, domains): `split(name).batch(pairs[:, d])` are the true partners, the same emoji in domain d; -1 means that
    there is none. The attributes of domain d are `domains[d]`. The domains are the vendors, or the skin tones, or with
    both fields all pairs of the two. With `skin_tone` only emoji that are drawn in several tones are taken.

    source="celeba": the named attributes of `CelebA`; by default the five of StarGAN's paper.

    source="folder": the columns of a CSV file, `table`, with a head; the first column names pictures of the folder
    (with or without their folders), the others hold 0 or -1 for no and 1 for yes. Without a table the folders of the
    first level are categories, one-hot, and batches hold them as `label`, too.

    Args:
        data_dir: folder of `CelebA`, or the folder of pictures; emoji ship with the package.
        source: "emoji", "celeba" or "folder".
        attributes: names of the emoji's fields or of the attributes, in order; None takes the default, or all.
        table: CSV file of labels.
        vendors: vendors of the emoji; None takes all four.
        fit_to_frame: scale every emoji to the frame, as in `Emoji`.
        flip: mirror training images with probability 1/2, drawn for each image and epoch.
        cache_dir: folder for rendered or decoded images; None is `$ZOO_HOME/data` or `~/.cache/generative-zoo/data`.
        image_size: side of the images.
        batch_size: images per batch and device.

    Attributes:
        domains: attributes of each domain of the emoji, (domains, A); None for other sources.
        domain_names: names of the domains.

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
        fit_to_frame: bool = False,
        flip: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        batch_size: int = 16,
        **options: Unpack[ReadingOptions],
    ) -> None:
        super().__init__(data_dir, cache_dir=cache_dir, image_size=image_size, batch_size=batch_size, **options)
        if source not in SOURCES:
            raise ValueError(f"unknown source {source!r}: {nearest(source, SOURCES)}")
        for name, value, owner in (
            ("table", table, "folder"),
            ("vendors", vendors, "emoji"),
            ("fit_to_frame", fit_to_frame or None, "emoji"),
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
        of_images: dict[str, Any] = {"cache_dir": cache_dir, "image_size": image_size}
        self.images: ImageDataModule
        if source == "emoji":
            for name in self.chosen or []:
                if name not in FIELDS:
                    raise ValueError(f"emoji have no field {name!r}: {nearest(name, FIELDS)}")
            self.chosen = self.chosen or ["vendor"]
            of_images |= {"fit_to_frame": fit_to_frame} | ({} if vendors is None else {"vendors": vendors})
            self.images = Emoji(data_dir, **of_images)
            self._name_fields()
        elif source == "celeba":
            self.images = CelebA("data" if data_dir is None else data_dir, **of_images)
            self.chosen = self.chosen or list(CELEBA)
            self.class_names = {"attributes": self.chosen}
        else:
            if data_dir is None:
                raise ValueError("source='folder' needs data_dir, the folder of pictures")
            self.images = ImageFolder(data_dir, **of_images)
        self.license = self.images.license
        fields = self.chosen if source == "emoji" and self.chosen else []
        added = "" if fields in ([], ["vendor"]) else f"-{'+'.join(fields)}"
        self.name = f"{self.images.name}{added}"

    def prepare_data(self) -> None:
        """Render, fetch or decode the images that the cache lacks."""
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
        """The images of `reference_batches` once for each other domain; arguments as there.

        Raises:
            ValueError: an unknown split, or one with fewer images; or there are no domains.
        """
        if self.domains is None:
            raise ValueError(f"{self.name} has no domains: true pairs are those of emoji in vendor or skin_tone")
        images = self.split(split)
        chunks = self.reference_batches(num_samples, chunk_size, split=split, rank=rank, world_size=world_size)
        for _, batch in chunks:
            image, attributes, pairs = (batch[name] for name in ("image", "attributes", "pairs"))
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
        # The value "none" gets the field's name: "no_skin_tone".
        names = {f: [f"no_{f}" if n == "none" else n for n in known[f]] for f in self.chosen}
        self.class_names = known | {"label": known[self.chosen[0]]}
        self.class_names["attributes"] = [name for field in self.chosen for name in names[field]]
        paired: list[str] = [field for field in ("vendor", "skin_tone") if field in self.chosen]
        # There are no true pairs in gender and category.
        self._paired = paired if len(paired) == len(self.chosen) else []
        if self._paired:
            sizes = [len(names[field]) for field in self._paired]
            numbers = torch.tensor(list(product(*map(range, sizes))))
            parts = {f: F.one_hot(numbers[:, i], sizes[i]).float() for i, f in enumerate(self._paired)}
            self.domain_names = [" ".join(combination) for combination in product(*(names[f] for f in self._paired))]
            self.domains = torch.cat([parts[f] for f in self.chosen], 1)

    def _of_emoji(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert self.chosen is not None
        emoji = splits["train"]
        one_hots = [F.one_hot(emoji.tensor(name), len(self.class_names[name])).float() for name in self.chosen]
        new = {"attributes": torch.cat(one_hots, 1), "label": emoji.tensor(self.chosen[0])}
        # The code points of an emoji without those of the skin tone.
        codes = emoji.fields["code"]
        things = ["-".join(part for part in code.split("-") if part not in SKIN_TONES) for code in codes]
        several = {thing for thing, tone in zip(things, emoji.tensor("skin_tone").tolist(), strict=True) if tone}
        result = {}
        for split, images in splits.items():
            rows = images.rows
            assert rows is not None
            if "skin_tone" in self.chosen:
                rows = rows[torch.tensor([things[row] in several for row in rows.tolist()])]
            new["pairs"] = self._pairs(rows, emoji, things)
            result[split] = replace(images, rows=rows, fields={**emoji.fields, **new})
        return result

    def _pairs(self, rows: Tensor, emoji: ImageSet, things: list[str]) -> Tensor:
        """The places in a split of each image's partners in all domains."""
        if not self._paired:
            return torch.empty(len(things), 0, dtype=torch.int64)
        # Partners have the same emoji, or without tones as domains the same emoji in the same tone; and without vendors
        # as domains the same vendor.
        same: list[Any] = things if "skin_tone" in self._paired else emoji.tensor("emoji").tolist()
        vendor = emoji.tensor("vendor").tolist()
        who = [(same[i], None if "vendor" in self._paired else vendor[i]) for i in range(len(things))]
        domain = torch.zeros(len(things), dtype=torch.int64)
        for field in self._paired:
            domain = domain * len(self.class_names[field]) + emoji.tensor(field)
        domains = domain.tolist()
        places: dict[Any, Tensor] = {}
        count = len(self.domain_names)
        for place, row in enumerate(rows.tolist()):
            found = places.setdefault(who[row], torch.full((count,), -1))
            if found[domains[row]] < 0:
                found[domains[row]] = place
        pairs = torch.full((len(things), count), -1)
        for row in rows.tolist():
            pairs[row] = places[who[row]]
        return pairs

    # CelebA and folders ----------------------------------------------------------------------------------------------

    def _of_celeba(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert self.chosen is not None
        # NOTE(paper): the official split; the authors' code shuffles with seed 1234 and tests on the first 1,999.
        known = self.images.class_names["attributes"]
        for name in self.chosen:
            if name not in known:
                raise ValueError(f"CelebA has no attribute {name!r}: {nearest(name, known)}")
        values = splits["train"].tensor("attributes")[:, [known.index(name) for name in self.chosen]]
        return {split: replace(images, fields={"attributes": values}) for split, images in splits.items()}

    def _of_folder(self, splits: dict[str, ImageSet]) -> dict[str, ImageSet]:
        assert isinstance(self.images, ImageFolder)
        fields = splits["train"].fields
        if self.table is not None:
            names, values = attribute_table(self.table, self.images.listing())
        elif "label" in fields:
            names = self.images.class_names["label"]
            values = F.one_hot(splits["train"].tensor("label"), len(names)).float()
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
