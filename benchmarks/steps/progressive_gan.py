"""Loops of Progressive GAN at one of its stages, fully faded in; the textbook one makes every pass by itself.

`--image-size` is the stage's resolution: 4, 8, 16, ...
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings
from zoo.nn.progressive_gan_growth import Growth
from zoo.nn.progressive_gan_layers import (
    DownsampleConv2d,
    EqualizedConv2d,
    EqualizedLinear,
    EqualizedStartMap,
    UpsampleConv2d,
    doubled,
)
from zoo.progressive_gan import DRIFT_WEIGHT, PENALTY_WEIGHT, ProgressiveGAN


def model(settings: Settings) -> ProgressiveGAN:
    """The zoo's model."""
    settings.without_compile()
    size = settings.image_size
    growth = Growth(first_resolution=size, global_batch_size=settings.batch_size)
    return ProgressiveGAN(size, growth=growth, channels_last=settings.channels_last, **dict(settings.options))


class TextbookConv(EqualizedConv2d):
    """Scaled weights, whatever their number."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(input, self.weight * self.scale, self.bias, padding=self.padding)


class TextbookUpConv(TextbookConv):
    """Each pixel four times, then the convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        return super().forward(doubled(input))


class TextbookDownConv(DownsampleConv2d):
    """The convolution, then the mean of 2x2 pixels; blocks know by its class that the mean has been taken."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        return F.avg_pool2d(F.conv2d(input, self.weight * self.scale, self.bias, padding=1), 2)


class TextbookLinear(EqualizedLinear):
    """Scaled weights."""

    def forward(self, input: Tensor) -> Tensor:
        """The map."""
        return F.linear(input, self.weight * self.scale, self.bias)


class TextbookStart(EqualizedStartMap):
    """Scaled weights."""

    def forward(self, input: Tensor) -> Tensor:
        """The map, (N, C, 4, 4)."""
        x = F.linear(input, self.weight * self.scale).view(len(input), -1, 4, 4)
        return x + (self.bias.view(-1, 1, 1) if len(self.bias) == x.size(1) else self.bias.view(x.shape[1:]))


class Textbook:
    """Every pass by itself, all gradients in both steps, fakes made twice, default Adam, float32."""

    fused: bool | None = None

    def __init__(self, source: ProgressiveGAN, settings: Settings, noise: Noise) -> None:
        self.hparams: Any = source.hparams
        if source.penalty_every != 1 or self.hparams["simultaneous"]:
            raise ValueError("only alternating steps with a penalty in each have loops to compare with")
        self.source_stage = source.stage
        self.generator, self.discriminator = copy.deepcopy(source.generator), copy.deepcopy(source.discriminator)
        self.average = copy.deepcopy(source.averaged("generator"))
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "generator_ema": self.average,
            "discriminator": self.discriminator,
        }
        if self.fused is None:
            others: dict[type[nn.Module], type[nn.Module]] = {
                EqualizedConv2d: TextbookConv,
                UpsampleConv2d: TextbookUpConv,
                DownsampleConv2d: TextbookDownConv,
                EqualizedLinear: TextbookLinear,
                EqualizedStartMap: TextbookStart,
            }
            for module in [*self.generator.modules(), *self.discriminator.modules()]:
                if type(module) in others:
                    module.__class__ = others[type(module)]
            for network in self.networks.values():
                network.to(memory_format=torch.contiguous_format)
        adam: dict[str, Any] = {"lr": self.hparams["learning_rate"], "betas": (0.0, 0.99)}
        adam["fused"] = self.fused
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.noise = noise
        self.index = 0

    def make(self, z: Tensor) -> Tensor:
        """Fakes of the stage."""
        fake: Tensor = self.generator(z, self.source_stage, 1.0)
        return fake

    def discriminate(self, x: Tensor, n: int) -> Tensor:
        """The discriminator's values."""
        group = min(self.hparams["minibatch_stddev_group"] or n, n)
        values: Tensor = self.discriminator(x, self.source_stage, 1.0, group)
        return values

    def penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """w / t^2 (||grad D||_2 - t)^2 between real and fake images."""
        target = self.hparams["gradient_target"]
        mix = self.noise(self.index).uniform("mix", len(real)).view(-1, 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        values = self.discriminate(between, len(real))
        (gradient,) = torch.autograd.grad(values, between, torch.ones_like(values), create_graph=True)
        norm: Tensor = gradient.flatten(1).square().sum(1).sqrt()
        weight: float = PENALTY_WEIGHT / target**2
        penalty: Tensor = weight * (norm - target).square().mean()
        return penalty

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = batch["image"]
        n = len(x)
        z = self.noise(self.index).normal("z", n, self.hparams["latent_dim"])
        real = self.discriminate(x, n)
        fake = self.make(z).detach()
        loss_d = self.discriminate(fake, n).mean() - real.mean() + DRIFT_WEIGHT * real.square().mean()
        loss_d = loss_d + self.penalty(x, fake)
        self.reset()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        # Generator: the same fakes once more, with gradients in the discriminator's weights that nobody uses.
        loss_g = -self.discriminate(self.make(z), n).mean()
        self.reset()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        with torch.no_grad():
            for average, p in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(p, 1 - self.hparams["ema_decay"])
        self.index += 1
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}

    def reset(self) -> None:
        """Forget all gradients."""
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()


class Plain(Textbook):
    """The zoo's maths and options in a loop by hand: shared fakes, one pass of real and fake images, fused Adam."""

    fused = True

    def __init__(self, source: ProgressiveGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.settings = settings
        self.active: list[list[nn.Parameter]] = [
            [p for p in network.parameters() if p.requires_grad] for network in (self.discriminator, self.generator)
        ]

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = batch["image"]
        n = len(x)
        z = self.noise(self.index).normal("z", n, self.hparams["latent_dim"])
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            fake = self.make(z)
            values = self.discriminate(torch.cat([x, fake.detach().to(x.dtype)]), n)
            loss_d = values[n:].mean() - values[:n].mean() + DRIFT_WEIGHT * values[:n].square().mean()
        loss_d = loss_d + self.penalty(x, fake.detach().to(x.dtype))
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        for p in self.active[0]:
            p.requires_grad = False
        with self.settings.autocast():
            loss_g = -self.discriminate(fake, n).mean()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        for p in self.active[0]:
            p.requires_grad = True
        average: list[Tensor] = [*cast(Any, self.average).active(self.source_stage, 1.0)]
        own: list[Tensor] = [*cast(Any, self.generator).active(self.source_stage, 1.0)]
        with torch.no_grad():
            torch._foreach_lerp_(average, own, 1 - self.hparams["ema_decay"])
        self.index += 1
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no draws, no loss beyond a sum, no optimizer."""

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"]
        n = len(x)
        z = x.new_ones(n, self.hparams["latent_dim"])
        with self.settings.autocast():
            fake = self.make(z)
            values = self.discriminate(torch.cat([x, fake.detach().to(x.dtype)]), n)
        between = x.detach().requires_grad_(True)
        inner = self.discriminate(between, n)
        (gradient,) = torch.autograd.grad(inner, between, torch.ones_like(inner), create_graph=True)
        everything = (values, gradient)
        torch.autograd.grad(everything, self.active[0], [torch.ones_like(y) for y in everything], allow_unused=True)
        for p in self.active[0]:
            p.requires_grad = False
        with self.settings.autocast():
            values = self.discriminate(fake, n)
        torch.autograd.grad(values, self.active[1], torch.ones_like(values))
        for p in self.active[0]:
            p.requires_grad = True
        return {}


plain, textbook, networks = Plain, Textbook, Networks
