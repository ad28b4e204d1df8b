from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from zoo.base import Batch, GenerativeModel
from zoo.classifier import Classifier
from zoo.engine import rng
from zoo.nn.schedules import Decay
from zoo.pretrained.migrations import current_arguments


class TestClassifier(ModelContract):
    samples = False

    def tiny(self) -> Classifier:
        return Classifier(8, class_names=("red", "blue", "both"), base_channels=4, decay=Decay("linear", length=50))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        return {"image": images, "label": torch.arange(n) % 3}

    def pictures(self, model: Any) -> Tensor:
        """What it says of images: it makes none."""
        probabilities: Tensor = model.classify(self.batch(2)["image"])
        return probabilities

    def test_inference_restores_modes_randomness_and_gradients(self, model: GenerativeModel) -> None:
        model.train()
        before = model.state_dict()["network.1.running_mean"].clone()
        self.pictures(model)
        assert all(module.training for module in model.modules())
        assert torch.equal(model.state_dict()["network.1.running_mean"], before)


class TestClassifierResidual(TestClassifier):
    """At the image's full size first, with residual blocks, on moved images with smoothed labels."""

    def tiny(self) -> Classifier:
        options: dict[str, Any] = {"residual": True, "max_shift": 1, "label_smoothing": 0.1}
        decay = Decay("linear", warmup=3, length=50)
        return Classifier(8, class_names=("red", "blue", "both"), base_channels=4, decay=decay, **options)


def test_it_learns_colors_and_logs_its_accuracy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    label = torch.arange(16) % 2
    image = torch.rand(16, 3, 8, 8) * 0.2 - 1
    image[torch.arange(16), 2 * label] += 1.5
    model = Classifier(8, class_names=("red", "blue"), base_channels=4)
    batch = {"image": image, "label": label}

    class Both(Data):
        def val_dataloader(self) -> Any:
            return self.train_dataloader()

    run = trainer(max_epochs=5)
    run.fit(model, datamodule=Both([batch] * 8))
    assert run.callback_metrics["val/accuracy"] == 1
    assert model.classify(image).argmax(1).equal(label)
    assert torch.allclose(model.classify(image).sum(1), torch.ones(16))


def test_step_size_falls_to_zero() -> None:
    case = TestClassifier()
    model = case.tiny()
    trainer(max_steps=21, max_epochs=-1).fit(model, datamodule=Data([case.batch(4)] * 5))
    assert model.optimizers().param_groups[0]["lr"] == pytest.approx(1e-3 * (1 - 20 / 50))


def test_step_size_rises_first() -> None:
    case = TestClassifierResidual()
    model = case.tiny()
    trainer(max_steps=2, max_epochs=-1).fit(model, datamodule=Data([case.batch(4)] * 5))
    assert model.optimizers().param_groups[0]["lr"] == pytest.approx(1e-3 * 2 / 3 * 49 / 50)


def test_labels_are_smoothed() -> None:
    case = TestClassifierResidual()
    model, batch = case.tiny(), case.batch(6)
    model.hparams["max_shift"] = 0
    logits = model.network(batch["image"])
    plain = F.cross_entropy(logits, batch["label"])
    even = -logits.log_softmax(1).mean()
    assert model.objective(batch)["cross_entropy"].item() == pytest.approx((0.9 * plain + 0.1 * even).item(), rel=1e-5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="image_size 7 must be at least 8"):
        Classifier(7)
    with pytest.raises(ValueError, match="at least two classes"):
        Classifier(class_names=["one"])


@pytest.mark.parametrize(
    ("earlier", "decay"),
    [
        ({"warmup_steps": 200, "decay_steps": 3000}, Decay("linear", length=3000, warmup=200)),
        ({"decay_steps": 2000}, Decay("linear", length=2000)),
        ({"warmup_steps": 5, "decay_steps": 0}, Decay("milestones", warmup=5)),
        ({"warmup_steps": 0, "decay_steps": 0}, None),
    ],
)
def test_earlier_arguments(earlier: dict[str, int], decay: Decay | None) -> None:
    path, arguments = current_arguments("zoo.classifier.Classifier", earlier | {"shift": 4})
    assert path == "zoo.classifier.Classifier"
    assert set(arguments) == {"max_shift", "decay"}
    model = Classifier(8, base_channels=4, **arguments)
    assert (model.decay, model.hparams["max_shift"]) == (decay, 4)
    rises, falls = earlier.get("warmup_steps", 0), earlier["decay_steps"]
    for step in (0, 1, 4, 100, 1999, 4000):
        share = min(1.0, (step + 1) / rises) if rises else 1.0
        share *= max(0.0, 1 - step / falls) if falls else 1.0
        assert (decay.rate(0.1, step) if decay else 0.1) == 0.1 * share
