from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.contract import Data, ModelContract, trainer
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.autoencoders import SameConv2d
from zoo.nn.losses import inverse_multiquadratic, mmd
from zoo.nn.schedules import Decay
from zoo.pretrained.cards import default_arguments
from zoo.pretrained.migrations import current_arguments
from zoo.wae import DECAY, WAE, moment_distance


def widened(model: WAE) -> WAE:
    """Weights fifty times as large: those of the authors leave so small a network all but constant."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "conv" not in name:
            parameter.data *= 50
    return model


class TestWAE(ModelContract):
    kind: type[WAE] = WAE
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> WAE:
        return widened(self.kind(8, 1, 3, base_channels=2, pretraining_steps=0, **self.options))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The paper's and the reference's claims -------------------------------------------------------------------------------


def test_parameter_counts_of_the_reference() -> None:
    """Without the biases in front of batch normalizations, which cancel."""
    model = WAE(64, 3, 64)
    assert sum(p.numel() for p in model.encoder.parameters()) == 18_267_200 - 128 - 256 - 512 - 1024
    assert sum(p.numel() for p in model.decoder.parameters()) == 21_475_331 - 512 - 256 - 128


@pytest.mark.parametrize("size", [28, 32, 64])
def test_sizes(size: int) -> None:
    model = WAE(size, 3, base_channels=2)
    x = model.sample(2, seed=0)
    assert x.shape == (2, 3, size, size)
    assert model.encode(x).shape == (2, 8)


@pytest.mark.parametrize(("size", "kernel", "pads"), [(64, 5, (1, 2)), (7, 4, (1, 2)), (28, 4, (1, 1))])
def test_padding_is_that_of_tensorflow(size: int, kernel: int, pads: tuple[int, int]) -> None:
    conv = SameConv2d(1, 1, kernel, stride=2, bias=False)
    x = torch.randn(2, 1, size, size)
    padded = torch.nn.functional.pad(x, (*pads, *pads))
    expected = torch.nn.functional.conv2d(padded, conv.weight, stride=2)
    assert expected.size(-1) == -(-size // 2)
    assert torch.allclose(conv(x), expected, atol=1e-6)


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
    assert abs(values.mean().item()) < 4 * values.std().item() / 400**0.5
    assert values.min() < 0 < values.max()
    shifted = torch.stack([mmd(p, q + 0.5, kernel) for p, q in draws])
    assert shifted.mean() > values.mean() + 10 * values.std() / 400**0.5


def test_kernel_follows_the_variance_of_the_prior() -> None:
    model = WAE(8, base_channels=2, prior_std=3.0)
    z = model.prior(4000, 5)
    assert z.std().item() == pytest.approx(3, rel=0.02)
    other = WAE(8, base_channels=2)
    a, b = rng.normal((2, 50, 8), 1)
    assert model.penalty(3 * a, 3 * b).item() == pytest.approx(other.penalty(a, b).item(), abs=1e-5)


def test_weights_of_the_terms() -> None:
    model = WAE(8, base_channels=2, pretraining_steps=0).eval()
    x = torch.rand(6, 1, 8, 8) * 2 - 1
    terms = model.autoencoder_loss({"image": x}, None)
    assert terms["reconstruction"].item() == pytest.approx(0.05 * model.score(x).mean().item(), rel=1e-5)
    prior = model.prior(6, model.draw_key("prior"))
    assert terms["penalty"].item() == pytest.approx(10 * model.penalty(model.encode(x), prior).item(), rel=1e-4)


def test_noise_of_the_input_is_keyed_and_of_training_alone() -> None:
    model = WAE(8, base_channels=2, input_noise_std=0.3).eval()
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.rand(500, 1, 8, 8)
    for purpose in ("encoder", "encoder", "discriminator"):
        model.code(x, purpose)
    model.encode(2 * x - 1)
    assert (seen[0] - x).std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.allclose(seen[3], x, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_encoder_is_pretrained_on_moments_alone(accumulate: int) -> None:
    torch.manual_seed(0)
    model = widened(WAE(8, 1, 3, base_channels=4, pretraining_steps=40, learning_rate=1e-2, accumulate=accumulate))
    decoder = [p.clone() for p in model.decoder.parameters()]
    images = (torch.randn(64, 4) @ torch.rand(4, 64)).view(64, 1, 8, 8).tanh()

    def distance() -> float:
        return moment_distance(model.encode(images), model.prior(64, 0)).item()

    trainer(max_steps=1, max_epochs=-1).fit(model, datamodule=Data([{"image": images}] * 10))
    before = distance()
    trainer(max_steps=40, max_epochs=-1).fit(model, datamodule=Data([{"image": images}] * 10))
    assert distance() < 0.6 * before
    assert all(torch.equal(a, b) for a, b in zip(decoder, model.decoder.parameters(), strict=True))
    assert set(model.autoencoder_loss({"image": images}, None)) == {"moments"}
    model.batch_index = 40 * accumulate
    assert set(model.autoencoder_loss({"image": images}, None)) == {"reconstruction", "penalty"}


def test_average_of_both_networks_serves_inference() -> None:
    case = TestWAE()
    model = widened(WAE(8, 1, 3, base_channels=2, pretraining_steps=0, ema_decay=0.5))
    trainer().fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(3)]))
    assert model.inference_networks == ("encoder_ema", "decoder_ema")
    x = case.batch(2)["image"]
    with torch.no_grad():
        assert torch.equal(model.encode(x), model.averaged("encoder")((x + 1) / 2))
    before = model.reconstruct(x)
    torch.nn.init.zeros_(model.decoder.linear[0].weight)
    assert torch.equal(model.reconstruct(x), before)


def test_step_size_falls_to_a_hundredth_over_the_run() -> None:
    model = WAE(8, base_channels=2, decay=Decay("exponential", final=0.01), pretraining_steps=0)
    rates = []

    class Watch(WAE):
        def on_phase_stepped(self, phase: str) -> None:
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    model.__class__ = Watch
    trainer(max_epochs=2).fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 1, 8, 8) - 1}] * 4))
    assert rates == pytest.approx([1e-3 * 0.01 ** (k / 8) for k in range(8)])


def test_step_sizes_of_the_reference() -> None:
    assert [DECAY(epoch) for epoch in (0, 29, 30, 49, 50, 99, 100)] == [1, 1, 0.5, 0.5, 0.1, 0.1, 0.01]


def test_earlier_arguments() -> None:
    earlier = {
        "base_channels": 2,
        "penalty": "mmd",
        "kernel": "imq",
        "networks": "conv",
        "hidden_features": [512, 512, 512],
        "discriminator_features": [512],
        "density_trick": False,
        "input_noise": 0.5,
        "discriminator_learning_rate": 5e-4,
        "schedule": "steps",
        "betas": (0.5, 0.999),
        "weight_std": 0.01,
    }
    path, arguments = current_arguments("zoo.wae.WAE", earlier)
    assert (path, arguments) == (
        "zoo.wae.WAE",
        {"base_channels": 2, "input_noise_std": 0.5, "decay": DECAY.fields()},
    )
    assert WAE(8, **arguments).decay == DECAY
    smooth = current_arguments(path, earlier | {"schedule": "smooth"})[1]["decay"]
    assert Decay.of(smooth) == Decay("exponential", final=0.01)
    assert current_arguments(path, earlier | {"schedule": "constant"})[1]["decay"] is None
    path, arguments = current_arguments("zoo.WAE", earlier | {"penalty": "gan"})
    assert path == "zoo.wae_gan.WAEGAN"
    assert arguments["discriminator_features"] == [512]
    path, arguments = current_arguments("zoo.WAE", earlier | {"posterior": "gaussian"})
    assert path == "zoo.gaussian_wae.GaussianWAE"
    assert arguments == {"base_channels": 2, "input_noise_std": 0.5, "decay": DECAY.fields()}
    for key, value in (("networks", "mlp"), ("kernel", "rbf")):
        with pytest.raises(ValueError, match=f"no longer has {key}={value!r}"):
            current_arguments("zoo.wae.WAE", earlier | {key: value})
    with pytest.raises(ValueError, match="no longer has posterior='gaussian'"):
        current_arguments("zoo.wae.WAE", earlier | {"penalty": "gan", "posterior": "gaussian"})


def test_a_schedule_among_the_defaults_is_plain() -> None:
    assert default_arguments("zoo.wae.WAE")["decay"] == DECAY.fields()
