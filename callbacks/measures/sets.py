"""Measures of generated images as a set: their distance from real images, and how much they vary."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from zoo.callbacks.base import ComparesSets, Result, Samples
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.means import MeanWithError
from zoo.callbacks.metrics.paired import structural_similarity
from zoo.callbacks.metrics.sliced_wasserstein import SlicedWasserstein
from zoo.engine.devices import double

__all__ = ["ms_ssim", "multiscale_ssim", "swd"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003: they do not quite add up to 1


@measure(needs=ComparesSets, better="lower", num_samples=16_384)
def swd(at: Evaluation) -> Result:
    """Sliced Wasserstein distance between generated and real images, times 1000, mean over their Laplacian pyramids.

    The paper's real images are those of training.
    """
    metric = at.placed(SlicedWasserstein(seed=at.seed, sides=SlicedWasserstein.sides_of(at.data.image_size)))
    for first, batch in at.batches(chunk=100):
        real, fake = at.model.real_and_fake(batch, seed=at.seed, first=first)
        metric.update(real, real=True, first=first)
        metric.update(fake, real=False, first=first)
    levels = "-".join(map(str, metric.sides))
    value = metric.compute()["average"]
    return at.result(value, levels=levels, patches=128, real=at.images(), fake=at.count())


@measure(needs=Samples, better="lower", num_samples=10_000)
def ms_ssim(at: Evaluation) -> Result:
    """Mean multi-scale structural similarity of pairs of generated images: low where they differ.

    Five scales for images of any size from 16 pixels, as in the Progressive GAN authors' code; see `multiscale_ssim`.
    `num_samples` counts pairs; the data are not used.
    """
    metric = at.placed(MeanWithError())
    for first, n in at.draws(50):
        images = at.model.sample(2 * n, seed=at.seed, first=2 * first)
        metric.update(multiscale_ssim(images[::2], images[1::2]))
    return at.result(metric.compute(), scales=len(WEIGHTS), pairs=at.num_samples)


def multiscale_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity of two images of 8 bits, in float64.

    The product of the contrast-structure means of the first four scales and the similarity of the fifth, each to the
    power of its weight; a scale is the mean of 2 x 2 pixels of the one before. On scales smaller than the window, the
    window and its deviation shrink with them.

    Args:
        x: images in [-1, 1].
        y: images in [-1, 1].

    Shape:
        x, y: (N, C, H, W); output: (N,).

    Raises:
        ValueError: the images are too small for five scales.

    References:
        Wang, Simoncelli and Bovik 2003, Multiscale structural similarity for image quality assessment.
    """
    least = 2 ** (len(WEIGHTS) - 1)
    if min(x.shape[2:]) < least:
        raise ValueError(f"ms_ssim needs images of at least {least} pixels, not {min(x.shape[2:])}")
    x, y = (((double(image) + 1) * 127.5).round().clamp(0, 255) for image in (x, y))
    value = x.new_ones(len(x))
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)  # the last row of an odd number is left out
        similarity, contrast = structural_similarity(x, y)
        last = scale == len(WEIGHTS) - 1
        value = value * (similarity if last else contrast).clamp_min(0) ** weight  # a negative value has no such power
    return value
