from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract import ModelContract
from tests.models.likelihood import LikelihoodContract
from zoo.nn.sampling import NaiveSampler
from zoo.pixel_transformer import CachedSampler, PixelTransformer


class TestPixelTransformer(LikelihoodContract, ModelContract):
    size = 4
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> PixelTransformer:
        return PixelTransformer(self.size, self.channels, **self.options, features=8, num_layers=2, num_heads=2)


class TestPixelTransformerRGB(TestPixelTransformer):
    size, channels = 3, 3
    options = {"num_levels": 4}  # noqa: RUF012


class TwoPixels(PixelTransformer):
    """Images of one row and two columns."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels: int = self.hparams["image_channels"]
        return channels, 1, 2


SHAPES = [(4, 1, 2), (3, 1, 4), (3, 3, 4)]  # size, channels, levels


def lively(size: int, channels: int, levels: int, kind: type[PixelTransformer] = PixelTransformer) -> PixelTransformer:
    """A model in float64 whose weights are so large that every sub-pixel matters."""
    torch.manual_seed(0)
    model = kind(size, channels, levels, features=12, num_layers=2, num_heads=3).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


def images(model: PixelTransformer, n: int) -> Tensor:
    """Random images on the model's levels."""
    return model.to_images(torch.randint(model.num_levels, (n, *model.image_shape)))


# Causality ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "channels", "levels"), SHAPES)
def test_jacobian_is_strictly_lower_triangular_and_full(size: int, channels: int, levels: int) -> None:
    """Of the logits by the embedded levels, in raster order with the channel fastest."""
    model = lively(size, channels, levels)
    embedded: list[Tensor] = []
    model.network.level.register_forward_hook(lambda module, args, output: embedded.append(output))
    logits = model.logits(images(model, 1))
    rows = logits[0].permute(2, 3, 1, 0).flatten(0, 2)  # (T, K)
    assert embedded[0].size(1) == len(rows) - 1  # nothing comes after the last one
    for t, row in enumerate(rows):
        for logit in row:
            (gradient,) = torch.autograd.grad(logit, embedded[0], retain_graph=True, materialize_grads=True)
            size_of = gradient[0].abs().sum(1)
            assert (size_of[:t] > 1e-8).all()
            assert (size_of[t:] == 0).all()


@pytest.mark.parametrize(("size", "channels", "levels"), SHAPES)
def test_a_changed_sub_pixel_changes_all_later_logits_and_no_other(size: int, channels: int, levels: int) -> None:
    model = lively(size, channels, levels)
    x = images(model, 1)
    places = list(itertools.product(range(size), range(size), range(channels)))

    def rows(x: Tensor) -> Tensor:
        return model.logits(x)[0].permute(2, 3, 1, 0).flatten(0, 2).detach()

    before = rows(x)
    for t, (row, column, channel) in enumerate(places):
        other = model.to_levels(x)
        other[0, channel, row, column] = (other[0, channel, row, column] + 1) % levels
        change = (rows(model.to_images(other)) - before).abs().amax(1)
        assert (change[: t + 1] == 0).all()
        assert (change[t + 1 :] > 1e-8).all()


@pytest.mark.parametrize(
    ("kind", "size", "channels", "levels"),
    [(PixelTransformer, 2, 1, 2), (PixelTransformer, 2, 1, 4), (PixelTransformer, 1, 3, 4), (TwoPixels, 1, 3, 4)],
)
def test_probabilities_of_all_images_sum_to_one(
    kind: type[PixelTransformer], size: int, channels: int, levels: int
) -> None:
    model = lively(size, channels, levels, kind)
    shape = model.image_shape
    count = shape[0] * shape[1] * shape[2]
    everything = torch.cartesian_prod(*[torch.arange(levels)] * count).view(-1, *shape)
    assert len(everything) == levels**count
    log_p = model.log_prob(model.to_images(everything))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert log_p.std() > 0.1  # and the images are not all alike


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "channels", "levels"), [(6, 1, 2), (5, 1, 256), (4, 3, 4)])
def test_cached_sampler_draws_what_the_naive_one_draws(size: int, channels: int, levels: int) -> None:
    model = lively(size, channels, levels)
    prefix = images(model, 8)[:, :, :2]
    for options in ({}, {"temperature": 0.5}, {"prefix": prefix}):
        cached = model.sample(8, seed=1, **options)
        assert torch.equal(cached, model.sample(8, seed=1, naive=True, **options))
        assert not torch.equal(cached, model.sample(8, seed=2, **options))


@pytest.mark.parametrize(("size", "channels", "levels"), SHAPES)
def test_cached_logits_are_those_of_the_model(size: int, channels: int, levels: int) -> None:
    model = lively(size, channels, levels)
    x = images(model, 4)
    cached, naive = model.sampler(4), NaiveSampler(model.logits)
    assert isinstance(cached, CachedSampler)
    with torch.no_grad():
        for row, column, channel in itertools.product(range(size), range(size), range(channels)):
            given = cached.logits(x, row, column, channel)
            torch.testing.assert_close(given, naive.logits(x, row, column, channel), rtol=0, atol=1e-12)


def test_cache_grows_with_depth_times_area() -> None:
    def numbers(size: int, layers: int) -> int:
        sampler = PixelTransformer(size, 3, features=8, num_layers=layers, num_heads=2).sampler(5)
        assert isinstance(sampler, CachedSampler)
        return sampler.cache.numel()

    assert numbers(4, 3) == 2 * 3 * 5 * (4 * 4 * 3) * 8
    assert numbers(8, 6) == 8 * numbers(4, 3)


def test_completion_keeps_the_given_rows_and_draws_the_rest() -> None:
    model = lively(4, 3, 4)
    whole = model.sample(6, seed=0)
    assert torch.equal(model.sample(6, seed=0, prefix=whole[:, :, :3]), whole)
    one = images(model, 1)[:, :, :2]
    completed = model.sample(6, seed=0, prefix=one + 0.1)  # nearest levels
    assert torch.allclose(completed[:, :, :2], one.expand(6, -1, -1, -1))
    assert len(completed[:, :, 2:].flatten(1).unique(dim=0)) == 6
    assert torch.equal(completed[3:], model.sample(3, seed=0, first=3, prefix=one))


def test_temperature_near_zero_takes_the_likeliest_level() -> None:
    model = lively(3, 3, 4)
    x = model.sample(2, seed=0, temperature=1e-6)
    assert torch.equal(model.to_levels(x), model.logits(x).argmax(1))
    assert torch.equal(x[0], x[1])


def test_sampling_works_under_autocast() -> None:
    model = PixelTransformer(4, features=8, num_layers=2, num_heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        x = model.sample(4, seed=0)
    assert set(x.unique().tolist()) <= {-1.0, 1.0}


# Form -----------------------------------------------------------------------------------------------------------------


def test_initial_deviations_are_gpt2s() -> None:
    torch.manual_seed(0)
    model = PixelTransformer(28, features=128, num_layers=8)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif "norm" in name:
            assert (p == 1).all()
        elif p.numel() > 10_000:
            added = name.endswith(("project.weight", "mlp.2.weight"))
            assert p.std().item() == pytest.approx(0.02 / 4 if added else 0.02, rel=0.03), name


def test_number_of_parameters() -> None:
    """Of a block 12 D^2 and 13 D; levels, start, positions; the last norm and the head."""
    d = 64
    block = 12 * d * d + 13 * d
    count = sum(p.numel() for p in PixelTransformer().parameters())
    assert count == 4 * block + (2 + 1 + 28 + 28 + 1) * d + 2 * d + d + 1 == 203_969
    d = 16
    block = 12 * d * d + 13 * d
    count = sum(p.numel() for p in PixelTransformer(32, 3, 256, d, 2).parameters())
    assert count == 2 * block + (256 + 1 + 32 + 32 + 3) * d + 2 * d + 256 * d + 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 30}, r"^features must be a multiple of num_heads \(4\), not 30$"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelTransformer(**options)


def test_images_of_another_size() -> None:
    model = PixelTransformer(4, features=8)
    with pytest.raises(ValueError, match=r"^images must be \(N, 1, 4, 4\), not \(2, 1, 5, 5\)$"):
        model.log_prob(torch.zeros(2, 1, 5, 5))
