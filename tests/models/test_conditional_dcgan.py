from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.contract import ModelContract
from zoo.base import Batch
from zoo.conditional_dcgan import ConditionalDCGAN
from zoo.engine import rng


class TestConditionalDCGAN(ModelContract):
    def tiny(self) -> ConditionalDCGAN:
        return ConditionalDCGAN(8, 3, 5, 4, 3)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        return {"image": images, "label": torch.arange(n) % 3}

    def steps(self, model: Any) -> int:
        return 2


# The reference's claims -----------------------------------------------------------------------------------------------


def test_label_changes_the_image() -> None:
    model = TestConditionalDCGAN().tiny()
    assert not torch.allclose(model.sample(1, seed=0, label=0), model.sample(1, seed=0, label=1))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        model.sample(1, label=3)


def test_the_label_is_appended_to_every_layer() -> None:
    model = ConditionalDCGAN()
    inputs = [
        layer.conv.weight.shape[1 if isinstance(layer.conv, torch.nn.Linear) else 0] for layer in model.generator.layers
    ]
    assert inputs == [110, 1034, 138, 74]
    inputs = [layer.conv.weight.shape[1] for layer in model.discriminator.layers]
    assert inputs == [11, 74, 128 * 7 * 7 + 10, 1034]
    assert model.generator.layers[0].norm.weight is None


def test_the_class_of_a_real_image_matters_to_the_discriminator() -> None:
    model = TestConditionalDCGAN().tiny()
    x = torch.rand(2, 3, 8, 8)
    logits = [model.discriminator(x, torch.tensor(label)) for label in ([0, 1], [1, 2])]
    assert not torch.allclose(*logits)


def test_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        ConditionalDCGAN(num_classes=0)
