from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.gan import GAN, Maxout, optimal_discriminator, value_at_optimum


class TestGAN(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> GAN:
        # Twice the references' range: so small a generator else makes images that differ by less than the tests see.
        return GAN(8, 1, 5, hidden_features=16, units=6, pieces=2, weight_range=0.5, **self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


class TestGANAlternating(TestGAN):
    options = {  # noqa: RUF012
        "update": "alternating",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "activation": "leaky_relu",
        "noise": "spherical",
        "loss": "minimax",
        "n_critic": 2,
        "ema_decay": 0.5,
    }


# The paper's and the reference's claims -------------------------------------------------------------------------------


def test_parameter_counts_of_the_reference() -> None:
    model = GAN()
    assert sum(p.numel() for p in model.generator.parameters()) == 2_503_984
    assert sum(p.numel() for p in model.discriminator.parameters()) == 1_231_441


def test_value_at_the_optimum_is_minus_log_4_plus_twice_the_jensen_shannon_divergence() -> None:
    p, q = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.7]], dtype=torch.float64)
    middle = (p + q) / 2
    jsd = 0.5 * (torch.xlogy(p, p / middle).nansum() + torch.xlogy(q, q / middle).nansum())
    assert value_at_optimum(p, q).item() == pytest.approx(-math.log(4) + 2 * jsd.item(), abs=1e-12)
    assert value_at_optimum(p, p).item() == pytest.approx(-math.log(4), abs=1e-12)
    apart = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert value_at_optimum(*apart).item() == 0


def test_optimal_discriminator_of_gaussians_is_the_best_of_all_logistic_ones() -> None:
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    densities = [torch.distributions.Normal(m, 1.0).log_prob(x).exp() for m in (-1.0, 1.0)]
    d = optimal_discriminator(*densities)
    assert torch.allclose(d, torch.sigmoid(-2 * x), atol=1e-10)  # log p/q = -2x
    cell = (x[1] - x[0]).item()
    best = value_at_optimum(*densities, volume=cell)

    def value(slope: float) -> float:
        logit = slope * x
        logs = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
        return sum((p * log).sum().item() * cell for p, log in zip(densities, logs, strict=True))

    assert value(-2.0) == pytest.approx(best.item(), abs=1e-9)
    assert max(value(-1.9), value(-2.1)) < best


def test_gradients_of_both_generator_losses_with_respect_to_the_logit() -> None:
    from zoo.nn.losses import generator_term

    logits = torch.linspace(-6, 6, 7, dtype=torch.float64, requires_grad=True)
    (minimax,) = torch.autograd.grad(generator_term("minimax", logits) * 7, logits)
    (non_saturating,) = torch.autograd.grad(generator_term("non_saturating", logits) * 7, logits)
    sigma = logits.detach().sigmoid()
    assert torch.allclose(minimax, -sigma)
    assert torch.allclose(non_saturating, -(1 - sigma))


def test_maxout_is_the_largest_piece() -> None:
    layer = Maxout(3, 2, 4).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    maps = (x @ layer.weight.T + layer.bias).view(5, 2, 4)
    assert_near(layer(x), maps.max(2).values)


def test_noise_has_unit_variance_in_all_kinds() -> None:
    for noise in ("uniform", "normal", "spherical"):
        z = GAN(8, noise=noise, hidden_features=4, units=2).latent(4000, seed=0)
        assert z.var().item() == pytest.approx(1, rel=0.02)
    assert z.norm(dim=1).sub(10).abs().max() < 1e-4


def test_dropout_is_keyed_scaled_and_shared_by_both_objectives() -> None:
    model = GAN(8, hidden_features=8, units=4, pieces=2)
    batch = {"image": torch.rand(4, 1, 8, 8)}
    shared = model.forward_shared(batch)
    again = model.forward_shared(batch)
    assert torch.equal(shared["fake_logits"], again["fake_logits"])
    model.batch_index = 1
    assert not torch.equal(shared["real_logits"], model.forward_shared(batch)["real_logits"])
    kept = rng.keep_mask((1000, 784), 0.8, 5)
    assert kept.float().mean().item() == pytest.approx(0.8, abs=0.002)
    assert torch.equal(kept[10:20], rng.keep_mask((10, 784), 0.8, 5, first=10))


def test_discriminator_loss_at_equilibrium_is_log_2() -> None:
    model = GAN(8, hidden_features=8, units=4, weight_range=0.0)
    batch = {"image": torch.rand(4, 1, 8, 8)}
    terms = model.discriminator_loss(batch, model.forward_shared(batch))
    assert sum(terms.values()).item() == pytest.approx(math.log(2))


def test_schedule_of_rate_and_momentum() -> None:
    model = GAN(8, hidden_features=8, units=4, momentum_epochs=3, decay=2.0)
    rates, momenta = [], []

    class Watch(GAN):
        def on_phase_stepped(self, phase: str) -> None:
            group = self.trainer.optimizers[0].param_groups[0]
            if phase == "generator":
                rates.append(group["lr"])
                momenta.append(group["momentum"])

    model.__class__ = Watch
    trainer(max_epochs=3).fit(model, datamodule=Data([{"image": torch.rand(4, 1, 8, 8)}] * 2))
    assert rates == pytest.approx([0.1 / 2**k for k in range(6)])
    assert momenta == pytest.approx([0.5, 0.5, 0.6, 0.6, 0.7, 0.7])


def test_output_starts_at_the_mean_image() -> None:
    class WithReference(Data):
        num_train = 6

        def reference_batches(self, num: int, chunk: int, *, split: str = "train") -> Any:
            yield 0, {"image": torch.stack([torch.full((1, 8, 8), v) for v in (-0.5, 0.0, 0.2)])}

    model = GAN(8, hidden_features=8, units=4, learning_rate=0.0, decay=1.0)
    trainer().fit(model, datamodule=WithReference([{"image": torch.rand(4, 1, 8, 8)}]))
    expected = torch.full((64,), (-0.1 + 1) / 2).logit()
    assert torch.allclose(model.generator.net[-1].bias, expected, atol=1e-3)
