"""Measures of translators: against true pairs, by a classifier of real images, and by the way back.

Every image is translated to each domain but its own. With `identity=True` a measure takes the images as they are
instead of their translations: the value that a translator should improve. With `real=True` `domain_accuracy` takes
their true pairs: the value that a translator can reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from zoo.callbacks.base import Classifies, HasTranslations, Result, Translates, evaluating, require_protocol
from zoo.callbacks.measures.evaluation import Evaluation, load_evaluator
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.means import Averaged, MeanWithError, ShareRight
from zoo.callbacks.metrics.paired import PairedSimilarity
from zoo.datamodules.base import TranslationTask
from zoo.engine.devices import double

__all__ = [
    "cycle_error",
    "domain_accuracy",
    "paired_l1",
    "paired_lpips",
    "paired_psnr",
    "paired_ssim",
]


def check_domains(
    at: Evaluation,
    *,
    domain: str = "",
    identity: bool = False,
    real: bool = False,
    floor: bool = False,
    **options: Any,
) -> None:
    """Refuse data without domains, unknown domains, and options that exclude each other."""
    names = at.data.domain_names
    if not names:
        raise TypeError(f"{at.name} needs domains, and images of the same in each; {at.data.name} has none")
    if domain and domain not in names:
        raise ValueError(f"{at.name}: there is no domain {domain!r}: take one of {', '.join(names)}")
    if identity and real:
        raise ValueError(f"{at.name}: identity and real exclude each other: give one of them")
    if identity and floor:
        raise ValueError(f"{at.name}: identity and floor exclude each other: give one of them")


def tasks(at: Evaluation) -> Iterator[TranslationTask]:
    """This rank's images and the domains they are to be translated to, on the model's device."""
    share = {"rank": at.rank, "world_size": at.world_size}
    for task in at.data.translation_batches(at.count(), at.chunk, split=at.split, **share):
        yield move_data_to_device(task, at.device)


def translated(at: Evaluation, task: TranslationTask, identity: bool) -> Tensor:
    """The images of a task in its domain, or as they are."""
    found: Tensor = task.image if identity else at.model.translate(task.image, task.target)
    return found


def named(at: Evaluation, identity: bool) -> str:
    """Values of the identity have a name of their own, and so a column of their own."""
    return f"{at.name}_identity" if identity else at.name


@measure(needs=Translates, data_needs=HasTranslations, better="lower", check=check_domains)
def paired_l1(at: Evaluation, *, identity: bool = False) -> Result:
    """Mean absolute difference of translated images and their true pairs, of values in [0, 1].

    Each image is translated to every domain but its own in which it has a pair.

    Args:
        identity: measure the images as they are instead of their translations.
    """
    return _paired(at, PairedSimilarity("l1"), identity)


@measure(needs=Translates, data_needs=HasTranslations, better="higher", check=check_domains)
def paired_psnr(at: Evaluation, *, identity: bool = False) -> Result:
    """Peak signal-to-noise ratio, in dB, of translated images to their true pairs: the mean of that of each image.

    Args:
        identity: measure the images as they are instead of their translations.
    """
    return _paired(at, PairedSimilarity("psnr"), identity, mean="over-images", at_most="58.9dB")


@measure(needs=Translates, data_needs=HasTranslations, better="higher", check=check_domains)
def paired_ssim(at: Evaluation, *, identity: bool = False) -> Result:
    """Structural similarity of translated images and their true pairs, see `structural_similarity`.

    Args:
        identity: measure the images as they are instead of their translations.
    """
    return _paired(at, PairedSimilarity("ssim"), identity, windows="valid")


def _check_alexnet(at: Evaluation, **options: Any) -> None:
    """Refuse to measure without torchvision's AlexNet: nothing is fetched while a model is measured.

    Raises:
        FileNotFoundError: the weights are not there.
    """
    from torchvision.models import AlexNet_Weights

    check_domains(at, **options)
    weights = Path(torch.hub.get_dir(), "checkpoints", Path(AlexNet_Weights.DEFAULT.url).name)
    if not weights.is_file():
        raise FileNotFoundError(
            f"paired_lpips needs {weights}: fetch it with torchvision.models.alexnet(weights='DEFAULT')"
        )


@measure(needs=Translates, data_needs=HasTranslations, better="lower", check=_check_alexnet)
def paired_lpips(at: Evaluation, *, identity: bool = False) -> Result:
    """Learned perceptual distance (AlexNet) of translated images and their true pairs.

    Args:
        identity: measure the images as they are instead of their translations.

    References:
        Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric".
    """
    return _paired(at, _PairedDistance(), identity, network="alex-0.1")


class _PairedDistance(Averaged):
    """The mean of LPIPS over images: torchmetrics' own class hangs where ranks have unequal numbers of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.network = [LearnedPerceptualImagePatchSimilarity("alex").net.eval()]  # no part of the metric

    def update(self, found: Tensor, true: Tensor) -> None:
        network = self.network[0].to(found.device)
        self.add(network(found.float().clamp(-1, 1), true.float()).flatten())


def _paired(at: Evaluation, metric: PairedSimilarity | _PairedDistance, identity: bool, **facts: str) -> Result:
    metric = at.placed(metric)
    for task in tasks(at):
        if task.paired.any():
            asked = task._replace(image=task.image[task.paired])
            metric.update(translated(at, asked, identity), task.true)
    domains = len(at.data.domain_names)
    return at.result(metric.compute(), named(at, identity), domains=domains, **facts, test=at.images())


@measure(needs=Translates, data_needs=HasTranslations, better="higher", unit="%", check=check_domains)
def domain_accuracy(
    at: Evaluation, *, classifier: str | nn.Module = "", identity: bool = False, real: bool = False
) -> Result:
    """Share of translated images, in percent, that a classifier of real images assigns to their target domain.

    Each image is translated to every domain of another class than its own. A domain belongs to the class with its name
    or a word of its name; `no_<field>` also to the class `none`.

    Args:
        classifier: name of a published classifier, path of one, or a module with `classify` and `class_names`.
        identity: measure the images as they are instead of their translations.
        real: measure the true pairs, real images of the target domain, instead of the translations.
    """
    network, label = load_evaluator(classifier, at.device, at.name, "classifier")
    require_protocol(network, Classifies, at.name)
    classes = list(getattr(network, "class_names", ()))
    kind = _classes_of_domains(at, classes)
    metric = at.placed(ShareRight(len(classes)))
    with evaluating(network, at.seed):
        for task in tasks(at):
            asked = kind[task.origin] != kind[task.domain]
            if real:
                judged = task.true[asked[task.paired]]
            elif asked.any():
                judged = translated(at, task._replace(image=task.image[asked]), identity)
            else:
                continue
            if len(judged):
                targets = kind[task.domain].expand(len(judged))
                metric.update(network.classify(judged).argmax(1) == targets, targets)
    found = metric.compute()
    if not found["count"]:
        raise ValueError(f"{at.name}: {at.images()} has no image to judge{' with a pair' * real}")
    name = f"{at.name}_real" if real else named(at, identity)
    return at.result(found, name, classifier=label, test=at.images())


def _classes_of_domains(at: Evaluation, classes: list[str]) -> Tensor:
    """Number of each domain's class.

    Raises:
        ValueError: a domain belongs to no class, or to several.
    """
    names = at.data.domain_names
    # Domains of several fields tell by their names which of them has no value; a classifier of one field need not.
    words = [[name, *name.split(), *("none" for word in name.split() if word.startswith("no_"))] for name in names]
    found = [[c for c in classes if c in own] for own in words]
    if any(len(one) != 1 for one in found):
        raise ValueError(
            f"{at.name}: the classifier tells {', '.join(classes) or 'classes without names'}; the domains are "
            f"{', '.join(names)}"
        )
    return torch.tensor([classes.index(name) for (name,) in found], device=at.device)


@measure(needs=Translates, data_needs=HasTranslations, better="lower", check=check_domains)
def cycle_error(at: Evaluation) -> Result:
    """Mean absolute difference of images and their translations back from each other domain, of values in [0, 1]."""
    metric = at.placed(MeanWithError())
    for task in tasks(at):
        back = at.model.translate(translated(at, task, identity=False), task.source)
        metric.update((double(back) - double(task.image)).abs().flatten(1).mean(1) / 2)
    return at.result(metric.compute(), domains=len(at.data.domain_names), test=at.images())
