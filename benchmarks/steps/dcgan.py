"""Loops of DCGAN; the textbook one is that of the widely used PyTorch example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from zoo.dcgan import DCGAN


def model(settings: Settings) -> DCGAN:
    """The zoo's model."""
    return DCGAN(
        settings.image_size,
        channels_last=settings.channels_last,
        compile=settings.compile,
        **dict(settings.options),
    )


def sequential_networks(source: DCGAN, *, sigmoid: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """Generator and discriminator written down as the example does, with the weights of the zoo's."""
    size, channels, z, width = (
        source.hparams[name] for name in ("image_size", "image_channels", "latent_dim", "base_channels")
    )
    widths = [width * 2**i for i in range((size // 4).bit_length() - 1)]
    first, last = widths[-1], widths[0]
    up: list[nn.Module] = [nn.ConvTranspose2d(z, first, 4, 1, 0, bias=False), nn.BatchNorm2d(first), nn.ReLU(True)]
    down: list[nn.Module] = [nn.Conv2d(channels, last, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for narrow in widths[-2::-1]:
        up += [nn.ConvTranspose2d(2 * narrow, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU(True)]
    for wide in widths[1:]:
        down += [nn.Conv2d(wide // 2, wide, 4, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2, True)]
    up += [nn.ConvTranspose2d(last, channels, 4, 2, 1, bias=False), nn.Tanh()]
    down += [nn.Conv2d(first, 1, 4, 1, 0, bias=False), *([nn.Sigmoid()] if sigmoid else [])]
    generator, discriminator = nn.Sequential(*up), nn.Sequential(*down)
    copy_parameters(source.generator, generator)
    copy_parameters(source.discriminator, discriminator)
    return generator, discriminator


class Textbook:
    """The example without its prints: all gradients in both phases, default Adam, channels first, float32."""

    def __init__(self, source: DCGAN, noise: Noise) -> None:
        generator, discriminator = sequential_networks(source, sigmoid=True)
        self.networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.generator, self.discriminator = generator, discriminator
        adam: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.criterion = nn.BCELoss()
        self.noise = noise
        self.latent_dim: int = source.hparams["latent_dim"]
        self.index = 0

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        real = batch["image"]
        n = real.size(0)
        # Discriminator: real, then fake images.
        self.discriminator.zero_grad()
        label = torch.full((n,), 1, dtype=real.dtype, device=real.device)
        loss_real = self.criterion(self.discriminator(real).view(-1), label)
        torch.autograd.backward(loss_real)
        fake = self.generator(self.noise(self.index).normal("z", n, self.latent_dim).view(n, -1, 1, 1))
        label.fill_(0)
        loss_fake = self.criterion(self.discriminator(fake.detach()).view(-1), label)
        torch.autograd.backward(loss_fake)
        self.optimizer_d.step()
        # Generator: the same fakes once more, with gradients in the discriminator's weights that nobody uses.
        self.generator.zero_grad()
        label.fill_(1)
        loss = self.criterion(self.discriminator(fake).view(-1), label)
        torch.autograd.backward(loss)
        self.optimizer_g.step()
        self.index += 1
        return {"discriminator": (loss_real + loss_fake).detach(), "generator": loss.detach()}


class Plain:
    """The zoo's maths and options in a loop by hand: frozen discriminator, fused Adam, memory layout, precision."""

    def __init__(self, source: DCGAN, settings: Settings, noise: Noise) -> None:
        self.generator, self.discriminator = sequential_networks(source, sigmoid=False)
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        for network in self.networks.values():
            network.to(memory_format=layout)
            if settings.compile:
                network.compile()
        self.layout = layout
        adam: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": True}
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.settings = settings
        self.noise = noise
        self.latent_dim: int = source.hparams["latent_dim"]
        self.index = 0

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        real = batch["image"].contiguous(memory_format=self.layout)
        z = self.noise(self.index).normal("z", len(real), self.latent_dim)[:, :, None, None]
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            fake = self.generator(z)
            loss_d = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(fake.detach())).mean()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            loss_g = F.softplus(-self.discriminator(fake)).mean()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        self.discriminator.requires_grad_(True)
        self.index += 1
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def __init__(self, source: DCGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.z = noise(0).normal("z", settings.batch_size, self.latent_dim)[:, :, None, None]
        self.parameters = [[*network.parameters()] for network in (self.discriminator, self.generator)]

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        real = batch["image"].contiguous(memory_format=self.layout)
        with self.settings.autocast():
            fake = self.generator(self.z)
            logits = self.discriminator(real), self.discriminator(fake.detach())
        ones = [torch.ones_like(x) for x in logits]
        torch.autograd.grad(logits, self.parameters[0], ones)
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            logit = self.discriminator(fake)
        torch.autograd.grad(logit, self.parameters[1], ones[0])
        self.discriminator.requires_grad_(True)
        return {}


def plain(source: DCGAN, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: DCGAN, settings: Settings, noise: Noise) -> Textbook:
    """The loop of the reference; the settings do not touch it."""
    return Textbook(source, noise)


def networks(source: DCGAN, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
