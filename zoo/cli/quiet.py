"""Lightning's messages that do not concern users of the command: advertisements, and advice that is wrong here."""

from __future__ import annotations

import logging
import os
import warnings

__all__ = ["quiet"]

PATTERNS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*",
    ".*smaller than the logging interval.*",
    ".*dataloader is not resumable.*",
    ".*checkpoint that ended before the epoch.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*You passed in a `val_dataloader` but have no `validation_step`.*",
    # It would keep the weights from before each step; ours are those after it.
    "(?s).*Using ModelCheckpoint with manual optimization.*",
    "(?s).*JsonargparseDeprecationWarning.*|.*was deprecated in v4.49.*",
    # Averages of weights stay in evaluation mode.
    ".*module\\(s\\) in eval mode at the start of training.*",
    # Our loaders have a plan for a sampler: in evaluation it is the split's own order.
    ".*sampler has shuffling enabled.*",
    ".*You have overridden `on_after_batch_transfer` in `LightningModule`.*",
)


def quiet() -> None:
    """Hide these messages in this process; warnings of other kinds, and profilers' reports, are shown."""
    for pattern in PATTERNS:
        warnings.filterwarnings("ignore", pattern)
    if os.environ.get("ZOO_TRACEBACK"):
        return
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
