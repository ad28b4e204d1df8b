from __future__ import annotations

import pytest
import torch

from tests.contract import Data, ModelContract, trainer
from zoo.autoencoder import Autoencoder
from zoo.base import Batch
from zoo.engine import rng
from zoo.pretrained.migrations import current_arguments


class TestAutoencoder(ModelContract):
    samples = False

    def tiny(self) -> Autoencoder:
        return Autoencoder(8, 1, 3, hidden_features=(12, 6))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


def test_network_of_the_paper() -> None:
    model = Autoencoder()
    widths = [layer.out_features for layer in model.encoder.net if isinstance(layer, torch.nn.Linear)]
    assert widths == [1000, 500, 250, 30]
    widths = [layer.out_features for layer in model.decoder.net if isinstance(layer, torch.nn.Linear)]
    assert widths == [250, 500, 1000, 784]


def test_objective_is_the_squared_error_of_the_reconstruction() -> None:
    model = Autoencoder(8, hidden_features=(12,))
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    error = ((x - model.reconstruct(x)) / 2).square().sum((1, 2, 3))
    assert model.objective({"image": x})["reconstruction"].item() == pytest.approx(error.mean().item(), rel=1e-5)
    assert torch.allclose(model.score(x), error)


def test_linear_autoencoder_finds_the_principal_subspace() -> None:
    """Data on a plane come back through two dimensions, and not through one."""
    torch.manual_seed(0)
    plane = torch.randn(64, 2) @ torch.randn(2, 64) / 4
    image = torch.tanh(plane).view(64, 1, 8, 8)

    def error(latent_dim: int) -> float:
        torch.manual_seed(1)
        model = Autoencoder(8, 1, latent_dim, hidden_features=(), learning_rate=0.02)
        trainer(max_steps=300, max_epochs=-1).fit(model, datamodule=Data([{"image": image}] * 10))
        return model.score(image).mean().item()

    assert error(2) < 0.2 * error(1)


def test_perturbation_grows_with_its_scale_and_is_keyed() -> None:
    model = Autoencoder(8, hidden_features=(12,))
    x = torch.rand(6, 1, 8, 8) * 2 - 1
    assert torch.allclose(model.perturb(x, 0.0, seed=0), model.reconstruct(x))
    small, large = (model.perturb(x, scale, seed=0) - model.reconstruct(x) for scale in (0.1, 1.0))
    assert 0 < small.norm() < large.norm()
    assert torch.equal(model.perturb(x, 1.0, seed=3), model.perturb(x, 1.0, seed=3))


def test_it_does_not_sample() -> None:
    with pytest.raises(NotImplementedError, match="Autoencoder cannot sample"):
        Autoencoder(8, hidden_features=(4,)).sample(1)


def test_earlier_arguments() -> None:
    earlier = {"hidden_features": [4], "networks": "mlp", "base_channels": 32, "input_noise": 0.0}
    assert current_arguments("zoo.Autoencoder", earlier) == ("zoo.Autoencoder", {"hidden_features": [4]})
    for key, value in (("networks", "conv"), ("input_noise", 0.1)):
        with pytest.raises(ValueError, match=f"no longer has {key}={value!r}"):
            current_arguments("zoo.autoencoder.Autoencoder", earlier | {key: value})
