from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.models.likelihood import LikelihoodContract, all_images
from zoo.base.autoregressive import AutoregressiveModel
from zoo.gru_pixelrnn import GRU, GRUPixelRNN
from zoo.multiscale_pixelrnn import MultiScalePixelRNN
from zoo.nn.masked import MaskedConv2d
from zoo.nn.pixelrnn import LSTM, skew, unskew
from zoo.nn.schedules import Decay
from zoo.pixelcnn import PixelCNN
from zoo.pixelrnn import DiagonalLayer, PixelRNN, RowLayer
from zoo.pretrained.migrations import current_arguments
from zoo.tanh_pixelrnn import TanhPixelRNN

TINY: dict[str, Any] = {"hidden_channels": 4, "num_layers": 2, "head_channels": 6}
RECURRENT = {"lstm": PixelRNN, "gru": GRUPixelRNN, "tanh": TanhPixelRNN}


class TestPixelRNN(LikelihoodContract, ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> PixelRNN:
        return PixelRNN(6, self.channels, **TINY | self.options)


class TestPixelRNNRow(TestPixelRNN):
    options = {"layer": "row", "skip": True, "optimizer": "adam"}  # noqa: RUF012


class TestPixelRNNColor(TestPixelRNN):
    options = {"num_levels": 4}  # noqa: RUF012
    channels = 3


class TestPixelCNN(LikelihoodContract, ModelContract):
    def tiny(self) -> PixelCNN:
        return PixelCNN(6, **TINY)


class TestGRUPixelRNN(LikelihoodContract, ModelContract):
    def tiny(self) -> GRUPixelRNN:
        return GRUPixelRNN(6, **TINY)


class TestTanhPixelRNN(LikelihoodContract, ModelContract):
    def tiny(self) -> TanhPixelRNN:
        return TanhPixelRNN(6, **TINY)


class TestMultiScalePixelRNN(LikelihoodContract, ModelContract):
    def tiny(self) -> MultiScalePixelRNN:
        return MultiScalePixelRNN(6, small_size=3, **TINY)


# The paper's claims ---------------------------------------------------------------------------------------------------


def build(kind: str, *args: int, **options: Any) -> AutoregressiveModel:
    """A model in float64 with weights large enough for every pixel to matter.

    Args:
        kind: "cnn", "multiscale", or a cell and a layer, such as "lstm-row".
        args: the model's first arguments.
        options: further ones.
    """
    torch.manual_seed(0)
    options = TINY | options
    model: AutoregressiveModel
    if kind == "cnn":
        model = PixelCNN(*args, **options)
    elif kind == "multiscale":
        model = MultiScalePixelRNN(*args, **options)
    else:
        cell, layer = kind.split("-")
        model = RECURRENT[cell](*args, layer=layer, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return model.double()


KINDS = ["cnn", *(f"{cell}-{layer}" for cell in RECURRENT for layer in ("row", "diagonal"))]


def jacobian(model: AutoregressiveModel) -> Tensor:
    """Whether a logit depends on a sub-pixel, both in raster order: (D, D)."""
    channels, height, width = model.image_shape
    x = torch.linspace(-1, 1, channels * height * width, dtype=torch.float64).view(1, channels, height, width)
    x.requires_grad_()
    logits = model.logits(x)[0].permute(2, 3, 1, 0).flatten(0, 2)  # (D, K)
    rows = []
    for logit in logits:
        # Random directions, so that nothing cancels.
        (grad,) = torch.autograd.grad(logit @ torch.linspace(1, 2, len(logit)).double(), x, retain_graph=True)
        rows.append(grad[0].permute(1, 2, 0).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [*KINDS, "lstm-row-skip", "lstm-diagonal-skip"])
@pytest.mark.parametrize(("size", "channels", "levels"), [(5, 1, 2), (4, 3, 3), (4, 1, 3)])
def test_jacobian_is_causal(kind: str, size: int, channels: int, levels: int) -> None:
    skip: dict[str, Any] = {"skip": True} if kind.endswith("-skip") else {}
    model = build(kind.removesuffix("-skip"), size, channels, levels, hidden_channels=24, head_channels=36, **skip)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, 0, 1)  # so that some ReLU of each colour is open everywhere
    found = jacobian(model)
    assert not found.triu().any(), "a sub-pixel sees itself or a later one"
    if "diagonal" in kind:
        earlier = torch.ones_like(found).tril(-1).bool()
        assert (found[earlier] != 0).all(), "the Diagonal BiLSTM has the full context"
    else:
        assert found.tril(-1).any()


def test_jacobian_of_non_square_images() -> None:
    class Wide(PixelRNN):
        @property
        def image_shape(self) -> tuple[int, int, int]:
            return 1, 3, 6

    for layer in ("row", "diagonal"):
        torch.manual_seed(0)
        model = Wide(3, layer=layer, **TINY).double()
        assert not jacobian(model).triu().any()
        assert torch.equal(model.sample(3, seed=0), model.sample(3, seed=0, naive=True))


def test_row_lstm_sees_a_triangle() -> None:
    """A state depends on the row above up to one column to the right, on the row above that up to two, and so on."""
    layer = RowLayer(3, 1, LSTM()).double()
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(layer.states(x, None)[0, :, 4, 2].sum(), x)
    seen = grad[0].abs().sum(0) > 0
    for row in range(5):
        # One column further on each row up on the right; on the left the input's convolution reaches one more.
        expected = [2 - (4 - row) - 1 <= column <= 2 + (4 - row) for column in range(7)]
        assert seen[row].tolist() == expected, row


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_images_sum_to_one(kind: str) -> None:
    binary = build(kind, 2)
    assert binary.log_prob(all_images(2, 1, 2, 2)).exp().sum() == pytest.approx(1, abs=1e-6)
    color = build(kind, 2, 3, 4)
    assert color.log_prob(all_images(4, 3, 1, 2)).exp().sum() == pytest.approx(1, abs=1e-6)


def test_multiscale_is_a_bound() -> None:
    model = build("multiscale", 2, small_size=1)
    images = all_images(2, 1, 2, 2)
    assert model.log_prob(images).exp().sum() < 1
    # Given one small image, the second network's probabilities of all whole ones sum to one.
    context = model.upsampling(torch.ones(1, 1, 1, 1).double()).expand(16, -1, -1, -1)  # type: ignore[operator]
    given = model.density(model.conditional(images, context), model.to_levels(images))  # type: ignore[operator]
    assert given.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_skew_and_unskew_are_inverses_and_each_other_s_gradient() -> None:
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    y = skew(x)
    assert y.shape == (8, 2, 4, 3)
    assert torch.equal(y[3, :, 2], x[:, 2, 1])
    assert not y[0, :, 1:].any()
    assert torch.equal(unskew(y), x)
    assert torch.autograd.gradcheck(skew, x)
    assert torch.autograd.gradcheck(unskew, y.detach().requires_grad_())


def test_masks_of_colors() -> None:
    a = MaskedConv2d(3, 3, (3, 3), "A", image_channels=3)
    b = MaskedConv2d(6, 6, (3, 3), "B", image_channels=3)
    assert torch.equal(a.mask[:, :, 1, 1], torch.ones(3, 3).tril(-1))
    assert torch.equal(b.mask[:, :, 1, 1], torch.ones(3, 3).tril().repeat(2, 2))
    assert b.mask[:, :, 0].all()
    assert b.mask[:, :, 1, 0].all()
    assert not b.mask[:, :, 1, 2].any()
    assert not b.mask[:, :, 2].any()


def test_optimizer_does_not_fill_the_masks() -> None:
    convolution = MaskedConv2d(1, 1, (3, 3), "A")
    nn.init.constant_(convolution.weight, 1)
    y = convolution(torch.ones(1, 1, 3, 3))
    assert (y - convolution.bias).flatten()[4] == 4  # one row of three above, one to the left


def test_parameter_counts_of_the_paper_s_networks() -> None:
    def count(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    assert count(PixelRNN()) == 65_793
    assert count(PixelRNN(32, 3, 256, hidden_channels=128, num_layers=12, head_channels=1024)) == 8_837_888


def test_gru_is_that_of_torch() -> None:
    cell, layer = GRU(), torch.nn.GRUCell(3, 5).double()
    nn.init.zeros_(layer.bias_hh)
    x, h = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    gates = cell.from_input((F.linear(x, layer.weight_ih, layer.bias_ih)).t())
    gates = gates + cell.from_state(layer.weight_hh) @ h.t()
    found, kept = cell.step(gates, h.t())
    assert torch.allclose(found.t(), layer(x, h), atol=1e-12)
    assert found is kept


def test_layers_are_those_of_the_equations() -> None:
    """Both layers by loops over pixels."""
    torch.manual_seed(0)
    units, height, width = 3, 4, 5
    x = torch.randn(1, 2 * units, height, width, dtype=torch.float64)
    zero = torch.zeros(units, dtype=torch.float64)

    def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        o, f, i, g = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    row = RowLayer(units, 1, LSTM()).double()
    gates = row.input_to_state(x)[0]
    states: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for r, w in itertools.product(range(height), range(width)):
        above = [states.get((r - 1, w + k), (zero, zero)) for k in (-1, 0, 1)]
        near = torch.cat([h for h, _ in above])
        states[r, w] = lstm(gates[:, r, w] + row.state_to_state[0] @ near, above[1][1])
    found = row.states(x, None)[0]
    assert all(torch.allclose(found[:, r, w], h, atol=1e-12) for (r, w), (h, _) in states.items())

    diagonal = DiagonalLayer(units, 1, LSTM()).double()
    both = diagonal.input_to_state(x)[0].chunk(2)
    sums = torch.zeros(units, height, width, dtype=torch.float64)
    for direction, gates in enumerate(both):
        step = 1 if direction == 0 else -1
        states = {}
        for r, w in itertools.product(range(height), range(width)[::step]):
            upper, left = (states.get(place, (zero, zero)) for place in ((r - 1, w), (r, w - step)))
            near = torch.cat([upper[0], left[0]])
            states[r, w] = lstm(gates[:, r, w] + diagonal.state_to_state[direction] @ near, left[1])
            if direction == 0:
                sums[:, r, w] += states[r, w][0]
            elif r + 1 < height:
                sums[:, r + 1, w] += states[r, w][0]
    assert torch.allclose(diagonal.states(x, None)[0], sums, atol=1e-12)


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "multiscale", "lstm-row-skip", "lstm-diagonal-skip"])
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 5)])
def test_incremental_sampler_draws_what_the_naive_one_draws(kind: str, channels: int, levels: int) -> None:
    options: dict[str, Any] = {"small_size": 3} if kind == "multiscale" else {"skip": True} if "skip" in kind else {}
    model = build(kind.removesuffix("-skip"), 6, channels, levels, **options)
    x = model.sample(4, seed=1)
    assert torch.equal(x, model.sample(4, seed=1, naive=True))
    assert x.std() > 0.1
    prefix = x[:, :, :2]
    completed = model.sample(4, seed=2, prefix=prefix, temperature=0.7)
    assert torch.equal(completed, model.sample(4, seed=2, prefix=prefix, temperature=0.7, naive=True))
    assert torch.equal(completed[:, :, :2], prefix)
    assert not torch.equal(completed, x)


def test_completions_go_on_from_the_rows() -> None:
    model = build("lstm-row", 6)
    upper = model.sample(2, seed=0)[:, :, :3]
    found = model.completions(upper, 3, seed=5)
    assert found.shape == (2, 3, 1, 6, 6)
    assert torch.equal(found[:, :, :, :3], upper[:, None].expand(-1, 3, -1, -1, -1))
    assert not torch.equal(found[0, 0], found[0, 1])


@pytest.mark.parametrize("layer", ["row", "diagonal"])
@torch.no_grad()
def test_sampler_keeps_one_row_per_layer(layer: str) -> None:
    """What is kept does not grow with the number of rows."""

    def kept(height: int) -> int:
        class Tall(PixelRNN):
            @property
            def image_shape(self) -> tuple[int, int, int]:
                return 1, height, 6

        model = Tall(6, layer=layer, **TINY)  # type: ignore[arg-type]
        x = torch.zeros(2, *model.image_shape)
        sampler = model.sampler(2)
        for row in range(height):
            sampler.start_row(x, row)
            for column in range(6):
                sampler.logits(x, row, column, 0)
        return sum(count(value) for value in vars(sampler).values())

    def count(value: Any) -> int:
        if isinstance(value, Tensor):
            return value.numel()
        return sum(map(count, value)) if isinstance(value, list | tuple) else 0

    assert kept(4) == kept(9)


# Files of earlier versions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "target"), [("lstm", PixelRNN), ("gru", GRUPixelRNN), ("rnn", TanhPixelRNN)], ids=["lstm", "gru", "rnn"]
)
def test_earlier_arguments(cell: str, target: type[PixelRNN]) -> None:
    old = {"levels": 4, "features": 5, "head_features": 6, "cell": cell, "residual": True, "head_layers": 2}
    path, arguments = current_arguments("zoo.pixelrnn.PixelRNN", old | {"final_rate": 0.5})
    assert path == f"{target.__module__}.{target.__name__}"
    decay = {"kind": "exponential", "final": 0.5}
    assert arguments == {"num_levels": 4, "hidden_channels": 5, "head_channels": 6, "decay": decay}
    with pytest.raises(ValueError, match="no longer has residual=False"):
        current_arguments("zoo.PixelRNN", old | {"residual": False})


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "column"}, "layer must be 'row' or 'diagonal', not 'column'"),
        ({"optimizer": "lion"}, "optimizer must be "),
        (
            {"image_channels": 3, "hidden_channels": 2},
            "hidden_channels and head_channels must be at least the 3 colors",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        PixelRNN(6, **options)


def test_bad_sizes_of_the_small_image() -> None:
    with pytest.raises(ValueError, match=r"^image_size 28 is not small_size 8 times a power of two$"):
        MultiScalePixelRNN(28)


def test_bad_arguments_of_sample() -> None:
    model = PixelCNN(6, **TINY)
    with pytest.raises(ValueError, match=r"^PixelCNN has no condition 'label'$"):
        model.sample(1, label=3)
    with pytest.raises(ValueError, match=r"^temperature must be positive, not 0$"):
        model.sample(1, temperature=0)
    with pytest.raises(ValueError, match=r"^prefix must be \(2 or 1, 1, at most 6 rows, 6\), not \(3, 1, 2, 6\)$"):
        model.sample(2, prefix=torch.zeros(3, 1, 2, 6))


def test_step_size_falls_exponentially() -> None:
    model = PixelCNN(6, decay=Decay("exponential", final=0.1), learning_rate=0.01, **TINY)
    run = trainer(max_steps=4, max_epochs=-1)
    run.fit(model, datamodule=Data([TestPixelCNN().batch(2)] * 2))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.1**0.75)  # that of the last step


# Likelihood -----------------------------------------------------------------------------------------------------------


def test_likelihood_by_hand() -> None:
    model = build("lstm-row", 3, 1, 256)
    x = model.to_images(torch.arange(9).view(1, 1, 3, 3) * 31)
    by_hand = torch.zeros((), dtype=torch.float64)
    for r, w in itertools.product(range(3), range(3)):
        by_hand += model.logits(x)[0, :, 0, r, w].log_softmax(0)[(3 * r + w) * 31]
    assert model.log_prob(x).item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert model.bits_per_dim(x).item() == pytest.approx(-by_hand.item() / (9 * math.log(2)), rel=1e-12)
    assert torch.equal(model.score(x), -model.log_prob(x))
    # Images between two levels are rounded.
    assert torch.equal(model.log_prob(x + 1e-4), model.log_prob(x))
