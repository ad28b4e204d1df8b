"""Features of real images, kept for the next comparison with the same images, and files of their statistics."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import safetensors
import safetensors.torch
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from zoo.engine.files import cache_home, write_atomically

__all__ = ["RealFeatures", "read_statistics"]

_LATEST: WeakKeyDictionary[nn.Module, tuple[str, Tensor]] = WeakKeyDictionary()
"""Key and features of each extractor's latest real images, so that a run needs no file for its later values."""


class RealFeatures:
    """Features of a set of real images, in memory and in a file of a folder.

    The file only saves time: a damaged file, or a folder that cannot be written, is as good as none.

    Args:
        folder: the folder; None for `$ZOO_HOME/features`, else `~/.cache/generative-zoo/features`.
        extractor: network of the features.
        name: name of the set, with split and number of images.
        chunk_size: images at a time.
        resolution: side to which the images are averaged down; None for none.
    """

    def __init__(
        self, folder: str | Path | None, extractor: nn.Module, name: str, chunk_size: int, resolution: int | None
    ) -> None:
        self.folder = (cache_home() / "features" if folder is None else Path(folder)).expanduser()
        self.extractor, self.name = extractor, name
        self.facts = [name, str(extractor.name), getattr(extractor, "resize", "none"), chunk_size]
        self.facts += [] if resolution is None else [f"resolution={resolution}"]  # keys of plain ones stay
        self.key = ""

    def load(self, first: Tensor, count: int) -> Tensor | None:
        """The features (count, d), or None where they are not known.

        Args:
            first: first chunk of the images, which tells them from others of the same name.
            count: number of images.
        """
        digest = hashlib.sha256(json.dumps([*self.facts, count, list(first.shape)]).encode())
        for tensor in (first, *self.extractor.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.key = digest.hexdigest()
        key, latest = _LATEST.get(self.extractor, ("", None))
        if key == self.key:
            return latest
        for path in self.folder.glob(f"*-{self.key[:16]}.safetensors"):
            try:
                with safetensors.safe_open(path, "pt") as file:
                    facts = file.metadata() or {}
                    rows: Tensor = file.get_tensor("features")
            except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError):
                continue
            if facts.get("key") == self.key and facts.get("sha256") == _digest(rows) and len(rows) == count:
                _LATEST[self.extractor] = self.key, rows
                return rows
        return None

    def save(self, rows: Tensor) -> None:
        """Keep the features; a folder that cannot be written gives a warning.

        Args:
            rows: the features.
        """
        rows = rows.cpu().contiguous()
        _LATEST[self.extractor] = self.key, rows
        content = safetensors.torch.save(
            {"features": rows}, {"key": self.key, "sha256": _digest(rows), "images": self.name}
        )
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in self.name)
        try:
            write_atomically(self.folder / f"{safe}-{self.key[:16]}.safetensors", content)
        except OSError as error:
            rank_zero_warn(f"features of real images were not kept for the next time: {error}")


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def read_statistics(path: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and covariance of real features, as the codes of FID keep them in a file.

    Args:
        path: an `.npz` file with `mu` (d,) and `sigma` (d, d).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"statistics: there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (torch.from_numpy(file[name]).double() for name in ("mu", "sigma"))
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise ValueError(f"statistics: {path} is no .npz file with mu (d,) and sigma (d, d): {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"statistics: {path} has mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}")
    return mean, covariance
