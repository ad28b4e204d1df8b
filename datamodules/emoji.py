"""Emoji: 3,139 emoji in the drawings of four vendors, 12,556 aligned colour images that ship with the package.

OpenMoji (CC-BY-SA-4.0), Twemoji (CC-BY-4.0), Noto (Apache-2.0) and Fluent flat (MIT), as SVG, rendered on first use at
any size. Emoji number j means the same in every vendor, so the images of two vendors are true pairs.
"""

from __future__ import annotations

import copy
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any, Literal

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor
from tqdm import tqdm

from zoo.datamodules import emoji_archive
from zoo.datamodules.base import ImageDataModule, ImageSet, nearest
from zoo.datamodules.files import write_array

__all__ = ["Emoji"]

LABELS = ("category", "vendor", "skin_tone", "gender")
GENDERS = ["none", "woman", "man"]
TONES = ["none", *emoji_archive.SKIN_TONES.values()]


def _colour(name: str) -> str:
    """A CSS colour as #rrggbb."""
    try:
        colour = ImageColor.getrgb(name)
    except ValueError as error:
        raise ValueError(f"unknown background {name!r}: take a CSS colour, such as 'white' or '#ff8800'") from error
    if len(colour) > 3 and colour[3] < 255:
        raise ValueError(f"background {name!r} is transparent: images have no alpha channel, take an opaque colour")
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Emoji(ImageDataModule):
    """Emoji of up to four vendors.

    Batches hold `image`, `label`, `vendor`, `category`, `skin_tone`, `gender` (int64, names in `class_names`),
    `emoji` (number of the emoji, the same in all vendors and splits), `pairs` (the same emoji's place in this split in
    each vendor's drawing: `split(name).batch(pairs[:, v])` are the partners by vendor v), `caption` (English name, such
    as "woman teacher: dark skin tone") and `code` (code points).
    Splits are 80/10/10 by base emoji: variants that differ in skin tone, gender or direction lie in the same one.

    Args:
        data_dir: not used; the data ship with the package.
        cache_dir: folder for rendered images, one file per vendor and size.
        image_size: side of the images, 8 to 1024.
        batch_size: images per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training order; None takes that of the run.
        vendors: whose drawings.
        label: field that is given as `label` too.
        background: colour behind the drawings, as CSS has it.
        fit: scale every drawing to the frame. Vendors leave margins of their own (in the median 9 % of the side by
            OpenMoji, 6 % by Fluent, 3 % by Noto, none by Twemoji), by which their images are told apart and which no
            change of style makes up for.
        holdout: "combinations" keeps two of the ten pairs of skin tone and gender of every profession out of training
            and makes them the split `combinations`, so that a model can be asked for words it knows in a pairing that
            it has not seen.

    References:
        OpenMoji, https://openmoji.org; Twemoji, https://github.com/jdecked/twemoji; Noto Emoji,
        https://github.com/googlefonts/noto-emoji; Fluent Emoji, https://github.com/microsoft/fluentui-emoji.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
        vendors: Sequence[str] = tuple(emoji_archive.VENDORS),
        label: str = "category",
        background: str = "white",
        fit: bool = False,
        holdout: Literal["combinations"] | None = None,
    ) -> None:
        super().__init__(
            data_dir,
            cache_dir=cache_dir,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if data_dir is not None:
            raise ValueError("Emoji ships with the package and takes no data_dir; rendered images go to cache_dir")
        for vendor in vendors:
            if vendor not in emoji_archive.VENDORS:
                raise ValueError(f"unknown vendor {vendor!r}: {nearest(vendor, emoji_archive.VENDORS)}")
        if not vendors or len(set(vendors)) < len(vendors):
            raise ValueError(f"vendors must name at least one vendor, each once; got {list(vendors)}")
        if label not in LABELS:
            raise ValueError(f"unknown label {label!r}: {nearest(label, LABELS)}")
        if holdout not in (None, "combinations"):
            raise ValueError(f"unknown holdout {holdout!r}: take 'combinations' or none")
        self.vendors = [vendor for vendor in emoji_archive.VENDORS if vendor in vendors]
        self.label = label
        self.background = _colour(background)
        self.fit = fit
        self.holdout = holdout
        self.licence = " AND ".join(sorted({emoji_archive.VENDORS[vendor][1] for vendor in self.vendors}))
        # All that changes the images is in the name: `emoji32`, or `emoji32-noto` for one vendor alone.
        chosen = "" if len(self.vendors) == len(emoji_archive.VENDORS) else "-" + "+".join(self.vendors)
        chosen += "" if self.background == "#ffffff" else f"-on-{self.background[1:]}"
        chosen += "-fit" if fit else ""
        self.name = f"emoji{image_size}{chosen}" + ("-holdout" if holdout else "")
        self.table = emoji_archive.emoji_table()
        self.class_names = {
            "vendor": self.vendors,
            "category": sorted({row["category"] for row in self.table}),
            "skin_tone": TONES,
            "gender": GENDERS,
        }
        self.class_names["label"] = self.class_names[label]

    def prepare_data(self) -> None:
        """Render what is not in the cache yet."""
        for vendor in self.vendors:
            self._rendered(vendor)

    def open(self) -> dict[str, ImageSet]:
        """All splits, over all vendors: image i of vendor v is number `v * 3139 + emoji`."""
        split_of = [row["split"] for row in self.table]
        if self.holdout == "combinations":
            for i in self.held_out():
                split_of[i] = "combinations" if split_of[i] == "train" else split_of[i]
        members: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for i, name in enumerate(split_of):
            members.setdefault(name, []).append(i)

        count, vendors = len(self.table), torch.arange(len(self.vendors))
        pairs = torch.empty(count, len(vendors), dtype=torch.int64)
        for emoji in members.values():  # a split holds its n emoji vendor after vendor
            pairs[emoji] = torch.arange(len(emoji))[:, None] + vendors * len(emoji)
        fields: dict[str, Tensor | list[str]] = {
            "vendor": vendors.repeat_interleave(count),
            "emoji": torch.arange(count).repeat(len(vendors)),
            "pairs": pairs.repeat(len(vendors), 1),
            "caption": [row["caption"] for row in self.table] * len(vendors),
            "code": [row["code"] for row in self.table] * len(vendors),
        }
        for field in ("category", "skin_tone", "gender"):
            numbers = {name: i for i, name in enumerate(self.class_names[field])}
            fields[field] = torch.tensor([numbers[row[field]] for row in self.table]).repeat(len(vendors))
        fields = {"label": fields[self.label], **fields}

        arrays = [np.load(self._rendered(vendor), mmap_mode="r") for vendor in self.vendors]
        return {
            name: ImageSet(arrays, fields, (vendors[:, None] * count + torch.tensor(emoji)).flatten())
            for name, emoji in members.items()
        }

    def level(self, size: int) -> ImageSet:
        """The training images at another size, rendered at it."""
        if size == self.image_size:
            return self.split("train")
        if size not in self._levels:
            other = copy.copy(self)
            other.image_size = size
            self._levels[size] = other.open()["train"]
        return self._levels[size]

    def held_out(self) -> list[int]:
        """Numbers of the emoji that `holdout="combinations"` keeps out of training.

        A profession here is a person with an object (a teacher, an astronaut, also a white cane or red hair) drawn as
        woman and man in all five tones. The k-th loses the pairs (woman, tone k) and (man, tone k + 2), tones counted
        modulo 5, in both directions where it has two: over all professions training sees every tone and every gender.
        """
        variants: dict[str, dict[tuple[str, str], list[int]]] = {}
        for i, row in enumerate(self.table):
            if row["base"].startswith("1f9d1-"):
                found = variants.setdefault(row["base"], {})
                found.setdefault((row["gender"], row["skin_tone"]), []).append(i)
        wanted = [(gender, tone) for gender in GENDERS[1:] for tone in TONES[1:]]
        professions = sorted(b for b, found in variants.items() if all(pair in found for pair in wanted))
        return [
            i
            for k, b in enumerate(professions)
            for gender, shift in (("woman", 0), ("man", 2))
            for i in variants[b][gender, TONES[1 + (k + shift) % 5]]
        ]

    # Rendering -------------------------------------------------------------------------------------------------------

    def _rendered(self, vendor: str) -> Path:
        """The file of a vendor's rendered images, made if need be: (3139, 3, size, size) uint8."""
        try:
            import resvg_py
        except ImportError as error:
            raise ModuleNotFoundError("Emoji needs resvg-py to render its drawings: pip install resvg-py") from error
        size, colour = self.image_size, self.background.removeprefix("#")
        fit = "-fit" if self.fit else ""
        name = f"{vendor}-{size}-{colour}{fit}-resvg{resvg_py.__resvg_version__}.npy"
        path = self.cache_dir / "emoji" / name
        write_array(path, (len(self.table), 3, size, size), lambda out: self._render(vendor, out))
        return path

    def _render(self, vendor: str, out: np.ndarray[Any, Any]) -> None:
        """Render all drawings of a vendor, on all cores."""
        count, workers = len(out), min(_cores(), 8)
        edges = [count * i // workers for i in range(workers + 1)]
        with (
            tqdm(total=count, desc=f"Rendering {vendor} at {self.image_size} px", unit="emoji", leave=False) as bar,
            ThreadPoolExecutor(workers) as pool,
        ):
            for future in [pool.submit(self._render_part, vendor, out, *part, bar) for part in pairwise(edges)]:
                future.result()

    def _render_part(self, vendor: str, out: np.ndarray[Any, Any], start: int, stop: int, bar: Any) -> None:
        # A program of its own, started by command: multiprocessing would import the user's script again.
        module = Path(emoji_archive.__file__)
        command = [sys.executable, "-m", emoji_archive.__name__, "render", vendor]
        command += [str(self.image_size), self.background, str(start), str(stop), *(["--fit"] * self.fit)]
        paths = os.pathsep.join([str(module.parents[1]), os.environ.get("PYTHONPATH", "")])
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdout=PIPE, stderr=errors, env=os.environ | {"PYTHONPATH": paths}) as process,
        ):
            assert process.stdout is not None
            for i in range(start, stop):
                pixels = process.stdout.read(out[i].nbytes)
                if len(pixels) < out[i].nbytes:
                    process.wait()
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").split("\n")
                    reason = next((line for line in reversed(lines) if line.strip()), f"status {process.returncode}")
                    raise RuntimeError(f"cannot render emoji {self.table[i]['code']} of {vendor}: {reason.strip()}")
                out[i] = np.frombuffer(pixels, np.uint8).reshape(out[i].shape)
                bar.update()

    def svg(self, vendor: str) -> list[str]:
        """The drawings themselves, as SVG text, in the order of the emoji numbers."""
        result: list[Any] = json.loads(lzma.decompress(emoji_archive.read(f"{vendor}.json.xz")))
        return result
