from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models import test_aae
from tests.models.test_aae import WIDTHS
from tests.numerics import assert_near
from zoo.clustering_aae import ClusteringAAE

SIZES: dict[str, Any] = {"latent_dim": 2, "num_classes": 4, **WIDTHS}


class TestClusteringAAE(test_aae.TestAAE):
    def tiny(self) -> ClusteringAAE:
        return test_aae.tiny(ClusteringAAE(8, **SIZES))


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_discriminators_compare_style_and_class_with_priors_of_their_own() -> None:
    model = ClusteringAAE(8, **SIZES)
    batch = {"image": 2 * torch.rand(4000, 1, 8, 8) - 1}
    priors, codes = model.priors(batch), model.codes(batch, "encoder")
    assert list(priors) == list(codes) == list(model.discriminators) == ["style", "class"]
    assert torch.equal(priors["class"].max(1).values, torch.ones(4000))
    assert priors["class"].mean(0).sub(0.25).abs().max() < 0.03
    assert priors["style"].std().item() == pytest.approx(1, rel=0.03)
    assert torch.allclose(codes["class"].sum(1), torch.ones(4000))
    assert model.discriminator_loss(batch, None).keys() == {
        "style_prior",
        "style_code",
        "class_prior",
        "class_code",
    }


def test_the_encoder_sees_noisy_images_in_training_alone() -> None:
    noisy, plain = (ClusteringAAE(8, input_noise_std=std, **SIZES) for std in (0.3, 0.0))
    plain.load_state_dict(noisy.state_dict())
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(noisy.heads(x)[1], plain.heads(x, "encoder")[1])
    assert not torch.allclose(noisy.heads(x, "encoder")[1], plain.heads(x, "encoder")[1])


def test_codes_hold_class_probabilities_and_style() -> None:
    model = ClusteringAAE(8, **SIZES)
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    code = model.encode(x)
    assert torch.equal(code[:, :4], model.classify(x))
    assert torch.equal(model.reconstruct(x), model.decode(code))


# Options that the paper does not have ---------------------------------------------------------------------------------


def test_class_head_alone_sees_transformed_images_and_in_training_alone() -> None:
    model = ClusteringAAE(8, affine_classes=True, **SIZES)
    x = torch.rand(6, 1, 8, 8)
    batch = {"image": 2 * x - 1}
    logits, style = model.heads(x, "reconstruction")
    codes = model.codes(batch, "reconstruction")
    assert_near(codes["style"], style)
    assert not torch.allclose(codes["class"], logits.softmax(1), atol=1e-3)
    expected, _ = model.heads(model.affine(x, "reconstruction"), "reconstruction/class")
    assert_near(codes["class"], expected.softmax(1))
    assert torch.equal(model.classify(batch["image"]), model.heads((batch["image"] + 1) / 2)[0].softmax(1))


def test_noise_on_classes_blurs_prior_and_codes_alike_but_no_style() -> None:
    model = ClusteringAAE(8, class_noise_std=0.3, **SIZES)
    codes = {"style": torch.randn(4000, 2), "class": torch.eye(4).repeat(1000, 1)}
    seen = model.discriminator_inputs(codes, {}, "encoder/code")
    assert torch.equal(seen["style"], codes["style"])
    noise = seen["class"] - codes["class"]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise.mean().item()) < 0.01
    assert not torch.equal(seen["class"], model.discriminator_inputs(codes, {}, "discriminator/code")["class"])
