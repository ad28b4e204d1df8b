"""Sliced Wasserstein distance and MS-SSIM: known values, the reference's pyramid, one value on all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from tests.ranks import on_ranks
from zoo.callbacks.measures import MEASURES, multiscale_ssim
from zoo.callbacks.metrics.sliced_wasserstein import SlicedWasserstein, laplacian_pyramid


def pictures(first: int, n: int, contrast: float = 1.0, noise: float = 0.0) -> Tensor:
    """Smooth images of 32 pixels, each a function of its number."""
    found = []
    for i in range(first, first + n):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(1, 3, 8, 8, generator=generator)
        x = nn.functional.interpolate(x, 32, mode="bicubic") * 0.4 * contrast
        found.append(x + noise * torch.randn(1, 3, 32, 32, generator=generator))
    return torch.cat(found).clamp(-1, 1)


class Model(nn.Module):
    def __init__(self, noise: float = 0.0, same: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.noise, self.same = noise, same

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        return pictures(0 if self.same else 1000 + first, 1 if self.same else n, noise=self.noise).expand(n, -1, -1, -1)

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        real = batch["image"]
        return real, real if self.same else self.sample(len(real), first=first)


class Images:
    name = "smooth32"
    image_size = 32

    def split(self, name: str) -> range:
        return range(40)

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Any]]:
        for first in range(rank * 8, num_samples, world_size * 8):
            yield first, {"image": pictures(first, min(8, num_samples - first))}


def test_the_pyramid_is_the_references() -> None:
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64) * 255
    kernel = np.array([1, 4, 6, 4, 1])
    kernel = (np.outer(kernel, kernel) / 256)[None, None]
    expected = [images.numpy()]
    for _ in range(2):
        small = ndimage.convolve(expected[-1], kernel, mode="mirror")[:, :, ::2, ::2]
        zeros = np.zeros_like(expected[-1])
        zeros[:, :, ::2, ::2] = small
        expected[-1] = expected[-1] - ndimage.convolve(zeros, kernel * 4, mode="mirror")
        expected.append(small)
    found = laplacian_pyramid(images)
    assert [level.shape[-1] for level in found] == [64, 32, 16]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours.numpy(), theirs, atol=1e-9)


def test_one_direction_is_the_distance_of_sorted_projections() -> None:
    metric = SlicedWasserstein(patches=4, directions=3, repeats=1, sides=(16,))
    sets = [torch.rand(5, 3, 16, 16) * 2 - 1 for _ in range(2)]
    for real, images in zip((True, False), sets, strict=True):
        metric.update(images, real=real, first=0)
    patches = [torch.cat(getattr(metric, f"{kind}_16")).double() for kind in ("real", "fake")]
    assert patches[0].shape == (20, 7, 7, 3)
    normal = [((x - x.mean((0, 1, 2))) / x.std((0, 1, 2), correction=0)).flatten(1).numpy() for x in patches]
    directions = torch.randn(147, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = (directions / directions.norm(dim=0)).numpy()
    a, b = (np.sort(x @ directions, 0) for x in normal)
    assert metric.compute()["16"].item() == pytest.approx(1000 * np.abs(a - b).mean())


def test_swd_grows_with_the_difference_and_is_0_for_the_same_patches() -> None:
    near, far = (MEASURES["swd"](Model(noise), Images()).value for noise in (0.0, 0.5))
    assert near < far / 2
    assert MEASURES["swd"](Model(), Images()).protocol == (
        "swd[levels=32-16, patches=128, real=smooth32-test-40, fake=40, weights=raw]"
    )
    metric = SlicedWasserstein(sides=(16,))
    metric.update(torch.rand(4, 3, 16, 16), real=True, first=0)
    metric.fake_16 = list(metric.real_16)
    assert metric.compute()["average"] == 0
    with pytest.raises(ValueError, match=r"needs images of 16, 32, 64, \.\.\. pixels, not 28"):
        SlicedWasserstein.sides_of(28)


def plain_ms_ssim(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """Of two images (C, H, W) in [0, 255]: five scales, windows as small as the images."""
    value, weights = 1.0, [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    for scale, weight in enumerate(weights):
        size = min(11, x.shape[-1])
        place = np.arange(size) - (size - 1) / 2
        window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * (1.5 * size / 11) ** 2))
        window /= window.sum()
        terms = []
        for a, b in zip(x, y, strict=True):
            for i in range(len(a) - size + 1):
                for j in range(len(a) - size + 1):
                    p, q = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
                    m, n = (window * p).sum(), (window * q).sum()
                    v, w = (window * (p - m) ** 2).sum(), (window * (q - n) ** 2).sum()
                    contrast = (2 * (window * (p - m) * (q - n)).sum() + 58.5225) / (v + w + 58.5225)
                    similarity = contrast * (2 * m * n + 6.5025) / (m * m + n * n + 6.5025)
                    terms.append(similarity if scale == 4 else contrast)
        value *= max(0.0, float(np.mean(terms))) ** weight
        x, y = ((z[:, ::2, ::2] + z[:, 1::2, ::2] + z[:, ::2, 1::2] + z[:, 1::2, 1::2]) / 4 for z in (x, y))
    return value


@pytest.mark.parametrize("side", [16, 32, 64])
def test_ms_ssim_has_five_scales_at_all_sizes(side: int) -> None:
    levels = np.random.default_rng(side).integers(0, 256, (2, 3, side, side)).astype(np.float64)
    levels[1] = (0.6 * levels[0] + 0.4 * levels[1]).round()
    x, y = torch.from_numpy(levels / 127.5 - 1)[:, None]
    expected = plain_ms_ssim(*levels)
    assert 0.1 < expected < 0.99
    assert multiscale_ssim(x, y).item() == pytest.approx(expected, rel=1e-9)
    assert multiscale_ssim(x, x).item() == pytest.approx(1)
    assert multiscale_ssim(x, -x).item() == 0, "negative means count as 0"


def test_ms_ssim_is_the_mean_over_pairs() -> None:
    assert MEASURES["ms_ssim"](Model(same=True), None_(), num_samples=3).value == pytest.approx(1)
    found = MEASURES["ms_ssim"](Model(), None_(), num_samples=5)
    images = ((pictures(1000, 10).double() + 1) * 127.5).round().numpy()
    expected = np.mean([plain_ms_ssim(*images[i : i + 2]) for i in range(0, 10, 2)])
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.protocol == "ms_ssim[scales=5, pairs=5, weights=raw]"
    with pytest.raises(ValueError, match="at least 16 pixels, not 15"):
        multiscale_ssim(torch.zeros(1, 1, 15, 20), torch.zeros(1, 1, 15, 20))
    assert multiscale_ssim(torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)).item() == pytest.approx(1)


class None_(Images):
    """MS-SSIM looks at no real images."""

    def reference_batches(self, *args: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        raise AssertionError


def values(world: int) -> dict[str, float]:
    import torch.distributed as dist

    if world > 1:
        dist.init_process_group("gloo")
    return {
        "swd": MEASURES["swd"](Model(0.2), Images(), num_samples=21).value,
        "ms_ssim": MEASURES["ms_ssim"](Model(0.2), Images(), num_samples=60).value,
    }


@pytest.mark.slow
def test_ranks_give_one_value() -> None:
    expected = values(1)
    for found in on_ranks(3, values, 3):
        assert found == pytest.approx(expected, rel=1e-9)
