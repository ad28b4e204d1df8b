"""Emoji: 3,139 emoji in the drawings of four vendors, 12,556 aligned colour images that ship with the package.

OpenMoji (CC-BY-SA-4.0), Twemoji (CC-BY-4.0), Noto (Apache-2.0) and Fluent flat (MIT), as SVG, rendered on first use at
any size. Emoji number j means the same in every vendor, so the images of two vendors are true pairs.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from datamodules import emoji_archive
from datamodules.base import ImageDataModule, ImageSet, nearest

__all__ = ["Emoji"]

LABELS = ("category", "vendor", "skin_tone", "gender")
GENDERS = ["none", "woman", "man"]
TONES = ["none", *emoji_archive.SKIN_TONES.values()]


class Emoji(ImageDataModule):
    """Emoji of up to four vendors.

    Batches hold `image`, `label`, `vendor`, `category`, `skin_tone`, `gender` (int64, names in `class_names`),
    `emoji` (number of the emoji, the same in all vendors), `pairs` (numbers of the same emoji's images by vendor, as
    counted in `images_of`), `caption` (English name, such as "woman teacher: dark skin tone") and `code` (code points).
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
        holdout: "combinations" keeps two of the ten pairs of skin tone and gender of every profession out of training
            and makes them the split `combinations`, so that a model can be asked for words it knows in a pairing that
            it has not seen.

    References:
        OpenMoji, https://openmoji.org; Twemoji, https://github.com/jdecked/twemoji; Noto Emoji,
        https://github.com/googlefonts/noto-emoji; Fluent Emoji, https://github.com/microsoft/fluentui-emoji.
    """

    licence = "Apache-2.0 AND CC-BY-SA-4.0 AND CC-BY-4.0 AND MIT"

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
        self.vendors = list(vendors)
        self.label = label
        self.background = background
        self.holdout = holdout
        # Such as `emoji32`, or `emoji32-noto` for one vendor alone.
        chosen = "" if len(vendors) == len(emoji_archive.VENDORS) else "-" + "+".join(vendors)
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
        arrays = [np.load(self._rendered(vendor), mmap_mode="r") for vendor in self.vendors]
        count, vendors = len(self.table), len(self.vendors)
        fields: dict[str, Tensor | list[str]] = {
            "vendor": torch.arange(vendors).repeat_interleave(count),
            "emoji": torch.arange(count).repeat(vendors),
            "pairs": (torch.arange(count)[:, None] + torch.arange(vendors) * count).repeat(vendors, 1),
            "caption": [row["caption"] for row in self.table] * vendors,
            "code": [row["code"] for row in self.table] * vendors,
        }
        for key in ("category", "skin_tone", "gender"):
            numbers = {name: i for i, name in enumerate(self.class_names[key])}
            fields[key] = torch.tensor([numbers[row[key]] for row in self.table]).repeat(vendors)
        fields["label"] = fields[self.label]

        split_of = [row["split"] for row in self.table]
        if self.holdout == "combinations":
            for i in self.held_out():
                if split_of[i] == "train":
                    split_of[i] = "combinations"
        return {
            split: ImageSet(
                arrays,
                fields,
                torch.tensor([v * count + i for v in range(vendors) for i in range(count) if split_of[i] == split]),
            )
            for split in ("train", "val", "test", *(["combinations"] if self.holdout else []))
        }

    def held_out(self) -> list[int]:
        """Numbers of the emoji that `holdout="combinations"` keeps out of training.

        A profession is a base emoji drawn as woman and man in all five tones. The k-th loses the pairs (woman, tone k)
        and (man, tone k + 2), tones counted modulo 5: over all professions every tone and gender is seen equally often.
        """
        variants: dict[str, dict[tuple[str, str], int]] = {}
        for i, row in enumerate(self.table):
            if row["base"].startswith("1f9d1-") and "facing right" not in row["caption"]:
                variants.setdefault(row["base"], {})[row["gender"], row["skin_tone"]] = i
        wanted = [(gender, tone) for gender in GENDERS[1:] for tone in TONES[1:]]
        professions = sorted(b for b, found in variants.items() if all(pair in found for pair in wanted))
        return [
            variants[b][gender, TONES[1 + (k + shift) % 5]]
            for k, b in enumerate(professions)
            for gender, shift in (("woman", 0), ("man", 2))
        ]

    # Rendering -------------------------------------------------------------------------------------------------------

    def _rendered(self, vendor: str) -> Path:
        """The file of a vendor's rendered images, made if need be: (3139, 3, size, size) uint8."""
        try:
            import resvg_py
        except ImportError as error:
            raise ModuleNotFoundError("Emoji needs resvg-py to render its drawings: pip install resvg-py") from error
        version = f"resvg{resvg_py.__resvg_version__}"
        colour = "".join(c if c.isalnum() else "_" for c in self.background)
        path = self.cache_dir / "emoji" / f"{vendor}-{self.image_size}-{colour}-{version}.npy"
        if path.exists():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():  # another process may have rendered it while we waited
                    self._render(vendor, path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"cannot write rendered emoji to {path.parent}: {reason}; set cache_dir to a folder with room"
            ) from error
        return path

    def _render(self, vendor: str, path: Path) -> None:
        count, size = len(self.table), self.image_size
        each = 3 * size * size
        if (free := shutil.disk_usage(path.parent).free) < count * each + 2**20:
            raise OSError(28, f"No space left on device ({free >> 20} MiB free, {(count * each >> 20) + 1} MiB needed)")
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            out = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, 3, size, size))
            bar = tqdm(total=count, desc=f"Rendering {vendor} at {size} px", unit="emoji", leave=False)
            jobs = min(os.cpu_count() or 1, 8)
            edges = [round(i * count / jobs) for i in range(jobs + 1)]
            failed: list[str] = []

            def work(start: int, stop: int) -> None:
                # Processes of their own, started by command: multiprocessing would import the user's script again.
                command = [sys.executable, "-m", emoji_archive.__name__, "render", vendor, str(size)]
                command += [self.background, str(start), str(stop)]
                root = str(Path(emoji_archive.__file__).parents[1])
                environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
                with subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
                ) as process:
                    assert process.stdout is not None
                    assert process.stderr is not None
                    for i in range(start, stop):
                        if len(pixels := process.stdout.read(each)) < each:
                            lines = process.stderr.read().decode(errors="replace").strip().splitlines()
                            failed.append(lines[-1] if lines else f"rendering {vendor} stopped at image {i}")
                            process.kill()
                            return
                        out[i] = np.frombuffer(pixels, np.uint8).reshape(3, size, size)
                        bar.update()

            threads = [threading.Thread(target=work, args=pair) for pair in pairwise(edges)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            bar.close()
            if failed:
                raise ValueError(f"cannot render {vendor} at {size} px on {self.background!r}: {failed[0]}")
            out.flush()
            descriptor = os.open(temporary, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def svg(self, vendor: str) -> list[str]:
        """The drawings themselves, as SVG text, in the order of the emoji numbers."""
        result: list[Any] = json.loads(lzma.decompress(emoji_archive.read(f"{vendor}.json.xz")))
        return result
