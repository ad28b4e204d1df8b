from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.gan import DECAY, DROPOUT, GAN, Maxout
from zoo.nn.losses import generator_term
from zoo.nn.schedules import Decay
from zoo.pretrained.migrations import current_arguments


class TestGAN(ModelContract):
    def tiny(self) -> GAN:
        model = GAN(8, 1, 5, hidden_features=16, discriminator_features=6, maxout_pieces=2)
        for p in model.parameters():
            p.data *= 10  # else so small a generator makes images that differ by less than the tests see
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The theory of section 4 ----------------------------------------------------------------------------------------------


def optimal_discriminator(p_data: Tensor, p_generator: Tensor) -> Tensor:
    """Proposition 1: D*(x) = p_data(x) / (p_data(x) + p_g(x)), the best answer to a fixed generator."""
    total = p_data + p_generator
    return torch.where(total > 0, p_data / total, 0.5)  # where neither has mass, any answer is as good


def value_at_optimum(p_data: Tensor, p_generator: Tensor, volume: float = 1.0) -> Tensor:
    """Theorem 1: V(D*, G) = -log 4 + 2 JSD(p_data || p_g), of probabilities or of densities in cells of a volume."""
    d = optimal_discriminator(p_data, p_generator)
    value: Tensor = (torch.xlogy(p_data, d) + torch.xlogy(p_generator, 1 - d)) * volume
    return value.sum()


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


def test_noise_is_uniform_with_unit_variance() -> None:
    z = GAN(8, hidden_features=4, discriminator_features=2).latent(4000, seed=0)
    assert z.var().item() == pytest.approx(1, rel=0.02)
    assert z.abs().max().item() == pytest.approx(math.sqrt(3), rel=1e-3)


def test_minimax_gives_the_generator_no_gradient_where_the_discriminator_is_sure() -> None:
    """Section 3: early in learning log(1 - D(G(z))) saturates, -log D(G(z)) does not."""
    norms = {}
    for loss in ("minimax", "non_saturating"):
        torch.manual_seed(0)
        model = GAN(8, hidden_features=8, discriminator_features=4, loss=loss)
        torch.nn.init.constant_(model.discriminator.net[-1].bias, -20.0)
        batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
        (term,) = model.generator_loss(batch, model.forward_shared(batch)).values()
        gradients = torch.autograd.grad(term, [*model.generator.parameters()])
        norms[loss] = float(sum(g.square().sum() for g in gradients)) ** 0.5
    assert norms["minimax"] < 1e-7 * norms["non_saturating"]


def test_dropout_is_keyed_and_of_each_sets_own() -> None:
    model = GAN(8, hidden_features=8, discriminator_features=4, maxout_pieces=2)
    batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
    shared, again = model.forward_shared(batch), model.forward_shared(batch)
    assert all(torch.equal(a, b) for a, b in zip(shared, again, strict=True))
    mask = model._dropout(1, 4, 1000)
    assert not torch.equal(*mask.chunk(2))
    model.batch_index = 1
    assert not torch.equal(mask, model._dropout(1, 4, 1000))
    for layer, rate in enumerate((*DROPOUT, DROPOUT[1])):
        assert model._dropout(layer, 100, 1000).float().mean().item() == pytest.approx(1 - rate, abs=0.003)


def test_dropout_scales_what_it_keeps() -> None:
    model = GAN(8, hidden_features=8, discriminator_features=4, maxout_pieces=2)
    x = torch.rand(3, 1, 8, 8)
    everything = [torch.ones(3, width, dtype=torch.bool) for width in (64, 4, 4)]
    first = model.discriminator.net[0]
    seen: list[Tensor] = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.discriminator(x, everything)
    assert torch.allclose(seen[0], x.flatten(1) / 0.8)
    model.discriminator(x)
    assert torch.equal(seen[1], x.flatten(1))


def test_discriminator_loss_at_equilibrium_is_log_2() -> None:
    model = GAN(8, hidden_features=8, discriminator_features=4)
    torch.nn.init.zeros_(model.discriminator.net[-1].weight)
    batch = {"image": 2 * torch.rand(4, 1, 8, 8) - 1}
    terms = model.discriminator_loss(batch, model.forward_shared(batch))
    assert sum(terms.values()).item() == pytest.approx(math.log(2))


def test_schedule_of_the_step_size() -> None:
    model = GAN(8, hidden_features=8, discriminator_features=4, decay=Decay("repeated", divisor=2.0))
    rates = []

    class Watch(GAN):
        def on_phase_stepped(self, phase: str) -> None:
            if phase == "generator":
                rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    model.__class__ = Watch
    trainer(max_epochs=3).fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 1, 8, 8) - 1}] * 2))
    assert rates == pytest.approx([0.1 / 2**k for k in range(6)])


def test_momentum_rises_over_250_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GAN(8, hidden_features=8, discriminator_features=4)
    for epoch, momentum in ((0, 0.5), (124.5, 0.6), (249, 0.7), (1000, 0.7)):
        monkeypatch.setattr(model, "_trainer", SimpleNamespace(current_epoch=epoch, estimated_stepping_batches=9))
        options = model.optimizer_overrides("generator", 1000)
        assert options["momentum"] == pytest.approx(momentum)
        assert options["lr"] == pytest.approx(0.1 / 1.000004**1000)


def test_earlier_arguments() -> None:
    earlier = {
        "units": 6,
        "pieces": 3,
        "activation": "maxout",
        "dropout": (0.2, 0.5),
        "optimizer": "sgd",
        "decay": 1.000004,
        "betas": [0.5, 0.999],
        "data_bias": True,
    }
    path, arguments = current_arguments("zoo.gan.GAN", earlier)
    assert arguments == {"discriminator_features": 6, "maxout_pieces": 3, "decay": DECAY.fields()}
    assert GAN(8, hidden_features=4, **arguments).decay == DECAY
    assert current_arguments(path, {"decay": 1.0}) == (path, {"decay": None})
    assert current_arguments(path, {"decay": DECAY.fields()}) == (path, {"decay": DECAY.fields()})
    for key, value in (("activation", "leaky_relu"), ("update", "alternating"), ("optimizer", "adam")):
        with pytest.raises(ValueError, match=f"no longer has {key}={value!r}"):
            current_arguments(path, earlier | {key: value})


class WithReference(Data):
    num_train = 6

    def reference_batches(self, num: int, chunk: int, *, split: str = "train") -> Any:
        yield 0, {"image": torch.stack([torch.full((1, 8, 8), v) for v in (-0.5, 0.0, 0.2)])}


def test_output_of_an_untrained_generator_starts_at_the_mean_image() -> None:
    data = WithReference([{"image": 2 * torch.rand(4, 1, 8, 8) - 1}])
    model = GAN(8, hidden_features=8, discriminator_features=4, learning_rate=0.0, ema_decay=0.5)
    trainer().fit(model, datamodule=data)
    expected = torch.full((64,), (-0.1 + 1) / 2).logit()
    for network in (model.generator, model.generator_ema):
        assert torch.allclose(network.net[-1].bias, expected, atol=1e-3)
    # Weights of an earlier run stay.
    torch.nn.init.ones_(model.generator.net[-1].bias)
    trainer().fit(model, datamodule=data)
    assert torch.equal(model.generator.net[-1].bias, torch.ones(64))
