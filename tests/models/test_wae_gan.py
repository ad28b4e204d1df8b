from __future__ import annotations

import math

import pytest
import torch

from tests.contract import Data, trainer
from tests.models.test_wae import TestWAE as Contract
from tests.models.test_wae import widened
from zoo.wae_gan import WAEGAN


class TestWAEGAN(Contract):
    kind = WAEGAN
    options = {"discriminator_features": (8,), "density_trick": True, "input_noise_std": 0.01}  # noqa: RUF012


def tiny(**options: object) -> WAEGAN:
    return WAEGAN(8, 1, 3, base_channels=2, discriminator_features=(8,), **options)  # type: ignore[arg-type]


def test_density_trick_adds_the_log_density_of_the_prior() -> None:
    torch.manual_seed(0)
    plain, trick = tiny(prior_std=2.0), tiny(prior_std=2.0, density_trick=True)
    trick.load_state_dict(plain.state_dict())
    z = torch.randn(5, 3)
    density = torch.distributions.Normal(0.0, 2.0).log_prob(z).sum(1)
    assert torch.allclose(trick.discriminate(z), plain.discriminate(z) + density, atol=1e-5)


def test_objectives_of_an_undecided_discriminator() -> None:
    """log 2 for each term, times lambda."""
    model = tiny(penalty_weight=3.0, pretraining_steps=0)
    torch.nn.init.zeros_(model.discriminator[-1].weight)
    batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
    terms = model.discriminator_loss(batch, None) | model.autoencoder_loss(batch, None)
    for name in ("prior", "code", "penalty"):
        assert terms[name].item() == pytest.approx(3 * math.log(2))


def test_discriminator_does_not_reach_the_encoder_and_rests_in_pretraining() -> None:
    model = widened(tiny(pretraining_steps=2))
    batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
    sum(model.discriminator_loss(batch, None).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in model.encoder.parameters())
    stepped: list[str] = []

    class Watch(WAEGAN):
        def on_phase_stepped(self, phase: str) -> None:
            stepped.append(phase)

    model.__class__ = Watch
    trainer().fit(model, datamodule=Data([batch] * 3))
    assert stepped == ["autoencoder", "autoencoder", "autoencoder", "discriminator"]


def test_each_phase_has_its_step_size() -> None:
    model = tiny(learning_rate=0.1, discriminator_learning_rate=0.2, pretraining_steps=0)
    trainer().fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 1, 8, 8) - 1}]))
    rates = [optimizer.param_groups[0]["lr"] for optimizer in model.trainer.optimizers]
    assert rates == [0.1, 0.2]
