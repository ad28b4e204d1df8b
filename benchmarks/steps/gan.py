"""Loops of the first GAN (simultaneous steps, maxout and dropout, SGD); the textbook one makes every pass by itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Draws, Noise, Settings, copy_parameters
from benchmarks.steps.vae import layers
from zoo.gan import DECAY, GAN


def model(settings: Settings) -> GAN:
    """The zoo's model."""
    settings.without_compile()
    return GAN(settings.image_size, **dict(settings.options))


class Judge(nn.Module):
    """Two maxout layers and a linear one, with dropout in front of each."""

    def __init__(self, pixels: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.first, self.second = nn.Linear(pixels, units * pieces), nn.Linear(units, units * pieces)
        self.last = nn.Linear(units, 1)

    def forward(self, x: Tensor, draws: Draws, *names: str) -> Tensor:
        """Logits of the concatenated sets of images that have these names."""
        for i, layer in enumerate((self.first, self.second, self.last)):
            rate, size = 0.5 if i else 0.2, len(x) // len(names)
            masks = [draws.mask(f"dropout/{name}/{i}", size, x.size(1), keep=1 - rate) for name in names]
            x = layer(x * torch.cat(masks) * (1 / (1 - rate)))
            if layer is not self.last:
                x = x.unflatten(1, (-1, self.pieces)).amax(2)
        return x.flatten()


class Plain:
    """The zoo's maths and options in a loop by hand: one pass of the discriminator for real and fake images."""

    fused: bool | None = True

    def __init__(self, source: GAN, settings: Settings, noise: Noise) -> None:
        hparams = source.hparams
        if hparams["loss"] != "non_saturating" or source.decay != DECAY:
            raise ValueError("only the authors' setting has loops to compare with")
        pixels, self.latent_dim, hidden = math.prod(source.image_shape), source.latent_dim, hparams["hidden_features"]
        self.generator = layers(self.latent_dim, hidden, hidden, pixels)
        self.discriminator = Judge(pixels, hparams["discriminator_features"], hparams["maxout_pieces"])
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        for name, network in self.networks.items():
            copy_parameters(source.get_submodule(name), network)
        self.rate = hparams["learning_rate"]
        sgd: dict[str, Any] = {"lr": self.rate, "momentum": 0.5, "fused": self.fused}
        self.optimizer_d = torch.optim.SGD(self.discriminator.parameters(), **sgd)
        self.optimizer_g = torch.optim.SGD(self.generator.parameters(), **sgd)
        self.settings = settings
        self.noise = noise
        self.index = 0

    def z(self, draws: Draws) -> Tensor:
        """Noise of variance 1."""
        return draws.uniform("z", self.settings.batch_size, self.latent_dim, low=-math.sqrt(3), high=math.sqrt(3))

    def optimize(self) -> None:
        """Both steps, at the rate of the schedule."""
        for optimizer in (self.optimizer_d, self.optimizer_g):
            optimizer.param_groups[0]["lr"] = self.rate / 1.000004**self.index
            optimizer.step()
            optimizer.zero_grad()
        self.index += 1

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        real = ((batch["image"] + 1) / 2).flatten(1)
        draws = self.noise(self.index)
        with self.settings.autocast():
            fake = self.generator(self.z(draws)).sigmoid()
            on_fake, on_real = self.discriminator(torch.cat([fake, real]), draws, "fake", "real").chunk(2)
            loss_d = 0.5 * (F.softplus(-on_real).mean() + F.softplus(on_fake).mean())
            loss_g = F.softplus(-on_fake).mean()
        torch.autograd.backward(loss_d, inputs=[*self.discriminator.parameters()], retain_graph=True)
        torch.autograd.backward(loss_g, inputs=[*self.generator.parameters()])
        self.optimize()
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Textbook(Plain):
    """Real images, fakes, and fakes for the generator in a pass each, unused gradients, default SGD, float32."""

    fused = None

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        real = ((batch["image"] + 1) / 2).flatten(1)
        draws = self.noise(self.index)
        ones, zeros = torch.ones(len(real)).to(real), torch.zeros(len(real)).to(real)
        fake = torch.sigmoid(self.generator(self.z(draws)))
        judged = torch.sigmoid(self.discriminator(fake, draws, "fake"))
        loss_g = F.binary_cross_entropy(judged, ones)
        torch.autograd.backward(loss_g)
        self.optimizer_d.zero_grad()
        on_real = F.binary_cross_entropy(torch.sigmoid(self.discriminator(real, draws, "real")), ones)
        on_fake = F.binary_cross_entropy(torch.sigmoid(self.discriminator(fake.detach(), draws, "fake")), zeros)
        loss_d = 0.5 * (on_real + on_fake)
        torch.autograd.backward(loss_d)
        self.optimize()
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: fixed noise, no loss beyond a sum, no optimizer; dropout is left."""

    def __init__(self, source: GAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.fixed = self.z(noise(0))

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        real = batch["image"].flatten(1)
        with self.settings.autocast():
            fake = self.generator(self.fixed)
            logits = self.discriminator(torch.cat([fake, real]), self.noise(0), "fake", "real")
        ones = torch.ones_like(logits)
        torch.autograd.grad(logits, [*self.discriminator.parameters()], ones, retain_graph=True)
        torch.autograd.grad(logits, [*self.generator.parameters()], ones)
        return {}


def plain(source: GAN, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: GAN, settings: Settings, noise: Noise) -> Textbook:
    """The usual loop; the settings do not touch it."""
    return Textbook(source, settings, noise)


def networks(source: GAN, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
