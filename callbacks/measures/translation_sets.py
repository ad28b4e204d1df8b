"""Measures of translations as sets: distances of their features from those of real images of the target domain.

With `identity=True` a measure takes the images as they are instead of their translations: the value that a translator
should improve. With `floor=True` it takes as many training images of the domain: other real images, the value that a
perfect translator would reach with so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.callbacks.base import HasTranslations, Result, Translates, evaluating
from zoo.callbacks.extractors import features_of, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.measures.translation import check_domains, named, tasks, translated
from zoo.callbacks.metrics.bank import FeatureBank
from zoo.callbacks.metrics.frechet import frechet_distance_of
from zoo.engine.devices import double

__all__ = ["squared_mmd", "translation_fd", "translation_kd"]

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
        extractor: as for `image_metrics`.
        identity: measure the images as they are instead of their translations.
        floor: measure as many training images of the domain instead of translations, as `translation_fd_floor`.
    """
    return _distance(at, frechet_distance_of, domain, extractor, identity, floor)


@measure(needs=Translates, data_needs=HasTranslations, better="lower", check=check_domains)
def translation_kd(
    at: Evaluation,
    *,
    domain: str = "",
    extractor: str | nn.Module = "efficientnet-lite0",
    identity: bool = False,
    floor: bool = False,
) -> Result:
    """Kernel distance between real images of a domain and translations to it, without bias; all images at once.

    Arguments as for `translation_fd`.

    Args:
        domain: name of the target domain; by default the mean over all of them.
        extractor: as for `image_metrics`.
        identity: measure the images as they are instead of their translations.
        floor: measure as many training images of the domain instead of translations, as `translation_kd_floor`.

    References:
        Gretton et al. 2012, "A kernel two-sample test", lemma 6; the kernel is that of Binkowski et al. 2018.
    """
    return _distance(at, squared_mmd, domain, extractor, identity, floor)


def squared_mmd(real: Tensor, fake: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, from all pairs.

    Shape:
        real: (M, d); fake: (N, d); output: a scalar, float64.
    """
    real, fake = double(real), double(fake)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        pairs = kernel(x, x)
        return (pairs.sum() - pairs.trace()) / (len(x) * (len(x) - 1))

    return within(real) + within(fake) - 2 * kernel(real, fake).mean()


def _distance(
    at: Evaluation,
    distance: Callable[[Tensor, Tensor], Tensor],
    domain: str,
    extractor: str | nn.Module,
    identity: bool,
    floor: bool,
) -> Result:
    """The mean over the target domains of a distance between features."""
    names = at.data.domain_names
    targets = [names.index(domain)] if domain else [*range(len(names))]
    network = load_extractor(extractor).to(at.device)
    banks = {d: at.placed(FeatureBank()) for d in targets}
    with evaluating(network, at.seed):
        for d, first, images, real in _images(at, targets, identity, floor):
            rows = torch.cat([features_of(network, part) for part in images.split(CHUNK)])
            banks[d].update(rows, real=real, first=first)
        value = torch.stack([distance(*banks[d].compute()) for d in targets]).mean()
    return at.result(
        value,
        f"{at.name}_floor" if floor else named(at, identity),
        to=domain or f"mean-of-{len(names)}",
        features=network.name,
        resize=getattr(network, "resize", "none"),
        pixels="8bit",
        test=at.images(),
    )


def _images(
    at: Evaluation, targets: list[int], identity: bool, floor: bool
) -> Iterator[tuple[int, Tensor, Tensor, bool]]:
    """This rank's images: the domain that they are of or should be of, their numbers, and whether they are real."""
    for i, task in enumerate(tasks(at)):
        number = torch.arange(len(task.image)) + (i * at.world_size + at.rank) * at.chunk  # no two images share one
        for d in targets:
            shown = _shown(at, task, d)
            if shown.any():
                yield d, number[shown.cpu()], task.image[shown], True
        if task.domain in targets and len(task.image) and not floor:
            yield task.domain, number, translated(at, task, identity), False
    if floor:
        for d, count in _translations_to(at, targets).items():
            images = _training_images(at, d, count)
            for part in torch.arange(len(images)).split(CHUNK)[at.rank :: at.world_size]:
                yield d, part, images[part].to(at.device), False


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
