from __future__ import annotations

import pytest
import torch

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.wgan_gp import WGANGP


class TestWGANGP(ModelContract):
    def tiny(self) -> WGANGP:
        return WGANGP(8, 3, 5, 4, n_critic=2)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_the_critic_has_no_batch_statistics() -> None:
    """The penalty is one per image: an image's score must not depend on the others (section 4)."""
    model = WGANGP(8, base_channels=4).double().train()
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64) * 2 - 1
    scores = torch.cat([model.discriminator(x[i : i + 1]) for i in range(4)])
    assert_near(model.discriminator(x), scores)


def test_the_penalty_is_zero_where_the_slope_is_one() -> None:
    model = WGANGP(8, base_channels=4).double()
    direction = torch.randn(3 * 8 * 8, dtype=torch.float64)
    direction /= direction.norm()
    model.discriminator.forward = lambda x: x.flatten(1) @ direction  # type: ignore[method-assign]
    batch = {"image": 2 * torch.rand(4, 3, 8, 8, dtype=torch.float64) - 1}
    terms = model.discriminator_loss(batch, torch.rand(4, 3, 8, 8, dtype=torch.float64))
    assert terms["gradient_penalty"].item() == pytest.approx(0, abs=1e-12)
    model.discriminator.forward = lambda x: 3 * x.flatten(1) @ direction  # type: ignore[method-assign]
    terms = model.discriminator_loss(batch, torch.rand(4, 3, 8, 8, dtype=torch.float64))
    assert terms["gradient_penalty"].item() == pytest.approx(10 * 4)


def test_n_critic_steps_the_generator_first_at_the_fifth_batch() -> None:
    model = WGANGP(8, base_channels=4)
    before = model.generator.layers[0].conv.weight.clone()
    batch = {"image": 2 * torch.rand(4, 3, 8, 8) - 1}
    trainer().fit(model, datamodule=Data([batch] * 4))
    assert torch.equal(model.generator.layers[0].conv.weight, before)
    trainer().fit(model, datamodule=Data([batch] * 5))
    assert not torch.equal(model.generator.layers[0].conv.weight, before)


def test_hyperparameters_are_its_own() -> None:
    assert "variant" not in WGANGP(8).hparams
    assert set(WGANGP(8, penalty_weight=3.0).hparams) == {
        "image_size",
        "image_channels",
        "latent_dim",
        "base_channels",
        "penalty_weight",
        "n_critic",
        "learning_rate",
    }


def test_compile_is_refused() -> None:
    with pytest.raises(ValueError, match=r"WGANGP does not take compile: torch\.compile cannot differentiate"):
        WGANGP(8, compile=True)
