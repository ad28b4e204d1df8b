from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import test_aae
from tests.models.test_aae import WIDTHS
from zoo.base import Batch
from zoo.label_prior_aae import LabelPriorAAE


class TestLabelPriorAAE(test_aae.TestAAE):
    def tiny(self) -> LabelPriorAAE:
        return test_aae.tiny(LabelPriorAAE(8, **WIDTHS))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return super().batch(n, seed=seed, dtype=dtype) | {"label": torch.arange(n) % 4 - 1}


# The paper's claims ---------------------------------------------------------------------------------------------------


def parts(z: Tensor) -> Tensor:
    """Which tenth of the Swiss roll's area codes lie on."""
    return ((z.norm(dim=1) / 3).square() * 10).clamp(max=9.999)


def test_prior_takes_the_part_that_is_asked_for() -> None:
    model = LabelPriorAAE(prior="swiss_roll", hidden_features=(4,))
    label = torch.arange(1000) % 11 - 1
    found = parts(model.prior(1000, 3, part=label))
    known = label >= 0
    assert torch.equal(found[known].floor().long(), label[known])
    assert found[~known].std() > 2


@pytest.mark.parametrize("label", [4, torch.tensor([4, 4, 9])])
def test_samples_of_a_class_come_from_its_part(label: Any) -> None:
    model = LabelPriorAAE(prior="swiss_roll", hidden_features=(4,))
    z = model.latent(3, seed=0, label=label)
    assert torch.equal(parts(z).floor().long(), torch.as_tensor(label).expand(3))
    assert torch.equal(model.sample(3, seed=0, label=label), model.decode(z))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9"):
        model.sample(1, label=10)


def test_the_discriminator_sees_the_label_or_that_there_is_none() -> None:
    model = LabelPriorAAE(8, **WIDTHS)
    codes = {"style": torch.randn(3, 2)}
    seen = model.discriminator_inputs(codes, {"label": torch.tensor([0, 9, -1])}, "code")["style"]
    assert torch.equal(seen[:, :2], codes["style"])
    assert seen[:, 2:].argmax(1).tolist() == [0, 9, 10]
    assert torch.equal(seen[:, 2:].sum(1), torch.ones(3))


def test_the_discriminator_compares_codes_with_their_own_part_of_the_prior() -> None:
    model = LabelPriorAAE(8, prior="swiss_roll", **WIDTHS)
    batch = {"image": torch.zeros(200, 1, 8, 8), "label": torch.full((200,), 7)}
    assert parts(model.priors(batch)["style"]).floor().unique().tolist() == [7]
