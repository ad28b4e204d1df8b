"""Checkpoints that are whole or absent, read without pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zoo.engine.files import atomic_file

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written to a temporary file next to their place, flushed, then renamed.

    A kill or a full disk at any moment leaves the previous file as it was. Checkpoints are read without pickle
    (`weights_only`): they hold tensors and plain types only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: tensors and plain types.
            path: where it goes; remote paths (`s3://...`) are left to Lightning.
            storage_options: passed to Lightning for remote paths.

        Raises:
            OSError: it could not be written; an earlier file of that name is unchanged.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            with atomic_file(target) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's archive writer turns a full disk into a RuntimeError
            error = error.__cause__ if isinstance(error.__cause__, OSError) else error
            kept = "the earlier one is unchanged" if target.exists() else "nothing was written"
            reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
            raise OSError(f"cannot write the checkpoint {target}: {reason}; {kept}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without pickle unless `weights_only=False` is asked for.

        Args:
            path: the file.
            map_location: as in `torch.load`.
            weights_only: as in `torch.load`; None means True.

        Raises:
            ValueError: the file is damaged, or holds more than tensors and plain types.
        """
        try:
            loaded = super().load_checkpoint(path, map_location, weights_only is not False)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} holds more than tensors and plain types, so it was not read; "
                f"if you trust it, pass weights_only=False ({str(error).splitlines()[0]})"
            ) from error
        except (FileNotFoundError, PermissionError):
            raise
        except (RuntimeError, EOFError, OSError) as error:  # torch seeks beyond the end of a truncated file
            raise ValueError(
                f"{path} is damaged or no checkpoint ({str(error).splitlines()[0]}); "
                "resume from another one in the same folder, or start anew"
            ) from error
        return loaded
