"""Measures of models that draw sentences: do the images say what the sentences say, and how much do they vary?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.callbacks import base
from zoo.callbacks.base import Result
from zoo.callbacks.measurement import CHUNK, Run, digest, judge_of

__all__ = ["caption_accuracy", "noise_diversity", "r_precision", "retrieval"]


def r_precision(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    retriever: str | nn.Module = "",
    candidates: int = 100,
    identity: bool = False,
) -> Result:
    """Share of generated images, in percent, that fit their own sentence best among sentences of other classes.

    Args:
        model: has `real_and_fake`, which draws the sentences of a batch.
        datamodule: has batches with `caption` and `caption_class`.
        split: whose sentences.
        num_samples: how many; None for all.
        seed: seed of the images, and of the sentences that each is compared with.
        retriever: name of a published `TextEncoder`, path of one, or a module with `encode` and `encode_text`, which
            was trained on real images.
        candidates: sentences for each image, its own among them; chance is one in so many.
        identity: measure the real images in the place of the generated ones: what the retriever can tell.

    Raises:
        ValueError: no retriever is given, or the split has too few sentences of other classes.
    """
    run = Run(model, datamodule, base.ComparesSets, "r_precision", seed)
    judge, label = judge_of(retriever, run.device, "r_precision", "retriever")
    num = run.size(split, num_samples)
    with base.evaluating(model, seed), base.evaluating(judge, seed):
        value = _retrieved(
            run,
            judge,
            split,
            num,
            candidates,
            "r_precision",
            lambda batch, first: batch["image"] if identity else model.real_and_fake(batch, seed=seed, first=first)[1],
        )
    named = f"{label}@{digest(judge)}"
    # Real images have a name of their own, and so a column of their own.
    name = "r_precision_real" if identity else "r_precision"
    return run.result(name, value, retriever=named, candidates=candidates, captions=run.named(split, num))


def retrieval(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    candidates: int = 100,
) -> Result:
    """Share of real images, in percent, that fit their own sentence best among sentences of other classes.

    Args:
        model: has `encode` and `encode_text`, whose inner product says how well an image and a sentence fit.
        datamodule: has batches with `caption` and `caption_class`.
        split: whose images.
        num_samples: how many; None for all.
        seed: seed of the sentences that each is compared with.
        candidates: sentences for each image, its own among them; chance is one in so many.

    Raises:
        ValueError: the split has too few sentences of other classes.
    """
    run = Run(model, datamodule, base.Retrieves, "retrieval", seed)
    num = run.size(split, num_samples)
    with base.evaluating(model, seed):
        value = _retrieved(run, model, split, num, candidates, "retrieval", lambda batch, first: batch["image"])
    return run.result("retrieval", value, candidates=candidates, captions=run.named(split, num))


def _retrieved(
    run: Run,
    judge: Any,
    split: str,
    num: int,
    candidates: int,
    asker: str,
    images: Callable[[Any, int], Tensor],
) -> Tensor:
    """Percentage of the images of batches that fit their own sentence best among `candidates`, over all ranks."""
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    # Every rank knows all sentences.
    everything = [batch for _, batch in run.datamodule.reference_batches(num, CHUNK, split=split)]
    number = torch.cat([batch["caption_class"] for batch in everything])
    texts = torch.cat([judge.encode_text(batch["caption"]) for batch in everything])
    least = num - int(number.unique(return_counts=True)[1].max())
    if least < candidates - 1:
        raise ValueError(f"{asker}: candidates={candidates} needs {candidates - 1} others, not {least}")
    for first, batch in run.batches(split, num):
        for i, own in enumerate(judge.encode(images(batch, first)), first):
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + i)
            others = (number != number[i]).nonzero().flatten()
            others = others[torch.randperm(len(others), generator=generator)[: candidates - 1]]
            fit = texts[torch.cat([torch.tensor([i]), others]).to(run.device)] @ own
            metric.update((fit[0] > fit[1:].max()).double())
    value: Tensor = 100 * metric.compute()
    return value


def caption_accuracy(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    field: str = "skin_tone",
    classifier: str | nn.Module = "",
    identity: bool = False,
) -> Result:
    """Share of generated images, in percent, of which a classifier of real images says what their sentence says.

    Only sentences that name the value of the field count. The result is called by the field, such as
    "skin_tone_accuracy"; the protocol's chance is the share of the value that is asked most, which a model that always
    draws it would reach.

    Args:
        model: has `real_and_fake`, which draws the sentences of a batch.
        datamodule: has batches with `caption` and the field.
        split: whose sentences.
        num_samples: how many sentences to look at; None for all.
        seed: seed of the images.
        field: label of the data, such as "skin_tone", "category" or "vendor".
        classifier: name of a published classifier, path of one, or a module with `classify` and `class_names`, among
            which are the values of the field.
        identity: measure the real images in the place of the generated ones: what the classifier can tell.

    Raises:
        ValueError: no classifier is given, an unknown field, or no sentence that names a value of it.
    """
    run = Run(model, datamodule, base.ComparesSets, "caption_accuracy", seed)
    judge, label = judge_of(classifier, run.device, "caption_accuracy", "classifier")
    base.require(judge, base.Classifies, "caption_accuracy")
    if field not in datamodule.class_names:
        raise ValueError(f"caption_accuracy: there is no field {field!r}: take {', '.join(datamodule.class_names)}")
    names, classes = datamodule.class_names[field], list(getattr(judge, "class_names", ()))
    words = [name.lower().replace("&", "and") for name in names]
    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    asked = torch.zeros(len(classes), device=run.device)
    with base.evaluating(model, seed), base.evaluating(judge, seed):
        for first, batch in run.batches(split, num):
            values = batch[field].tolist()
            told = [
                names[v] in classes
                and re.search(rf"(?<![\w-]){re.escape(words[v])}(?![\w-])", text.lower()) is not None
                for v, text in zip(values, batch["caption"], strict=True)
            ]
            rows = torch.tensor(told, device=run.device).nonzero().flatten()
            image = batch["image"] if identity else model.real_and_fake(batch, seed=seed, first=first)[1]
            if len(rows):
                wanted = torch.tensor([classes.index(names[values[i]]) for i in rows.tolist()], device=run.device)
                metric.update((judge.classify(image[rows]).argmax(1) == wanted).double())
                asked += wanted.bincount(minlength=len(classes))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(asked)
        if not asked.any():
            raise ValueError(f"caption_accuracy: no sentence of {datamodule.name} names a {field} that is a class")
        value = 100 * metric.compute()
    return run.result(
        f"{field}_accuracy_real" if identity else f"{field}_accuracy",
        value,
        chance=f"{100 * float(asked.max() / asked.sum()):.1f}%",
        classifier=f"{label}@{digest(judge)}",
        captions=f"{run.named(split, num)}-of-which-{int(asked.sum())}-name-it",
    )


def noise_diversity(
    model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0
) -> Result:
    """Mean absolute difference, of values in [0, 1], of two images of the same sentence and different noise.

    Args:
        model: has `real_and_fake`, which draws the sentences of a batch.
        datamodule: gives the sentences.
        split: whose sentences.
        num_samples: how many; None for all.
        seed: seed of the first images; the second ones have the next.
    """
    run = Run(model, datamodule, base.ComparesSets, "noise_diversity", seed)
    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for first, batch in run.batches(split, num):
            a, b = (model.real_and_fake(batch, seed=s, first=first)[1].double() for s in (seed, seed + 1))
            metric.update((a - b).abs().flatten(1).mean(1) / 2)
        value = metric.compute()
    return run.result("noise_diversity", value, distance="l1", pairs=1, captions=run.named(split, num))
