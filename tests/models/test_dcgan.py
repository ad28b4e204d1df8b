from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.dcgan import DCGAN, Discriminator, Generator
from zoo.engine import rng


class TestDCGAN(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> DCGAN:
        return DCGAN(8, 3, 5, 4, **self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        return {"image": images, "label": torch.arange(n) % 3}


class TestDCGANPaper(TestDCGAN):
    options = {"variant": "theano"}  # noqa: RUF012

    def steps(self, model: Any) -> int:
        return 2


# The paper's and the reference's claims -------------------------------------------------------------------------------


def test_parameter_counts_of_the_reference() -> None:
    model = DCGAN()
    assert sum(p.numel() for p in model.generator.parameters()) == 3_576_704
    assert sum(p.numel() for p in model.discriminator.parameters()) == 2_765_568


@pytest.mark.parametrize("size", [28, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_and_channels(size: int, channels: int) -> None:
    model = DCGAN(size, channels, base_channels=2)
    x = model.sample(2, seed=0)
    assert x.shape == (2, channels, size, size)
    assert model.discriminator(x).shape == (2,)


def test_unsupported_size_is_named() -> None:
    with pytest.raises(ValueError, match="image_size 48 is not supported"):
        DCGAN(48)


def test_maps_halve_in_channels_as_they_double_in_side() -> None:
    sides = []
    generator = Generator(64, 3, 100, 64)
    for layer in generator.layers:
        layer.register_forward_hook(lambda module, inputs, output: sides.append(tuple(output.shape[1:])))
    generator(torch.randn(2, 100))
    assert sides == [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]


def test_no_norm_at_discriminator_input_and_generator_output() -> None:
    model = DCGAN()
    assert not hasattr(model.generator.layers[-1], "norm")
    assert not hasattr(model.discriminator.layers[0], "norm")
    assert all(hasattr(layer, "norm") for layer in model.generator.layers[:-1])
    assert all(hasattr(layer, "norm") for layer in model.discriminator.layers[1:-1])


def test_initialization() -> None:
    model = DCGAN()
    weight = model.generator.layers[1].conv.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-4)
    scale = model.generator.layers[0].norm.weight
    assert scale.mean().item() == pytest.approx(1, abs=0.01)
    assert scale.std().item() == pytest.approx(0.02, rel=0.2)
    assert not model.generator.layers[0].norm.bias.any()


def test_paper_settings() -> None:
    model = DCGAN.paper(base_channels=8)
    assert model.generator.layers[0].conv.weight.shape == (64 * 4 * 4, 100)
    assert isinstance(model.generator.layers[0].norm, torch.nn.BatchNorm1d)
    assert model.generator.layers[1].conv.kernel_size == (5, 5)
    z = model.latent(1000, seed=0)
    assert z.min() >= -1
    assert z.max() < 1
    assert z.std().item() == pytest.approx(3**-0.5, rel=0.02)
    assert [model.should_step(phase, step) for step in (0, 1) for phase in model.phases] == [False, True, True, False]


def test_objective_is_the_binary_cross_entropy_of_the_reference() -> None:
    torch.manual_seed(0)
    model = DCGAN(8, base_channels=4, latent_dim=5)
    batch = {"image": torch.rand(6, 3, 8, 8) * 2 - 1}
    fake = model.forward_shared(batch)
    terms = model.discriminator_loss(batch, fake)
    real_logits, fake_logits = model.discriminator(batch["image"]), model.discriminator(fake)
    ones, zeros = torch.ones(6), torch.zeros(6)
    assert terms["real"].item() == pytest.approx(F.binary_cross_entropy(real_logits.sigmoid(), ones).item(), rel=1e-5)
    assert terms["fake"].item() == pytest.approx(F.binary_cross_entropy(fake_logits.sigmoid(), zeros).item(), rel=1e-5)
    loss = model.generator_loss(batch, fake)["adversarial"]
    assert loss.item() == pytest.approx(F.binary_cross_entropy(fake_logits.sigmoid(), ones).item(), rel=1e-5)


def test_fakes_are_drawn_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, *args: calls.append(1) or forward(self, *args))
    passes = []
    judge = Discriminator.forward
    monkeypatch.setattr(Discriminator, "forward", lambda self, *args: passes.append(1) or judge(self, *args))
    batch = {"image": 2 * torch.rand(4, 3, 8, 8) - 1}
    trainer().fit(DCGAN(8, base_channels=4), datamodule=Data([batch] * 3))
    assert (len(calls), len(passes)) == (3, 9)


def test_accumulation_equals_the_larger_batch() -> None:
    """Two batches of 4 in one step move the weights as one batch of 8 does, where nothing depends on the batch."""

    def run(accumulate: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = DCGAN(8, base_channels=4, accumulate=accumulate).double()
        for layer in [*model.generator.layers, *model.discriminator.layers]:  # batch statistics would differ
            if hasattr(layer, "norm"):
                layer.norm = torch.nn.Identity()
        z = torch.randn(8, 100, dtype=torch.float64)
        draws = iter(list(z.split(8 // accumulate)) * 3)
        model.noise = lambda n, key, first=0: next(draws)  # type: ignore[method-assign]
        images = 2 * torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
        batches = [{"image": part} for part in images.split(8 // accumulate)]
        trainer(precision="64-true").fit(model, datamodule=Data(batches))
        return model.state_dict()

    one, two = run(1), run(2)
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-7), name  # Adam divides rounding noise by itself


def test_ema_follows_the_generator() -> None:
    model = DCGAN(8, base_channels=4, ema_decay=0.9)
    start = model.generator.layers[0].conv.weight.clone()
    trainer().fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 3, 8, 8) - 1}]))
    assert model.generator_ema is not None
    expected = 0.9 * start + 0.1 * model.generator.layers[0].conv.weight
    assert torch.allclose(model.generator_ema.layers[0].conv.weight, expected, atol=1e-7)
    assert model.inference_networks == ("generator_ema",)
    assert torch.equal(model.generator_ema.layers[0].norm.running_mean, model.generator.layers[0].norm.running_mean)


def test_augmentation_changes_what_the_discriminator_sees() -> None:
    batch = {"image": torch.rand(4, 3, 8, 8) * 2 - 1}
    values = []
    for augment in (False, True):
        torch.manual_seed(0)
        model = DCGAN(8, base_channels=4, augment=augment)
        values.append(model.discriminator_loss(batch, model.forward_shared(batch)))
    assert all(values[0][name] != values[1][name] for name in ("real", "fake"))


def test_all_options_together_train() -> None:
    model = DCGAN(8, base_channels=4, ema_decay=0.5, accumulate=2, gradient_clip=0.5, channels_last=True, augment=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer().fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 3, 8, 8) - 1}] * 2))
    assert model.discriminator.layers[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = DCGAN(**model.hparams)
    again.load_state_dict(model.state_dict())
    assert_near(again.sample(2, seed=0), model.sample(2, seed=0))


def test_the_discriminator_may_have_a_width_of_its_own() -> None:
    model = zoo.DCGAN(16, 3, 8, base_channels=4, discriminator_channels=6)
    assert model.discriminator.layers[0].conv.out_channels == 6  # type: ignore[union-attr]
    assert model.generator.layers[-1].conv.in_channels == 4  # type: ignore[union-attr, index]
    assert model.discriminator(model.sample(2, seed=0)).shape == (2,)
