from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.losses import gradient_penalty, norm_penalty
from zoo.stargan import CELEBA, RAFD, Discriminator, Generator, InstanceNorm, StarGAN


class TestStarGAN(ModelContract):
    """One set of categories and attributes, both known of each image."""

    samples = False
    options: dict[str, Any] = {"attributes": ["smiling", "young"], "categories": [["red", "green", "blue"]]}  # noqa: RUF012

    def tiny(self) -> StarGAN:
        small = {"base_channels": 4, "num_blocks": 1, "num_layers": 2, "n_critic": 2}
        return StarGAN(8, **{**small, **self.options})

    def comparable(self) -> StarGAN:
        """Without the middle taps on the domain's maps: they add a constant, which the normalisation takes away."""
        model = self.tiny()
        counts = torch.ones(4, 3 + model.domain_features, 7, 7)
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
        pictures: Tensor = model.reconstruct(batch["image"], model.domain(batch))
        return pictures


class TestStarGANJoint(TestStarGAN):
    options = TestStarGAN.options | {"joint": True, "accumulate": 2, "gradient_clip": 1.0, "decay": "reference_code"}


class TestStarGANCategories(TestStarGAN):
    """One set of categories, given as `label`; without `reconstruct`'s hint."""

    options = {"attributes": [], "categories": [["red", "green", "blue"]], "constant_steps": 1, "decay_steps": 4}  # noqa: RUF012

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return {"image": super().batch(n, seed=seed, dtype=dtype)["image"], "label": torch.arange(n) % 3}

    def pictures(self, model: Any) -> Tensor:
        pictures: Tensor = model.reconstruct(self.batch(2)["image"])
        return pictures


class TestStarGANDomains(TestStarGANCategories):
    """What the paper does not have: domains in the normalisations, a critic for each, a residual, an average."""

    options: dict[str, Any] = TestStarGANCategories.options | {
        "domain_norm": True,
        "residual": True,
        "domain_critics": True,
        "loss": "least_squares",
        "gradient_penalty_weight": 0.0,
        "discriminator_channels": 6,
        "ema_decay": 0.5,
    }

    def tiny(self) -> StarGAN:
        """With a last layer that is not zero: else the translations of the first step are the images."""
        model = super().tiny()
        nn.init.normal_(model.generator.layers[-1].weight, 0, 0.1)
        assert model.generator_ema is not None
        model.generator_ema.load_state_dict(model.generator.state_dict())
        return model

    def comparable(self) -> StarGAN:
        """No maps of the domain here."""
        return self.tiny()


@pytest.fixture
def model() -> StarGAN:
    torch.manual_seed(0)
    return TestStarGAN().tiny()


@pytest.fixture
def batch() -> Batch:
    return TestStarGAN().batch(6)


@pytest.fixture
def domains() -> StarGAN:
    torch.manual_seed(0)
    return TestStarGANDomains().tiny()


# The networks --------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_paper() -> None:
    with torch.device("meta"):
        model = StarGAN()
    counts = [sum(p.numel() for p in network.parameters()) for network in (model.generator, model.discriminator)]
    assert counts == [8_430_528, 44_762_048]


def test_joint_training_has_fifteen_inputs_and_thirteen_labels() -> None:
    with torch.device("meta"):
        model = StarGAN.celeba_rafd()
        expressions = StarGAN.rafd()
    assert model.generator.layers[0].weight.shape[1] == 3 + 15
    assert model.discriminator.classifier.weight.shape == (13, 2048, 4, 4)
    assert expressions.generator.layers[0].weight.shape[1] == 3 + 8


def test_generator_takes_any_size_and_the_heads_give_patches_and_labels() -> None:
    generator = Generator(3, 4, 1, 2)
    assert generator(torch.zeros(2, 3, 12, 20), torch.zeros(2, 2)).shape == (2, 3, 12, 20)
    values, logits = Discriminator(32, 3, 2, 4, 5)(torch.zeros(2, 3, 32, 32))
    assert values.shape == (2, 1, 2, 2)
    assert logits.shape == (2, 5)


def test_a_critic_of_each_domain_and_its_mean_as_logit() -> None:
    values, logits = Discriminator(32, 3, 2, 4, 5, domain_critics=True)(torch.rand(2, 3, 32, 32))
    assert values.shape == (2, 5, 2, 2)
    torch.testing.assert_close(logits, values.mean((2, 3)))


def test_generator_is_the_references() -> None:
    """The same function as with torch's InstanceNorm in training mode, and zero padding throughout."""
    torch.manual_seed(0)
    generator = Generator(3, 4, 2, 2).double()
    for module in generator.modules():
        if isinstance(module, nn.InstanceNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x, domain = torch.randn(3, 3, 16, 16).double(), torch.randn(3, 2).double()
    expected = generator(x, domain)
    for module in generator.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.__class__ = nn.InstanceNorm2d
            module.track_running_stats = True
            module.running_mean, module.running_var = torch.zeros(len(module.weight)), torch.ones(len(module.weight))
            module.to(torch.float64)
    assert torch.allclose(generator.train()(x, domain), expected, rtol=0, atol=1e-12)


def test_a_residual_generator_starts_as_the_identity() -> None:
    generator = Generator(3, 4, 1, 2, residual=True)
    x, domain = torch.rand(2, 3, 8, 8) * 2 - 1, torch.eye(2)
    assert torch.equal(generator(x, domain), x)
    nn.init.ones_(generator.layers[-1].weight)
    assert not torch.allclose(generator(x, domain), x)


def test_the_domain_sets_scale_and_shift_of_normalisations() -> None:
    """At first none differs; then exactly those of its row, in the middle of the image too."""
    torch.manual_seed(0)
    norm = InstanceNorm(3, 2)
    x = torch.randn(2, 3, 5, 5)
    plain = F.instance_norm(x)
    torch.testing.assert_close(norm(x, torch.eye(2)), plain)
    nn.init.normal_(norm.domain.weight)
    scale, shift = norm.domain.weight.T.chunk(2, 1)  # (2, 3) each
    expected = (1 + scale)[:, :, None, None] * plain + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, torch.eye(2)), expected)
    assert Generator(3, 4, 1, 2, domain_norm=True).layers[0].in_channels == 3


def test_far_from_the_border_only_domain_norm_tells_the_domain() -> None:
    """Constant maps of the domain are taken away by the first normalisation, but for what the border leaves."""
    torch.manual_seed(0)
    changes = {}
    for domain_norm in (False, True):
        generator = Generator(3, 4, 0, 2, domain_norm=domain_norm).double()
        for module in generator.modules():
            if isinstance(module, InstanceNorm) and module.domain is not None:
                nn.init.normal_(module.domain.weight)
        one, other = generator(torch.randn(1, 3, 128, 128).double().expand(2, -1, -1, -1), torch.eye(2).double())
        changes[domain_norm] = (one - other)[:, 48:80, 48:80].abs().mean().item()
    assert changes[False] < 0.1 * changes[True]


def test_evaluation_mode_changes_nothing(model: StarGAN, batch: Batch) -> None:
    x, domain = batch["image"], model.domain(batch)
    assert torch.equal(model.train().generator(x, domain), model.eval().generator(x, domain))


def test_the_averaged_generator_translates(batch: Batch) -> None:
    model = StarGAN(
        8, attributes=["a", "b"], categories=[["c", "d", "e"]], num_layers=2, base_channels=4, ema_decay=0.9
    )
    assert model.inference_networks == ("generator_ema", "discriminator")
    before = model.translate(batch["image"], batch["attributes"])
    for p in model.generator.parameters():
        p.data += 1
    assert torch.equal(model.translate(batch["image"], batch["attributes"]), before)
    old = [p.clone() for p in model.generator_ema.parameters()]
    model.on_phase_stepped("discriminator")
    assert all(torch.equal(a, b) for a, b in zip(old, model.generator_ema.parameters(), strict=True))
    model.on_phase_stepped("generator")
    for a, b in zip(old, model.generator_ema.parameters(), strict=True):
        torch.testing.assert_close(b, a + 0.1)


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


def test_terms_are_those_of_the_reference(model: StarGAN, batch: Batch) -> None:
    shared = model.forward_shared(batch)
    x, domain, target, fake = batch["image"], shared["domain"], shared["target"], shared["fake"]
    assert torch.equal(domain, batch["attributes"])
    terms = model.discriminator_loss(batch, shared)
    values, logits = model.discriminator(x)
    assert terms["real"].item() == pytest.approx(-values.mean().item(), abs=1e-6)
    assert terms["fake"].item() == pytest.approx(model.discriminator(fake)[0].mean().item(), abs=1e-6)
    binary = F.binary_cross_entropy_with_logits(logits[:, :2], domain[:, :2], reduction="sum") / len(x)
    categorical = F.cross_entropy(logits[:, 2:], domain[:, 2:].argmax(1))
    assert terms["classification"].item() == pytest.approx((binary + categorical).item(), rel=1e-5)

    terms = model.generator_loss(batch, shared)
    assert terms["adversarial"].item() == pytest.approx(-model.discriminator(fake)[0].mean().item(), abs=1e-6)
    assert terms["reconstruction"].item() == pytest.approx(
        10 * F.l1_loss(model.generator(fake, domain), x).item(), rel=1e-5
    )
    logits = model.discriminator(fake)[1]
    binary = F.binary_cross_entropy_with_logits(logits[:, :2], target[:, :2], reduction="sum") / len(x)
    categorical = F.cross_entropy(logits[:, 2:], target[:, 2:].argmax(1))
    assert terms["classification"].item() == pytest.approx((binary + categorical).item(), rel=1e-5)


def test_the_identity_term_is_an_option(model: StarGAN, batch: Batch) -> None:
    plain = model.generator_loss(batch, model.forward_shared(batch))
    assert "identity" not in plain
    model.hparams["identity_weight"] = 5.0
    terms = model.generator_loss(batch, model.forward_shared(batch))
    x, domain = batch["image"], batch["attributes"]
    expected = 5 * F.l1_loss(model.generator(x, domain), x).item()
    assert terms["identity"].item() == pytest.approx(expected, rel=1e-5)
    assert {name: terms[name].item() for name in plain} == pytest.approx({k: v.item() for k, v in plain.items()})


def test_the_adversarial_objective_is_an_option(model: StarGAN, batch: Batch) -> None:
    model.hparams.update(loss="least_squares", gradient_penalty_weight=0.0)
    shared = model.forward_shared(batch)
    terms = model.discriminator_loss(batch, shared)
    assert set(terms) == {"real", "fake", "classification"}
    real, fake = (model.discriminator(x)[0] for x in (batch["image"], shared["fake"]))
    assert terms["real"].item() == pytest.approx((real - 1).square().mean().item(), rel=1e-5)
    assert terms["fake"].item() == pytest.approx(fake.square().mean().item(), rel=1e-5)
    adversarial = model.generator_loss(batch, shared)["adversarial"].item()
    assert adversarial == pytest.approx((fake - 1).square().mean().item(), rel=1e-5)


def test_terms_with_a_critic_of_each_domain(domains: StarGAN) -> None:
    batch = TestStarGANCategories().batch(6)
    shared = domains.forward_shared(batch)
    own, target, fake = shared["domain"].argmax(1), shared["target"].argmax(1), shared["fake"]
    assert (own != target).all()
    rows = torch.arange(6)
    real, made = domains.discriminator(batch["image"])[0], domains.discriminator(fake)[0]
    terms = domains.discriminator_loss(batch, shared)
    assert set(terms) == {"real", "fake", "mismatched"}
    assert terms["real"].item() == pytest.approx((real[rows, own] - 1).square().mean().item(), rel=1e-5)
    assert terms["fake"].item() == pytest.approx(made[rows, target].square().mean().item() / 2, rel=1e-5)
    others = torch.stack([real[rows, (own + i) % 3] for i in (1, 2)])
    assert terms["mismatched"].item() == pytest.approx(others.square().mean().item() / 2, rel=1e-5)
    terms = domains.generator_loss(batch, shared)
    assert set(terms) == {"adversarial", "reconstruction"}
    assert terms["adversarial"].item() == pytest.approx((made[rows, target] - 1).square().mean().item(), rel=1e-5)


def test_other_domains_are_drawn_evenly(domains: StarGAN) -> None:
    own = F.one_hot(torch.arange(3000) % 3, 3).float()
    steps = (domains._other(own).argmax(1) - own.argmax(1)) % 3
    assert set(steps.tolist()) == {1, 2}
    assert (steps == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_critics_of_domains_say_which_and_how_real(domains: StarGAN) -> None:
    x = TestStarGANCategories().batch(6)["image"]
    means = domains.discriminator(x)[0].mean((2, 3))
    assert domains.classify(x).argmax(1).equal(means.argmax(1))
    torch.testing.assert_close(domains.classify(x).sum(1), torch.ones(6))
    torch.testing.assert_close(domains.score(x), -means.amax(1))


def test_an_identity_generator_reconstructs_exactly(model: StarGAN, batch: Batch) -> None:
    class Identity(nn.Module):
        def forward(self, x: Tensor, domain: Tensor) -> Tensor:
            return x

    model.generator = Identity()  # type: ignore[assignment]
    assert model.generator_loss(batch, model.forward_shared(batch))["reconstruction"].item() == 0
    assert torch.equal(model.reconstruct(batch["image"]), batch["image"])


def test_targets_of_training_are_the_labels_of_the_batch_in_another_order(model: StarGAN, batch: Batch) -> None:
    domain = model.domain(batch)
    orders = []
    for step in range(3):
        model.batch_index = step
        target = model.forward_shared(batch)["target"]
        assert sorted(target.tolist()) == sorted(domain.tolist())
        orders.append(target)
        assert torch.equal(target, model.forward_shared(batch)["target"])
    assert any(not torch.equal(orders[0], other) for other in orders[1:])


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


def test_learning_rate_falls_to_zero_or_as_in_the_authors_code() -> None:
    with torch.device("meta"):
        paper, code = StarGAN(learning_rate=1.0), StarGAN(learning_rate=1.0, decay="reference_code")

    def rates(model: StarGAN) -> list[float]:
        steps = (0, 100_000, 150_000, 199_999, 200_000)
        return [model.optimizer_overrides("generator", step)["lr"] for step in steps]

    assert rates(paper) == pytest.approx([1, 1, 0.5, 1e-5, 0])
    assert rates(code) == pytest.approx([1, 1, 1 - 50e-5, 1 - 99e-5, 1 - 100e-5])


def test_the_optimizers_take_the_rate() -> None:
    case = TestStarGANCategories()
    model = case.tiny()
    trainer(max_steps=4).fit(model, datamodule=Data([case.batch(4)] * 4))
    rates = [optimizer.param_groups[0]["lr"] for optimizer in model.optimizers()]
    assert rates == pytest.approx([1e-4 * (1 - 2 / 4)] * 2)


# Domains -------------------------------------------------------------------------------------------------------------


def test_mask_vector_hides_the_other_label_set() -> None:
    model = TestStarGANJoint().tiny()
    batch = TestStarGANJoint().batch(12)
    domain, number = model.domain(batch), batch["label_set"]
    assert domain.shape == (12, 5 + 2)
    assert torch.equal(domain[:, 5:].argmax(1), number)
    assert not domain[number == 0][:, 2:5].any()
    assert not domain[number == 1][:, :2].any()
    assert torch.equal(domain[number == 1][:, 2:5], batch["attributes"][number == 1][:, 2:])
    target = model.forward_shared(batch)["target"]
    assert torch.equal(target[:, 5:], domain[:, 5:]), "targets are of the image's own label set"
    assert sorted(target.tolist()) == sorted(domain.tolist())
    assert not torch.equal(target, domain)


def test_a_batch_of_one_label_set_counts_that_sets_classification_only() -> None:
    model = TestStarGANJoint().tiny()
    batch = TestStarGANJoint().batch(6)
    for number in (0, 1):
        batch["label_set"] = torch.full((6,), number)
        shared = model.forward_shared(batch)
        logits, labels = model.discriminator(batch["image"])[1], batch["attributes"]
        expected = (
            F.cross_entropy(logits[:, 2:], labels[:, 2:].argmax(1))
            if number
            else F.binary_cross_entropy_with_logits(logits[:, :2], labels[:, :2], reduction="sum") / 6
        )
        found = model.discriminator_loss(batch, shared)["classification"]
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_targets_of_the_papers_attributes() -> None:
    with torch.device("meta"):
        model = StarGAN()
    blond_young_woman = torch.tensor([[0.0, 1, 0, 0, 1]])
    assert {name: target.tolist()[0] for name, target in model.targets(blond_young_woman).items()} == {
        "Black_Hair": [1, 0, 0, 0, 1],
        "Blond_Hair": [0, 1, 0, 0, 1],
        "Brown_Hair": [0, 0, 1, 0, 1],
        "Male": [0, 1, 0, 1, 1],
        "Young": [0, 1, 0, 0, 0],
    }
    assert model.target_names == list(CELEBA)


def test_targets_of_joint_training_name_their_label_set() -> None:
    with torch.device("meta"):
        model = StarGAN.celeba_rafd()
    face = torch.zeros(1, 15)
    face[0, [1, 4, 13]] = 1
    targets = model.targets(face)
    assert list(targets) == [*CELEBA, *RAFD]
    assert targets["happy"].nonzero()[:, 1].tolist() == [5 + RAFD.index("happy"), 14]
    assert targets["Male"].nonzero()[:, 1].tolist() == [1, 3, 4, 13]


def test_translation_by_name_number_and_vector(model: StarGAN, batch: Batch) -> None:
    x, domain = batch["image"], model.domain(batch)
    by_name = model.translate(x, "green", domain)
    assert torch.equal(by_name, model.translate(x, 3, domain))
    assert torch.equal(by_name, model.translate(x, torch.full((6,), 3), domain))
    vector = domain.clone()
    vector[:, 2:] = torch.tensor([0.0, 1, 0])
    assert torch.equal(by_name, model.translate(x, vector))
    assert not torch.allclose(by_name, model.translate(x, "blue", domain))
    assert model.translate(x, "green").shape == x.shape  # the discriminator says what else they are
    with pytest.raises(ValueError, match=r"no label 'grey': take one of smiling, young, red, green, blue"):
        model.translate(x, "grey")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4"):
        model.translate(x, 5)
    with pytest.raises(ValueError, match="a domain vector has 5 numbers, not 4"):
        model.translate(x, torch.zeros(6, 4))


def test_translations_are_the_matrix_of_all_targets(model: StarGAN, batch: Batch) -> None:
    columns = model.translations(batch)
    assert list(columns) == ["real", "smiling", "young", "red", "green", "blue"]
    assert torch.equal(columns["real"], batch["image"])
    assert torch.equal(columns["red"], model.translate(batch["image"], "red", model.domain(batch)))


def test_real_and_fake_depend_on_seed_and_index(model: StarGAN, batch: Batch) -> None:
    real, fake = model.real_and_fake(batch, seed=0, first=0)
    assert torch.equal(real, batch["image"])
    part = {name: value[2:] for name, value in batch.items()}
    assert_near(model.real_and_fake(part, seed=0, first=2)[1], fake[2:])
    assert not torch.allclose(model.real_and_fake(batch, seed=1, first=0)[1], fake)


def test_probabilities_and_score(model: StarGAN, batch: Batch) -> None:
    likely = model.classify(batch["image"])
    assert likely.shape == (6, 5)
    assert torch.allclose(likely[:, 2:].sum(1), torch.ones(6))
    assert model.score(batch["image"]).shape == (6,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, r"image_size 48 must be a multiple of 64"),
        ({"attributes": []}, "needs labels"),
        ({"attributes": ["a", "a"]}, "'a' is given twice"),
        ({"joint": True}, "two label sets"),
        ({"decay": "cosine"}, "'paper' or 'reference_code'"),
        ({"domain_critics": True}, "domain_critics needs one set of categories"),
        ({"domain_critics": True, "attributes": [], "categories": [RAFD]}, "gradient_penalty_weight=0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StarGAN(**options)


def test_batches_with_other_labels_are_refused(model: StarGAN, batch: Batch) -> None:
    with pytest.raises(ValueError, match="smiling, young, red, green, blue; there are 4 of them"):
        model.domain(batch | {"attributes": torch.zeros(6, 4)})
    with pytest.raises(ValueError, match="`label_set`"):
        TestStarGANJoint().tiny().domain({name: batch[name] for name in ("image", "attributes")})


def test_data_with_labels_in_another_order_are_refused(model: StarGAN, batch: Batch) -> None:
    data = Data([batch])
    data.class_names = {"attributes": ["young", "smiling", "red", "green", "blue"]}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the data have the labels young, smiling, red"):
        trainer().fit(model, datamodule=data)


def test_categories_of_joint_training_need_no_source() -> None:
    model = TestStarGANJoint().tiny()
    batch = TestStarGANJoint().batch(6)
    x, domain = batch["image"], model.domain(batch)
    for target in ("green", 3, torch.full((6,), 3)):
        assert torch.equal(model.translate(x, target), model.translate(x, "green", domain))
    for target in ("young", 0, torch.tensor([1, 2, 3, 4, 2, 3])):
        with pytest.raises(ValueError, match="with joint training give domain="):
            model.translate(x, target)


def test_labels_are_asked_at_the_size_of_training(model: StarGAN) -> None:
    x = rng.uniform((2, 3, 16, 16), rng.key(0, "x"), low=-1, high=1)
    same = F.interpolate(x, [8, 8], mode="bilinear", antialias=True)
    assert torch.equal(model.classify(x), model.classify(same))
    for size in ((1, 1), (4, 4), (4, 20), (64, 9)):
        assert model.classify(torch.zeros(2, 3, *size)).shape == (2, 5)
