"""Measures of images that were drawn from sentences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ranks import on_ranks
from zoo.callbacks.measures import MEASURES, text_judges

COLORS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [-1, 1, 1]])
NAMES = ["dark red", "red", "light & blue", "yellow", "none"]


class Sentences:
    """25 images of five colours; each third sentence does not name its colour."""

    name = "sentences8"
    class_names = {"colour": NAMES}  # noqa: RUF012

    def __len__(self) -> int:
        return 25

    def split(self, name: str) -> Sentences:
        return self

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Any:
        for first in range(rank * 4, num_samples, world_size * 4):
            index = torch.arange(first, min(first + 4, num_samples))
            color = index % 5
            texts = [
                f"{NAMES[c].replace('&', 'and') if i % 3 else 'a'} thing {c}"
                for i, c in zip(index.tolist(), color.tolist(), strict=True)
            ]
            image = COLORS[color][:, :, None, None].expand(-1, -1, 8, 8)
            yield first, {"image": image, "caption": texts, "caption_class": color, "colour": color}


class Painter(nn.Module):
    """Paints the colour of a sentence, up to `right` of them rightly, with noise of a given strength."""

    def __init__(self, right: int = 5, noise: float = 0.0) -> None:
        super().__init__()
        self.right, self.noise = right, noise
        self.weight = nn.Parameter(torch.zeros(()))

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        torch.rand(3)  # careless
        number = batch["colour"] * (batch["colour"] < self.right)
        fake = COLORS[number][:, :, None, None].expand(-1, -1, 8, 8)
        return batch["image"], fake + self.noise * (seed % 2)


class Judge(nn.Module):
    """Tells the colour of an image and of the number in a sentence; knows four of the colours, in another order."""

    class_names = ("yellow", "light & blue", "red", "dark red")

    def classify(self, x: Tensor) -> Tensor:
        return self.encode(x)[:, [3, 2, 1, 0]]

    def encode(self, x: Tensor) -> Tensor:
        return -torch.cdist(x.mean((2, 3)), COLORS).square()

    def encode_text(self, captions: list[str]) -> Tensor:
        return torch.eye(5)[[int(text[-1]) for text in captions]]


def test_right_images_are_found_among_all_sentences() -> None:
    state = torch.get_rng_state()
    result = MEASURES["r_precision"](Painter(), Sentences(), retriever=Judge(), candidates=10)
    assert torch.equal(state, torch.get_rng_state())
    assert result.value == 100
    assert result.protocol.startswith("r_precision[retriever=Judge@")
    assert "candidates=10, captions=sentences8-test-25" in result.protocol
    wrong = MEASURES["r_precision"](Painter(right=2), Sentences(), retriever=Judge(), candidates=21)
    assert wrong.value == pytest.approx(40)
    assert (wrong.chance, wrong.count) == (pytest.approx(100 / 21), 25)
    assert wrong.error == pytest.approx(100 * math.sqrt(0.4 * 0.6 / 25))
    assert "judge=other, " in result.protocol
    real = MEASURES["r_precision"](Painter(right=0), Sentences(), retriever=Judge(), candidates=21, identity=True)
    assert real.value == 100
    assert real.metric == "r_precision_real", "a column of its own"


def test_a_judge_that_reads_as_the_painter_does_is_named() -> None:
    class Reader(Painter):
        def encode_text(self, captions: list[str]) -> Tensor:
            return 2 * Judge().encode_text(captions)

    result = MEASURES["r_precision"](Reader(), Sentences(), retriever=Judge(), candidates=10)
    assert "judge=own-encoder, " in result.protocol


def test_a_sentence_encoder_judges_by_the_sentences_of_the_nearest_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Words(nn.Module):
        def forward(self, captions: list[str]) -> Tensor:
            return nn.functional.normalize(Judge().encode_text(captions) + 0.1, dim=1)

        def digest(self) -> str:
            return "0123abcd"

    class Means(nn.Module):
        name = "means"

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    monkeypatch.setattr(text_judges, "SentenceEncoder", Words)
    monkeypatch.setattr(text_judges, "load_extractor", lambda name: Means())
    options = {"retriever": "sentence", "candidates": 21}
    right = MEASURES["r_precision"](Painter(), Sentences(), **options)
    assert right.value == 100
    assert "retriever=sentence@0123abcd-of-5-nearest-of-25-by-efficientnet-lite0, judge=other" in right.protocol
    assert [path.name.partition("-train-25")[1] for path in (tmp_path / "features").iterdir()] == ["-train-25"]
    # With the features of the cache: two of five colors are painted rightly.
    assert MEASURES["r_precision"](Painter(right=2), Sentences(), **options).value == pytest.approx(40)


def test_retrieval_is_of_the_model_itself() -> None:
    result = MEASURES["retrieval"](Judge(), Sentences(), candidates=21)
    assert result.value == 100
    assert result.protocol == "retrieval[candidates=21, captions=sentences8-test-25, weights=raw]"

    class Colorblind(Judge):
        def encode(self, x: Tensor) -> Tensor:
            return super().encode(x) * torch.tensor([1, 1, 1, 1, 0.0]) + torch.tensor([0, 0, 0, 0, 1.0])

    assert MEASURES["retrieval"](Colorblind(), Sentences(), candidates=21).value == pytest.approx(20)
    with pytest.raises(ValueError, match="retrieval: candidates=22 needs 21 others, not 20"):
        MEASURES["retrieval"](Judge(), Sentences(), candidates=22)


def test_only_sentences_that_name_the_value_are_asked() -> None:
    """Of the 16 that name theirs, four are of no class that the judge knows; "dark red" does not name "red"."""
    options: dict[str, Any] = {"field": "colour", "classifier": Judge()}
    result = MEASURES["caption_accuracy"](Painter(), Sentences(), **options)
    asked = sum(i % 3 > 0 and i % 5 < 4 for i in range(25))
    assert result.value == 100
    assert f"captions=sentences8-test-25-of-which-{asked}-name-it" in result.protocol
    named = [i % 5 for i in range(25) if i % 3 > 0 and i % 5 < 4]
    assert result.chance == pytest.approx(100 * max(map(named.count, named)) / asked)
    assert (result.count, result.error) == (asked, 0)
    real = MEASURES["caption_accuracy"](Painter(), Sentences(), identity=True, **options)
    assert real.metric == "colour_accuracy_real"
    right = sum(i % 3 > 0 and i % 5 < 2 for i in range(25))
    found = MEASURES["caption_accuracy"](Painter(right=2), Sentences(), **options).value
    assert found == pytest.approx(100 * right / asked)


def test_diversity_is_the_difference_of_two_draws() -> None:
    assert MEASURES["noise_diversity"](Painter(), Sentences()).value == 0
    assert MEASURES["noise_diversity"](Painter(noise=0.5), Sentences()).value == pytest.approx(0.25)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"r_precision needs retriever="):
        MEASURES["r_precision"](Painter(), Sentences())
    with pytest.raises(ValueError, match="candidates=100 needs 99 others, not 20"):
        MEASURES["r_precision"](Painter(), Sentences(), retriever=Judge())
    with pytest.raises(ValueError, match="there is no field 'size': take colour"):
        MEASURES["caption_accuracy"](Painter(), Sentences(), field="size", classifier=Judge())


def all_values() -> list[float]:
    options: dict[str, dict[str, Any]]
    options = {"r_precision": {"retriever": Judge(), "candidates": 21}}
    options |= {"caption_accuracy": {"field": "colour", "classifier": Judge()}}
    names = ("r_precision", "caption_accuracy", "noise_diversity")
    values = [MEASURES[n](Painter(2, 0.25), Sentences(), **options.get(n, {})).value for n in names]
    return [*values, MEASURES["retrieval"](Judge(), Sentences(), candidates=21).value]


def values_on_rank() -> list[float]:
    torch.distributed.init_process_group("gloo")
    return all_values()


@pytest.mark.slow
def test_ranks_measure_what_one_process_does() -> None:
    expected = all_values()
    for found in on_ranks(3, values_on_rank):
        assert found == pytest.approx(expected, rel=1e-10)
