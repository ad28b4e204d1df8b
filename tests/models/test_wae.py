from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.autoencoders import SameConv2d
from zoo.nn.losses import inverse_multiquadratic, mmd
from zoo.wae import WAE, moment_distance


class TestWAE(ModelContract):
    options: dict[str, Any] = {"networks": "mlp", "hidden_features": (8,)}  # noqa: RUF012

    def tiny(self) -> WAE:
        return WAE(8, 1, 3, **{"pretraining_steps": 0, "weight_std": 0.5, **self.options})

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


class TestWAEGAN(TestWAE):
    options = {  # noqa: RUF012
        "penalty": "gan",
        "base_channels": 2,
        "discriminator_features": (8,),
        "density_trick": True,
        "input_noise": 0.01,
    }


class TestWAERBF(TestWAE):
    options = {"kernel": "rbf", "networks": "mlp", "hidden_features": (8,), "schedule": "constant"}  # noqa: RUF012


class TestWAEGaussian(TestWAE):
    options = {"posterior": "gaussian", "penalty": "gan", "networks": "mlp", "hidden_features": (8,)}  # noqa: RUF012


# The paper's and the reference's claims -------------------------------------------------------------------------------


def test_parameter_counts_of_the_reference() -> None:
    """Without the biases in front of batch normalisations, which cancel."""
    model = WAE.celeba()
    assert sum(p.numel() for p in model.encoder.parameters()) == 18_267_200 - 128 - 256 - 512 - 1024
    assert sum(p.numel() for p in model.decoder.parameters()) == 21_475_331 - 512 - 256 - 128


def test_a_gaussian_posterior_has_the_encoders_mean_and_deviation() -> None:
    model = WAE(8, 1, 3, posterior="gaussian", networks="mlp", hidden_features=(8,))
    last = model.encoder.net[-1]  # type: ignore[index, union-attr]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, 2, 3, 0, -1000, 2 * math.log(3)]))
    x = torch.rand(20_000, 1, 8, 8)
    z = model._noisy_code(x, "encoder")
    assert torch.allclose(z.mean(0), torch.tensor([1.0, 2, 3]), atol=0.1)
    assert torch.allclose(z.std(0), torch.tensor([1.0, 0, 3]), atol=0.05)
    assert torch.equal(model.encode(2 * x[:2] - 1), torch.tensor([[1.0, 2, 3]]).expand(2, 3))
    assert not torch.equal(z, model._noisy_code(x, "discriminator"))


@pytest.mark.parametrize("size", [28, 32, 64])
def test_sizes(size: int) -> None:
    model = WAE(size, 3, base_channels=2)
    x = model.sample(2, seed=0)
    assert x.shape == (2, 3, size, size)
    assert model.encode(x).shape == (2, 8)


@pytest.mark.parametrize(("size", "kernel", "pads"), [(64, 5, (1, 2)), (7, 4, (1, 2)), (28, 4, (1, 1))])
def test_padding_is_that_of_tensorflow(size: int, kernel: int, pads: tuple[int, int]) -> None:
    conv = SameConv2d(1, 1, kernel, stride=2, bias=False).double()
    x = torch.randn(2, 1, size, size, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (*pads, *pads))
    expected = torch.nn.functional.conv2d(padded, conv.weight, stride=2)
    assert expected.size(-1) == -(-size // 2)
    assert_near(conv(x), expected)


def test_discrepancy_by_the_sums_of_its_definition() -> None:
    p, q = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64) + 1
    scales = [6.0 * s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)]

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum(c / (c + (a - b).square().sum().item()) for c in scales)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(k(p[i], p[j]) + k(q[i], q[j]) for i, j in pairs if i != j) / 20
    between = sum(k(p[i], q[j]) for i, j in pairs) / 25
    assert mmd(p, q, inverse_multiquadratic(6.0)).item() == pytest.approx(within - 2 * between, abs=1e-12)


def test_discrepancy_of_one_distribution_is_unbiased_around_0() -> None:
    kernel = inverse_multiquadratic(2.0 * 8)
    draws = rng.normal((400, 2, 20, 8), 7)
    values = torch.stack([mmd(p, q, kernel) for p, q in draws])
    assert abs(values.mean().item()) < 4 * values.std().item() / math.sqrt(400)
    assert values.min() < 0 < values.max()
    shifted = torch.stack([mmd(p, q + 0.5, kernel) for p, q in draws])
    assert shifted.mean() > values.mean() + 10 * values.std() / math.sqrt(400)


def test_kernel_follows_the_variance_of_the_prior() -> None:
    model = WAE(8, networks="mlp", hidden_features=(4,), prior_std=3.0)
    z = model.prior(4000, 5)
    assert z.std().item() == pytest.approx(3, rel=0.02)
    other = WAE(8, networks="mlp", hidden_features=(4,))
    a, b = rng.normal((2, 50, 8), 1)
    assert model.discrepancy(3 * a, 3 * b).item() == pytest.approx(other.discrepancy(a, b).item(), abs=1e-5)


def test_encoder_is_pretrained_on_moments_alone() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"networks": "mlp", "hidden_features": (32,), "weight_std": None, "learning_rate": 1e-2}
    model = WAE(8, 1, 3, penalty="gan", pretraining_steps=150, **options)
    decoder = [p.clone() for p in model.decoder.parameters()]
    images = (torch.randn(256, 4) @ torch.rand(4, 64)).view(256, 1, 8, 8).tanh()

    def distance() -> float:
        return moment_distance(model.encode(images), model.prior(256, 0)).item()

    before = distance()
    trainer(max_steps=150, max_epochs=-1).fit(model, datamodule=Data([{"image": images}] * 10))
    assert distance() < 0.6 * before
    assert all(torch.equal(a, b) for a, b in zip(decoder, model.decoder.parameters(), strict=True))
    terms = model.autoencoder_loss({"image": images}, None)
    assert set(terms) == {"moments"}
    model.batch_index = 150
    assert set(model.autoencoder_loss({"image": images}, None)) == {"reconstruction", "penalty"}


def test_weights_of_the_terms() -> None:
    model = WAE(8, networks="mlp", hidden_features=(4,), pretraining_steps=0)
    x = torch.rand(6, 1, 8, 8) * 2 - 1
    terms = model.autoencoder_loss({"image": x}, None)
    assert terms["reconstruction"].item() == pytest.approx(0.05 * model.score(x).mean().item(), rel=1e-5)
    prior = model.prior(6, model.draw_key("prior"))
    assert terms["penalty"].item() == pytest.approx(10 * model.discrepancy(model.encode(x), prior).item(), rel=1e-4)


def test_smooth_schedule_falls_to_a_hundredth_over_the_run() -> None:
    model = WAE(8, networks="mlp", hidden_features=(4,), schedule="smooth", pretraining_steps=0)
    rates = []

    class Watch(WAE):
        def on_phase_stepped(self, phase: str) -> None:
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    model.__class__ = Watch
    trainer(max_epochs=2).fit(model, datamodule=Data([{"image": torch.rand(4, 1, 8, 8)}] * 4))
    assert rates == pytest.approx([1e-3 * 0.01 ** (k / 8) for k in range(8)])


def test_step_sizes_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    model = WAE(8, networks="mlp", hidden_features=(4,))
    for epoch, rate in ((29, 1e-3), (30, 5e-4), (50, 1e-4), (100, 1e-5)):
        monkeypatch.setattr(model, "_trainer", type("Run", (), {"current_epoch": epoch})())
        assert model.optimizer_overrides("autoencoder", 0)["lr"] == pytest.approx(rate)
