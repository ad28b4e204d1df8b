from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

import zoo.datamodules
from tests.monitoring.fakes import GAN, Images, trainer
from zoo.callbacks import FrechetDistance, Measure
from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measure import NEEDS
from zoo.callbacks.measures import HIGHER_IS_BETTER, MEASURES
from zoo.callbacks.measuring import MeasuringCallback
from zoo.callbacks.metrics.codes import Matching
from zoo.vae import VAE


def spread(
    model: GAN,
    datamodule: Images,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    matching: Matching = "none",
) -> Result:
    """A value that depends on the weights, in place of a class error."""
    model = model.eval()
    with torch.no_grad():
        value = float(model.sample(num_samples or 8, seed=seed).std())
    model.train()
    return Result(value, f"class_error[matching={matching}, test={datamodule.name}-{split}]", "class_error")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "class_error", spread)
    monkeypatch.setitem(NEEDS, "class_error", Samples)


def test_values_are_logged_with_their_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Measure("class_error", {"matching": "hungarian"}, every_n_steps=6, at_start=True, num_samples=5)
    run = trainer(tmp_path, callbacks=[watch], logger=CSVLogger(tmp_path, name="", version=""))
    run.fit(GAN(), datamodule=Images())
    assert [step for step, _ in watch.history] == [0, 6, 12, 16]  # two optimizers: 16 steps for Lightning
    assert watch.best == min(watch.history, key=lambda entry: entry[1])
    assert watch.protocol == "class_error[matching=hungarian, test=noise8-test]"
    assert run.callback_metrics["class_error"].item() == pytest.approx(watch.history[-1][1])
    assert (tmp_path / "metrics.csv").read_text().count(watch.protocol) == 4
    assert "class_error_protocol" in (tmp_path / "hparams.yaml").read_text()
    assert f"step 16: class_error {watch.history[-1][1]:.4g} {watch.protocol}" in capsys.readouterr().out


def test_several_in_one_run_and_its_resumption(tmp_path: Path) -> None:
    def watches() -> list[Measure]:
        return [Measure("class_error", {"matching": m}, every_n_steps=4) for m in ("none", "hungarian")]

    first = watches()
    assert first[0].state_key != first[1].state_key
    assert Measure("class_error", split="val").state_key != Measure("class_error").state_key
    run = trainer(tmp_path, callbacks=first, max_steps=8, max_epochs=-1)
    run.fit(GAN(), datamodule=Images())
    run.save_checkpoint(tmp_path / "half.ckpt")
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"]  # plain types only
    assert [saved[watch.state_key]["history"] for watch in first] == [watch.history for watch in first]
    again = watches()
    fit = trainer(tmp_path, callbacks=again, max_steps=16, max_epochs=-1)
    fit.fit(GAN(), datamodule=Images(), ckpt_path=tmp_path / "half.ckpt")
    for before, after in zip(first, again, strict=True):
        assert [step for step, _ in after.history] == [4, 8, 12, 16]
        assert after.history[:2] == before.history
        assert after.protocol == before.protocol


def test_the_best_may_be_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    for higher, expected in ((False, (1, 2.0)), (True, (2, 3.0))):
        monkeypatch.setitem(HIGHER_IS_BETTER, "class_error", higher)
        watch = Measure("class_error")
        assert watch.best is None
        watch.history = [(1, 2.0), (2, 3.0)]
        assert watch.best == expected
    assert set(HIGHER_IS_BETTER) == set(MEASURES)


def test_both_callbacks_share_their_schedule() -> None:
    for kind in (Measure, FrechetDistance):
        assert issubclass(kind, MeasuringCallback)
        assert not {"on_train_batch_end", "on_train_end", "_measure", "state_dict"} & set(vars(kind))


# What checkpoints of published runs hold: these strings may not change.
def test_keys_in_checkpoints_stay() -> None:
    assert FrechetDistance().state_key == "FrechetDistance{'extractor': 'efficientnet-lite0'}"
    assert FrechetDistance(inception_weights="x").state_key == "FrechetDistance{'extractor': 'inception'}"
    expected = {"measure": "class_error", "split": "test", "num_samples": None, "seed": 0, "matching": "hungarian"}
    assert Measure("class_error", {"matching": "hungarian"}).state_key == f"Measure{expected}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clas_error",), "there is no measure 'clas_error': did you mean 'class_error'?"),
        (("x",), "there is no measure 'x': take one of auroc, beta_vae_metric, bits_per_dim"),
        (("class_error", {"macthing": "none"}), "class_error has no option 'macthing': it has matching, num_samples"),
        (("nll", {"orderings": 2}), "nll has no option 'orderings': it has num_orderings, num_samples, seed, split"),
        (("class_error", {"matching": "best"}), "matching must be one of none, hungarian, best_example, not 'best'"),
        (("class_error", None, 0), "Measure: every_n_epochs must be at least 1, not 0"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Measure(*arguments)


def test_what_is_missing_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Measure\(class_error\) needs a DataModule with name and reference_batches"):
        trainer(tmp_path, callbacks=[Measure("class_error")]).fit(GAN(), Images().train_dataloader())
    with pytest.raises(TypeError, match="needs reference_batches, which Bare does not have"):
        trainer(tmp_path, callbacks=[Measure("class_error")]).fit(GAN(), datamodule=Bare())
    with pytest.raises(TypeError, match=r"Measure\(knn\) needs encode, which GAN does not have"):
        trainer(tmp_path, callbacks=[Measure("knn")]).fit(GAN(), datamodule=Images())
    with pytest.raises(TypeError, match=r"Measure\(mig\) needs factor_sizes and render, which Images does not have"):
        trainer(tmp_path, callbacks=[Measure("mig")]).fit(VAE(8, 3, 2, hidden_features=(8,)), datamodule=Images())
    assert set(NEEDS) == set(MEASURES)


class Scorer(GAN):
    def score(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))

    def log_prob(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


class Sized(Images):
    data_dir, image_size = None, 8


def test_options_that_do_not_fit_are_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(measure: str, **options: Any) -> None:
        watch = Measure(measure, options)
        watch.evaluate = lambda *_: pytest.fail("measured")  # type: ignore[method-assign]
        trainer(tmp_path, callbacks=[watch]).fit(Scorer(), datamodule=Sized())

    known = ", ".join(zoo.datamodules.__all__)
    assert "ImageFolder, MNIST" in known
    for options, name in (({"other": "MNST"}, "MNST"), ({}, "")):
        with pytest.raises(ValueError, match=f"^auroc: other='{name}' is no DataModule: take one of {known}$"):
            start("auroc", **options)
    with pytest.raises(TypeError, match="nonsense"):
        start("auroc", other="MNIST", other_arguments={"nonsense": 1})
    monkeypatch.setattr("zoo.datamodules.MNIST.prepare_data", missing)
    with pytest.raises(FileNotFoundError, match="no images"):
        start("auroc", other="MNIST")
    with pytest.raises(TypeError, match=r"^nll: Scorer.log_prob takes no num_orderings: leave the option out$"):
        start("nll", num_orderings=2)


def missing(self: Any) -> None:
    raise FileNotFoundError("no images")


class Bare(L.LightningDataModule):
    name = "bare"

    def train_dataloader(self) -> Any:
        return Images().train_dataloader()
