"""What users of Lightning try first: any loader, any call of the Trainer, settings that a GAN cannot take."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FakeData

import zoo
from tests.contract import Data, share, state_of, trainer
from tests.models import test_dcgan as of_dcgan
from tests.models import test_stargan as of_stargan
from tests.models import test_text2image as of_text2image
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.base.batches import named_fields
from zoo.base.validating import evaluated_terms


def gan(**options: Any) -> zoo.DCGAN:
    return zoo.DCGAN(8, 3, 4, base_channels=4, **options)


def images(n: int = 4, size: int = 8) -> Tensor:
    return 2 * torch.rand(n, 3, size, size) - 1


def one(batch: Any) -> DataLoader[Any]:
    """A loader of one batch."""
    return DataLoader([0], batch_size=None, collate_fn=lambda _: batch)  # type: ignore[arg-type]


# Loaders -------------------------------------------------------------------------------------------------------------

BATCHES: dict[str, Callable[[Tensor], Any]] = {
    "dict": lambda x: {"image": x},
    "other names": lambda x: {"pixel_values": x, "labels": torch.zeros(len(x), dtype=torch.int32)},
    "x and y": lambda x: {"x": x, "y": torch.zeros(len(x))},
    "tuple": lambda x: (x, torch.zeros(len(x), dtype=torch.int64)),
    "list": lambda x: [x, torch.zeros(len(x), dtype=torch.int64)],
    "tensor": lambda x: x,
    "tuple of one": lambda x: (x,),
    "float64": lambda x: x.double(),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_of_any_kind_train_alike(kind: str) -> None:
    ends = []
    for make in (BATCHES["dict"], BATCHES[kind]):
        torch.manual_seed(0)
        model, x = gan(), images()
        trainer().fit(model, DataLoader([x, -x, x / 2], batch_size=None, collate_fn=make))  # type: ignore[arg-type]
        ends.append(state_of(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_images_of_8_bits_are_scaled() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    batch = gan().on_after_batch_transfer((levels,), 0)
    assert torch.equal(batch["image"], levels.float().div(127.5).sub(1))


def test_gray_images_need_no_axis_for_channels() -> None:
    model = zoo.GAN(8, 1, 3, hidden_features=4, discriminator_features=4)
    assert model.on_after_batch_transfer(torch.zeros(5, 8, 8, dtype=torch.uint8), 0)["image"].shape == (5, 1, 8, 8)


def test_attributes_and_sentences_are_found_in_tuples() -> None:
    x = images(2)
    attributes = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert torch.equal(named_fields((x, attributes), ("image", "label"), "StarGAN")["attributes"], attributes)
    assert named_fields((x, ["a", "b"]), ("image", "label"), "Text2Image")["caption"] == ["a", "b"]
    pair = named_fields([x, -x], ("image_a", "image_b"), "CycleGAN")
    assert torch.equal(pair["image_b"], -x)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            torch.rand(4, 3, 8, 8),
            r"image has values from \S+ to \S+, as if they lay in \[0, 1\]; models take",
        ),
        (255 * torch.rand(4, 3, 8, 8), r"image has values from \S+ to 2\d\d\S*; models take \[-1, 1\]: add Normalize"),
        (torch.full((4, 3, 8, 8), torch.nan), r"image has values from nan to nan"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), r"image holds torch.int64: give uint8 in 0\.\.255, or floats"),
        (
            {"picture": torch.zeros(1)},
            r"batches must hold the tensor 'image' \(or 'images', .* for DCGAN; there are 'pic",
        ),
        ((["a"], 3), r"batches must hold the tensor 'image' .*; there are 2 elements without names"),
        ("text", r"batches must be dicts, tuples or tensors, not str: DCGAN takes 'image'"),
        (images(4, 16), r"the data's images are 3x16x16, the model's 3x8x8"),
    ],
)
def test_what_cannot_be_right_is_refused_at_the_first_batch(batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        trainer().fit(gan(), one(batch))
    assert "\n" not in str(caught.value)


def test_a_range_is_looked_at_in_each_loop() -> None:
    with pytest.raises(ValueError, match="as if they lay"):
        trainer().validate(gan(), DataLoader(torch.rand(4, 3, 8, 8), batch_size=4))  # type: ignore[arg-type]


CLASSES = "ConditionalDCGAN takes `label` as whole numbers in 0..2, one for each image"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "batches hold 'image'"),
        (["a", "b", "c", "d"], "batches hold 'image', 'caption'"),
        (torch.zeros(4), r"those of 4 images are float32 of shape \(4,\)"),
        (torch.zeros(4, 1, dtype=torch.int64), "batches hold 'image', 'attributes'"),
        (torch.zeros(3, dtype=torch.int64), r"those of 4 images are int64 of shape \(3,\)"),
        (torch.tensor([0, 1, 2, 3]), "they go from 0 to 3"),
        (torch.tensor([0, -1, 2, 1]), "they go from -1 to 2"),
    ],
)
def test_labels_of_another_kind_are_refused_at_the_first_batch(label: Any, message: str) -> None:
    model = zoo.ConditionalDCGAN(8, 3, num_classes=3, latent_dim=4, base_channels=4)
    good = one((images(), torch.tensor([0, 1, 2, 0])))
    bad = one((images(),) if label is None else (images(), label))
    for run in (lambda: trainer().fit(model, bad), lambda: trainer().validate(model, bad, verbose=False)):
        with pytest.raises(ValueError, match=f"^{CLASSES}; {message}$"):
            run()
    with pytest.raises(ValueError, match=f"^{CLASSES}; {message}$"):  # after batches of the other loader
        trainer(num_sanity_val_steps=1).fit(model, bad, good)
    trainer().fit(gan(), bad)  # an unconditional model does not read them


READERS: dict[str, tuple[Callable[[], Any], int]] = {  # models that read labels, and the least one
    "Classifier": (lambda: zoo.Classifier(8, 3, ("a", "b", "c"), base_channels=4), 0),
    "LabelPriorAAE": (lambda: zoo.LabelPriorAAE(8, 3, hidden_features=[4]), -1),
    "SemiSupervisedAAE": (lambda: zoo.SemiSupervisedAAE(8, 3, 4, 3, hidden_features=[4]), -1),
    "SupervisedAAE": (lambda: zoo.SupervisedAAE(8, 3, 4, 3, hidden_features=[4]), 0),
    "StarGAN": (lambda: zoo.StarGAN(8, 3, [], [["a", "b", "c"]], base_channels=4, discriminator_layers=2), 0),
}


@pytest.mark.parametrize("name", READERS)
def test_every_model_that_reads_labels_says_which(name: str) -> None:
    make, least = READERS[name]
    model = make()
    last = model.label_values({}).stop - 1
    with pytest.raises(
        ValueError, match=rf"^{name} takes `label` as .* in {least}\.\.{last}, .*; they go from 99 to 99$"
    ):
        trainer().fit(model, one((images(), torch.full((4,), 99))))
    if name != "StarGAN":  # which compares names
        with pytest.raises(ValueError, match=f"^the data have 2 classes, the model {last + 1}: set num_classes alike$"):
            model.check_data(SimpleNamespace(class_names={"label": ["a", "b"]}))


def test_pairs_and_single_images_are_not_mistaken() -> None:
    pairs, single = {"image_a": images(), "image_b": images()}, (images(), torch.zeros(4, dtype=torch.int64))
    translator = zoo.CycleGAN(16, 3, 4, 1, discriminator_layers=1)
    with pytest.raises(ValueError, match=r"^batches must hold the tensor 'image_b' .*; there are 2 elements"):
        trainer().fit(translator, one(single))
    with pytest.raises(ValueError, match=r"^batches must hold the tensor 'image' .* DCGAN; there are 'image_a', "):
        trainer().fit(gan(), one(pairs))


# Torchvision ----------------------------------------------------------------------------------------------------------


def test_a_data_set_of_torchvision_in_a_plain_loader() -> None:
    turned = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    loader: DataLoader[Any] = DataLoader(FakeData(8, (3, 8, 8), 3, turned), batch_size=4)
    model = zoo.ConditionalDCGAN(8, 3, num_classes=3, latent_dim=4, base_channels=4)
    run = trainer(max_epochs=2)
    run.fit(model, loader, loader)
    assert {"val/discriminator/loss", "val/generator/loss"} <= run.callback_metrics.keys()
    (tested,) = run.test(model, loader, verbose=False)
    assert tested["test/generator/loss"] == pytest.approx(tested["test/generator/adversarial"])


def test_predictions_are_the_samples_of_the_run_s_seed() -> None:
    model = gan()
    run = trainer()
    loader: DataLoader[Any] = DataLoader(images(7), batch_size=3)  # type: ignore[arg-type]
    found: Any = run.predict(model, loader)
    assert torch.cat([part["index"] for part in found]).tolist() == [*range(7)]
    assert_near(torch.cat([part["image"] for part in found]), model.sample(7, seed=model.seed))


def test_the_model_is_its_main_function() -> None:
    model, z = gan(), torch.randn(2, 4)
    assert torch.equal(model(z), model.generate(z))
    vae = zoo.VAE(8, 3, 2, hidden_features=(4,))
    x = images(2)
    assert torch.equal(vae(x), vae.reconstruct(x))
    nade = zoo.NADE(4, 1, 3)
    assert torch.equal(nade(x[:, :1, :4, :4]), nade.log_prob(x[:, :1, :4, :4]))


# Validation -----------------------------------------------------------------------------------------------------------


def test_monitors_find_values_and_training_is_as_without_validation(tmp_path: Path) -> None:
    ends = []
    for loaders in (1, 2):
        torch.manual_seed(0)
        model = gan(ema_decay=0.9)
        data = [DataLoader(images(8), batch_size=4) for _ in range(2)][:loaders]  # type: ignore[arg-type]
        stop = EarlyStopping("val/generator/loss", patience=10)
        keep = ModelCheckpoint(tmp_path, monitor="val/generator/loss")
        run = trainer(max_epochs=2, enable_checkpointing=loaders == 2, callbacks=[stop, keep] if loaders == 2 else [])
        run.fit(model, *data)
        ends.append(state_of(model))
    assert keep.best_model_path
    assert stop.best_score < 10
    # The second loader's images came from the same generator: only what training sees counts.
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_validation_terms_are_the_objectives_in_evaluation_mode() -> None:
    model = gan().eval()
    batch = {"image": images()}
    model.evaluated = ("val", 0, 0)
    terms = evaluated_terms(model, batch)
    fake = model.forward_shared(batch)
    expected = model.discriminator_loss(batch, fake)
    assert terms["discriminator/real"] == expected["real"].detach()
    assert terms["discriminator/loss"] == sum(term.detach() for term in expected.values())
    model.evaluated = ("val", 0, 1)
    assert evaluated_terms(model, batch)["discriminator/fake"] != terms["discriminator/fake"], (
        "each batch has its noise"
    )


# Settings of the Trainer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 4}, r"DCGAN steps several optimizers itself: give DCGAN\(accumulate=4\)"),
        ({"gradient_clip_val": 1.0}, r"DCGAN steps several optimizers itself: give DCGAN\(gradient_clip=1\.0\)"),
        ({"callbacks": [StochasticWeightAveraging(1e-3)]}, "DCGAN .*, StochasticWeightAveraging .*: set ema_decay"),
        ({"callbacks": [EMAWeightAveraging()]}, "DCGAN .*, EMAWeightAveraging expects one: set ema_decay"),
        ({"callbacks": [GradientAccumulationScheduler({0: 2})]}, "DCGAN .*: set accumulate"),
        ({"callbacks": [LearningRateFinder()]}, "DCGAN .*, LearningRateFinder expects one: choose the rates by hand"),
    ],
)
def test_what_lightning_does_for_one_optimizer_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        trainer(**options).fit(gan(), datamodule=Data([{"image": images()}]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("callback", [StochasticWeightAveraging(1e-3, swa_epoch_start=1), EMAWeightAveraging()])
def test_models_of_one_optimizer_take_all_of_it(callback: Callback) -> None:
    model = zoo.VAE(8, 3, 2, hidden_features=(4,))
    run = trainer(max_epochs=3, accumulate_grad_batches=2, gradient_clip_val=1.0, callbacks=[callback])
    run.fit(model, DataLoader(images(16), batch_size=4))  # type: ignore[arg-type]
    assert run.global_step == 6


class Scheduled(zoo.DCGAN):
    """Returns schedulers, as users of Lightning do."""

    def __init__(self, interval: str, plateau: bool = False) -> None:
        super().__init__(8, 3, 4, base_channels=4, learning_rate=1.0)
        self.interval, self.plateau = interval, plateau

    def configure_optimizers(self) -> Any:
        optimizers = super().configure_optimizers()
        kind: Any = torch.optim.lr_scheduler
        schedulers = [
            kind.ReduceLROnPlateau(o, factor=0.5, patience=0) if self.plateau else kind.ExponentialLR(o, 0.5)
            for o in optimizers
        ]
        return optimizers, [{"scheduler": each, "interval": self.interval} for each in schedulers]

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("interval", "expected"), [("step", 0.5**4), ("epoch", 0.5**2)])
def test_schedulers_are_stepped(interval: str, expected: float) -> None:
    model = Scheduled(interval)
    run = trainer(max_epochs=2)
    run.fit(model, DataLoader(images(8), batch_size=4))  # type: ignore[arg-type]
    for optimizer in run.optimizers:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected * optimizer.defaults["lr"])


def test_a_scheduler_that_waits_for_a_value_is_said_to_stand() -> None:
    run = trainer()
    loader: DataLoader[Any] = DataLoader(images(8), batch_size=4)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="nothing steps ReduceLROnPlateau: call"):
        run.fit(Scheduled("epoch", plateau=True), loader, loader)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "16-true"])
@pytest.mark.parametrize("make", [gan, lambda: zoo.VAE(8, 3, 2, hidden_features=(4,))])
def test_precisions(make: Callable[[], Any], precision: Any) -> None:
    model = make()
    trainer(precision=precision).fit(model, datamodule=Data([{"image": images()}]))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.sample(2, seed=0).dtype == model.dtype


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "dcgan.ckpt"
    run = trainer()
    run.fit(gan(), datamodule=Data([{"image": images()}]))
    run.save_checkpoint(path)
    return path


def test_a_checkpoint_gives_the_model(checkpoint: Path) -> None:
    model = zoo.DCGAN.load_from_checkpoint(checkpoint)
    assert torch.equal(model.sample(2, seed=0), zoo.load(checkpoint).sample(2, seed=0))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (zoo.VAE, {}, r"the checkpoint is of DCGAN, not of VAE: use DCGAN\.load_from_checkpoint"),
        (zoo.WGANGP, {}, r"the checkpoint is of DCGAN, not of WGANGP"),
        (zoo.CycleGAN, {}, r"the checkpoint is of DCGAN, not of CycleGAN"),
        (
            zoo.DCGAN,
            {"base_channels": 8},
            r"the checkpoint does not fit DCGAN with these arguments: its \S+ has shape \(4, 4",
        ),
        (zoo.DCGAN, {"wings": 2}, r"\S+dcgan\.ckpt has hyperparameters that DCGAN does not take: .*'wings'"),
    ],
)
def test_a_checkpoint_that_does_not_fit(checkpoint: Path, kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        kind.load_from_checkpoint(checkpoint, **options)
    assert "\n" not in str(caught.value)


def test_a_fit_from_another_model_s_checkpoint(checkpoint: Path) -> None:
    vae = zoo.VAE(8, 3, 2, hidden_features=(4,))
    with pytest.raises(ValueError, match="the checkpoint is of DCGAN, not of VAE"):
        trainer(max_epochs=2).fit(vae, datamodule=Data([{"image": images()}]), ckpt_path=checkpoint)


# Several ranks -------------------------------------------------------------------------------------------------------


def validated(name: str) -> list[dict[str, float]]:
    """Values of a validation in which ranks have unequal numbers of batches, and indices of the predictions."""
    case = CONTRACTS[name]()
    torch.manual_seed(0)
    model, batch = case.tiny(), case.batch(5)
    rank = int(os.environ["RANK"])
    own = [share(batch, i, 5) for i in range(rank, 5, 2)]
    run = trainer(2)
    loader = DataLoader(own, batch_size=None)  # type: ignore[arg-type,var-annotated]
    (values,) = run.validate(model, loader, verbose=False)
    found: Any = run.predict(model, loader)
    return [dict(values), {str(int(i)): 0.0 for part in found for i in part["index"]}]


CONTRACTS: dict[str, Any] = {
    "StarGAN": of_stargan.TestStarGAN,
    "Text2Image": of_text2image.TestText2Image,
    "DCGAN": of_dcgan.TestDCGAN,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_ranks_validate_unequal_numbers_of_batches(name: str) -> None:
    (first, own), (second, other) = on_ranks(2, validated, name)
    assert first == second
    assert all(math.isfinite(value) for value in first.values())
    assert sorted(own | other) == [str(i) for i in range(5)]
