from __future__ import annotations

import pytest
import torch

from tests.models import test_aae
from tests.models.test_aae import WIDTHS
from tests.numerics import assert_near
from zoo.supervised_aae import SupervisedAAE


class TestSupervisedAAE(test_aae.TestAAE):
    def tiny(self) -> SupervisedAAE:
        return test_aae.tiny(SupervisedAAE(8, latent_dim=2, num_classes=3, **WIDTHS))


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_decoder_gets_the_label() -> None:
    model = SupervisedAAE(8, num_classes=3, hidden_features=(6,), weight_std=None)
    x = model.sample(4, seed=0, label=1)
    assert_near(model.sample(2, seed=0, first=2, label=1), x[2:])
    assert not torch.allclose(x, model.sample(4, seed=0, label=2))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        model.sample(1, label=3)
    with pytest.raises(ValueError, match="SupervisedAAE has no condition 'category': it has 'label'"):
        model.sample(1, category=1)
    one, two = (model.reconstruct(x, torch.full((4,), k)) for k in (0, 1))
    assert torch.equal(one, model.reconstruct(x))
    assert not torch.allclose(one, two)


def test_the_reconstruction_is_that_with_the_images_own_label() -> None:
    model = SupervisedAAE(8, num_classes=3, hidden_features=(6,), weight_std=None)
    x, label = torch.rand(4, 1, 8, 8) * 2 - 1, torch.tensor([0, 2, 1, 2])
    error = model.reconstruction_loss({"image": x, "label": label}, None)["error"].item()
    again = ((model.reconstruct(x, label) - x) / 2).square().flatten(1).sum(1).mean().item()
    assert error == pytest.approx(again / 784, rel=1e-5)


def test_traversals_vary_the_class_and_each_dimension_of_the_style() -> None:
    model = SupervisedAAE(8, latent_dim=2, num_classes=3, hidden_features=(6,), weight_std=None)
    strips = model.traversals(2, 5, seed=1)
    assert {name: tuple(x.shape[:2]) for name, x in strips.items()} == {"class": (2, 3), "z0": (2, 5), "z1": (2, 5)}
    z = model.latent(2, seed=1)
    z[:, 4] = -3
    assert_near(strips["z1"][:, 0], model.decode(z))
    z = model.latent(2, seed=1)
    z[:, :3] = torch.tensor([0.0, 0.0, 1.0])
    assert_near(strips["class"][:, 2], model.decode(z))
