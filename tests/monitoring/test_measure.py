from __future__ import annotations

import inspect
from collections.abc import Iterator
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
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.callbacks.measures import MEASURES, Evaluation, MeasureFunction, measure
from zoo.callbacks.metrics.codes import Matching
from zoo.vae import VAE


@pytest.fixture(autouse=True)
def own_measure() -> Iterator[MeasureFunction]:
    """A measure of one's own: a value that depends on the weights."""

    @measure(needs=Samples, better="lower", num_samples=8)
    def spread(at: Evaluation, *, matching: Matching = "none") -> Result:
        """Deviation of samples."""
        value = at.model.sample(at.num_samples, seed=at.seed).std()
        return at.result(value, matching=matching, test=at.images())

    yield spread
    del MEASURES["spread"]


def test_a_measure_of_ones_own_is_a_function_too(own_measure: MeasureFunction) -> None:
    model, data = GAN(), Images()
    found = own_measure(model, data, split="val", matching="hungarian", seed=3)
    assert found.value == pytest.approx(model.eval().sample(8, seed=3).std().item(), rel=1e-6)
    assert (found.metric, found.protocol) == ("spread", "spread[matching=hungarian, test=noise8-val-8, weights=raw]")
    assert str(inspect.signature(own_measure)).startswith("(model: Any, datamodule: Any, *, split: str = 'test', num_s")
    assert "num_samples: number of images or draws" in str(own_measure.__doc__)
    with pytest.raises(TypeError, match="spread needs sample, which Linear does not have"):
        own_measure(torch.nn.Linear(1, 1), data)
    with pytest.raises(ValueError, match="spread has no option 'macthing': did you mean 'matching'"):
        own_measure(model, data, macthing="none")

    def knn(at: Evaluation) -> Result:
        raise AssertionError

    with pytest.raises(ValueError, match=r"there is a measure 'knn' already, in zoo\.callbacks\.measures\.codes"):
        measure(needs=Samples, better="lower")(knn)


def test_values_are_logged_with_their_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Measure("spread", {"matching": "hungarian"}, every_n_steps=6, at_start=True, num_samples=5)
    run = trainer(tmp_path, callbacks=[watch], logger=CSVLogger(tmp_path, name="", version=""))
    run.fit(GAN(), datamodule=Images())
    assert [step for step, _ in watch.history] == [0, 6, 12, 16]  # two optimizers: 16 steps for Lightning
    assert watch.best == min(watch.history, key=lambda entry: entry[1])
    assert watch.protocol == "spread[matching=hungarian, test=noise8-test-5, weights=raw]"
    assert run.callback_metrics["spread"].item() == pytest.approx(watch.history[-1][1])
    assert (tmp_path / "metrics.csv").read_text().count(watch.protocol) == 4
    assert "spread_protocol" in (tmp_path / "hparams.yaml").read_text()
    assert f"step 16: spread {watch.history[-1][1]:.4g} {watch.protocol}" in capsys.readouterr().out


def test_several_in_one_run_and_its_resumption(tmp_path: Path) -> None:
    def watches() -> list[Measure]:
        return [Measure("spread", {"matching": m}, every_n_steps=4) for m in ("none", "hungarian")]

    first = watches()
    assert first[0].state_key != first[1].state_key
    assert Measure("spread", split="val").state_key != Measure("spread").state_key
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


def test_the_best_may_be_the_largest() -> None:
    for name, expected in (("nll", (1, 2.0)), ("knn", (2, 3.0))):
        watch = Measure(name)
        assert watch.best is None
        watch.histories = {name: [(1, 2.0), (2, 3.0)]}
        assert watch.best == expected


def test_both_callbacks_share_their_schedule() -> None:
    for kind in (Measure, FrechetDistance):
        assert issubclass(kind, MeasuringCallback)
        assert not {"on_train_batch_end", "on_train_end", "measure_now", "state_dict"} & set(vars(kind))


# What checkpoints of published runs hold: these strings may not change.
def test_keys_in_checkpoints_stay() -> None:
    assert FrechetDistance().state_key == "FrechetDistance{'extractor': 'efficientnet-lite0'}"
    assert FrechetDistance(inception_weights="x").state_key == "FrechetDistance{'extractor': 'inception'}"
    sized = FrechetDistance(resolution=4)
    assert sized.state_key == "FrechetDistance{'extractor': 'efficientnet-lite0', 'resolution': '4'}"
    expected = {"measure": "class_error", "split": "test", "num_samples": None, "seed": 0, "matching": "hungarian"}
    assert Measure("class_error", {"matching": "hungarian"}).state_key == f"Measure{expected}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clas_error",), "there is no measure 'clas_error': did you mean 'class_error'?"),
        (("x",), "there is no measure 'x': take one of auroc, beta_vae_metric, bits_per_dim"),
        (("my_own.sharpness",), "the measure my_own.sharpness cannot be imported: No module named 'my_own'"),
        (("tests.bench.own.LSGAN",), "tests.bench.own.LSGAN is no measure: decorate it"),
        (("class_error", {"macthing": "none"}), "class_error has no option 'macthing': did you mean 'matching'?"),
        (("nll", {"orderings": 2}), "nll has no option 'orderings': did you mean 'num_orderings'?"),
        (("class_error", {"matching": "best"}), "matching must be one of none, hungarian, best_example, not 'best'"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Measure(*arguments)


def test_a_schedule_that_is_none() -> None:
    with pytest.raises(ValueError, match="Measure: every_n_epochs must be at least 1, not 0"):
        Measure("class_error", every_n_epochs=0)
    with pytest.raises(TypeError, match="every_n_step"):
        Measure("class_error", every_n_step=1)
    with pytest.raises(ValueError, match="frechet_distance has no option 'num_sample': did you mean 'num_samples'"):
        FrechetDistance(num_sample=3)


def test_what_is_missing_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="spread needs a DataModule with name and reference_batches"):
        trainer(tmp_path, callbacks=[Measure("spread")]).fit(GAN(), Images().train_dataloader())
    with pytest.raises(TypeError, match="needs reference_batches, which Bare does not have"):
        trainer(tmp_path, callbacks=[Measure("spread")]).fit(GAN(), datamodule=Bare())
    with pytest.raises(TypeError, match="knn needs encode, which GAN does not have"):
        trainer(tmp_path, callbacks=[Measure("knn")]).fit(GAN(), datamodule=Images())
    with pytest.raises(TypeError, match="mig needs factor_sizes and render, which Images does not have"):
        trainer(tmp_path, callbacks=[Measure("mig")]).fit(VAE(8, 3, 2, hidden_features=(8,)), datamodule=Images())


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
