from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, fit_on_ranks, trainer
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.losses import gradient_penalty, norm_penalty
from zoo.nn.stargan import Discriminator, Generator
from zoo.pretrained.migrations import current_arguments
from zoo.stargan import CELEBA, RAFD, StarGAN


class TestStarGAN(ModelContract):
    """One set of categories and attributes, both known of each image."""

    samples = False
    options: dict[str, Any] = {"attributes": ["smiling", "young"], "categories": [["red", "green", "blue"]]}  # noqa: RUF012

    def tiny(self) -> StarGAN:
        small = {"base_channels": 4, "num_blocks": 1, "discriminator_layers": 2, "n_critic": 2}
        return StarGAN(8, **{**small, **self.options})

    def comparable(self) -> StarGAN:
        """Without the middle taps on the domain's maps: they add a constant, which the normalization takes away."""
        model = self.tiny()
        counts = torch.ones(4, 3 + model.labels.num_features, 7, 7)
        counts[:, 3:, 3, 3] = 0
        model.generator.layers[0].weight.register_hook(lambda gradient: gradient * counts)
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        binary = rng.integers(2, (n, 2), rng.key(seed, "attributes"))
        label = torch.arange(n) % 3
        return {
            "image": images,
            "attributes": torch.cat([binary, F.one_hot(label, 3)], 1).to(dtype),
            "label_set": rng.integers(2, (n,), rng.key(seed, "set")),
        }

    def pictures(self, model: Any) -> Tensor:
        batch = self.batch(2)
        pictures: Tensor = model.reconstruct(batch["image"], model.labels.domain(batch))
        return pictures


class Joint(TestStarGAN):
    """The paper's joint training; not a contract of its own."""

    options = TestStarGAN.options | {"joint": True}


@pytest.fixture
def model() -> StarGAN:
    torch.manual_seed(0)
    return TestStarGAN().tiny()


@pytest.fixture
def joint() -> StarGAN:
    torch.manual_seed(0)
    return Joint().tiny()


@pytest.fixture
def batch() -> Batch:
    return TestStarGAN().batch(6)


# The networks --------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_paper() -> None:
    with torch.device("meta"):
        model = StarGAN()
    counts = [sum(p.numel() for p in network.parameters()) for network in (model.generator, model.discriminator)]
    assert counts == [8_430_528, 44_762_048]


def test_joint_training_has_fifteen_inputs_and_thirteen_labels() -> None:
    with torch.device("meta"):
        model = StarGAN.celeba_rafd()
    assert model.generator.layers[0].weight.shape[1] == 3 + 15
    assert model.discriminator.classifier.weight.shape == (13, 2048, 4, 4)
    assert model.target_names == [*CELEBA, *RAFD]


# Tables 4 and 5 of the paper: kind of layer, filters as a multiple of the first layer's, kernel, stride, padding.
DOWN = (("conv", 1, 7, 1, 3), ("conv", 2, 4, 2, 1), ("conv", 4, 4, 2, 1))
BOTTLENECK = (("conv", 4, 3, 1, 1), ("conv", 4, 3, 1, 1))
UP = (("deconv", 2, 4, 2, 1), ("deconv", 1, 4, 2, 1))
HIDDEN = tuple(("conv", 2**i, 4, 2, 1) for i in range(6))


def test_generator_is_that_of_table_4() -> None:
    """Against the table written down in plain functions, in double precision."""
    torch.manual_seed(0)
    c = 4
    generator = Generator(3, c, 6, 2).double()
    for p in generator.parameters():
        nn.init.normal_(p, 0, 0.3)
    weights = iter([p.detach() for p in generator.parameters()])

    def layer(x: Tensor, kind: str, filters: int, kernel: int, stride: int, padding: int) -> Tensor:
        """Convolution without a bias, then IN with a scale and a shift."""
        weight = next(weights)
        shape = (filters * c, x.shape[1]) if kind == "conv" else (x.shape[1], filters * c)
        assert weight.shape == (*shape, kernel, kernel)
        function = F.conv2d if kind == "conv" else F.conv_transpose2d
        x = function(x, weight, stride=stride, padding=padding)
        centered = x - x.mean((2, 3), keepdim=True)
        normal = centered / (centered.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        scale, shift = next(weights), next(weights)
        return normal * scale[:, None, None] + shift[:, None, None]

    x, domain = torch.randn(3, 3, 16, 24).double(), torch.randn(3, 2).double()
    y = torch.cat([x, domain[:, :, None, None] * torch.ones(3, 2, 16, 24)], 1)
    for row in DOWN:
        y = layer(y, *row).relu()
    for _ in range(6):
        y = y + layer(layer(y, *BOTTLENECK[0]).relu(), *BOTTLENECK[1])
    for row in UP:
        y = layer(y, *row).relu()
    last = next(weights)
    assert last.shape == (3, c, 7, 7)
    assert next(weights, None) is None
    expected = F.conv2d(y, last, padding=3).tanh()
    with torch.no_grad():
        assert_near(generator(x, domain), expected)


def test_discriminator_is_that_of_table_5() -> None:
    """Against the table written down in plain functions, in double precision."""
    torch.manual_seed(0)
    discriminator = Discriminator(128, 3, 2, 6, 5).double()
    weights = iter([p.detach() for p in discriminator.parameters()])
    x = y = torch.randn(2, 3, 128, 128).double()
    for _, filters, kernel, stride, padding in HIDDEN:
        weight, bias = next(weights), next(weights)
        assert weight.shape == (2 * filters, y.shape[1], kernel, kernel)
        y = F.conv2d(y, weight, bias, stride, padding)
        y = torch.where(y > 0, y, 0.01 * y)
    critic, classifier = weights
    assert (critic.shape, classifier.shape) == ((1, 64, 3, 3), (5, 64, 2, 2))
    with torch.no_grad():
        values, logits = discriminator(x)
    assert_near(values, F.conv2d(y, critic, padding=1))
    assert_near(logits, F.conv2d(y, classifier).flatten(1))


def test_evaluation_mode_changes_nothing(model: StarGAN, batch: Batch) -> None:
    x, domain = batch["image"], model.labels.domain(batch)
    assert torch.equal(model.train().generator(x, domain), model.eval().generator(x, domain))


def test_the_averaged_generator_translates(batch: Batch) -> None:
    options = TestStarGAN.options | {"base_channels": 4, "discriminator_layers": 2, "ema_decay": 0.9}
    model = StarGAN(8, **options)
    assert model.inference_networks == ("generator_ema", "discriminator")
    before = model.translate(batch["image"], batch["attributes"])
    for p in model.generator.parameters():
        p.data += 1
    assert torch.equal(model.translate(batch["image"], batch["attributes"]), before)


# The objective -------------------------------------------------------------------------------------------------------


def test_gradient_penalty_of_a_linear_critic_is_its_closed_form() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 4, 4, dtype=torch.float64)
    real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64).unbind(0)

    def critic(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3))

    for mix in (torch.zeros(5), torch.rand(5), torch.ones(5)):
        found = gradient_penalty(critic, real, fake, mix.double())
        assert found.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-10)


def test_gradient_penalty_sums_over_the_patches(model: StarGAN, batch: Batch) -> None:
    """Of a linear critic of patches the gradient is that of the sum over its map, and the label head has no part."""
    model.discriminator.layers = nn.Sequential(nn.Conv2d(3, 2, 4, 2, 1), nn.LeakyReLU(1.0))
    model.discriminator.critic = nn.Conv2d(2, 1, 1, bias=False)
    model.discriminator.classifier = nn.Conv2d(2, 5, 4, bias=False)
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.discriminator(x)[0].sum(), x)
    terms = model.discriminator_loss(batch, model.forward_shared(batch))
    assert terms["gradient_penalty"].item() == pytest.approx(10 * (gradient.norm().item() - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("size", [16, 24])
def test_gradient_by_transposed_convolutions_is_autograds(size: int) -> None:
    """The gradient of the image, and those of a penalty on it with respect to the weights."""
    torch.manual_seed(0)
    critic = Discriminator(size, 3, 4, 3, 5).double()
    x = torch.randn(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(critic(x)[0].sum(), x, create_graph=True)
    found = critic.input_gradient(x.detach())
    assert_near(found, expected)
    weights = [critic.critic.weight, *(p for p in critic.layers.parameters() if p.dim() == 4)]
    gradients = [torch.autograd.grad(norm_penalty(g), weights) for g in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        assert b.any()
        assert_near(a, b)


def test_terms_are_those_of_the_paper() -> None:
    case = TestStarGAN()
    case.options = case.options | {"classification_weight": 2.0, "cycle_weight": 3.0}
    torch.manual_seed(0)
    model, batch = case.tiny().double(), case.batch(6, dtype=torch.float64)
    shared = model.forward_shared(batch)
    x, domain, target, fake = batch["image"], shared["domain"], shared["target"], shared["fake"]
    assert torch.equal(domain, batch["attributes"])

    def entropy(logits: Tensor, labels: Tensor) -> float:
        binary = F.binary_cross_entropy_with_logits(logits[:, :2], labels[:, :2], reduction="sum") / len(x)
        return (binary + F.cross_entropy(logits[:, 2:], labels[:, 2:].argmax(1))).item()

    (real, on_real), (made, on_fake) = model.discriminator(x), model.discriminator(fake)
    terms = {name: value.item() for name, value in model.discriminator_loss(batch, shared).items()}
    assert terms.pop("gradient_penalty") > 0  # tested by itself
    expected = {"real": -real.mean().item(), "fake": made.mean().item(), "classification": 2 * entropy(on_real, domain)}
    assert terms == pytest.approx(expected, rel=1e-12)
    terms = {name: value.item() for name, value in model.generator_loss(batch, shared).items()}
    expected = {
        "adversarial": -made.mean().item(),
        "reconstruction": 3 * F.l1_loss(model.generator(fake, domain), x).item(),
        "classification": 2 * entropy(on_fake, target),
    }
    assert terms == pytest.approx(expected, rel=1e-12)


def test_an_identity_generator_reconstructs_exactly(model: StarGAN, batch: Batch) -> None:
    class Identity(nn.Module):
        def forward(self, x: Tensor, domain: Tensor) -> Tensor:
            return x

    model.generator = Identity()
    assert model.generator_loss(batch, model.forward_shared(batch))["reconstruction"].item() == 0
    assert torch.equal(model.reconstruct(batch["image"]), batch["image"])


def test_targets_of_training_are_the_labels_of_the_batch_in_another_order(model: StarGAN, batch: Batch) -> None:
    domain = model.labels.domain(batch)
    orders = []
    for step in range(3):
        model.batch_index = step
        target = model.forward_shared(batch)["target"]
        assert sorted(target.tolist()) == sorted(domain.tolist())
        orders.append(target)
        assert torch.equal(target, model.forward_shared(batch)["target"])
    assert any(not torch.equal(orders[0], other) for other in orders[1:])


def test_targets_of_joint_training_are_of_the_images_own_label_set(joint: StarGAN) -> None:
    shared = joint.forward_shared(Joint().batch(12))
    domain, target = shared["domain"], shared["target"]
    assert torch.equal(target[:, 5:], domain[:, 5:])
    assert sorted(target.tolist()) == sorted(domain.tolist())
    assert not torch.equal(target, domain)


@pytest.mark.slow
def test_joint_training_on_three_ranks_is_that_of_one_process() -> None:
    expected = fit_on_ranks(Joint, 1, 4)
    for state in on_ranks(3, fit_on_ranks, Joint, 3, 4):
        for name, value in expected.items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-12), name


def test_generator_runs_once_a_batch_and_steps_in_every_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, *args: calls.append(args[0].shape) or forward(self, *args))
    case = TestStarGAN()
    case.options = case.options | {"n_critic": 5}
    model = case.tiny()
    before = model.generator.layers[0].weight.clone()
    trainer(max_steps=4).fit(model, datamodule=Data([case.batch(4)] * 4))
    assert len(calls) == 4
    assert torch.equal(before, model.generator.layers[0].weight)
    trainer(max_steps=5).fit(model, datamodule=Data([case.batch(4)] * 5))
    assert len(calls) == 4 + 6  # the last one back again
    assert not torch.equal(before, model.generator.layers[0].weight)


def test_learning_rate_falls_to_zero() -> None:
    with torch.device("meta"):
        paper = StarGAN(learning_rate=1.0)
    steps = (0, 100_000, 150_000, 199_999, 200_000)
    rates = [paper.optimizer_overrides("generator", step)["lr"] for step in steps]
    assert rates == pytest.approx([1, 1, 0.5, 1e-5, 0])


def test_arguments_of_earlier_versions() -> None:
    old = {"num_layers": 5, "loss": "wasserstein", "domain_critics": False, "betas": (0.5, 0.999), "decay": "paper"}
    _, arguments = current_arguments("zoo.StarGAN", old | {"constant_steps": 3, "decay_steps": 7})
    expected = {"kind": "linear", "constant": 3, "length": 7}
    assert arguments == {"discriminator_layers": 5, "decay": expected}
    assert current_arguments("zoo.StarGAN", arguments)[1] == arguments
    assert current_arguments("zoo.StarGAN", {"decay_steps": 0})[1] == {"decay": None}
    for gone in ({"decay": "reference_code"}, {"identity_weight": 5.0}, {"gradient_penalty_weight": 0.0}):
        with pytest.raises(ValueError, match="StarGAN no longer has"):
            current_arguments("zoo.StarGAN", gone)


def test_the_optimizers_take_the_rate() -> None:
    case = TestStarGAN()
    case.options = case.options | {"decay": {"kind": "linear", "constant": 1, "length": 4}}
    model = case.tiny()
    trainer(max_steps=4).fit(model, datamodule=Data([case.batch(4)] * 4))
    rates = [optimizer.param_groups[0]["lr"] for optimizer in model.optimizers()]
    assert rates == pytest.approx([1e-4 * (1 - 2 / 4)] * 2)


# Use -----------------------------------------------------------------------------------------------------------------


def test_translation_by_name_number_and_vector(model: StarGAN, batch: Batch) -> None:
    x, domain = batch["image"], model.labels.domain(batch)
    by_name = model.translate(x, "green", domain)
    assert torch.equal(by_name, model.translate(x, 3, domain))
    assert torch.equal(by_name, model.translate(x, torch.full((6,), 3), domain))
    vector = domain.clone()
    vector[:, 2:] = torch.tensor([0.0, 1, 0])
    assert torch.equal(by_name, model.translate(x, vector))
    assert not torch.allclose(by_name, model.translate(x, "blue", domain))
    with pytest.raises(ValueError, match="no label 'grey'"):
        model.translate(x, "grey")


def test_the_discriminator_says_what_else_images_are(model: StarGAN, batch: Batch) -> None:
    x = batch["image"]
    own = model.labels.likeliest(model.classify(x)).float()
    assert torch.equal(model.translate(x, "green"), model.translate(x, "green", own))
    assert torch.equal(model.reconstruct(x), model.reconstruct(x, own))


def test_categories_of_joint_training_need_no_source(joint: StarGAN) -> None:
    batch = Joint().batch(6)
    x, domain = batch["image"], joint.labels.domain(batch)
    assert torch.equal(joint.translate(x, "green"), joint.translate(x, "green", domain))
    with pytest.raises(ValueError, match="with joint training give domain="):
        joint.translate(x, "young")


def test_translations_are_the_matrix_of_all_targets(model: StarGAN, batch: Batch) -> None:
    columns = model.translations(batch)
    assert list(columns) == ["real", "smiling", "young", "red", "green", "blue"]
    assert torch.equal(columns["real"], batch["image"])
    assert torch.equal(columns["red"], model.translate(batch["image"], "red", model.labels.domain(batch)))


def test_real_and_fake_depend_on_seed_and_index(model: StarGAN, batch: Batch) -> None:
    real, fake = model.real_and_fake(batch, seed=0, first=0)
    assert torch.equal(real, batch["image"])
    part = {name: value[2:] for name, value in batch.items()}
    assert_near(model.real_and_fake(part, seed=0, first=2)[1], fake[2:])
    assert not torch.allclose(model.real_and_fake(batch, seed=1, first=0)[1], fake)


def test_score_is_the_critics_negative_mean(model: StarGAN, batch: Batch) -> None:
    expected = -model.discriminator(batch["image"])[0].mean((1, 2, 3))
    torch.testing.assert_close(model.score(batch["image"]), expected)


def test_labels_are_asked_at_the_size_of_training(model: StarGAN) -> None:
    x = rng.uniform((2, 3, 16, 16), rng.key(0, "x"), low=-1, high=1)
    same = F.interpolate(x, [8, 8], mode="bilinear", antialias=True)
    assert torch.equal(model.classify(x), model.classify(same))
    for size in ((1, 1), (4, 4), (4, 20), (64, 9)):
        assert model.classify(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_a_size_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"image_size 48 must be a multiple of 64"):
        StarGAN(48)


def test_data_with_labels_in_another_order_are_refused(model: StarGAN, batch: Batch) -> None:
    data = Data([batch])
    data.class_names = {"attributes": ["young", "smiling", "red", "green", "blue"]}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the data have the labels young, smiling, red"):
        trainer().fit(model, datamodule=data)
