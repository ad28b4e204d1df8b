from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from tests.contract import ModelContract
from zoo.base import Batch
from zoo.engine import rng
from zoo.sngan import SNGAN


class TestSNGAN(ModelContract):
    def tiny(self) -> SNGAN:
        return SNGAN(8, 3, 5, 4, n_critic=2)

    # -1 from each real image, +1 from each fake one, as long as all lie within the margin.
    balanced = ("discriminator.7.bias",)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_networks_are_those_of_table_3() -> None:
    model = SNGAN()
    generator = [(type(m).__name__, *m.weight.shape) for m in model.generator if hasattr(m, "kernel_size")]
    assert generator == [
        ("ConvTranspose2d", 512, 256, 4, 4),
        ("ConvTranspose2d", 256, 128, 4, 4),
        ("ConvTranspose2d", 128, 64, 4, 4),
        ("Conv2d", 3, 64, 3, 3),
    ]
    convolutions = [m for m in model.discriminator if isinstance(m, torch.nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions] == [
        (64, 3, 1),
        (64, 4, 2),
        (128, 3, 1),
        (128, 4, 2),
        (256, 3, 1),
        (256, 4, 2),
        (512, 3, 1),
    ]
    assert model.discriminator[-2].in_features == 512 * 4 * 4


def test_largest_singular_values_become_one() -> None:
    torch.manual_seed(0)
    model = SNGAN(8, base_channels=8)
    x = torch.rand(2, 3, 8, 8)
    for _ in range(200):  # one power iteration in each pass
        model.discriminator(x)
    layers: list[Any] = [m for m in model.discriminator if hasattr(m, "weight")]
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)
        assert layer.parametrizations.weight.original.norm() != layer.weight.norm()


def test_discriminator_is_no_steeper_than_one() -> None:
    """Each layer's slope is at most its convolution's norm: the logit changes less than the image, layer for layer."""
    torch.manual_seed(0)
    model = SNGAN(8, base_channels=8).double()
    for _ in range(100):
        model.discriminator(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    linear = model.discriminator[-2].eval()
    x, y = torch.randn(2, 4, linear.in_features, dtype=torch.float64)
    assert ((linear(x) - linear(y)).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-3)).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_stay_normalized(copied: Any) -> None:
    """PyTorch's own refuse to be pickled. In training each pass moves the singular vectors on, of the copy too."""
    model, x = SNGAN(8, base_channels=4), torch.rand(2, 3, 8, 8)
    model.discriminator[0].requires_grad_(False)
    before = torch.get_rng_state()
    other = copied(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in model.parameters()]
    for _ in range(2):
        assert torch.equal(other.discriminator(x), model.discriminator(x))
    for (name, one), two in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    other.discriminator[0].parametrizations.weight.original.data.zero_()
    assert model.discriminator[0].weight.any(), "the copy has weights of its own"


def test_hinge_loss() -> None:
    model = SNGAN(8, base_channels=4)
    logits = iter([torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 3.0])])
    model.discriminator.forward = lambda x: next(logits)  # type: ignore[method-assign]
    image = torch.zeros(2, 3, 8, 8)
    terms = model.discriminator_loss({"image": image}, image)
    assert (terms["real"].item(), terms["fake"].item()) == (0.25, 0.75)
    assert model.generator_loss({"image": image}, image)["adversarial"].item() == -2.0
