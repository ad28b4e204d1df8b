"""Loops of the PixelRNN; the textbook one computes every step of the recurrence from slices of the whole map."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings
from zoo.pixelrnn import DiagonalLayer, PixelRNN


def model(settings: Settings) -> PixelRNN:
    """The zoo's model."""
    return PixelRNN(settings.image_size, compile=settings.compile, **dict(settings.options))


class Plain:
    """The zoo's network and optimizer in a loop by hand."""

    fused: bool | None = True

    def __init__(self, source: PixelRNN, settings: Settings, noise: Noise) -> None:
        self.network = copy.deepcopy(source.network)
        self.networks: dict[str, nn.Module] = {"network": self.network}
        self.num_levels = source.num_levels
        self.parameters = list(self.network.parameters())
        self.optimizer: torch.optim.Optimizer
        if source.optimizer_kind == "adam":
            self.optimizer = torch.optim.Adam(self.parameters, lr=source.learning_rate, fused=self.fused)
        else:
            self.optimizer = torch.optim.RMSprop(self.parameters, lr=source.learning_rate)
        self.settings = settings

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        with self.settings.autocast():
            loss = self.loss(batch["image"])
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"training": loss.detach()}

    def loss(self, x: Tensor) -> Tensor:
        """The negative log-likelihood in nats per image."""
        if self.num_levels == 2:
            x = (x > 0).to(x.dtype)
            logits = self.forward(2 * x - 1)[:, 0]
            return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        target = ((x + 1) / 2 * (self.num_levels - 1)).round()
        logits = self.forward(target * (2 / (self.num_levels - 1)) - 1)
        return F.cross_entropy(logits, target.long(), reduction="sum") / len(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, C, H, W)."""
        return cast(Tensor, self.network(x))


class Textbook(Plain):
    """Float32, default Adam, and recurrences as one writes them down.

    Each step slices its row or column out of the map, convolves it into the gates, convolves the previous state, and
    applies one gate after the other; the diagonals are made row by row, and one direction runs after the other.
    """

    fused = None

    def __init__(self, source: PixelRNN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        if source.hparams["skip"]:
            raise ValueError("the textbook loop knows skip=false only")
        self.settings = Settings(settings.image_size, settings.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, C, H, W)."""
        network, width = self.network, x.size(3)
        y = network.input(F.pad((x + 1) / 2, (0, network.margin)))
        for layer in network.layers:
            states = diagonal(layer, y) if isinstance(layer, DiagonalLayer) else row(layer, y)
            y = y + layer.up(states)  # type: ignore[operator]
        y = y[:, :, :, :width]
        for convolution in network.head:
            y = convolution(torch.relu(y))
        return cast(Tensor, y.unflatten(1, (-1, x.size(1))))


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the cell: (N, 4h, places)."""
    o, f, i, g = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def row(layer: Any, x: Tensor) -> Tensor:
    """Row LSTM, row by row: (N, h, H, W)."""
    convolution, taps = layer.input_to_state, layer.taps
    weight = layer.state_to_state[0].unflatten(1, (taps, -1)).transpose(1, 2)  # (gates, h, taps)
    h = x.new_zeros(x.size(0), weight.size(1), x.size(3))
    c, states = torch.zeros_like(h), []
    for i in range(x.size(2)):
        gates = F.conv1d(x[:, :, i], convolution.masked[:, :, 0], convolution.bias, padding=1)
        h, c = lstm(gates + F.conv1d(h, weight, padding=1), c)
        states.append(h)
    return torch.stack(states, 2)


def diagonal(layer: Any, x: Tensor) -> Tensor:
    """Diagonal BiLSTM, one direction after the other: (N, h, H, W)."""
    convolution = layer.input_to_state
    weights, biases = convolution.masked[:, :, 0].chunk(2), convolution.bias.chunk(2)
    sums = []
    for flipped in (False, True):
        y = x.flip(3) if flipped else x
        weight, bias = weights[flipped], biases[flipped]
        state = layer.state_to_state[int(flipped)].unflatten(1, (layer.taps, -1)).transpose(1, 2)
        skewed, inside = shifted(y), shifted(torch.ones_like(y[:1, :1]))
        h = y.new_zeros(y.size(0), state.size(1), y.size(2))
        c, states = torch.zeros_like(h), []
        for i in range(skewed.size(3)):
            gates = F.conv1d(skewed[:, :, :, i], weight) + bias[:, None] * inside[:, :, :, i]
            h, c = lstm(gates + F.conv1d(F.pad(h, (1, 0)), state), c)
            states.append(h)
        map_ = torch.stack(states, 3)
        y = torch.stack([map_[:, :, i, i : i + y.size(3)] for i in range(y.size(2))], 2)
        sums.append(y)
    from_right = F.pad(sums[1].flip(3), (0, 0, 1, 0))[:, :, :-1]
    return sums[0] + from_right


def shifted(x: Tensor) -> Tensor:
    """Row i moved to the right by i: (N, C, H, H + W - 1)."""
    height = x.size(2)
    return torch.stack([F.pad(x[:, :, i], (i, height - 1 - i)) for i in range(height)], 2)


class Networks(Plain):
    """The passes of `Plain` and nothing else: no loss beyond a sum, no optimizer."""

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        with self.settings.autocast():
            logits = self.forward(batch["image"])
        torch.autograd.grad(logits, self.parameters, torch.ones_like(logits))
        return {}


def plain(source: PixelRNN, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: PixelRNN, settings: Settings, noise: Noise) -> Textbook:
    """The per-step loop; the settings do not touch it."""
    return Textbook(source, settings, noise)


def networks(source: PixelRNN, settings: Settings, noise: Noise) -> Networks:
    """The network's passes alone."""
    return Networks(source, settings, noise)
