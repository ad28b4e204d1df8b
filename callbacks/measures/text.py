"""Measures of models of images and sentences: whether an image matches its sentence, and how much images vary."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.callbacks.base import Classifies, ComparesSets, Result, Retrieves, evaluating, require_protocol
from zoo.callbacks.measures.evaluation import Evaluation, load_evaluator
from zoo.callbacks.measures.registry import measure
from zoo.engine.devices import double

__all__ = ["caption_accuracy", "noise_diversity", "r_precision", "retrieval"]


@measure(needs=ComparesSets, better="higher", unit="%")
def r_precision(
    at: Evaluation, *, retriever: str | nn.Module = "", candidates: int = 100, identity: bool = False
) -> Result:
    """Share of generated images, in percent, that match their own sentence better than sentences of other classes.

    The data need batches with `caption` and `caption_class`.

    Args:
        retriever: name of a published `TextEncoder`, path of one, or a module with `encode` and `encode_text` that was
            trained on real images.
        candidates: sentences per image, its own among them; chance is one in `candidates`.
        identity: measure the real images instead of the generated ones, as `r_precision_real`: the retriever's limit.
    """
    network, label = load_evaluator(retriever, at.device, at.name, "retriever")
    with evaluating(network, at.seed):
        value = _retrieved(at, network, candidates, lambda batch, first: _images(at, batch, first, identity))
    name = f"{at.name}_real" if identity else None
    return at.result(value, name, retriever=label, candidates=candidates, captions=at.images())


@measure(needs=Retrieves, better="higher", unit="%")
def retrieval(at: Evaluation, *, candidates: int = 100) -> Result:
    """Share of real images, in percent, that match their own sentence better than sentences of other classes.

    The data need batches with `caption` and `caption_class`.

    Args:
        candidates: sentences per image, its own among them; chance is one in `candidates`.
    """
    value = _retrieved(at, at.model, candidates, lambda batch, first: batch["image"])
    return at.result(value, candidates=candidates, captions=at.images())


def _images(at: Evaluation, batch: Any, first: int, identity: bool) -> Tensor:
    """The model's images of a batch's sentences, or the real ones."""
    found: Tensor = batch["image"] if identity else at.model.real_and_fake(batch, seed=at.seed, first=first)[1]
    return found


def _retrieved(at: Evaluation, network: Any, candidates: int, images: Callable[[Any, int], Tensor]) -> Tensor:
    """Percentage of the images that match their own sentence best among `candidates`, over all ranks."""
    metric = at.in_float64(MeanMetric())
    # Every rank knows all sentences.
    everything = [batch for _, batch in at.data.reference_batches(at.count(), at.chunk, split=at.split)]
    number = torch.cat([batch["caption_class"] for batch in everything])
    texts = torch.cat([network.encode_text(batch["caption"]) for batch in everything])
    least = at.count() - int(number.unique(return_counts=True)[1].max())
    if least < candidates - 1:
        raise ValueError(f"{at.name}: candidates={candidates} needs {candidates - 1} others, not {least}")
    for first, batch in at.batches():
        for i, own in enumerate(network.encode(images(batch, first)), first):
            generator = torch.Generator().manual_seed(at.seed * 1_000_003 + i)
            others = (number != number[i]).nonzero().flatten()
            others = others[torch.randperm(len(others), generator=generator)[: candidates - 1]]
            match = texts[torch.cat([torch.tensor([i]), others]).to(at.device)] @ own
            metric.update(double(match[0] > match[1:].max()))
    value: Tensor = 100 * metric.compute()
    return value


@measure(needs=ComparesSets, better="higher", unit="%")
def caption_accuracy(
    at: Evaluation, *, field: str = "skin_tone", classifier: str | nn.Module = "", identity: bool = False
) -> Result:
    """Share of generated images, in percent, that a classifier of real images assigns to the class in their sentence.

    Only sentences that name a value of the field count. The result has the name of the field, such as
    "skin_tone_accuracy". The protocol's chance is the share of the most frequent value: the accuracy of a model that
    always draws this value. The data need batches with `caption` and the field.

    Args:
        field: label of the data, such as "skin_tone", "category" or "vendor".
        classifier: name of a published classifier, path of one, or a module with `classify` and `class_names`, which
            include values of the field.
        identity: measure the real images instead of the generated ones: the classifier's limit.
    """
    network, label = load_evaluator(classifier, at.device, at.name, "classifier")
    require_protocol(network, Classifies, at.name)
    if field not in at.data.class_names:
        raise ValueError(f"{at.name}: there is no field {field!r}: take {', '.join(at.data.class_names)}")
    names, classes = at.data.class_names[field], list(getattr(network, "class_names", ()))
    words = [name.lower().replace("&", "and") for name in names]
    metric = at.in_float64(MeanMetric())
    asked = torch.zeros(len(classes), device=at.device)
    with evaluating(network, at.seed):
        for first, batch in at.batches():
            values = batch[field].tolist()
            is_named = [
                names[v] in classes
                and re.search(rf"(?<![\w-]){re.escape(words[v])}(?![\w-])", text.lower()) is not None
                for v, text in zip(values, batch["caption"], strict=True)
            ]
            rows = torch.tensor(is_named, device=at.device).nonzero().flatten()
            image = _images(at, batch, first, identity)
            if len(rows):
                wanted = torch.tensor([classes.index(names[values[i]]) for i in rows.tolist()], device=at.device)
                metric.update(double(network.classify(image[rows]).argmax(1) == wanted))
                asked += wanted.bincount(minlength=len(classes))
    if at.world_size > 1:
        dist.all_reduce(asked)
    if not asked.any():
        raise ValueError(f"{at.name}: no sentence of {at.data.name} names a {field} that is a class")
    return at.result(
        100 * metric.compute(),
        f"{field}_accuracy_real" if identity else f"{field}_accuracy",
        chance=f"{100 * float(asked.max() / asked.sum()):.1f}%",
        classifier=label,
        captions=f"{at.images()}-of-which-{int(asked.sum())}-name-it",
    )


@measure(needs=ComparesSets, better="higher")
def noise_diversity(at: Evaluation) -> Result:
    """Mean absolute difference, of values in [0, 1], of two images of the same sentence and different noise.

    The first images have the given seed, the second ones the next.
    """
    metric = at.in_float64(MeanMetric())
    for first, batch in at.batches():
        a, b = (double(at.model.real_and_fake(batch, seed=s, first=first)[1]) for s in (at.seed, at.seed + 1))
        metric.update((a - b).abs().flatten(1).mean(1) / 2)
    return at.result(metric.compute(), distance="l1", pairs=1, captions=at.images())
