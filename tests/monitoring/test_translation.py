"""Measures of translations: against true pairs, and by a classifier."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from callbacks.measures import MEASURES
from callbacks.metrics import PairedSimilarity
from tests.ranks import on_ranks

COLOURS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])


class Painter(nn.Module):
    """Paints an image in the colour of the target domain, with a difference of `error`."""

    def __init__(self, error: float = 0.0, right: int = 3) -> None:
        super().__init__()
        self.error, self.right = error, right
        self.weight = nn.Parameter(torch.zeros(()))

    def translate(self, x: Tensor, target: Tensor) -> Tensor:
        torch.rand(3)  # careless
        number = int(target.argmax())
        colour = COLOURS[number if number < self.right else 0].view(1, 3, 1, 1)
        return (x.amax(1, keepdim=True) + 1) / 2 * (colour + 1) - 1 + self.error


class Judge(nn.Module):
    """Tells the colour; its classes are in another order than the domains."""

    class_names = ("blue", "red", "green")

    def classify(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, [2, 0, 1]]


class Colours:
    """Seven things in three colours: image 7 d + i is thing i in colour d; thing 6 is not there in blue."""

    name = "colours16"
    data_dir = None
    image_size = 16
    domains = torch.eye(3)
    domain_names = ["red", "green", "blue"]  # noqa: RUF012
    class_names = {"attributes": domain_names}  # noqa: RUF012

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        grey = torch.rand(7, 1, 16, 16, generator=generator)
        self.image = torch.cat([grey * (colour.view(1, 3, 1, 1) + 1) - 1 for colour in COLOURS])[:20]

    def __len__(self) -> int:
        return 20

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        pairs = torch.arange(3) * 7 + (index % 7)[:, None]
        pairs[pairs == 20] = -1
        return {"image": self.image[index], "attributes": torch.eye(3)[index // 7], "pairs": pairs}

    def split(self, name: str) -> Colours:
        return self

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Any:
        for first in range(rank * 6, num_samples, world_size * 6):
            yield first, self.batch(torch.arange(first, min(first + 6, num_samples)))


def test_perfect_translations() -> None:
    state = torch.get_rng_state()
    assert MEASURES["paired_ssim"](Painter(), Colours()).value == pytest.approx(1)
    assert MEASURES["paired_l1"](Painter(), Colours()).value == pytest.approx(0, abs=1e-7)
    result = MEASURES["domain_accuracy"](Painter(), Colours(), classifier=Judge())
    assert result.value == 100
    assert result.protocol.startswith("domain_accuracy[classifier=Judge@")
    assert result.protocol.endswith(", test=colours16-test-20, weights=raw]")
    assert torch.equal(state, torch.get_rng_state())


def test_errors_by_hand() -> None:
    found = MEASURES["paired_l1"](Painter(0.2), Colours())
    assert found.value == pytest.approx(0.1, rel=1e-5)
    assert found.protocol == "paired_l1[domains=3, test=colours16-test-20, weights=raw]"
    assert MEASURES["paired_psnr"](Painter(0.2), Colours()).value == pytest.approx(20, rel=1e-5)


def test_wrong_domains_are_counted() -> None:
    """Blue comes out red: of 13 + 13 + 14 translations the last 14 are wrong."""
    value = MEASURES["domain_accuracy"](Painter(right=2), Colours(), classifier=Judge()).value
    assert value == pytest.approx(100 * 26 / 40)


def test_identity_is_what_must_be_surpassed() -> None:
    result = MEASURES["domain_accuracy"](Painter(), Colours(), classifier=Judge(), identity=True)
    assert result.value == 0
    assert "translation=identity" in result.protocol
    same = MEASURES["paired_ssim"](Painter(), Colours(), identity=True)
    assert same.value < 0.9
    assert "translation=identity" in same.protocol


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="needs classifier="):
        MEASURES["domain_accuracy"](Painter(), Colours())
    other = Judge()
    other.class_names = ("a", "b", "c")
    with pytest.raises(ValueError, match="the classifier tells a, b, c; the domains are red, green, blue"):
        MEASURES["domain_accuracy"](Painter(), Colours(), classifier=other)
    with pytest.raises(TypeError, match="needs translate"):
        MEASURES["paired_l1"](nn.Linear(1, 1), Colours())
    data = Colours()
    data.domains = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="colours16 has none"):
        MEASURES["paired_l1"](Painter(), data)


def test_an_exact_image_leaves_psnr_finite() -> None:
    metric = PairedSimilarity()
    x = torch.zeros(2, 3, 16, 16)
    y = x.clone()
    y[1] += 0.2
    metric.update(x, y)
    assert metric.compute()["psnr"].item() == pytest.approx(-10 * math.log10(0.01 / 2), rel=1e-5)


def values() -> list[float]:
    options: dict[str, dict[str, Any]] = {"domain_accuracy": {"classifier": Judge()}}
    names = ("paired_l1", "paired_psnr", "paired_ssim", "domain_accuracy")
    return [MEASURES[name](Painter(0.1, 2), Colours(), **options.get(name, {})).value for name in names]


def values_on_rank() -> list[float]:
    torch.distributed.init_process_group("gloo")
    return values()


@pytest.mark.slow
def test_ranks_give_one_value() -> None:
    expected = values()
    for found in on_ranks(3, values_on_rank):
        assert found == pytest.approx(expected, rel=1e-10)
