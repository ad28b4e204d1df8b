"""`run.json` of a run folder: what a table of runs needs to know of one, beside its metrics."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import zoo
from zoo.base.batches import image_of
from zoo.engine.files import write_atomically
from zoo.engine.loop import ExactTraining, hardware

__all__ = ["RunSummary"]


class RunSummary(Callback):
    """Measures the training and writes `run.json` at its end.

    Images per second count what lies between two batches' ends, loading and all, without the first batch of the
    command, other callbacks and validation. `images` and `training_seconds` are of the whole run. It comes before all
    other callbacks.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "run.json"
        self._images, self._seconds = 0, 0.0
        self._since: float | None = None
        self._begun = 0.0
        self._all = {"images": 0, "seconds": 0.0}  # of the whole run

    def state_dict(self) -> dict[str, Any]:
        """Images and seconds of training so far."""
        return dict(self._all)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what earlier commands trained."""
        self._all = dict(state_dict)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The command's first batch begins here; it is no part of the rate."""
        self._begun = time.perf_counter() if self._since is None else self._since

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        seconds, images = time.perf_counter() - self._begun, len(image_of(batch)) * trainer.world_size
        self._all = {"images": self._all["images"] + images, "seconds": self._all["seconds"] + seconds}
        if self._since is not None:
            self._seconds += seconds
            self._images += images

    def go_on(self) -> None:
        """The next batch begins."""
        self._since = time.perf_counter()

    def write(self, trainer: Trainer, model: LightningModule) -> None:
        """Write the file.

        Args:
            trainer: the Trainer, at the end of training.
            model: the trained model.
        """
        exact = next(c for c in trainer.callbacks if isinstance(c, ExactTraining))  # type: ignore[attr-defined]
        networks = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
        content = {
            "model": f"{type(model).__module__}.{type(model).__qualname__}",
            "data": getattr(trainer.datamodule, "name", type(trainer.datamodule).__name__),  # type: ignore[attr-defined]
            "parameters": {name: count for name, count in networks.items() if count},
            "steps": trainer.global_step,
            "images": self._all["images"],
            "seconds": round(exact.seconds, 3),
            "training_seconds": round(self._all["seconds"], 3),
            "training_images_per_second": round(self._images / self._seconds, 3) if self._seconds else None,
            "peak_memory_bytes": _peak_memory(model.device),
            "devices": trainer.world_size,
            "hardware": hardware(model, trainer.world_size),
            "precision": str(trainer.precision),
            "commit": _commit(),
            "values": _values(trainer),
            "versions": {
                "generative-zoo": zoo.__version__,
                "torch": str(torch.__version__),
                "lightning": lightning.__version__,
                "python": platform.python_version(),
            },
        }
        write_atomically(self.path, json.dumps(content, indent=1) + "\n")


def _values(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """What the callbacks measured at the end, by metric; of two metrics of one name the second is called `name 2`."""
    values: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for name, result in getattr(callback, "results", {}).items():
            if callback.histories[name][-1][0] != trainer.global_step:
                continue
            same = sum(1 for key in values if key.partition(" ")[0] == name)
            facts = {k: v for k, v in vars(result).items() if k != "metric" and v is not None}
            values[f"{name} {same + 1}" if same else name] = facts
    return values


def _peak_memory(device: torch.device) -> int | None:
    """Most memory that this process had: the GPU's where it trains on one, else the process's own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _commit() -> str | None:
    """Commit of a working copy of this project, with a plus sign if files were changed; None where it is installed."""
    root = Path(zoo.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
