from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.aae import AAE, mixture, swiss_roll
from zoo.base import Batch
from zoo.engine import rng


class TestAAE(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> AAE:
        widths = {"hidden_features": (8, 8), "discriminator_features": (8, 8)}
        defaults = {"weight_std": 0.5, "reconstruction_weight": 1.0}
        return AAE(**{"image_size": 8, "latent_dim": 2, **widths, **defaults, **self.options})

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype), "label": torch.arange(n) % 3}


class TestAAELabelInPrior(TestAAE):
    options = {"form": "label_in_prior", "num_classes": 10, "prior": "mixture", "posterior": "gaussian"}  # noqa: RUF012

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return super().batch(n, seed=seed, dtype=dtype) | {"label": torch.arange(n) % 4 - 1}


class TestAAESupervised(TestAAE):
    options = {"form": "supervised", "num_classes": 3, "posterior": "universal", "optimizer": "adam"}  # noqa: RUF012


class TestAAESemiSupervised(TestAAE):
    options = {"form": "semi_supervised", "num_classes": 3, "input_noise": 0.3}  # noqa: RUF012

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        """Labelled images are unevenly spread: of six, ranks have two and one, or two, one and none."""
        label = torch.tensor([0, 2, -1, 1, -1, -1])
        return super().batch(n, seed=seed, dtype=dtype) | {"label": label[:n]}


class TestAAEClustering(TestAAE):
    options = {"form": "clustering", "num_classes": 4, "optimizer": "adam", "prior_std": 2.0}  # noqa: RUF012


class TestAAETransformed(TestAAESemiSupervised):
    options = TestAAESemiSupervised.options | {"class_noise": 0.3, "transformed_classes": True}


class TestAAEConv(TestAAE):
    options = {"networks": "conv", "base_channels": 2, "image_channels": 3, "image_size": 16}  # noqa: RUF012

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 16, 16), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_paper() -> None:
    model = AAE()
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}
    assert counts == {"encoder": 1_794_008, "decoder": 1_794_784, "discriminators": 1_011_001}


@pytest.mark.parametrize("component", [0, 3, 9])
def test_parts_of_the_mixture(component: int) -> None:
    z = mixture(rng.normal((20_000, 2), 1), torch.full((20_000,), component))
    angle = component * 2 * math.pi / 10
    along, across = torch.tensor([math.cos(angle), math.sin(angle)]), torch.tensor([-math.sin(angle), math.cos(angle)])
    assert (z @ along).mean().item() == pytest.approx(1.4, abs=0.02)
    assert (z @ along).std().item() == pytest.approx(0.5, rel=0.03)
    assert (z @ across).std().item() == pytest.approx(0.05, rel=0.03)


def test_parts_of_the_swiss_roll_follow_each_other() -> None:
    ends = [swiss_roll(torch.tensor([0.0, 1.0]), torch.tensor([k, k])) for k in range(10)]
    for one, other in itertools.pairwise(ends):
        assert torch.allclose(one[1], other[0], atol=1e-6)
    assert ends[-1][1].norm().item() == pytest.approx(3)


def test_prior_takes_the_part_that_is_asked_for() -> None:
    model = AAE("label_in_prior", latent_dim=2, num_classes=10, prior="swiss_roll", hidden_features=(4,))
    label = torch.arange(1000) % 11 - 1
    z = model.prior(1000, 3, component=label)
    part = (z.norm(dim=1) / 3).square() * 10
    known = label >= 0
    assert torch.equal(part[known].clamp(max=9.999).floor().long(), label[known])
    assert part[~known].std() > 2


def test_phases_and_their_optimizers() -> None:
    model = AAE("semi_supervised", num_classes=10)
    assert model.phases == ("reconstruction", "discriminator", "encoder", "classification")
    optimizers = model.configure_optimizers()
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.01, 0.1, 0.1, 0.1]
    assert [o.param_groups[0]["momentum"] for o in optimizers] == [0.9, 0.1, 0.1, 0.9]
    assert AAE().phases == ("reconstruction", "discriminator", "encoder")


def test_step_sizes_fall_at_the_epochs_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AAE("semi_supervised", num_classes=10, hidden_features=(4,), discriminator_features=(4,))

    def rates(epoch: int) -> list[float]:
        monkeypatch.setattr(model, "_trainer", type("Run", (), {"current_epoch": epoch})())
        return [model.optimizer_overrides(phase, 0)["lr"] for phase in model.phases]

    assert rates(49) == pytest.approx([0.01, 0.1, 0.1, 0.1])
    assert rates(50) == pytest.approx([0.001, 0.01, 0.01, 0.01])
    assert rates(250) == pytest.approx([0.001, 0.01, 0.01, 0.001])
    assert rates(1000) == pytest.approx([0.0001, 0.001, 0.001, 0.001])


def test_prior_counts_as_real_and_codes_as_fake() -> None:
    model = AAE(latent_dim=2, hidden_features=(4,), discriminator_features=(4,))
    for p in model.parameters():
        p.data.zero_()
    model.discriminators["style"][-1].bias.data.fill_(3.0)  # takes everything for a draw from the prior
    batch = {"image": torch.zeros(4, 1, 28, 28)}
    terms = model.discriminator_loss(batch, None)
    assert terms["style_prior"].item() == pytest.approx(F.softplus(torch.tensor(-3.0)).item())
    assert terms["style_code"].item() == pytest.approx(F.softplus(torch.tensor(3.0)).item())
    assert model.encoder_loss(batch, None)["style"].item() == pytest.approx(F.softplus(torch.tensor(-3.0)).item())


def test_labelled_batch_of_its_own_is_used_where_there_is_one() -> None:
    model = AAE("semi_supervised", image_size=8, num_classes=3, hidden_features=(6,), discriminator_features=(4,))
    images, label = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    logits, _ = model._code((images + 1) / 2)
    expected = F.cross_entropy(logits, label).item()
    labelled = {"image": images, "label": label}
    own = {"image": torch.rand(7, 1, 8, 8), "label": torch.full((7,), -1), "labelled": labelled}
    assert model.classification_loss(own, None)["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)
    mixed = {"image": torch.cat([images, torch.rand(3, 1, 8, 8)]), "label": torch.cat([label, torch.full((3,), -1)])}
    assert model.classification_loss(mixed, None)["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)
    none = {"image": images, "label": torch.full((5,), -1)}
    assert model.classification_loss(none, None)["cross_entropy"].item() == 0


def test_decoder_of_the_supervised_form_gets_the_label() -> None:
    model = AAE("supervised", image_size=8, num_classes=3, hidden_features=(6,), weight_std=None)
    x = model.sample(4, seed=0, label=1)
    assert_near(model.sample(2, seed=0, first=2, label=1), x[2:])
    assert not torch.allclose(x, model.sample(4, seed=0, label=2))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        model.sample(1, label=3)
    one, two = (model.reconstruct(x, torch.full((4,), k)) for k in (0, 1))
    assert not torch.allclose(one, two)


def test_gaussian_posterior_is_noisy_in_training_only() -> None:
    model = AAE(image_size=8, hidden_features=(6,), discriminator_features=(4,), posterior="gaussian", weight_std=None)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(model.encode(x), model.encode(x))
    noisy = [model._code(x, purpose)[1] for purpose in ("one", "other")]
    assert not torch.allclose(noisy[0], noisy[1])


@pytest.mark.slow
def test_codes_come_to_follow_the_prior() -> None:
    """Data of two groups, whose codes without a prior lie in two heaps."""
    torch.manual_seed(0)
    base = torch.rand(2, 1, 8, 8)
    images = (base[torch.arange(256) % 2] + 0.3 * torch.randn(256, 1, 8, 8)).clamp(0, 1) * 2 - 1
    widths = {"hidden_features": (64,), "discriminator_features": (64, 64)}
    model = AAE.modern(image_size=8, latent_dim=2, adversarial_learning_rate=1e-3, **widths)
    trainer(max_steps=1500, max_epochs=-1).fit(model, datamodule=Data([{"image": images}] * 50))
    z = model.encode(images)
    assert z.mean(0).abs().max() < 0.35
    assert z.std(0).sub(1).abs().max() < 0.35
    quantiles = torch.linspace(0.1, 0.9, 9)
    assert z.quantile(quantiles, 0).T.sub(torch.distributions.Normal(0.0, 1.0).icdf(quantiles)).abs().max() < 0.6


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="needs num_classes"):
        AAE("clustering")
    with pytest.raises(ValueError, match="needs num_classes 0"):
        AAE(num_classes=10)
    with pytest.raises(ValueError, match="set latent_dim=2, not 8"):
        AAE(prior="mixture")
    with pytest.raises(ValueError, match="'label_in_prior' needs the prior"):
        AAE("label_in_prior", num_classes=10)
    with pytest.raises(ValueError, match="does not classify"):
        AAE(hidden_features=(4,)).classify(torch.zeros(1, 1, 28, 28))


def test_class_head_alone_sees_transformed_images_and_in_training_alone() -> None:
    model = TestAAETransformed().tiny()
    x = torch.rand(6, 1, 8, 8)
    logits, style = model._heads(x, "reconstruction")
    moved, same = model._code(x, "reconstruction")
    assert torch.equal(style, same)
    assert not torch.allclose(logits, moved)
    expected, _ = model._heads(model._transformed(x, "reconstruction"), "reconstruction/class")
    assert torch.equal(moved, expected)
    assert torch.equal(model._code(x)[0], model._heads(x, None)[0])


def test_noise_on_classes_blurs_prior_and_codes_alike_but_no_style() -> None:
    model = TestAAETransformed().tiny()
    code = torch.eye(3).repeat(4000, 1)
    assert torch.equal(model._blurred("style", code, "encoder/code"), code)
    noise = model._blurred("class", code, "encoder/code") - code
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise.mean().item()) < 0.01
    assert not torch.equal(noise, model._blurred("class", code, "discriminator/code") - code)
