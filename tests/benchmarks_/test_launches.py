from __future__ import annotations

import json

import pytest
import torch

from benchmarks import launches, speed
from tests.benchmarks_.test_speed import FORMS

NAMES = [name for name in FORMS if not name.endswith("n_critic")]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_launches_little_more_than_a_plain_loop(name: str) -> None:
    found = launches.count(*FORMS[name])
    assert found["plain"] > 50
    assert found["zoo"] <= launches.MOST * found["plain"], found


def test_views_and_allocations_are_no_launches() -> None:
    x = torch.ones(3, 4)
    with launches.Launches() as counted:
        y = x.view(4, 3).t()[0] + 1
        torch.empty_like(y)
        y.mul_(2)
    assert counted.number == 2


def test_the_table_has_every_architecture_within_the_bound() -> None:
    row = json.loads((launches.RESULTS / "launches.json").read_text())
    assert [c["architecture"] for c in row["counts"]] == [name for name, _ in launches.FORMS]
    assert {name for name, _ in launches.FORMS} == {*speed.architectures()}
    assert all(c["zoo"] <= launches.MOST * c["plain"] for c in row["counts"])
