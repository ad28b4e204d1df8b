from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.monitoring.fakes import GAN, Features, Images, trainer
from tests.ranks import on_ranks
from zoo.callbacks import Evaluate
from zoo.callbacks.base import Result
from zoo.callbacks.measures import IMAGE_METRICS, frechet_distance, image_metrics
from zoo.callbacks.measures.image_metrics import USUAL
from zoo.callbacks.metrics import gaussian_distance

pytestmark = pytest.mark.filterwarnings("ignore:.*covariance is singular")


class Classes(Features):
    """Features with five classes."""

    name = "random-6-classes"

    def logits(self, features: Tensor) -> Tensor:
        return 3 * features[:, :5]


class Pixels(nn.Module):
    """A few pixels as they are."""

    name = "pixels-12"

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :2, :2].flatten(1)


class Likeness(Features):
    """Features called those of Inception."""

    name = "inception-2015-12-05"
    is_inception = True


class Copies(nn.Module):
    """Shows given images in turn."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        real = batch["image"]
        return real, self.image[torch.arange(first, first + len(real)) % len(self.image)]


def measure(model: Any = None, data: Any = None, folder: Path | None = None, **options: Any) -> dict[str, Result]:
    given: dict[str, Any] = {"extractor": Classes(), "num_samples": 60, "chunk_size": 16, "progress": False}
    options = given | {"cache_dir": folder or "/nonexistent"} | options
    return {result.metric: result for result in image_metrics(model or GAN(), data or Images(), **options)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path


def test_all_metrics_come_from_one_pass(cache: Path) -> None:
    network = Classes()
    found = measure(folder=cache, metrics=[*IMAGE_METRICS][:1] + [*IMAGE_METRICS][2:], extractor=network)
    assert [*found] == ["fd", "kd", "cs", "precision", "recall", "density", "coverage", "authenticity"]
    assert len(network.shapes) == 8  # four chunks of each side, once
    assert (
        found["fd"].value
        == frechet_distance(
            GAN(), Images(), num_samples=60, chunk_size=16, extractor=Classes(), cache_dir=cache, progress=False
        ).value
    )
    assert found["kd"].protocol == (
        "kd[features=random-6-classes, resize=none, pixels=8bit, real=noise8-train-60, fake=60, weights=raw, "
        "subsets=100, subset_size=60]"
    )
    errors = {name: result.error for name, result in found.items()}
    assert {name for name, error in errors.items() if error is None} == {"fd", "density"}
    p = found["precision"].value
    assert errors["precision"] == pytest.approx((p * (1 - p) / 60) ** 0.5)


def test_real_features_are_made_once(cache: Path) -> None:
    first, second = Features(), Features()
    values = [measure(folder=cache, metrics=USUAL, extractor=extractor) for extractor in (first, second)]
    assert [r.value for r in values[0].values()] == [r.value for r in values[1].values()]
    assert (len(first.shapes), len(second.shapes)) == (8, 4)


def test_the_counts_of_both_sides_are_apart(cache: Path) -> None:
    """More generated images than real ones, whose batches come again, and fewer."""
    network = Features()
    found = measure(data=Images(24), folder=cache, metrics=["fd"], extractor=network)["fd"]
    assert "real=noise8-train-24, fake=60" in found.protocol
    fake = network(((GAN().eval().sample(60, seed=0) + 1) * 127.5).round() / 127.5 - 1).double()
    real = network(((Images(24).image + 1) * 127.5).round() / 127.5 - 1).double()
    expected = gaussian_distance(real.mean(0), torch.cov(real.T), fake.mean(0), torch.cov(fake.T))
    assert found.value == pytest.approx(expected.item(), rel=1e-5)

    class Counting(GAN):
        drawn = 0

        def sample(self, n: int, **options: Any) -> Tensor:
            self.drawn += n
            return super().sample(n, **options)

        def real_images(self, batch: Any) -> Tensor:
            return batch["image"]

    model = Counting()
    found = measure(model, Images(103), folder=cache, metrics=["fd"], num_samples=20, num_real=103)["fd"]
    assert "real=noise8-train-103, fake=20" in found.protocol
    assert model.drawn == 32  # none for the chunks that need real images alone


def test_statistics_take_the_place_of_real_images(cache: Path) -> None:
    network = Features()
    real = network(((Images().image[:60] + 1) * 127.5).round() / 127.5 - 1).double()
    np.savez(cache / "real.npz", mu=real.mean(0), sigma=torch.cov(real.T))
    found = measure(metrics=["fd"], statistics=cache / "real.npz", extractor=network)["fd"]
    assert found.value == pytest.approx(measure(folder=cache, metrics=["fd"], extractor=network)["fd"].value, rel=1e-5)
    assert "real=real.npz" in found.protocol


def test_what_the_metrics_tell(cache: Path) -> None:
    """Copies of training images, one image over and over, and noise."""
    generator = torch.Generator().manual_seed(5)
    images = Images(200)
    options: dict[str, Any] = {"num_samples": 200, "folder": cache, "extractor": Pixels()}
    copies = measure(Copies(images.image), images, **options)
    assert (copies["authenticity"].value, copies["precision"].value, copies["recall"].value) == (0, 1, 1)
    one = measure(Copies(images.image[:1]), images, **options)
    assert one["recall"].value < 0.05 < 0.95 < one["precision"].value
    far = Copies(torch.full((1, 3, 8, 8), -1.0) + 0.1 * torch.rand(200, 3, 8, 8, generator=generator))
    assert measure(far, images, **options)["precision"].value < 0.05


def test_inception_gives_the_names_of_the_field(cache: Path) -> None:
    found = measure(folder=cache, metrics=["fid", "kid", "precision"], extractor=Likeness())
    assert [*found] == ["fid", "kid", "precision"]
    found = measure(folder=cache, metrics=["fd"], extractor=Likeness())
    assert [*found] == ["fid"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["fdi"]}, ValueError, "there is no metric 'fdi': did you mean 'fd'"),
        ({"metrics": []}, ValueError, "metrics is empty: take of fd, "),
        (
            {"metrics": ["fid"]},
            ValueError,
            "'fid' is the name of 'fd' with Inception's features: with random-6-classes",
        ),
        ({"metrics": ["cs"], "extractor": Features()}, ValueError, "cs needs an extractor with classes, random-6 has"),
        ({"num_samples": 5}, ValueError, "precision needs 6 images on each side, num_samples is 5"),
        ({"num_real": 3, "metrics": ["recall"]}, ValueError, "recall needs 6 images on each side, num_real is 3"),
        ({"data": Images(3), "metrics": ["recall"]}, ValueError, "recall needs 6 real images, there are 3"),
        ({"metrics": ["fd"], "statistics": "/nowhere.npz"}, FileNotFoundError, "there is no file /nowhere.npz"),
        ({"statistics": "/nowhere.npz"}, ValueError, "kd needs real images; statistics .* are enough for fd alone"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure(**options)


def test_models_without_images_are_refused() -> None:
    model = GAN()
    model.makes_images = False  # type: ignore[assignment]
    with pytest.raises(TypeError, match="GAN makes no images that fd could compare"):
        measure(model)


def test_the_callback_logs_all_values_and_a_resumed_run_has_them(tmp_path: Path) -> None:
    def run(steps: int, resume: bool = False) -> Evaluate:
        options = {"chunk_size": 16, "cache_dir": tmp_path / "cache"}
        watch = Evaluate(["recall", "fd"], extractor=Features(), num_samples=30, options=options, every_n_steps=4)
        fit = trainer(tmp_path, callbacks=[watch], max_steps=steps, max_epochs=-1)
        fit.fit(GAN(), datamodule=Images(), ckpt_path=tmp_path / "half.ckpt" if resume else None)
        assert {name: fit.callback_metrics[name].item() for name in ("recall", "fd")} == pytest.approx(
            {name: result.value for name, result in watch.results.items()}
        )
        if steps == 8:
            fit.save_checkpoint(tmp_path / "half.ckpt")
        return watch

    run(8)
    resumed = run(16, resume=True)
    assert {name: [step for step, _ in pairs] for name, pairs in resumed.histories.items()} == {
        name: [4, 8, 12, 16] for name in ("recall", "fd")
    }
    assert resumed.best == max(resumed.history, key=lambda entry: entry[1])
    assert resumed.results["fd"].protocol.startswith("fd[features=random-6")


def on_each(folder: str) -> list[float]:
    in_job = "WORLD_SIZE" in os.environ
    if in_job:
        dist.init_process_group("gloo")
    found = measure(data=Images(70), folder=Path(folder), num_samples=103, num_real=53, metrics=[*USUAL, "cs"])
    if in_job:
        dist.destroy_process_group()
    return [result.value for result in found.values()]


@pytest.mark.slow
def test_ranks_give_one_value(tmp_path: Path) -> None:
    expected = on_each(str(tmp_path / "1"))
    for world in (2, 3):
        for values in on_ranks(world, on_each, str(tmp_path / str(world))):
            assert values == pytest.approx(expected, rel=1e-10)


def refused(folder: str) -> str:
    """What a rank says where the arithmetic fails, which only rank zero does."""

    def fail(sets: Any, seed: int) -> Any:
        raise ValueError("these rows are beyond it")

    dist.init_process_group("gloo")
    IMAGE_METRICS["fd"] = replace(IMAGE_METRICS["fd"], compute=fail)
    with pytest.raises(ValueError, match="beyond") as caught:
        measure(data=Images(20), folder=Path(folder), num_samples=20, metrics=["fd"])
    dist.destroy_process_group()
    return str(caught.value)


@pytest.mark.slow
def test_no_rank_waits_for_one_that_fails(tmp_path: Path) -> None:
    assert on_ranks(2, refused, str(tmp_path)) == ["image_metrics: these rows are beyond it"] * 2
