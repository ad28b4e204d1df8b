"""Measures as functions: their values by hand, their protocols, what they leave alone, one value on all ranks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ranks import on_ranks
from zoo.callbacks.measures import MEASURES, Evaluation, anomaly
from zoo.pretrained import index


class Model(nn.Module):
    """Knows the label that is written into the first pixel; its codes are the first four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :4]

    def classify(self, x: Tensor) -> Tensor:
        found = ((x[:, 0, 0, 0] + 1) * 2).round().long()
        return nn.functional.one_hot((found + 1) % 4, 4).float() * (1 + x.mean((1, 2, 3)))[:, None]

    def score(self, x: Tensor) -> Tensor:
        return -1e6 * x[:, 0, 1, 1]

    def log_prob(self, x: Tensor, num_orderings: int = 1) -> Tensor:
        return -num_orderings * (2 + x[:, 0, 0, 0])

    def log_weights(self, x: Tensor, num_samples: int, *, seed: int = 0, first: int = 0) -> Tensor:
        torch.rand(3)  # careless
        rows = torch.arange(first, first + len(x)) % 5
        return (rows + torch.arange(num_samples)[:, None]).float()

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        return torch.linspace(-1, 1, 50)[first : first + n].view(-1, 1, 1, 1).expand(n, 1, 4, 4)


class Images:
    """Images of 4 x 4 pixels in three splits of 50, with labels and factors."""

    name = "tiny4"
    size = 50
    data_dir = None
    image_size = 4
    factor_sizes = (4, 3)

    def split(self, name: str) -> list[int]:
        return list(range(self.size))

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Any]]:
        index = torch.arange(num_samples)
        factors = torch.stack([index % 4, index // 4 % 3], 1)
        image = self.render(factors)
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            part = slice(first, first + chunk_size)
            yield first, {"image": image[part], "label": factors[part, 0], "factors": factors[part]}

    def render(self, factors: Tensor) -> Tensor:
        image = torch.zeros(len(factors), 1, 4, 4)
        image[:, 0, 0, 0] = factors[:, 0] / 2 - 1
        image[:, 0, 0, 1] = factors[:, 1] - 1
        image[:, 0, 1, 1] = torch.arange(len(factors)) / 50
        return image


class Few(Images):
    """So few that of three ranks one has no chunk of 8."""

    size = 10


class Other(Images):
    """Unusual images."""

    name = "other4"

    def __init__(self, **arguments: Any) -> None:
        self.size = arguments.pop("size", 50)
        assert arguments == {"data_dir": None, "image_size": 4}

    def prepare_data(self) -> None:
        self.ready = True

    def setup(self) -> None:
        assert self.ready

    def render(self, factors: Tensor) -> Tensor:
        return super().render(factors) - 0.09


package = SimpleNamespace(__all__=["Other"], Other=Other)


def measure(name: str, **options: Any) -> Any:
    return MEASURES[name](Model(), Images(), **options)


def test_likelihood_bounds() -> None:
    elbo, weighted = (measure(name, num_importance=3) for name in ("elbo", "iw_nll"))
    assert elbo.value == pytest.approx(-3)
    assert weighted.value == pytest.approx(-2 - math.log((1 + math.e + math.e**2) / 3))
    assert elbo.protocol == "elbo[importance=3, test=tiny4-test-50, weights=raw]"
    assert weighted.metric == "iw_nll"


def test_class_error_by_matching() -> None:
    assert measure("class_error").value == 100
    assert measure("class_error", matching="hungarian").value == 0
    found = measure("class_error", matching="best_example", num_samples=20)
    assert found.value == 0
    assert found.protocol == "class_error[matching=best_example, test=tiny4-test-20, val=tiny4-val-50, weights=raw]"


def test_probes_and_disentanglement_of_a_perfect_code() -> None:
    assert measure("linear_probe", num_fit=40).value == 100
    assert measure("knn", num_fit=40, neighbours=1).protocol == (
        "knn[neighbours=1, fit=tiny4-train-40, test=tiny4-test-50, weights=raw]"
    )
    assert measure("mig").value == pytest.approx(1, abs=0.01)
    assert measure("beta_vae_metric", num_samples=60, pairs=16).value == 100


class Noisy(Images):
    """Near the samples with a deviation of 0.3 (in [0, 1]) in the validation split, of 0.12 in others."""

    def reference_batches(self, num_samples: int, *args: Any, split: str = "train", **share: Any) -> Any:
        generator = torch.Generator().manual_seed(len(split))
        noise = torch.randn(num_samples, 1, 4, 4, generator=generator) * (0.6 if split == "val" else 0.24)
        yield 0, {"image": Model().sample(num_samples) + noise}


def test_parzen_chooses_its_width_on_validation_images() -> None:
    centers = Model().sample(50)
    val, test = (next(Noisy().reference_batches(50, split=split))[1] for split in ("val", "test"))

    def log_likelihood(images: Tensor, width: float) -> float:
        """Mean over images in [0, 1] of log mean_j N(x; c_j, width^2)."""
        x, c = ((part.flatten(1).double() + 1) / 2 for part in (images, centers))
        logs = torch.distributions.Normal(c, width).log_prob(x[:, None]).sum(2)
        return (logs.logsumexp(1) - math.log(50)).mean().item()

    widths = [10 ** (-1 + i / 9) for i in range(10)]
    chosen = max(widths, key=lambda width: log_likelihood(val["image"], width))
    assert chosen != max(widths, key=lambda width: log_likelihood(test["image"], width))
    found = MEASURES["parzen"](Model(), Noisy(), num_samples=50)
    assert found.value == pytest.approx(log_likelihood(test["image"], chosen), rel=1e-5)
    assert (
        found.protocol
        == "parzen[sigma=best-of-10-on-val, samples=50, val=tiny4-val-50, test=tiny4-test-50, weights=raw]"
    )


def test_auroc_ranks_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.callbacks.measures.anomaly.datamodules", package)
    found = measure("auroc", other="Other")
    # Scores fall by 1/50 from image to image: the shift puts an unusual image before usual ones up to 4 places ahead.
    places = torch.arange(50)[:, None] - torch.arange(50)
    assert found.value == pytest.approx(100 * (places <= 4).double().mean().item(), rel=1e-6)
    assert found.protocol == "auroc[usual=tiny4-test-50, unusual=other4-test-50, weights=raw]"
    assert measure("auroc", other="Other", other_arguments={"size": 20}).protocol.endswith(
        "other4-test-20, weights=raw]"
    )
    with pytest.raises(ValueError, match="other='MNST' is no DataModule: take one of Other"):
        measure("auroc", other="MNST")


def test_likelihoods_are_means_over_the_images() -> None:
    # The first pixel is the label, 0 to 3, between -1 and 0.5: so many images of each.
    pixels = [-1 + 0.5 * (i % 4) for i in range(50)]
    nats = 2 + sum(pixels) / 50
    found = measure("nll")
    assert found.value == pytest.approx(nats, rel=1e-12)
    assert found.protocol == "nll[test=tiny4-test-50, weights=raw]"
    assert measure("bits_per_dim").value == pytest.approx(nats / (16 * math.log(2)), rel=1e-12)
    found = measure("nll", num_samples=10, num_orderings=3)
    assert found.value == pytest.approx(3 * (2 + sum(pixels[:10]) / 10), rel=1e-12)
    assert found.protocol == "nll[num_orderings=3, test=tiny4-test-10, weights=raw]"


class Density(Model):
    """Each sub-pixel in [0, 1] has the density 2x, whatever the others are."""

    real_valued = True

    def log_prob(self, x: Tensor) -> Tensor:
        self.seen = x
        return (x.double() + 1).log().flatten(1).sum(1)


def test_density_gives_the_bits_of_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over the noise is the integral over a level's step, by scipy; images of the levels 0, 1 and 255."""
    from scipy.integrate import quad

    levels = torch.tensor([0.0, 1.0, 255.0]).repeat(500)[:, None, None, None].expand(-1, 1, 4, 4)
    monkeypatch.setattr(Images, "reference_batches", lambda *_, **__: [(0, {"image": levels / 127.5 - 1})])
    model = Density()
    found = MEASURES["bits_per_dim"](model, Images())
    steps = [quad(lambda u, k=k: -math.log2(2 * (k + u) / 256), 0, 1)[0] + 8 for k in (0, 1, 255)]
    assert found.value == pytest.approx(sum(steps) / 3, abs=0.02)
    assert found.error == pytest.approx(np.std(steps) / math.sqrt(1500), rel=0.05)
    assert found.protocol == "bits_per_dim[dequantized=uniform, test=tiny4-test-50, weights=raw]"
    assert torch.equal(((model.seen + 1) * 128).floor(), levels), "no value leaves its step"
    nats = MEASURES["nll"](model, Images())
    assert nats.value == pytest.approx((found.value - 8) * 16 * math.log(2), rel=1e-9)
    assert "dequantized=uniform" in nats.protocol


def test_bernoulli_variables_of_gray_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "likelihood", "bernoulli", raising=False)
    assert "[importance=2, decoder=bernoulli-on-gray-values, test" in measure("elbo", num_importance=2).protocol
    render = Images.render
    monkeypatch.setattr(Images, "render", lambda self, factors: (render(self, factors) > 0) * 2.0 - 1)
    assert "decoder" not in measure("elbo", num_importance=2).protocol


def test_chance_and_error_of_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels 0 to 3 in turn: of 50 images 13 are of the most frequent class."""
    found = measure("class_error", matching="hungarian")
    assert (found.chance, found.count, found.error) == (pytest.approx(74), 50, 0)
    probe = measure("linear_probe", num_fit=40)
    assert (probe.chance, probe.count) == (pytest.approx(26), 50)
    monkeypatch.setattr("zoo.callbacks.measures.anomaly.datamodules", package)
    assert measure("auroc", other="Other").chance == 50
    bits = [(2 - 1 + 0.5 * (i % 4)) / (16 * math.log(2)) for i in range(50)]
    assert measure("bits_per_dim").error == pytest.approx(np.std(bits, ddof=1) / math.sqrt(50), rel=1e-9)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TypeError, match="iw_nll needs log_weights, which Linear does not have"):
        MEASURES["iw_nll"](nn.Linear(1, 1), Images())


def test_published_values_have_the_unit_of_their_measure() -> None:
    for slug, entry in index().items():
        for metric in entry["metrics"]:
            unit = MEASURES[metric.get("measure", "frechet_distance")].unit
            assert metric.get("unit", "") == unit, (slug, metric["name"])


def test_training_improves_values_in_the_direction_of_their_measure() -> None:
    """Measured rows of published checkpoints.

    Controls such as the identity are no values of the model; noise copies no image, so that authenticity begins at 1.
    """
    metrics = [metric for entry in index().values() for metric in entry["metrics"]]
    measures = {metric["name"]: metric.get("measure", "frechet_distance") for metric in metrics}
    named = {metric["name"]: metric["better"] for metric in metrics if "better" in metric}
    better: dict[str, list[bool]] = {}
    for path in (Path(__file__).parents[2] / "benchmarks" / "results").glob("quality-*.json"):
        row = json.loads(path.read_text())
        controls = ("_identity", "_real", "_shuffled", "authenticity")
        if "untrained" in row and not row["metric"].endswith(controls):
            name = row["metric"] if row["metric"] in named else measures[row["metric"]]
            wanted = named.get(name) or MEASURES[name].better
            lower = row["value"] < row["untrained"]
            better.setdefault(name, []).append(lower == (wanted == "lower"))
    assert len(better) > 12
    assert [name for name, votes in better.items() if 2 * sum(votes) <= len(votes)] == []


def test_model_and_generators_are_left_as_they_were() -> None:
    model, state = Model().train(), torch.get_rng_state()
    MEASURES["elbo"](model, Images(), num_importance=2)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def all_values(world: int, few: bool) -> dict[str, float]:
    """Every measure of images alone; chunks of 8 images, so that shares are uneven, or one rank has none."""
    import torch.distributed as dist

    if world > 1:
        dist.init_process_group("gloo")
        Evaluation.chunk = 8
        anomaly.datamodules = package  # type: ignore[assignment]
    images = Few() if few else Images()
    options: dict[str, Any] = {
        "auroc": {"other": "Other", "other_arguments": {"size": images.size}},
        "beta_vae_metric": {"num_samples": 15 if few else 45, "pairs": 4},
        "class_error": {"matching": "best_example"},
        "elbo": {"num_importance": 2},
        "iw_nll": {"num_importance": 2},
        "knn": {"num_fit": 30},
        "linear_probe": {"num_fit": 30},
        "parzen": {"num_samples": images.size},
    }
    # Those of translations, patches, sentences and sets need data of their own, and have tests of their own; a time is
    # another one on each machine.
    others = ("caption_", "cycle_", "domain_", "mask_", "ms_ssim", "noise_", "paired_", "patch_", "r_precision")
    others += ("frechet_", "image_metrics", "retrieval", "sampling_speed", "swd", "translation_")
    # A test may have brought along a measure of its own.
    names = [n for n, found in MEASURES.items() if not n.startswith(others) and found.__module__.startswith("zoo.")]
    return {name: MEASURES[name](Model(), images, **options.get(name, {})).value for name in names}


@pytest.mark.slow
@pytest.mark.parametrize(("world", "few"), [(2, False), (3, False), (3, True)])
def test_ranks_give_one_value(world: int, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluation, "chunk", 8)
    monkeypatch.setattr(anomaly, "datamodules", package)
    expected = all_values(1, few)
    for found in on_ranks(world, all_values, world, few):
        assert found == pytest.approx(expected, rel=1e-9)
