"""Measures of translators: against true pairs, by a classifier of real images, by features, and by the way back.

Every image is translated to each domain but its own. With `identity=True` a measure takes the images as they are in the
place of their translations: what is to be surpassed. With `real=True` `domain_accuracy` takes their true pairs: what is
to be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from zoo.callbacks import base
from zoo.callbacks.base import Result
from zoo.callbacks.measurement import CHUNK, Run, digest, judge_of
from zoo.callbacks.metrics.extractors import load_extractor
from zoo.callbacks.metrics.frechet import FrechetMetric
from zoo.callbacks.metrics.paired import PairedSimilarity

__all__ = [
    "cycle_error",
    "domain_accuracy",
    "paired_l1",
    "paired_lpips",
    "paired_psnr",
    "paired_ssim",
    "translation_fd",
]


class _Run(Run):
    """One measurement of translations."""

    def __init__(self, model: Any, datamodule: Any, asker: str, seed: int, *, identity: bool) -> None:
        super().__init__(model, datamodule, base.Translates, asker, seed)
        base.require(datamodule, base.HasTranslations, asker)
        self.names: list[str] = datamodule.domain_names
        if not self.names:
            raise TypeError(f"{asker} needs domains, and images of the same in each; {datamodule.name} has none")
        self.identity = identity

    def tasks(self, split: str, num: int) -> Iterator[base.TranslationTask]:
        """This rank's images and where they are to be translated to, on the model's device."""
        for task in self.datamodule.translation_batches(num, CHUNK, split=split, rank=self.rank, world_size=self.world):
            yield move_data_to_device(task, self.device)

    def translated(self, task: base.TranslationTask) -> Tensor:
        """The images of a task in its domain, or as they are."""
        found: Tensor = task.image if self.identity else self.model.translate(task.image, task.target)
        return found

    def translation_result(self, metric: str, value: Any, **protocol: Any) -> Result:
        """The value with its protocol; that of the identity has a name of its own, and so a column of its own."""
        return self.result(f"{metric}_identity" if self.identity else metric, value, **protocol)


def paired_l1(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Mean absolute difference of translated images and their true pairs, of values in [0, 1].

    Each image is translated to every domain but its own in which it has a pair.

    Args:
        model: has `translate`.
        datamodule: has domains and pairs.
        split: which images.
        num_samples: how many images; None for all.
        seed: not used.
        identity: measure the images as they are in the place of their translations.
    """
    return _paired("l1", PairedSimilarity(), model, datamodule, split, num_samples, seed, identity)


def paired_psnr(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Peak signal-to-noise ratio, in dB, of translated images to their true pairs; arguments as for `paired_l1`."""
    return _paired("psnr", PairedSimilarity(), model, datamodule, split, num_samples, seed, identity)


def paired_ssim(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Structural similarity of translated images and their true pairs; arguments as for `paired_l1`."""
    return _paired("ssim", PairedSimilarity(), model, datamodule, split, num_samples, seed, identity)


def paired_lpips(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Learned perceptual distance (AlexNet) of translated images and true pairs; arguments as for `paired_l1`.

    Raises:
        FileNotFoundError: torchvision's AlexNet is not at hand; nothing is fetched while a model is measured.

    References:
        Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric".
    """
    from torchvision.models import AlexNet_Weights

    weights = Path(torch.hub.get_dir(), "checkpoints", Path(AlexNet_Weights.DEFAULT.url).name)
    if not weights.is_file():
        raise FileNotFoundError(
            f"paired_lpips needs {weights}: fetch it with torchvision.models.alexnet(weights='DEFAULT')"
        )
    with torch.random.fork_rng(devices=[]):  # building a network draws random numbers
        metric = LearnedPerceptualImagePatchSimilarity("alex")
    return _paired("lpips", metric, model, datamodule, split, num_samples, seed, identity)


def _paired(
    kind: Literal["l1", "psnr", "ssim", "lpips"],
    metric: Metric,
    model: Any,
    datamodule: Any,
    split: str,
    num_samples: int | None,
    seed: int,
    identity: bool,
) -> Result:
    name = f"paired_{kind}"
    run = _Run(model, datamodule, name, seed, identity=identity)
    num = run.size(split, num_samples)
    metric = metric.to(run.device)
    if kind != "lpips":
        metric.set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for task in run.tasks(split, num):
            if task.paired.any():
                asked = task._replace(image=task.image[task.paired])
                found = run.translated(asked).float()
                metric.update(found.clamp(-1, 1) if kind == "lpips" else found, task.true)
        value = metric.compute()
    value = value if kind == "lpips" else value[kind]
    return run.translation_result(name, value, domains=len(run.names), test=run.named(split, num))


def domain_accuracy(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    classifier: str | nn.Module = "",
    identity: bool = False,
    real: bool = False,
) -> Result:
    """Share of translated images, in percent, that a classifier of real images assigns to their target domain.

    Each image is translated to every domain of another class than its own.

    Args:
        model: has `translate`.
        datamodule: has domains.
        split: which images.
        num_samples: how many images; None for all.
        seed: not used.
        classifier: name of a published classifier, path of one, or a module with `classify` and `class_names`; a
            domain is of the class whose name is its own or a word of its own; `no_<field>` is the class `none` too.
        identity: measure the images as they are in the place of their translations.
        real: measure the true pairs, real images of the target domain, in the place of the translations.

    Raises:
        ValueError: no classifier is given, or one of other classes; `identity` and `real` at once, or `real` without a
            pair.
    """
    if identity and real:
        raise ValueError("domain_accuracy: identity and real exclude each other: give one of them")
    run = _Run(model, datamodule, "domain_accuracy", seed, identity=identity)
    judge, label = judge_of(classifier, run.device, "domain_accuracy", "classifier")
    base.require(judge, base.Classifies, "domain_accuracy")
    classes = list(getattr(judge, "class_names", ()))
    # Domains of several fields tell by their names which of them has no value; a classifier of one field need not.
    words = [[name, *name.split(), *("none" for word in name.split() if word.startswith("no_"))] for name in run.names]
    found = [[c for c in classes if c in own] for own in words]
    if any(len(one) != 1 for one in found):
        raise ValueError(
            f"domain_accuracy: the classifier tells {', '.join(classes) or 'classes without names'}; the domains are "
            f"{', '.join(run.names)}"
        )
    kind = torch.tensor([classes.index(name) for (name,) in found], device=run.device)

    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed), base.evaluating(judge, seed):
        for task in run.tasks(split, num):
            asked = kind[task.origin] != kind[task.domain]
            if real:
                judged = task.true[asked[task.paired]]
            else:
                judged = run.translated(task._replace(image=task.image[asked])) if asked.any() else task.image[:0]
            if len(judged):
                metric.update((judge.classify(judged).argmax(1) == kind[task.domain]).double())
        value = 100 * metric.compute()
    if value.isnan():
        raise ValueError(f"domain_accuracy: {run.named(split, num)} has no image to judge{' with a pair' * real}")
    return run.translation_result(
        f"domain_accuracy{'_real' * real}", value, classifier=f"{label}@{digest(judge)}", test=run.named(split, num)
    )


def translation_fd(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    domain: str = "",
    extractor: str | nn.Module = "efficientnet-lite0",
    identity: bool = False,
) -> Result:
    """Fréchet distance between real images of a domain and the others' translations to it.

    Args:
        model: has `translate`.
        datamodule: has domains.
        split: which images.
        num_samples: how many images, of all domains together; None for all.
        seed: not used.
        domain: name of the target domain; by default the mean over all of them.
        extractor: as for `frechet_distance`.
        identity: measure the images as they are in the place of their translations.

    Raises:
        ValueError: there is no such domain.
    """
    run = _Run(model, datamodule, "translation_fd", seed, identity=identity)
    if domain and domain not in run.names:
        raise ValueError(f"translation_fd: there is no domain {domain!r}: take one of {', '.join(run.names)}")
    num = run.size(split, num_samples)
    targets = [run.names.index(domain)] if domain else [*range(len(run.names))]
    with base.evaluating(model, seed):
        network = load_extractor(extractor).to(run.device)

        def features(images: Tensor) -> Tensor:
            wide = images.float().expand(-1, 3, -1, -1)
            with torch.autocast(run.device.type, enabled=False):
                return torch.cat([network(part) for part in wide.split(64)])

        width = features(torch.zeros(1, 3, 32, 32, device=run.device)).shape[1]
        metrics = {d: FrechetMetric(width).to(run.device) for d in targets}
        for task in run.tasks(split, num):
            for d in targets:
                # Of all tasks that have an image, one shows it as a real one.
                real = (task.origin == d) & (task.domain == (d + 1) % len(run.names))
                if real.any():
                    metrics[d].update(features(task.image[real]), real=True)
            if task.domain in metrics:
                metrics[task.domain].update(features(run.translated(task)), real=False)
        value = torch.stack([metrics[d].compute() for d in targets]).mean()
    return run.translation_result(
        "translation_fd",
        value,
        to=domain or f"mean-of-{len(targets)}",
        features=getattr(network, "name", type(network).__name__),
        resize=getattr(network, "resize", "none"),
        test=run.named(split, num),
    )


def cycle_error(
    model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0
) -> Result:
    """Mean absolute difference of images and what comes back from each other domain, of values in [0, 1].

    Args:
        model: has `translate`.
        datamodule: has domains.
        split: which images.
        num_samples: how many images; None for all.
        seed: not used.
    """
    run = _Run(model, datamodule, "cycle_error", seed, identity=False)
    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for task in run.tasks(split, num):
            back = model.translate(run.translated(task), task.source)
            metric.update((back.double() - task.image.double()).abs().flatten(1).mean(1) / 2)
        value = metric.compute()
    return run.translation_result("cycle_error", value, domains=len(run.names), test=run.named(split, num))
