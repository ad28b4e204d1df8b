"""Operations of training, by hand and for every architecture that makes images of nothing."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.base import GenerativeModel
from zoo.base.growing import GrowingGAN
from zoo.bench import flops
from zoo.bench.flops import flops_per_image, images_for
from zoo.bench.random_batches import random_batch

WIDTHS: dict[str, Any] = {"hidden_features": (6, 7), "latent_dim": 3}
RNN: dict[str, Any] = {"hidden_channels": 4, "num_layers": 2, "head_channels": 6}
GROWTH = {"training_images": 8, "transition_images": 8, "global_batch_size": 4}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "AAE": ("AAE", {"image_size": 8, "discriminator_features": (5,), **WIDTHS}),
    "BetaVAE": ("BetaVAE", {"image_size": 8, "networks": "mlp", **WIDTHS}),
    "DCGAN": ("DCGAN", {"image_size": 8, "base_channels": 4}),
    "GAN": ("GAN", {"image_size": 8, "hidden_features": 6, "discriminator_features": 4, "maxout_pieces": 3}),
    "InfoGAN": ("InfoGAN", {"image_size": 8, "base_channels": 4, "hidden_features": 8}),
    "NADE": ("NADE", {"image_size": 6, "hidden_features": 5}),
    "OrderlessNADE": ("OrderlessNADE", {"image_size": 6, "hidden_features": (5,)}),
    "PixelCNN": ("PixelCNN", {"image_size": 6, **RNN}),
    "PixelRNN diagonal": ("PixelRNN", {"image_size": 6, **RNN}),
    "PixelRNN row": ("PixelRNN", {"image_size": 6, "layer": "row", **RNN}),
    "PixelTransformer": ("PixelTransformer", {"image_size": 6, "features": 8, "num_layers": 2, "num_heads": 2}),
    "ProgressiveGAN": ("ProgressiveGAN", {"image_size": 16, "fmap_base": 32, "max_channels": 4, "growth": GROWTH}),
    "SNGAN": ("SNGAN", {"image_size": 8, "base_channels": 4}),
    "VAE": ("VAE", {"image_size": 8, **WIDTHS}),
    "WAE": ("WAE", {"image_size": 28, "base_channels": 2}),
    "WAEGAN": ("WAEGAN", {"image_size": 28, "base_channels": 2, "discriminator_features": (5,)}),
    "WGANGP": ("WGANGP", {"image_size": 8, "base_channels": 4}),
}


def tiny(name: str, **options: Any) -> GenerativeModel:
    kind, given = TINY[name]
    torch.manual_seed(0)
    model: GenerativeModel = getattr(zoo, kind)(**given | options)
    return model


@pytest.mark.parametrize("name", TINY)
def test_every_architecture_is_counted_and_left_as_it_was(name: str) -> None:
    model = tiny(name)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    found = flops_per_image(model, random_batch(model, 4))
    networks = (p for name, p in model.named_parameters() if p.dim() > 1 and not name.startswith("generator_ema"))
    if name != "ProgressiveGAN":  # whose later stages rest
        # Every weight multiplies an image forward and gets a gradient, which are four operations or more; but of
        # embeddings, which are looked up.
        weights = sum(p.numel() for p in networks)
        assert found > (2 if name == "PixelTransformer" else 4) * weights, name
    assert found > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert model._trainer is None


def test_a_vae_by_hand() -> None:
    """Each layer multiplies forward, for its weights and for its input; the image needs no gradient."""
    layers = [64 * 6, 6 * 7, 7 * 6, 3 * 7, 7 * 6, 6 * 64]
    assert flops_per_image(tiny("VAE"), random_batch(tiny("VAE"), 5)) == 2 * (3 * sum(layers) - layers[0])


def test_a_gan_by_hand() -> None:
    """The discriminator sees images and fakes; its own phase needs no gradient of them, the generator's no weights'."""
    generator, discriminator = [100 * 6, 6 * 6, 6 * 64], [64 * 4 * 3, 4 * 4 * 3, 4]
    expected = 2 * (3 * sum(generator) - generator[0]) + 4 * (4 * sum(discriminator) - discriminator[0])
    model = tiny("GAN")
    assert flops_per_image(model, random_batch(model, 4)) == expected


def test_the_default_gan_has_the_operations_of_the_committed_table() -> None:
    rows = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "launches.json").read_text())["counts"]
    expected = next(row["gflop_per_image"] for row in rows if row["architecture"] == "gan")
    model = zoo.GAN()
    assert flops_per_image(model, random_batch(model, 4)) / 1e9 == pytest.approx(expected, rel=1e-12)


def test_a_network_that_grows_is_counted_in_its_stage() -> None:
    small, grown = tiny("ProgressiveGAN"), tiny("ProgressiveGAN")
    assert isinstance(grown, GrowingGAN)
    grown.images_seen.fill_(1000)
    grown.grow(1000)
    batch = random_batch(small, 4)
    assert flops_per_image(grown, batch) > 4 * flops_per_image(small, batch)
    assert grown.progress["resolution"] == 16
    assert grown.progress["images_seen"] == 1000


def test_phases_that_rest_count_as_often_as_they_step() -> None:
    """Of a critic's five steps one has the generator's, too."""
    often, seldom = (tiny("WGANGP", n_critic=n) for n in (1, 5))
    batch = random_batch(often, 4)
    both, mean = flops_per_image(often, batch), flops_per_image(seldom, batch)
    critic = (5 * mean - both) / 4
    assert 0 < critic < mean < both
    assert flops_per_image(tiny("WGANGP", n_critic=2), batch) == pytest.approx((both + critic) / 2)


def test_pretraining_is_not_counted() -> None:
    first, without = tiny("WAEGAN"), tiny("WAEGAN", pretraining_steps=0)
    batch = random_batch(first, 4)
    assert flops_per_image(first, batch) == flops_per_image(without, batch)
    assert first.hparams["pretraining_steps"] == 200


def test_attention_is_counted() -> None:
    """Products of queries with keys and of weights with values, for all pairs of pixels, forward and backward."""
    small, large = tiny("PixelTransformer"), tiny("PixelTransformer", image_size=12)
    ratio = flops_per_image(large, random_batch(large, 2)) / flops_per_image(small, random_batch(small, 2))
    assert ratio > 6  # without attention it would be that of the pixels, 4


def test_a_budget_of_operations_as_images() -> None:
    model = tiny("VAE")
    batch = random_batch(model, 5)
    assert images_for(70.4 * flops_per_image(model, batch), model, batch) == 70
    assert images_for(1, model, batch) == 1


def test_a_budget_of_operations_for_networks_that_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of 8 images and fades of 8, each at a price of its own."""
    model: Any = tiny("ProgressiveGAN", growth=GROWTH | {"global_batch_size": 1, "steps_per_schedule_check": 1})

    def price(model: Any, batch: Any = None) -> float:
        return float(model.progress["resolution"] + (model.alpha < 1))

    costs = []
    for images in range(60):
        resolution, alpha, _ = model.schedule(images)
        costs.append(resolution + (alpha < 1))
    assert set(costs) == {4, 9, 8, 17, 16}
    monkeypatch.setattr(flops, "flops_per_image", price)
    for images in (1, 5, 12, 20, 28, 38, 60):
        assert images_for(sum(costs[:images]), model, None) == images
    assert model.progress["images_seen"] == 0
