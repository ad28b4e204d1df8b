from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.contract import Data, ModelContract, state_of, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.beta_vae import BetaVAE
from zoo.engine import rng
from zoo.nn.schedules import Decay
from zoo.pretrained.migrations import current_arguments
from zoo.vae import VAE, kl_to_standard_normal


class TestVAE(ModelContract):
    options: dict[str, Any] = {"hidden_features": (12,)}  # noqa: RUF012

    def tiny(self) -> VAE:
        return VAE(8, 1, 3, **self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


class TestVAEConv(TestVAE):
    options = {"networks": "conv", "optimizer": "adagrad", "weight_std": 0.2}  # noqa: RUF012


class TestVAEBurgess(TestVAE):
    """Its networks have no smaller size than 32 pixels."""

    options = {"networks": "burgess", "weight_std": 0.1}  # noqa: RUF012

    def tiny(self) -> VAE:
        return VAE(32, 1, 3, **self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        small = super().batch(n, seed=seed, dtype=dtype)["image"]
        return {"image": small.repeat_interleave(4, 2).repeat_interleave(4, 3)}


class TestBetaVAE(TestVAE):
    options = {"networks": "mlp", "hidden_features": (12,), "capacity": 2.0, "capacity_steps": 3, "learning_rate": 1e-2}  # noqa: RUF012

    def tiny(self) -> BetaVAE:
        return BetaVAE(8, 1, 3, **self.options)


# The papers' claims ---------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_references() -> None:
    assert sum(p.numel() for p in VAE().parameters()) == 652_824
    assert sum(p.numel() for p in BetaVAE(64, 1).parameters()) == 763_285
    burgess = VAE(64, 1, 10, networks="burgess")
    linear = (
        (512 * 256 + 256 + 256 * 256 + 256) + (256 * 20 + 20) + (10 * 256 + 256 + 256 * 256 + 256 + 256 * 512 + 512)
    )
    convolutions = 6 * (16 * 32 * 32 + 32) + (16 * 32 + 32) + (16 * 32 + 1)
    assert sum(p.numel() for p in burgess.parameters()) == linear + convolutions


def test_burgess_networks_refuse_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"^image_size 28 is not supported by networks='burgess': take 32 or 64$"):
        VAE(28, networks="burgess")


@pytest.mark.parametrize(
    ("networks", "size"), [("conv", 28), ("conv", 32), ("conv", 64), ("burgess", 32), ("burgess", 64)]
)
def test_sizes_of_the_convolutional_forms(networks: Any, size: int) -> None:
    model = BetaVAE(size, 3, networks=networks)
    x = model.sample(2, seed=0)
    assert x.shape == (2, 3, size, size)
    assert model.encode(x).shape == (2, 10)
    assert set(model.traversals(1, 3)) == {f"z{i}" for i in range(10)}


def test_kl_in_closed_form_against_monte_carlo() -> None:
    mean, log_var = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, -2.0]])
    q = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    z = q.sample((200_000,))
    estimate = (q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).mean(0)
    assert torch.allclose(kl_to_standard_normal(mean, log_var), estimate, atol=0.01)


def test_density_is_that_of_torch() -> None:
    model = VAE(8, hidden_features=(4,))
    x, logits = (torch.rand(3, 1, 8, 8) > 0.5).double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    density = torch.distributions.Bernoulli(logits=logits)
    assert_near(model.log_likelihood(x, logits), density.log_prob(x).sum((1, 2, 3)))


def test_log_weights_are_those_of_the_densities() -> None:
    model = VAE(8, 1, 3, hidden_features=(12,)).double()
    x = (torch.rand(4, 1, 8, 8) > 0.5).double() * 2 - 1
    weights = model.log_weights(x, 5, seed=2)
    assert weights.shape == (5, 4)
    q = model.posterior(x)
    eps = rng.normal((4, 5, 3), rng.key(2, "log_weights"), dtype=torch.float64)
    for k in range(5):
        z = q.mean + q.stddev * eps[:, k]
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        expected = prior + model.log_likelihood((x + 1) / 2, model.decoder(z)) - q.log_prob(z).sum(1)
        assert_near(weights[k], expected)
    parts = torch.cat([model.log_weights(x[:1], 5, seed=2), model.log_weights(x[1:], 5, seed=2, first=1)], 1)
    assert_near(parts, weights)


def test_importance_weighted_bound_lies_between_elbo_and_the_true_likelihood() -> None:
    """In one dimension log p(x) can be had by integration."""
    torch.manual_seed(0)
    model = VAE(8, 1, 1, hidden_features=(12,)).double()
    for p in model.decoder.parameters():
        p.data *= 3
    x = (torch.rand(6, 1, 8, 8) > 0.5).double() * 2 - 1
    weights = model.log_weights(x, 2000, seed=0)
    elbo, bound = weights.mean(0), weights.logsumexp(0) - math.log(2000)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        logits = model.decoder(z)
    for i in range(6):
        likelihood = model.log_likelihood(((x[i] + 1) / 2).expand_as(logits), logits)
        joint = likelihood + torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0].float()).double()
        exact = (joint.logsumexp(0) + math.log(16 / 4000)).item()
        assert elbo[i] < bound[i]
        assert bound[i].item() == pytest.approx(exact, abs=0.3)


def test_objective_is_the_negative_elbo_of_one_draw() -> None:
    model = VAE(8, 1, 3, hidden_features=(12,))
    x = (torch.rand(400, 1, 8, 8) > 0.5).float() * 2 - 1
    terms = model.objective({"image": x})
    assert set(terms) == {"reconstruction", "kl"}
    elbo = model.log_weights(x, 50, seed=0).mean()
    assert sum(terms.values()).item() == pytest.approx(-elbo.item(), rel=0.01)


def test_beta_1_is_the_vae_bit_for_bit() -> None:
    options: dict[str, Any] = {"networks": "mlp", "hidden_features": (12,), "learning_rate": 1e-3}
    ends = []
    for kind, more in ((VAE, {}), (BetaVAE, {"beta": 1.0}), (BetaVAE, {"beta": 2.0})):
        torch.manual_seed(0)
        model = kind(8, 1, 3, **options, **more)
        batches = [
            {"image": 2 * torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(i)) - 1} for i in range(5)
        ]
        trainer().fit(model, datamodule=Data(batches))
        ends.append(state_of(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


def test_capacity_grows_per_step_and_stops() -> None:
    model = BetaVAE(8, 1, networks="mlp", capacity_steps=10, capacity=5.0, gamma=100.0)
    seen = []
    for model.batch_index in (0, 5, 10, 1000):
        seen.append(model.current_capacity)
    assert seen == [0.5, 3.0, 5.0, 5.0]
    model.batch_index = 10
    for kl in (3.0, 8.0):
        assert model.weighted(torch.tensor(kl)).item() == pytest.approx(100 * abs(kl - 5))


def test_step_size_falls_over_the_run() -> None:
    model = VAE(8, 1, 3, hidden_features=(12,), decay=Decay("exponential", final=0.01))
    rates = []

    class Watch(VAE):
        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    model.__class__ = Watch
    trainer(max_epochs=2).fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 1, 8, 8) - 1}] * 4))
    assert rates == pytest.approx([1e-3 * 0.01 ** (k / 8) for k in range(8)])


def test_earlier_arguments() -> None:
    decay = Decay("exponential", final=0.03)
    earlier = {"image_size": 32, "networks": "conv", "likelihood": "bernoulli", "noise_std": 0.1, "final_rate": 0.03}
    for path, kind in (("zoo.vae.VAE", VAE), ("zoo.beta_vae.BetaVAE", BetaVAE)):
        assert current_arguments(path, {"final_rate": 1.0}) == (path, {"decay": None})
        assert kind(**current_arguments(path, earlier)[1]).decay == decay
        with pytest.raises(ValueError, match="no longer has likelihood='gaussian'"):
            current_arguments(path, earlier | {"likelihood": "gaussian"})


def test_validation_logs_the_mean_over_the_images() -> None:
    model = VAE(8, 1, 3, hidden_features=(12,))
    images = torch.rand(5, 1, 8, 8) * 2 - 1

    class WithValidation(Data):
        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader([{"image": images[:3]}, {"image": images[3:]}], batch_size=None)

        test_dataloader = val_dataloader

    run = trainer()
    run.fit(model, datamodule=WithValidation([{"image": images}]))
    kl = kl_to_standard_normal(*model.encoder((images + 1) / 2).chunk(2, 1)).sum(1).mean()
    assert run.callback_metrics["val/kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    run.test(model, datamodule=WithValidation([]))
    assert run.callback_metrics["test/kl"].item() == pytest.approx(kl.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_can_be_clipped_by_the_trainer(precision: Any) -> None:
    model = TestVAE().tiny()
    batches = [TestVAE().batch(4)]
    run = trainer(precision=precision, gradient_clip_val=1e-9)
    seen = []
    model.on_before_optimizer_step = lambda optimizer: seen.append(  # type: ignore[method-assign]
        max(float(p.grad.norm()) for p in model.parameters())
    )
    run.fit(model, datamodule=Data(batches))
    fused = run.optimizers[0].defaults["fused"]
    assert fused == (precision == "32-true")
    clipped = max(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)
    assert clipped <= 1e-9 < seen[0]


def test_a_small_kl_is_no_difference_of_rounded_numbers() -> None:
    """Of a dimension that carries nothing, log_var is near 0: bfloat16 has no number between 1 and 1.0078."""
    x = torch.tensor([0.05], dtype=torch.bfloat16)
    expected = kl_to_standard_normal(x.double(), x.double()).item()
    assert kl_to_standard_normal(x, x).item() == pytest.approx(expected, rel=0.02)
