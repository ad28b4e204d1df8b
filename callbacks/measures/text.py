"""Measures of models of images and sentences: whether an image matches its sentence, and how much images vary."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.callbacks.base import Classifies, ComparesSets, Result, Retrieves, evaluating, require_protocol
from zoo.callbacks.measures.evaluation import Evaluation, load_evaluator
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.measures.text_judges import NeighborRetriever
from zoo.callbacks.metrics.means import MeanWithError, ShareRight
from zoo.engine.devices import double

__all__ = ["caption_accuracy", "noise_diversity", "r_precision", "retrieval"]


@measure(needs=ComparesSets, better="higher", unit="%")
def r_precision(
    at: Evaluation, *, retriever: str | nn.Module = "", candidates: int = 100, identity: bool = False
) -> Result:
    """Share of generated images, in percent, that match their own sentence better than sentences of other classes.

    The data need batches with `caption` and `caption_class`. The protocol's judge is "own-encoder" where the retriever
    embeds sentences as the model does: it then judges images that were trained to please its embeddings. The retriever
    "sentence" and `caption_accuracy` share nothing with the model.

    Args:
        retriever: name of a published `TextEncoder`, path of one, or a module with `encode` and `encode_text` that was
            trained on real images; "sentence" for the `NeighborRetriever`, which needs the extra `text`.
        candidates: sentences per image, its own among them; chance is one in `candidates`.
        identity: measure the real images instead of the generated ones, as `r_precision_real`: the retriever's limit.
    """
    if retriever == "sentence":
        network: Any = NeighborRetriever(at)
        label = network.label
    else:
        network, label = load_evaluator(retriever, at.device, at.name, "retriever")
    with evaluating(network, at.seed):
        judge = _judge(at, network)
        found = _retrieved(at, network, candidates, lambda batch, first: _images(at, batch, first, identity))
    name = f"{at.name}_real" if identity else None
    return at.result(found, name, retriever=label, judge=judge, candidates=candidates, captions=at.images())


@measure(needs=Retrieves, better="higher", unit="%", draws=True)
def retrieval(at: Evaluation, *, candidates: int = 100) -> Result:
    """Share of real images, in percent, that match their own sentence better than sentences of other classes.

    The data need batches with `caption` and `caption_class`.

    Args:
        candidates: sentences per image, its own among them; chance is one in `candidates`.
    """
    found = _retrieved(at, at.model, candidates, lambda batch, first: batch["image"])
    return at.result(found, candidates=candidates, captions=at.images())


def _judge(at: Evaluation, network: Any) -> str:
    """Whether a retriever embeds sentences as the measured model does."""
    if not hasattr(at.model, "encode_text"):
        return "other"
    captions = next(iter(at.data.reference_batches(2, 2, split=at.split)))[1]["caption"]
    ours, theirs = (F.normalize(double(encoder.encode_text(captions)), dim=1) for encoder in (at.model, network))
    is_same = ours.shape == theirs.shape and bool(((ours * theirs.to(ours.device)).sum(1) > 0.999).all())
    return "own-encoder" if is_same else "other"


def _images(at: Evaluation, batch: Any, first: int, identity: bool) -> Tensor:
    """The model's images of a batch's sentences, or the real ones."""
    found: Tensor = batch["image"] if identity else at.model.real_and_fake(batch, seed=at.seed, first=first)[1]
    return found


def _retrieved(at: Evaluation, network: Any, candidates: int, images: Callable[[Any, int], Tensor]) -> dict[str, Any]:
    """Percentage of the images that match their own sentence best among `candidates`, over all ranks."""
    metric = at.placed(ShareRight())
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
            metric.update(match[0] > match[1:].max())
    return metric.compute() | {"chance": 100 / candidates}


@measure(needs=ComparesSets, better="higher", unit="%")
def caption_accuracy(
    at: Evaluation, *, field: str = "skin_tone", classifier: str | nn.Module = "", identity: bool = False
) -> Result:
    """Share of generated images, in percent, that a classifier of real images assigns to the class in their sentence.

    Only sentences that name a value of the field count. The result has the name of the field, such as
    "skin_tone_accuracy"; its chance is the share of the most frequent value, the accuracy of a model that always draws
    this value. The data need batches with `caption` and the field.

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
    metric = at.placed(ShareRight(len(classes)))
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
                metric.update(network.classify(image[rows]).argmax(1) == wanted, wanted)
    found = metric.compute()
    if not found["count"]:
        raise ValueError(f"{at.name}: no sentence of {at.data.name} names a {field} that is a class")
    return at.result(
        found,
        f"{field}_accuracy_real" if identity else f"{field}_accuracy",
        classifier=label,
        captions=f"{at.images()}-of-which-{int(found['count'])}-name-it",
    )


@measure(needs=ComparesSets, better="higher")
def noise_diversity(at: Evaluation) -> Result:
    """Mean absolute difference, of values in [0, 1], of two images of the same sentence and different noise.

    The first images have the given seed, the second ones the next.
    """
    metric = at.placed(MeanWithError())
    for first, batch in at.batches():
        a, b = (double(at.model.real_and_fake(batch, seed=s, first=first)[1]) for s in (at.seed, at.seed + 1))
        metric.update((a - b).abs().flatten(1).mean(1) / 2)
    return at.result(metric.compute(), distance="l1", pairs=1, captions=at.images())
