"""Sums over the features of real images, kept for the next Fréchet distance with the same images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from weakref import WeakKeyDictionary

import safetensors
import safetensors.torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from zoo.engine.files import cache_home, write_atomically

__all__ = ["RealStatistics"]

_LATEST: WeakKeyDictionary[nn.Module, tuple[str, dict[str, Tensor]]] = WeakKeyDictionary()
"""Key and sums of the latest real images of each extractor, so that a run needs no file for its later values."""


class RealStatistics:
    """Sums over the features of a set of real images, in memory and in a file of a folder.

    The file only saves time: a damaged file, or a folder that cannot be written, is as good as none.

    Args:
        folder: the folder; None for `$ZOO_HOME/statistics`, else `~/.cache/generative-zoo/statistics`.
        extractor: network of the features.
        name: name of the set, with split and number of images.
        chunk_size: images at a time.
        resolution: side to which the images are averaged down; None for none.
    """

    def __init__(
        self, folder: str | Path | None, extractor: nn.Module, name: str, chunk_size: int, resolution: int | None
    ) -> None:
        self.folder = (cache_home() / "statistics" if folder is None else Path(folder)).expanduser()
        self.extractor, self.name = extractor, name
        self.facts = [name, str(extractor.name), getattr(extractor, "resize", "none"), chunk_size]
        self.facts += [] if resolution is None else [f"resolution={resolution}"]  # keys of plain ones stay
        self.key = ""

    def load(self, real: Tensor, width: int) -> dict[str, Tensor] | None:
        """The sums, or None where they are not known.

        Args:
            real: first chunk of the images, which tells them from others of the same name.
            width: number of features.
        """
        digest = hashlib.sha256(json.dumps([*self.facts, list(real.shape)]).encode())
        for tensor in (real, *self.extractor.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.key = digest.hexdigest()
        key, state = _LATEST.get(self.extractor, ("", {}))
        if key == self.key:
            return state
        for path in self.folder.glob(f"*-{self.key[:16]}.safetensors"):
            try:
                with safetensors.safe_open(path, "pt") as file:
                    facts = file.metadata() or {}
                    state = {name: file.get_tensor(name) for name in ("count", "sum", "outer")}
            except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError):
                continue
            if facts.get("key") == self.key and facts.get("sha256") == _digest(state) and len(state["sum"]) == width:
                _LATEST[self.extractor] = self.key, state
                return state
        return None

    def save(self, state: dict[str, Tensor]) -> None:
        """Keep the sums; a folder that cannot be written gives a warning.

        Args:
            state: the sums, as `FrechetMetric.real_state` gives them.
        """
        state = {name: value.cpu() for name, value in state.items()}
        _LATEST[self.extractor] = self.key, state
        content = safetensors.torch.save(state, {"key": self.key, "sha256": _digest(state), "images": self.name})
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in self.name)
        try:
            write_atomically(self.folder / f"{safe}-{self.key[:16]}.safetensors", content)
        except OSError as error:
            rank_zero_warn(f"statistics of real images were not kept for the next time: {error}")


def _digest(state: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
