"""Lightning's messages that do not concern users of the command."""

from __future__ import annotations

import logging
import os
import warnings

__all__ = ["quiet"]


def quiet() -> None:
    """Hide messages that do not concern users: advertisements, and hints about loaders that are right as they are."""
    for pattern in (".*does not have many workers.*", ".*LeafSpec.*", ".*smaller than the logging interval.*"):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", ".*dataloader is not resumable.*|.*checkpoint that ended before the epoch.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*You passed in a `val_dataloader` but have no `validation_step`.*")
    # It would keep the weights from before each step; ours are those after it.
    warnings.filterwarnings("ignore", "(?s).*Using ModelCheckpoint with manual optimization.*")
    warnings.filterwarnings("ignore", "(?s).*JsonargparseDeprecationWarning.*|.*was deprecated in v4.49.*")
    if not os.environ.get("ZOO_TRACEBACK"):
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
