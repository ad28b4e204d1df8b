from __future__ import annotations

from typing import Any

import torch

from tests.models import test_infogan
from tests.numerics import assert_near
from zoo.infogan import InfoGAN
from zoo.nn.augment import random_affine
from zoo.transform_invariant_infogan import TransformInvariantInfoGAN

SIZES: dict[str, Any] = {"base_channels": 4, "hidden_features": 8}


class TestTransformInvariantInfoGAN(test_infogan.TestInfoGAN):
    kind = TransformInvariantInfoGAN


def test_half_of_the_information_of_categories_is_read_off_transformed_images() -> None:
    batch = {"image": 2 * torch.rand(16, 1, 8, 8, dtype=torch.float64) - 1}
    model = TransformInvariantInfoGAN(8, categorical_codes=(3, 4), **SIZES).double().eval()
    plain = InfoGAN(8, categorical_codes=(3, 4), **SIZES).double().eval()
    plain.load_state_dict(model.state_dict())
    fakes = model.fakes(batch, "z")
    c = fakes["z"][:, 62:]
    moved = random_affine(fakes["image"], model.draw_key("z/affine"))
    bounds = [
        model.codes.categorical_bounds(c, model.codes.split(model.recogniser(model.trunk(x)))[0])
        for x in (fakes["image"], moved)
    ]
    terms, without = model.information(fakes), plain.information(plain.fakes(batch, "z"))
    for name, one, other in zip(("category", "category1"), *bounds, strict=True):
        assert abs(one.item() - other.item()) > 1e-9
        assert_near(-terms[name], (one + other) / 2)
    assert_near(terms["continuous"], without["continuous"])


def test_the_information_of_transformed_images_reaches_the_generator() -> None:
    model = TransformInvariantInfoGAN(8, **SIZES)
    fakes = model.fakes({"image": 2 * torch.rand(16, 1, 8, 8) - 1}, "z")
    bound, *_ = model.codes.categorical_bounds(fakes["z"][:, 62:], model.codes.split(fakes["moved_q"])[0])
    (gradient,) = torch.autograd.grad(bound, [model.generator.conv[-2].weight])
    assert gradient.any()
