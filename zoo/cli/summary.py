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
    command, other callbacks and validation. It comes before all other callbacks.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "run.json"
        self._images, self._seconds = 0, 0.0
        self._since: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._images += len(image_of(batch)) * trainer.world_size

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
            "seconds": round(exact.seconds, 3),
            "training_images_per_second": round(self._images / self._seconds, 3) if self._seconds else None,
            "peak_memory_bytes": _peak_memory(model.device),
            "devices": trainer.world_size,
            "hardware": hardware(model, trainer.world_size),
            "precision": str(trainer.precision),
            "commit": _commit(),
            "versions": {
                "generative-zoo": zoo.__version__,
                "torch": str(torch.__version__),
                "lightning": lightning.__version__,
                "python": platform.python_version(),
            },
        }
        write_atomically(self.path, json.dumps(content, indent=1) + "\n")


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
