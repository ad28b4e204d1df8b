"""Warnings of Lightning that are wrong for the models and data here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hide_wrong_warnings", "silenced"]

WRONG = (
    # Averages of weights stay in evaluation mode.
    ".*module\\(s\\) in eval mode at the start of training.*",
    # Our loaders have a plan for a sampler: in evaluation it is the split's own order.
    ".*sampler has shuffling enabled.*",
    # Models name the fields of other people's batches there; DataModules of this package have no such hook.
    ".*You have overridden `on_after_batch_transfer` in `LightningModule`.*",
    # Every model can be validated; who gives no validation loader knows that.
    ".*You defined a `validation_step` but have no `val_dataloader`.*",
    # Our training loaders have a state.
    ".*dataloader is not resumable.*",
    # It would keep the weights from before each step; ours are those after it.
    "(?s).*Using ModelCheckpoint with manual optimization.*",
)


def hide_wrong_warnings() -> None:
    """Hide them in this process, whatever else of its warnings is shown."""
    for pattern in WRONG:
        warnings.filterwarnings("ignore", pattern)


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Without warnings, and without what these loggers say below an error, inside the context.

    Args:
        names: names of loggers.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
