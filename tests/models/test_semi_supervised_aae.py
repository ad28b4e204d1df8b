from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.models import test_aae
from tests.models.test_aae import WIDTHS
from zoo.base import Batch
from zoo.semi_supervised_aae import SemiSupervisedAAE


class TestSemiSupervisedAAE(test_aae.TestAAE):
    def tiny(self) -> SemiSupervisedAAE:
        return test_aae.tiny(SemiSupervisedAAE(8, latent_dim=2, num_classes=3, **WIDTHS, **self.options))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        """Labelled images are unevenly spread: of six, ranks have two and one, or two, one and none."""
        label = torch.tensor([0, 2, -1, 1, -1, -1])
        return super().batch(n, seed=seed, dtype=dtype) | {"label": label[:n]}


class TestSemiSupervisedAAEAffine(TestSemiSupervisedAAE):
    """As published."""

    options = {"affine_classes": True, "optimizer": "adam"}  # noqa: RUF012


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_a_fourth_phase_with_a_schedule_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SemiSupervisedAAE(8, hidden_features=(4,))
    assert model.phases == ("reconstruction", "discriminator", "encoder", "classification")
    optimizers = model.configure_optimizers()
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.01, 0.1, 0.1, 0.1]
    assert [o.param_groups[0]["momentum"] for o in optimizers] == [0.9, 0.1, 0.1, 0.9]

    def rates(epoch: int) -> list[float]:
        monkeypatch.setattr(model, "_trainer", type("Run", (), {"current_epoch": epoch, "max_epochs": 5000})())
        return [model.optimizer_overrides(phase, 0)["lr"] for phase in model.phases]

    assert rates(249) == pytest.approx([0.001, 0.01, 0.01, 0.01])
    assert rates(250) == pytest.approx([0.001, 0.01, 0.01, 0.001])
    assert rates(1000) == pytest.approx([0.0001, 0.001, 0.001, 0.001])


def test_with_adam_all_phases_have_its_rates() -> None:
    model = SemiSupervisedAAE.modern(image_size=8, hidden_features=(4,))
    assert [o.param_groups[0]["lr"] for o in model.configure_optimizers()] == [1e-3, 1e-4, 1e-4, 1e-3]


def test_labelled_batch_of_its_own_is_used_where_there_is_one() -> None:
    model = SemiSupervisedAAE(8, num_classes=3, input_noise_std=0.0, hidden_features=(6,), discriminator_features=(4,))
    images, label = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    logits, _ = model.heads((images + 1) / 2)
    expected = F.cross_entropy(logits, label).item()
    labelled = {"image": images, "label": label}
    own = {"image": 2 * torch.rand(7, 1, 8, 8) - 1, "label": torch.full((7,), -1), "labelled": labelled}
    assert model.classification_loss(own, None)["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)
    mixed = {"image": torch.cat([images, torch.rand(3, 1, 8, 8)]), "label": torch.cat([label, torch.full((3,), -1)])}
    assert model.classification_loss(mixed, None)["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)
    none = {"image": images, "label": torch.full((5,), -1)}
    assert model.classification_loss(none, None)["cross_entropy"].item() == 0


def test_with_affine_classes_labeled_images_are_transformed_too() -> None:
    model = TestSemiSupervisedAAEAffine().tiny()
    images, label = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    logits, _ = model.heads(model.affine((images + 1) / 2, "classification"), "classification")
    found = model.classification_loss({"image": images, "label": label}, None)["cross_entropy"].item()
    assert found == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
