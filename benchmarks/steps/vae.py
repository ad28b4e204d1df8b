"""Loops of the VAE of linear layers; the textbook one is that of the widely used PyTorch example."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from zoo.vae import VAE


def model(settings: Settings) -> VAE:
    """The zoo's model."""
    settings.without_compile()
    return VAE(settings.image_size, **dict(settings.options))


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    stack: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        stack += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*stack[:-1])


class Plain:
    """The zoo's maths and options in a loop by hand."""

    fused: bool | None = True

    def __init__(self, source: VAE, settings: Settings, noise: Noise) -> None:
        pixels, hidden = math.prod(source.image_shape), source.hparams["hidden_features"]
        self.latent_dim = source.latent_dim
        self.encoder = layers(pixels, *hidden, 2 * self.latent_dim)
        self.decoder = layers(self.latent_dim, *hidden[::-1], pixels)
        copy_parameters(source.encoder, self.encoder)
        copy_parameters(source.decoder, self.decoder)
        self.networks: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        self.parameters = [p for network in self.networks.values() for p in network.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=source.hparams["learning_rate"], fused=self.fused)
        self.settings = settings
        self.noise = noise
        self.index = 0

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = ((batch["image"] + 1) / 2).flatten(1)
        eps = self.noise(self.index).normal("eps", len(x), self.latent_dim)
        with self.settings.autocast():
            loss = self.loss(x, eps)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.index += 1
        return {"training": loss.detach()}

    def loss(self, x: Tensor, eps: Tensor) -> Tensor:
        """The negative bound in nats per image."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        logits = self.decoder(mean + (0.5 * log_var).exp() * eps)
        error = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum()
        bound: Tensor = (error + kl) / len(x)
        return bound


class Textbook(Plain):
    """The example's step in float32: cross-entropy of sigmoids, default Adam, gradients cleared before the batch."""

    fused = None

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = ((batch["image"] + 1) / 2).flatten(1)
        self.optimizer.zero_grad()
        mean, log_var = self.encoder(x).chunk(2, 1)
        std = torch.exp(0.5 * log_var)
        eps = self.noise(self.index).normal("eps", len(x), self.latent_dim)
        recon = torch.sigmoid(self.decoder(mean + eps * std))
        error = F.binary_cross_entropy(recon, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        loss = (error + kl) / len(x)  # the example does not divide, which its Adam hardly notices
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.index += 1
        return {"training": loss.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"].flatten(1)
        with self.settings.autocast():
            logits = self.decoder(self.encoder(x)[:, : self.latent_dim])
        # The encoder's second half gets its gradient as well, as a row of zeros.
        torch.autograd.grad(logits, self.parameters, torch.ones_like(logits))
        return {}


def plain(source: VAE, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: VAE, settings: Settings, noise: Noise) -> Textbook:
    """The loop of the reference; the settings do not touch it."""
    return Textbook(source, settings, noise)


def networks(source: VAE, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
