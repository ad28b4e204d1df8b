from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.contract import ModelContract
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.conv_infogan import ConvInfoGAN
from zoo.engine import rng
from zoo.infogan import InfoGAN
from zoo.nn.augment import diff_augment
from zoo.nn.layers import unit
from zoo.pretrained.migrations import current_arguments
from zoo.transform_invariant_infogan import TransformInvariantInfoGAN


class TestInfoGAN(ModelContract):
    kind: type[InfoGAN] = InfoGAN
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> InfoGAN:
        model = self.kind(8, 1, 3, (3,), 2, base_channels=4, hidden_features=8, **self.options)
        # At a deviation of 0.02 such a small generator makes images that differ by less than the contract sees.
        model.generator.conv[-2].weight.data *= 50
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


class TestInfoGANSimultaneous(TestInfoGAN):
    options = {"update": "simultaneous"}  # noqa: RUF012


class TestConvInfoGAN(TestInfoGAN):
    kind: type[InfoGAN] = ConvInfoGAN

    def tiny(self) -> InfoGAN:
        model = ConvInfoGAN(16, 1, 3, (3,), 2, base_channels=4, **self.options)
        for layer in model.generator.layers:
            if isinstance(layer, nn.ConvTranspose2d):  # as above
                layer.weight.data *= 5
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 16, 16), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The paper's and the reference's claims -------------------------------------------------------------------------------


def test_parameter_counts_of_the_reference() -> None:
    """Without the biases in front of batch normalisations, which cancel."""
    model = InfoGAN()
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}
    assert counts == {
        "generator": 6_652_481 - 1024 - 6272 - 64,
        "trunk": 6_558_144 - 128 - 1024,
        "discriminator": 1025,
        "recogniser": 133_262 - 128,
    }


def test_networks_of_the_papers_experiments_in_color() -> None:
    model = ConvInfoGAN()
    widths = [
        [tuple(m.weight.shape[:2]) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        for network in (model.generator, model.trunk)
    ]
    assert widths == [[(168, 448), (448, 256), (256, 128), (128, 64), (64, 3)], [(64, 3), (128, 64), (256, 128)]]
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (model.generator, model.trunk)]
    assert norms == [2, 2]
    assert (model.discriminator.in_features, model.recogniser[0].out_features) == (256 * 4 * 4, 128)
    assert model.encode(model.sample(2, seed=0)).shape == (2, 44)
    celeba = ConvInfoGAN(latent_dim=128, categorical_codes=[10] * 10, num_continuous=0)
    assert celeba.latent(2, seed=0).shape == (2, 228)
    assert ConvInfoGAN(64, base_channels=2).sample(1, seed=0).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="image_size must be a power of two from 16, not 24"):
        ConvInfoGAN(24)


def test_networks_may_work_on_images_from_zero_to_one() -> None:
    """The tanh of such a generator goes below black; what leaves the model is black then."""
    signed, plain = (
        ConvInfoGAN(16, 1, 3, (3,), 1, base_channels=2, signed=signed).double() for signed in (True, False)
    )
    plain.load_state_dict(signed.state_dict())
    z = signed.latent(4, seed=0)
    with torch.no_grad():
        assert_near(plain.eval().generator(z), 2 * signed.eval().generator(z) - 1)
        x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
        assert_near(plain.trunk(x), signed.trunk((x + 1) / 2))
    assert torch.equal(plain.generate(z), (2 * plain.generator(z) - 1).clamp(-1, 1))
    assert plain.generate(z).min() == -1


@pytest.mark.parametrize("size", [28, 32, 64])
def test_sizes(size: int) -> None:
    model = InfoGAN(size, 3, base_channels=2, hidden_features=8)
    x = model.sample(2, seed=0)
    assert x.shape == (2, 3, size, size)
    assert model.encode(x).shape == (2, 12)
    assert model.score(x).shape == (2,)


def test_latents_follow_the_reference() -> None:
    z = InfoGAN().latent(20_000, seed=0)
    noise, category, continuous = z.split([62, 10, 2], 1)
    for part in (noise, continuous):
        assert part.min() >= -1
        assert part.max() < 1
        assert part.std().item() == pytest.approx(3**-0.5, rel=0.01)
    assert torch.equal(category.sum(1), torch.ones(20_000))
    normal = InfoGAN(noise="normal").latent(20_000, seed=0)
    assert torch.equal(normal[:, 62:], z[:, 62:])  # the codes stay as they are
    assert normal[:, :62].std().item() == pytest.approx(1, rel=0.01)
    assert torch.corrcoef(normal.T[[0, 1, 72, 73]]).fill_diagonal_(0).abs().max() < 0.03
    assert category.mean(0).sub(0.1).abs().max() < 0.01
    chosen = category.argmax(1).float()
    assert torch.corrcoef(torch.stack([chosen, *continuous.T]))[0, 1:].abs().max() < 0.03


def test_q_learns_with_the_discriminator_and_information_reaches_the_generator() -> None:
    model = InfoGAN(8, base_channels=4, hidden_features=8)
    judges, generator = model.configure_optimizers()
    held = {id(p) for group in judges.param_groups for p in group["params"]}
    assert all(id(p) in held for p in model.recogniser.parameters())
    assert judges.param_groups[0]["lr"] == 2e-4
    assert generator.param_groups[0]["lr"] == 1e-3
    terms = model.generator_loss({"image": torch.zeros(4, 1, 8, 8)}, {})
    (gradient,) = torch.autograd.grad(terms["category"], [model.generator.conv[-2].weight])
    assert gradient.any()


def test_alternating_phases_draw_latents_of_their_own_and_simultaneous_ones_share() -> None:
    batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
    for update in ("alternating", "simultaneous"):
        model = InfoGAN(8, base_channels=4, hidden_features=8, update=update)
        drawn = []
        noise = model.noise
        model.noise = lambda n, key, first=0, drawn=drawn, noise=noise: drawn.append(key) or noise(n, key, first)  # type: ignore[method-assign]
        shared = model.forward_shared(batch)
        assert bool(shared) == (update == "simultaneous")
        model.discriminator_loss(batch, shared)
        model.generator_loss(batch, shared)
        assert len(set(drawn)) == len(drawn) == (2 if update == "alternating" else 1)


def test_traversals_vary_one_code() -> None:
    model = InfoGAN(8, base_channels=4, hidden_features=8).eval()
    strips = model.traversals(2, 5, seed=1)
    assert {name: tuple(x.shape) for name, x in strips.items()} == {
        "category": (2, 10, 1, 8, 8),
        "continuous0": (2, 5, 1, 8, 8),
        "continuous1": (2, 5, 1, 8, 8),
    }
    base = model.latent(2, seed=1)
    z = base.clone()
    z[:, 62:72] = F.one_hot(torch.tensor(4), 10)
    assert_near(strips["category"][:, 4], model.generate(z))
    z = base.clone()
    z[:, 73] = -2
    assert_near(strips["continuous1"][:, 0], model.generate(z))


def test_category_can_be_chosen() -> None:
    model = InfoGAN(8, base_channels=4, hidden_features=8)
    x = model.sample(3, seed=0, category=2)
    assert torch.equal(x[1], model.sample(3, seed=0, category=torch.tensor([0, 2, 1]))[1])
    assert not torch.allclose(x, model.sample(3, seed=0, category=5))
    with pytest.raises(ValueError, match=r"category must lie in 0\.\.9"):
        model.sample(1, category=10)
    with pytest.raises(ValueError, match="has no condition 'label'"):
        model.sample(1, label=0)


def test_codes_are_checked() -> None:
    with pytest.raises(ValueError, match="at least two values"):
        InfoGAN(categorical_codes=(1,))
    with pytest.raises(ValueError, match="needs a code"):
        InfoGAN(categorical_codes=(), num_continuous=0)
    without = InfoGAN(8, categorical_codes=(), base_channels=2, hidden_features=4)
    for use in (lambda: without.sample(1, category=0), lambda: without.classify(torch.zeros(1, 1, 8, 8))):
        with pytest.raises(ValueError, match="no categorical code"):
            use()


def test_information_of_a_perfect_and_of_an_ignorant_recognition_network() -> None:
    model = InfoGAN(category_weight=0.5, continuous_weight=2.0)
    z = model.latent(5000, seed=0)
    category, continuous = z[:, 62:72], z[:, 72:]
    perfect = {"z": z, "q": torch.cat([1e3 * category, continuous, torch.zeros_like(continuous)], 1)}
    terms = model.information(perfect)
    assert terms["category"].item() == pytest.approx(-0.5 * math.log(10))
    # E c^2 / 2 for two codes of variance 1/3: the reference takes the entropy under N(0, 1).
    assert terms["continuous"].item() == pytest.approx(-2 / 3, rel=0.03)
    terms = model.information({"z": z, "q": torch.zeros(5000, 14)})
    assert terms["category"].item() == pytest.approx(0, abs=1e-6)
    assert terms["continuous"].item() == pytest.approx(0, abs=1e-6)


def test_continuous_term_is_the_difference_of_gaussian_densities() -> None:
    model = InfoGAN(8, categorical_codes=(), num_continuous=3, base_channels=2, hidden_features=4).double()
    z = model.latent(6, seed=0)
    mean, log_var = torch.randn(2, 6, 3, dtype=torch.float64)
    term = model.information({"z": z, "q": torch.cat([mean, log_var], 1)})["continuous"]
    c = z[:, 62:]
    q = torch.distributions.Normal(mean, 1.0).log_prob(c).sum(1).mean()
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(c).sum(1).mean()
    assert term.item() == pytest.approx((prior - q).item(), rel=1e-10)


def test_augmented_images_are_what_the_trunk_sees() -> None:
    model = InfoGAN(8, base_channels=4, hidden_features=8, augment=True).double()
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    for purpose in ("real", "fake"):
        moved = (diff_augment(2 * x - 1, model.draw_key(f"augment/{purpose}")) + 1) / 2
        assert_near(model.features(x, purpose), model.trunk(moved))
    assert_near(model.eval().features(x, "real"), model.trunk(x))


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("kind", [InfoGAN, TransformInvariantInfoGAN])
def test_running_statistics_are_those_of_real_images(kind: type[InfoGAN], update: Any) -> None:
    """What is inferred from real images is the same with running statistics as with those of the images."""
    model = kind(8, base_channels=4, hidden_features=8, update=update).double()
    batch = {"image": 2 * torch.rand(16, 1, 8, 8, dtype=torch.float64) - 1}
    for _ in range(300):  # a share of 0.9 ** 300, or 2e-14, of the statistics at the beginning is left
        shared = model.forward_shared(batch)
        model.discriminator_loss(batch, shared)
        model.generator_loss(batch, shared)
    kept = copy.deepcopy(model)
    for layer in kept.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches, here of one
    kept.discriminator(features := kept.trunk(unit(batch["image"])))
    kept.recogniser(features)
    assert_near(model.eval().encode(batch["image"]), kept.eval().encode(batch["image"]), 1e-9)
    assert_near(model.score(batch["image"]), kept.score(batch["image"]), 1e-9)
    # The generator's move on: its inputs are of one kind.
    assert all(layer.num_batches_tracked > 0 for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_the_average_of_the_generator_makes_the_images() -> None:
    model = InfoGAN(8, base_channels=4, hidden_features=8, ema_decay=0.9)
    before = model.sample(2, seed=0)
    model.generator.conv[-2].bias.data.fill_(3.0)
    assert torch.equal(model.sample(2, seed=0), before)
    assert model.inference_networks == ("generator_ema", "trunk", "discriminator", "recogniser")


# Earlier arguments ----------------------------------------------------------------------------------------------------

EARLIER: dict[str, Any] = {
    "categories": [3],
    "continuous": 1,
    "slope": 0.1,
    "information_warmup": 0,
    "transformed_share": 0.0,
    "recogniser_learns": "discriminator",
    "learn_std": False,
    "betas": [0.5, 0.999],
}
TODAY = {"categorical_codes": [3], "num_continuous": 1, "negative_slope": 0.1}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "zoo.infogan.InfoGAN"),
        ({"recogniser_learns": "generator", "learn_std": True}, "zoo.infogan.InfoGAN"),  # an imported port
        ({"transformed_share": 0.5}, "zoo.transform_invariant_infogan.TransformInvariantInfoGAN"),
    ],
)
def test_earlier_arguments_make_the_class_of_today(given: dict[str, Any], path: str) -> None:
    assert current_arguments("zoo.infogan.InfoGAN", EARLIER | given) == (path, TODAY)
    assert current_arguments(path, TODAY) == (path, TODAY)


@pytest.mark.parametrize("given", [{"transformed_share": 0.25}, {"information_warmup": 100}, {"learn_std": True}])
def test_earlier_arguments_without_a_class_are_named(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=rf"zoo\.infogan\.InfoGAN no longer has {name}="):
        current_arguments("zoo.infogan.InfoGAN", EARLIER | given)
