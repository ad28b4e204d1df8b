"""Emoji: 3,139 emoji drawn by four vendors, 12,556 aligned color images that ship with the package.

OpenMoji (CC-BY-SA-4.0), Twemoji (CC-BY-4.0), Noto (Apache-2.0) and Fluent flat (MIT), as SVG, rendered on first use at
any size. Emoji number j means the same for every vendor, so the images of two vendors are true pairs.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any, Literal, Unpack

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor
from tqdm import tqdm

from zoo.datamodules.base import emoji_archive
from zoo.datamodules.base.files import write_array
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.engine.files import nearest

__all__ = ["Emoji"]

LABELS = ("category", "vendor", "skin_tone", "gender")
GENDERS = ["none", "woman", "man"]
TONES = ["none", *emoji_archive.SKIN_TONES.values()]


def _hex_color(name: str) -> str:
    """A CSS color as #rrggbb."""
    try:
        color = ImageColor.getrgb(name)
    except ValueError as error:
        raise ValueError(f"unknown background {name!r}: take a CSS color, such as 'white' or '#ff8800'") from error
    if len(color) > 3 and color[3] < 255:
        raise ValueError(f"background {name!r} is transparent: images have no alpha channel, take an opaque color")
    return "#{:02x}{:02x}{:02x}".format(*color[:3])


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Emoji(ImageDataModule):
    """Emoji of up to four vendors.

    Batches hold

    - `image`;
    - `vendor`, `category`, `skin_tone`, `gender` (int64, names in `class_names`), and one of them again as `label`;
    - `emoji`, the number of the emoji, the same for all vendors and splits;
    - `pairs` (N, vendors): `split(name).batch(pairs[:, v])` are the same emoji drawn by vendor v;
    - `caption`, the English name, such as "woman teacher: dark skin tone", and `code`, the code points.

    Splits are 80/10/10 by base emoji: variants that differ in skin tone, gender or direction lie in the same split.

    Args:
        data_dir: not used; the data ship with the package.
        image_size: side of the images, 8 to 1024.
        vendors: vendors whose drawings are taken.
        label: field that batches also hold as `label`.
        background: color behind the drawings, a CSS color.
        fit_to_frame: scale every drawing to the frame. Without this the vendors' margins (median: 9 % of the side for
            OpenMoji, 6 % for Fluent, 3 % for Noto, none for Twemoji) tell their images apart, and a translation of
            style alone cannot remove them.
        holdout: "combinations" keeps two of the ten pairs of skin tone and gender of every profession out of training
            and puts them into the split `combinations`. A model can then be asked for known words in a new pairing.

    References:
        OpenMoji, https://openmoji.org; Twemoji, https://github.com/jdecked/twemoji; Noto Emoji,
        https://github.com/googlefonts/noto-emoji; Fluent Emoji, https://github.com/microsoft/fluentui-emoji.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int = 32,
        vendors: Sequence[str] = tuple(emoji_archive.VENDORS),
        label: str = "category",
        background: str = "white",
        fit_to_frame: bool = False,
        holdout: Literal["combinations"] | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
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
        self.background = _hex_color(background)
        self.fit_to_frame = fit_to_frame
        self.holdout = holdout
        self.license = " AND ".join(sorted({emoji_archive.VENDORS[vendor][1] for vendor in self.vendors}))
        # Everything that changes the images is in the name: `emoji32`, or `emoji32-noto` for one vendor alone.
        chosen = "" if len(self.vendors) == len(emoji_archive.VENDORS) else "-" + "+".join(self.vendors)
        chosen += "" if self.background == "#ffffff" else f"-on-{self.background[1:]}"
        chosen += "-fit" if fit_to_frame else ""
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
        """Render the images that the cache lacks."""
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
        for emoji in members.values():  # a split with n emoji holds them vendor after vendor
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

    def at_resolution(self, resolution: int) -> ImageSet:
        """The training images rendered at another resolution."""
        if resolution == self.image_size:
            return self.split("train")
        if resolution not in self._resolutions:
            other = copy.copy(self)
            other.image_size = resolution
            self._resolutions[resolution] = other.open()["train"]
        return self._resolutions[resolution]

    def held_out(self) -> list[int]:
        """Numbers of the emoji that `holdout="combinations"` keeps out of training.

        A profession here is a person with an object (a teacher, an astronaut, also a white cane or red hair) drawn as
        woman and man in all five tones. The k-th one loses the pairs (woman, tone k) and (man, tone k + 2), with tones
        modulo 5 and in both directions if there are two. Training still sees every tone and gender of each profession.
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
        """The file of a vendor's rendered images, (3139, 3, size, size) uint8; made if missing."""
        try:
            import resvg_py
        except ImportError as error:
            raise ModuleNotFoundError("Emoji needs resvg-py to render its drawings: pip install resvg-py") from error
        size, color = self.image_size, self.background.removeprefix("#")
        fit = "-fit" if self.fit_to_frame else ""
        name = f"{vendor}-{size}-{color}{fit}-resvg{resvg_py.__resvg_version__}.npy"
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
        # A script of its own: multiprocessing would import the user's script again. With -P the folders of that script
        # and of the user are not searched, whose files may have the names of modules.
        command = [sys.executable, "-P", emoji_archive.__file__, vendor, str(self.image_size), self.background]
        command += [str(start), str(stop), *(["--fit-to-frame"] * self.fit_to_frame)]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdout=PIPE, stderr=errors) as process,
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
        """A vendor's drawings as SVG text, in the order of the emoji numbers."""
        return emoji_archive.drawings(vendor)
