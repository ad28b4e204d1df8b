"""Published files make what they made when they were published: mean and deviation of 8 images each are kept here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.base.autoregressive import AutoregressiveModel

KEPT: dict[str, dict[str, list[list[float]]]] = json.loads((Path(__file__).parent / "outputs.json").read_text())
TOLERANCE = 1e-3
"""Kernels of other machines and versions differ by less; half a level of 8 bits is 4e-3."""


def output(model: Any, name: str) -> Tensor:
    if name == "sample":
        result: Tensor = model.sample(8, seed=0)
        return result
    generator = torch.Generator().manual_seed(0)
    if name == "assemble":
        patches = torch.rand(8, 3, *model.image_shape, generator=generator) * 2 - 1
        return model.assemble(patches, seed=0)[0]
    x = torch.rand(8, *model.image_shape, generator=generator) * 2 - 1
    if name in ("encode", "classify", "reconstruct"):
        return getattr(model, name)(x)
    return model.translate(x, {"ab": "openmoji", "ba": "noto"}.get(name, name))


def test_every_checkpoint_is_kept() -> None:
    assert sorted(KEPT) == zoo.list_pretrained()
    assert all(KEPT.values())


@pytest.mark.slow
@pytest.mark.parametrize("slug", sorted(KEPT))
def test_outputs_are_those_of_the_published_file(slug: str) -> None:
    model = zoo.load(slug)
    for name, expected in KEPT[slug].items():
        found = output(model, name).double().flatten(1)
        rows = torch.stack([found.mean(1), found.std(1, unbiased=False)], 1)
        scale = max(1.0, float(torch.tensor(expected).abs().max()))
        wrong = ((rows - torch.tensor(expected, dtype=torch.float64)).abs() > TOLERANCE * scale).any(1)
        # A value that lies on the edge of a draw falls on the other side now and then, and all later ones with it.
        allowed = 1 if isinstance(model, AutoregressiveModel) else 0
        assert int(wrong.sum()) <= allowed, (name, rows[wrong])
