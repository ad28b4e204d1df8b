"""Measures of translations as sets: distances of their features from those of real images of the target domain.

With `identity=True` a measure takes the images as they are instead of their translations: the value that a translator
should improve. With `floor=True` it takes as many training images of the domain: other real images, the value that a
perfect translator would reach with so many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.callbacks.base import HasTranslations, Result, Translates, evaluating
from zoo.callbacks.extractors import features_of, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.measures.translation import check_domains, named, tasks, translated
from zoo.callbacks.metrics.frechet import FrechetMetric

__all__ = ["translation_fd"]

CHUNK = 64


@measure(needs=Translates, data_needs=HasTranslations, better="lower", check=check_domains)
def translation_fd(
    at: Evaluation,
    *,
    domain: str = "",
    extractor: str | nn.Module = "efficientnet-lite0",
    identity: bool = False,
    floor: bool = False,
) -> Result:
    """Fréchet distance between real images of a domain and translations to it.

    `num_samples` counts the images of all domains together. Of a few hundred images the distance is mostly bias: see
    its floor, and `translation_kd`, which has none.

    Args:
        domain: name of the target domain; by default the mean over all of them.
        extractor: as for `frechet_distance`.
        identity: measure the images as they are instead of their translations.
        floor: measure as many training images of the domain instead of translations, as `translation_fd_floor`.
    """
    network, targets = load_extractor(extractor).to(at.device), _targets(at, domain)
    with evaluating(network, at.seed):
        width = features_of(network, torch.zeros(1, 3, 32, 32, device=at.device)).shape[1]
        metrics = {d: at.placed(FrechetMetric(width)) for d in targets}
        for d, images, real in _images(at, targets, identity, floor):
            for part in images.split(CHUNK):
                metrics[d].update(features_of(network, part), real=real)
        value = torch.stack([metrics[d].compute() for d in targets]).mean()
    return _result(at, value, network, domain, identity, floor)


def _targets(at: Evaluation, domain: str) -> list[int]:
    names = at.data.domain_names
    return [names.index(domain)] if domain else [*range(len(names))]


def _result(at: Evaluation, value: Any, network: nn.Module, domain: str, identity: bool, floor: bool) -> Result:
    return at.result(
        value,
        f"{at.name}_floor" if floor else named(at, identity),
        to=domain or f"mean-of-{len(at.data.domain_names)}",
        features=network.name,
        resize=getattr(network, "resize", "none"),
        test=at.images(),
    )


def _images(at: Evaluation, targets: list[int], identity: bool, floor: bool) -> Iterator[tuple[int, Tensor, bool]]:
    """This rank's images: the domain that they are of or should be of, the images, and whether they are real ones."""
    for task in tasks(at):
        for d in targets:
            real = _shown(at, task, d)
            if real.any():
                yield d, task.image[real], True
        if task.domain in targets and len(task.image) and not floor:
            yield task.domain, translated(at, task, identity), False
    if floor:
        for d, count in _translations_to(at, targets).items():
            chunks = _training_images(at, d, count).split(CHUNK)
            for images in chunks[at.rank :: at.world_size]:
                yield d, images.to(at.device), False


def _shown(at: Evaluation, task: Any, domain: int) -> Tensor:
    """Which images of a task are real ones of a domain: of all tasks that have an image, one shows it."""
    shown: Tensor = (task.origin == domain) & (task.domain == (domain + 1) % len(at.data.domain_names))
    return shown


def _translations_to(at: Evaluation, targets: list[int]) -> dict[int, int]:
    """Number of translations to each domain, over all ranks."""
    counts = dict.fromkeys(targets, 0)
    for task in at.data.translation_batches(at.count(), at.chunk, split=at.split):
        if task.domain in counts:
            counts[task.domain] += len(task.image)
    return counts


def _training_images(at: Evaluation, domain: int, count: int) -> Tensor:
    """The first training images of a domain, at most so many."""
    found: list[Tensor] = []
    for task in at.data.translation_batches(at.count("train", None), at.chunk, split="train"):
        found.append(task.image[_shown(at, task, domain)])
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]
