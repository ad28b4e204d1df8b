"""Lightning's messages that do not concern users of the command: advertisements and hints."""

from __future__ import annotations

import logging
import os
import warnings

from zoo.engine.quiet import hide_wrong_warnings

__all__ = ["quiet"]

PATTERNS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*",
    ".*smaller than the logging interval.*",
    ".*checkpoint that ended before the epoch.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*You passed in a `val_dataloader` but have no `validation_step`.*",
    ".*is not supported by the model summary.*",
    "(?s).*JsonargparseDeprecationWarning.*|.*was deprecated in v4.49.*",
)


def quiet() -> None:
    """Hide these messages in this process; warnings of other kinds, and profilers' reports, are shown."""
    hide_wrong_warnings()
    for pattern in PATTERNS:
        warnings.filterwarnings("ignore", pattern)
    if os.environ.get("ZOO_TRACEBACK"):
        return
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
