"""Measures of anomaly scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import BinaryAUROC

from zoo import datamodules
from zoo.callbacks.base import Result, Scores
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.ranks import AnyShare
from zoo.engine.devices import double

__all__ = ["auroc"]


class _AUROC(AnyShare, BinaryAUROC):
    """torchmetrics' AUROC; a rank may have no images."""


def _unusual_images(at: Evaluation, other: str = "", other_arguments: dict[str, Any] | None = None) -> Any:
    """The DataModule that the options of `auroc` name.

    Raises:
        ValueError: there is no such DataModule.
    """
    if other not in datamodules.__all__:
        raise ValueError(f"auroc: other={other!r} is no DataModule: take one of {', '.join(datamodules.__all__)}")
    arguments = {"data_dir": at.data.data_dir, "image_size": at.data.image_size} | (other_arguments or {})
    return getattr(datamodules, other)(**arguments)


def _check_files(at: Evaluation, **options: Any) -> None:
    """Fetch the unusual images now, so that missing files are not noticed after the run."""
    unusual = _unusual_images(at, **options)
    if at.rank == 0:
        unusual.prepare_data()


@measure(needs=Scores, better="higher", unit="%", check=_check_files)
def auroc(at: Evaluation, *, other: str = "", other_arguments: dict[str, Any] | None = None) -> Result:
    """Area under the ROC curve, in percent, of the model's score for images of another data set against its own.

    Args:
        other: name of the DataModule with the unusual images, such as "FashionMNIST".
        other_arguments: its arguments; `data_dir` and `image_size` are those of the usual images unless given.
    """
    unusual = _unusual_images(at, other, other_arguments)
    unusual.prepare_data()
    unusual.setup()
    num = min(at.count(), len(unusual.split(at.split)))
    metric = at.placed(_AUROC())
    for target, source in ((0, at.data), (1, unusual)):
        for _, batch in at.batches_of(source, at.split, num):
            score = at.model.score(batch["image"])
            # In [0, 1] in float64, in the same order: torchmetrics would apply a float32 sigmoid to other scores.
            metric.update(_squashed(score), torch.full_like(score, target, dtype=torch.int64))
    value = 100 * metric.compute()
    return at.result(
        {"value": value, "chance": 50}, usual=at.images(at.split, num), unusual=f"{unusual.name}-{at.split}-{num}"
    )


def _squashed(score: Tensor) -> Tensor:
    score = double(score)
    return 0.5 + score / (2 * (1 + score.abs()))
