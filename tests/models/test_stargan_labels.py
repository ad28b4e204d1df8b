"""Labels, domain vectors, and what changes in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from zoo.engine import rng
from zoo.nn.stargan_labels import LabelSets
from zoo.stargan import CELEBA, RAFD

ATTRIBUTES, COLORS = ["smiling", "young"], ["red", "green", "blue"]


def batch(n: int) -> dict[str, Any]:
    binary = rng.integers(2, (n, 2), rng.key(0, "attributes"))
    attributes = torch.cat([binary, F.one_hot(torch.arange(n) % 3, 3)], 1).float()
    return {"image": torch.zeros(n, 3, 8, 8), "attributes": attributes, "label_set": torch.arange(n) // 2 % 2}


@pytest.fixture
def labels() -> LabelSets:
    return LabelSets(ATTRIBUTES, [COLORS])


@pytest.fixture
def joint() -> LabelSets:
    return LabelSets(ATTRIBUTES, [COLORS], joint=True)


def test_domain_vectors_are_the_attributes_and_categories(labels: LabelSets) -> None:
    given = batch(6)
    assert torch.equal(labels.domain(given), given["attributes"])
    assert labels.names == [*ATTRIBUTES, *COLORS]
    assert (labels.num_attributes, labels.num_features) == (2, 5)


def test_one_set_of_categories_may_be_given_by_number() -> None:
    colors = LabelSets([], [COLORS])
    given = {"image": torch.zeros(3, 3, 8, 8), "label": torch.tensor([2, 0, 1])}
    assert torch.equal(colors.domain(given), torch.eye(3)[[2, 0, 1]])


def test_the_mask_vector_hides_the_other_label_set(joint: LabelSets) -> None:
    given = batch(12)
    domain, number = joint.domain(given), given["label_set"]
    assert domain.shape == (12, 5 + 2)
    assert torch.equal(domain[:, 5:].argmax(1), number)
    assert not domain[number == 0][:, 2:5].any()
    assert not domain[number == 1][:, :2].any()
    assert torch.equal(domain[number == 1][:, 2:5], given["attributes"][number == 1][:, 2:])


def test_batches_with_other_labels_are_refused(labels: LabelSets, joint: LabelSets) -> None:
    given = batch(6)
    with pytest.raises(ValueError, match="smiling, young, red, green, blue; there are 4 of them"):
        labels.domain(given | {"attributes": torch.zeros(6, 4)})
    with pytest.raises(ValueError, match="smiling, young, red, green, blue; there are none"):
        labels.domain({"image": given["image"], "label": torch.zeros(6, dtype=torch.int64)})
    with pytest.raises(ValueError, match="`label_set`"):
        joint.domain({name: given[name] for name in ("image", "attributes")})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "needs labels"),
        ((["a"], [[]]), "needs labels"),
        ((["a", "a"], []), "'a' is given twice"),
        ((["a"], [["a", "b"]]), "'a' is given twice"),
        ((["a"], [], True), "two label sets"),
    ],
)
def test_labels_that_cannot_be_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSets(*arguments)


def test_targets_of_the_papers_attributes() -> None:
    blond_young_woman = torch.tensor([[0.0, 1, 0, 0, 1]])
    targets = LabelSets(CELEBA, []).targets(blond_young_woman)
    assert {name: target.tolist()[0] for name, target in targets.items()} == {
        "Black_Hair": [1, 0, 0, 0, 1],
        "Blond_Hair": [0, 1, 0, 0, 1],
        "Brown_Hair": [0, 0, 1, 0, 1],
        "Male": [0, 1, 0, 1, 1],
        "Young": [0, 1, 0, 0, 0],
    }


def test_targets_of_joint_training_name_their_label_set() -> None:
    face = torch.zeros(1, 15)
    face[0, [1, 4, 13]] = 1
    targets = LabelSets(CELEBA, [RAFD], joint=True).targets(face)
    assert list(targets) == [*CELEBA, *RAFD]
    assert targets["happy"].nonzero()[:, 1].tolist() == [5 + RAFD.index("happy"), 14]
    assert targets["Male"].nonzero()[:, 1].tolist() == [1, 3, 4, 13]


def test_a_label_is_changed_in_each_vector(labels: LabelSets) -> None:
    domain = labels.domain(batch(6))
    number = torch.tensor([0, 1, 2, 3, 4, 0])
    changed = labels.changed(domain, number)
    targets = [*labels.targets(domain).values()]
    assert all(torch.equal(changed[i], targets[k][i]) for i, k in enumerate(number.tolist()))


def test_the_first_label_that_makes_a_difference() -> None:
    colors = LabelSets([], [COLORS])
    assert colors.first_change(torch.eye(3)).argmax(1).tolist() == [1, 0, 0]


def test_the_source_is_asked_only_if_something_of_it_is_left(labels: LabelSets, joint: LabelSets) -> None:
    x = torch.zeros(2, 3, 8, 8)

    def unknown() -> torch.Tensor:
        raise LookupError

    for target in ("green", 3, torch.tensor([3, 3])):
        assert joint.requested(x, target, unknown).nonzero()[:, 1].tolist() == [3, 6] * 2
        with pytest.raises(LookupError):
            labels.requested(x, target, unknown)
    for target in ("young", 1, torch.tensor([2, 1])):
        with pytest.raises(LookupError):
            joint.requested(x, target, unknown)
    assert LabelSets([], [COLORS]).requested(x, "blue", unknown).tolist() == [[0, 0, 1]] * 2


def test_targets_that_are_not_there_are_named(labels: LabelSets) -> None:
    x = torch.zeros(2, 3, 8, 8)
    for target, message in (
        ("grey", r"no label 'grey': take one of smiling, young, red, green, blue"),
        (5, r"labels must lie in 0\.\.4"),
        (torch.zeros(2, 4), "a domain vector has 5 numbers, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            labels.requested(x, target, lambda: torch.zeros(2, 5))


def test_probabilities_and_the_likeliest_labels(labels: LabelSets) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 3.0, 2.0]])
    likely = labels.probabilities(logits)
    torch.testing.assert_close(likely, torch.cat([logits[:, :2].sigmoid(), logits[:, 2:].softmax(1)], 1))
    assert labels.likeliest(likely).tolist() == [[False, True, False, True, False]]


def test_cross_entropy_sums_over_the_sets(labels: LabelSets) -> None:
    domain, logits = labels.domain(batch(6)), torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    binary = F.binary_cross_entropy_with_logits(logits[:, :2], domain[:, :2], reduction="sum") / 6
    categorical = F.cross_entropy(logits[:, 2:], domain[:, 2:].argmax(1))
    torch.testing.assert_close(labels.cross_entropy(logits, domain), binary + categorical)


@pytest.mark.parametrize("number", [0, 1])
def test_images_of_one_label_set_count_that_sets_cross_entropy_only(joint: LabelSets, number: int) -> None:
    given = batch(6) | {"label_set": torch.full((6,), number)}
    logits, own = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), given["attributes"]
    binary = F.binary_cross_entropy_with_logits(logits[:, :2], own[:, :2], reduction="sum") / 6
    categorical = F.cross_entropy(logits[:, 2:], own[:, 2:].argmax(1))
    torch.testing.assert_close(joint.cross_entropy(logits, joint.domain(given)), (binary, categorical)[number])


def test_an_order_within_label_sets(labels: LabelSets, joint: LabelSets) -> None:
    given = batch(12)
    order = rng.permutation(12, rng.key(0, "order"))
    within = joint.within_sets(order, joint.domain(given))
    assert sorted(within.tolist()) == list(range(12))
    assert torch.equal(given["label_set"][within], given["label_set"])
    assert not torch.equal(within, torch.arange(12))
    assert torch.equal(labels.within_sets(order, labels.domain(given)), order)
