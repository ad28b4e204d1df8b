from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from zoo.base import Batch
from zoo.base.autoregressive import AutoregressiveModel
from zoo.engine import rng
from zoo.multiscale_pixelrnn import MultiScalePixelRNN
from zoo.nn.masked import MaskedConv2d
from zoo.nn.pixelrnn import CELLS, GRU, skew, unskew
from zoo.pixelcnn import PixelCNN
from zoo.pixelrnn import DiagonalLayer, PixelRNN, RowLayer

CELL_NAMES = tuple(CELLS)
TINY: dict[str, Any] = {"features": 4, "num_layers": 2, "head_features": 6}


class PixelContract(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012
    channels = 1

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, self.channels, 6, 6), rng.key(seed, "batch"), low=-1, high=1)
        return {"image": images.to(dtype)}


class TestPixelRNN(PixelContract, ModelContract):
    def tiny(self) -> PixelRNN:
        return PixelRNN(6, self.channels, **TINY | self.options)


class TestPixelRNNRow(TestPixelRNN):
    options = {"layer": "row", "skip": True, "cell": "gru", "optimizer": "adam"}  # noqa: RUF012


class TestPixelRNNColour(TestPixelRNN):
    options = {"levels": 4, "residual": False, "cell": "rnn"}  # noqa: RUF012
    channels = 3


class TestPixelCNN(PixelContract, ModelContract):
    def tiny(self) -> PixelCNN:
        return PixelCNN(6, **TINY)


class TestMultiScalePixelRNN(PixelContract, ModelContract):
    def tiny(self) -> MultiScalePixelRNN:
        return MultiScalePixelRNN(6, small_size=3, **TINY)


# The paper's claims ---------------------------------------------------------------------------------------------------


def built(kind: str, size: int, channels: int = 1, levels: int = 2, **options: Any) -> AutoregressiveModel:
    """A model in float64 with weights large enough for every pixel to matter."""
    torch.manual_seed(0)
    options = TINY | options
    model: AutoregressiveModel
    if kind == "cnn":
        model = PixelCNN(size, channels, levels, **options)
    elif kind == "multiscale":
        model = MultiScalePixelRNN(size, channels, levels, **options)
    else:
        model = PixelRNN(size, channels, levels, layer=kind, **options)  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return model.double()


KINDS = [("cnn", "lstm"), *itertools.product(("row", "diagonal"), CELL_NAMES)]


def build(kind: str, cell: str, *args: int, **options: Any) -> AutoregressiveModel:
    return built(kind, *args, **options, **({} if kind == "cnn" else {"cell": cell}))


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


@pytest.mark.parametrize(("kind", "cell"), KINDS)
@pytest.mark.parametrize(("size", "channels", "levels"), [(5, 1, 2), (4, 3, 3), (4, 1, 3)])
@pytest.mark.parametrize("skip", [False, True])
def test_jacobian_is_causal(kind: str, cell: str, size: int, channels: int, levels: int, skip: bool) -> None:
    model = build(kind, cell, size, channels, levels, skip=skip, features=24, head_features=36)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, 0, 1)  # so that some ReLU of each colour is open everywhere
    found = jacobian(model)
    assert not found.triu().any(), "a sub-pixel sees itself or a later one"
    if kind == "diagonal":
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
    """A state knows of the row above what is at most one column to the right, of the row above that two, and so on."""
    layer = RowLayer(3, 1).double()
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(layer.states(x, None)[0, :, 4, 2].sum(), x)
    seen = grad[0].abs().sum(0) > 0
    for row in range(5):
        # One column further on each row up on the right; on the left the input's convolution reaches one more.
        expected = [2 - (4 - row) - 1 <= column <= 2 + (4 - row) for column in range(7)]
        assert seen[row].tolist() == expected, row


def all_images(levels: int, channels: int, height: int, width: int) -> Tensor:
    values = torch.linspace(-1, 1, levels, dtype=torch.float64).tolist()
    grid = list(itertools.product(values, repeat=channels * height * width))
    return torch.tensor(grid, dtype=torch.float64).view(-1, channels, height, width)


@pytest.mark.parametrize(("kind", "cell"), KINDS)
def test_probabilities_of_all_images_sum_to_one(kind: str, cell: str) -> None:
    binary = build(kind, cell, 2)
    assert binary.log_prob(all_images(2, 1, 2, 2)).exp().sum() == pytest.approx(1, abs=1e-6)
    colour = build(kind, cell, 2, 3, 4)
    assert colour.log_prob(all_images(4, 3, 1, 2)).exp().sum() == pytest.approx(1, abs=1e-6)


def test_multiscale_is_a_bound() -> None:
    model = built("multiscale", 2, small_size=1)
    images = all_images(2, 1, 2, 2)
    assert model.log_prob(images).exp().sum() < 1
    # Given one small image, the second network's probabilities of all whole ones sum to one.
    context = model.upsampling(torch.ones(1, 1, 1, 1).double()).expand(16, -1, -1, -1)  # type: ignore[operator]
    given = model.density(model.conditional(images, context), model.to_levels(images))  # type: ignore[operator]
    assert given.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_skew_and_unskew_are_inverses_and_each_other_s_gradient() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = skew(x)
    assert y.shape == (8, 2, 3, 4)
    assert torch.equal(y[3, :, :, 2], x[:, :, 2, 1])
    assert not y[0, :, :, 1:].any()
    assert torch.equal(unskew(y), x)
    assert torch.autograd.gradcheck(skew, x)
    assert torch.autograd.gradcheck(unskew, y.detach().requires_grad_())


def test_masks_of_colours() -> None:
    a = MaskedConv2d(3, 3, (3, 3), "A", channels=3)
    b = MaskedConv2d(6, 6, (3, 3), "B", channels=3)
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
    assert count(PixelRNN.paper()) == 8_837_888
    assert PixelCNN.paper().image_shape == (3, 32, 32)


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

    row = RowLayer(units, 1).double()
    gates = row.input_to_state(x)[0]
    states: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for r, w in itertools.product(range(height), range(width)):
        above = [states.get((r - 1, w + k), (zero, zero)) for k in (-1, 0, 1)]
        near = torch.cat([h for h, _ in above])
        states[r, w] = lstm(gates[:, r, w] + row.state_to_state[0] @ near, above[1][1])
    found = row.states(x, None)[0]
    assert all(torch.allclose(found[:, r, w], h, atol=1e-12) for (r, w), (h, _) in states.items())

    diagonal = DiagonalLayer(units, 1).double()
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


@pytest.mark.parametrize(("kind", "cell"), [*KINDS, ("multiscale", "lstm"), ("multiscale", "gru")])
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 5)])
def test_incremental_sampler_draws_what_the_naive_one_draws(kind: str, cell: str, channels: int, levels: int) -> None:
    options: dict[str, Any] = {"small_size": 3} if kind == "multiscale" else {"skip": True}
    model = build(kind, cell, 6, channels, levels, **options)
    x = model.sample(4, seed=1)
    assert torch.equal(x, model.sample(4, seed=1, naive=True))
    assert x.std() > 0.1
    prefix = x[:, :, :2]
    completed = model.sample(4, seed=2, prefix=prefix, temperature=0.7)
    assert torch.equal(completed, model.sample(4, seed=2, prefix=prefix, temperature=0.7, naive=True))
    assert torch.equal(completed[:, :, :2], prefix)
    assert not torch.equal(completed, x)


def test_completions_go_on_from_the_rows() -> None:
    model = build("row", "lstm", 6)
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


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "column"}, "layer must be 'row' or 'diagonal', not 'column'"),
        ({"cell": "peephole"}, "cell must be 'lstm', 'gru' or 'rnn', not 'peephole'"),
        ({"levels": 1}, "levels must be at least 2, not 1"),
        ({"optimizer": "lion"}, "optimizer must be "),
        ({"image_channels": 3, "features": 2}, "features and head_features must be at least the 3 colours"),
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


def test_step_size_falls_to_its_final_rate() -> None:
    model = PixelCNN(6, final_rate=0.1, learning_rate=0.01, **TINY)
    run = trainer(max_steps=4, max_epochs=-1)
    run.fit(model, datamodule=Data([TestPixelCNN().batch(2)] * 2))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001)


# Likelihood -----------------------------------------------------------------------------------------------------------


def test_likelihood_by_hand() -> None:
    model = build("row", "lstm", 3, 1, 256)
    x = model.to_images(torch.arange(9).view(1, 1, 3, 3) * 31)
    by_hand = torch.zeros((), dtype=torch.float64)
    for r, w in itertools.product(range(3), range(3)):
        by_hand += model.logits(x)[0, :, 0, r, w].log_softmax(0)[(3 * r + w) * 31]
    assert model.log_prob(x).item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert model.bits_per_dim(x).item() == pytest.approx(-by_hand.item() / (9 * math.log(2)), rel=1e-12)
    assert torch.equal(model.score(x), -model.log_prob(x))
    # Images between two levels are rounded.
    assert torch.equal(model.log_prob(x + 1e-4), model.log_prob(x))
