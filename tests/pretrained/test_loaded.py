"""What `zoo.load` gives says what it is, and trains."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.contract import Data, trainer
from zoo.export.functions import functions_of
from zoo.pretrained import files


@pytest.fixture(scope="module")
def loaded() -> zoo.DCGAN:
    model = zoo.load("dcgan-emoji32")
    assert isinstance(model, zoo.DCGAN)
    return model


@pytest.fixture
def model(loaded: zoo.DCGAN) -> Iterator[zoo.DCGAN]:
    return copy.deepcopy(loaded)  # type: ignore[return-value]


def test_the_generator_has_the_weights_of_its_average() -> None:
    model: Any = zoo.load("stargan-emoji64")
    assert "generator" not in model.available_networks
    for name, value in model.generator_ema.state_dict().items():
        assert torch.equal(model.generator.state_dict()[name], value)


def test_an_absent_network_is_refused_when_it_is_used(model: Any) -> None:
    x = torch.zeros(1, *model.image_shape)
    for network in (model, pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match=r"^the file of this DCGAN does not hold discriminator: it is untrained"):
            network.discriminator(x)


def test_a_fit_trains_all_networks_and_warns_once(model: Any) -> None:
    means = model.generator.state_dict()["layers.0.norm.running_mean"].clone()
    assert not model.generator.training
    batches = [{"image": 2 * torch.rand(4, *model.image_shape) - 1}]
    run = trainer()
    with pytest.warns(UserWarning, match="starts from the loaded weights of DCGAN; untrained: discriminator") as caught:
        run.fit(model, datamodule=Data(batches))
    assert len([w for w in caught if "starts from" in str(w.message)]) == 1
    assert model.generator.training
    assert not torch.equal(model.generator.state_dict()["layers.0.norm.running_mean"], means)
    run = trainer()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*starts from the loaded")
        run.fit(model, datamodule=Data(batches))


def test_noise_can_be_found_by_gradients(model: Any) -> None:
    z = model.latent(2, seed=0).requires_grad_()
    image = model.generate(z)
    assert torch.equal(image.detach(), model.sample(2, seed=0))
    image.square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert not model.generate(z.detach()).requires_grad
    with torch.no_grad():
        assert not model.generate(z).requires_grad


def test_codes_can_be_found_by_gradients() -> None:
    model: Any = zoo.load("vae-mnist28")
    z = torch.zeros(2, model.latent_dim, requires_grad=True)
    model.decode(z).sum().backward()
    assert z.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_samples_in_another_precision(model: Any, dtype: torch.dtype) -> None:
    expected = model.sample(2, seed=0)
    found = model.to(dtype).sample(2, seed=0)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().mean() < 0.02


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_a_header_that_asks_for_too_much_takes_no_memory(kind: str, tmp_path: Path) -> None:
    model = zoo.DCGAN(8, 3, 4, base_channels=4)
    path = tmp_path / f"file.{kind}"
    model.hparams["base_channels"] = 2**17  # 2 TiB
    if kind == "ckpt":
        saved = {
            "hyper_parameters": dict(model.hparams),
            "state_dict": model.state_dict(),
            "zoo": {"class": "zoo.dcgan.DCGAN"},
        }
        torch.save(saved, path)
    else:
        files.save(model, path)
    with pytest.raises(
        ValueError, match=r"is not a checkpoint of this zoo\.dcgan\.DCGAN: \S+ has shape \(4, 4, 4, 4\)"
    ):
        zoo.load(path)


@pytest.mark.parametrize("slug", zoo.list_pretrained())
def test_copies_compute_the_same(slug: str) -> None:
    """Copies by copy, pickle and torch.save; and each network of the file as an ordinary module."""
    model = zoo.load(slug)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    function, *_ = functions_of(model).values()
    inputs = function.draw(2, 0)
    expected = function.call(model, **inputs)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)
    for other in copies:
        assert other.available_networks == model.available_networks
        torch.testing.assert_close(function.call(other, **inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("slug", ["dcgan-emoji32", "progressive_gan-emoji64"])
def test_a_network_trains_in_a_plain_loop(slug: str) -> None:
    model: Any = zoo.load(slug)
    z, state = model.latent(2, seed=0), model.generator.state_dict()
    torch.testing.assert_close(model.generator(z).clamp(-1, 1)[:, :, :1, :1], model.generate(z)[:, :, :1, :1])
    optimizer = torch.optim.SGD(model.generator.parameters(), 0.1)
    before = {name: value.clone() for name, value in state.items()}
    model.generator(z).square().mean().backward()
    optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())
    assert "generator" in dict(model.named_children())
