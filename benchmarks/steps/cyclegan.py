"""Loops of CycleGAN; the textbook one is that of the authors' code, which freezes the discriminators as we do."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from zoo.cyclegan import CycleGAN
from zoo.nn.cyclegan import ImagePool, PatchDiscriminator, ResnetGenerator

UNPAIRED = True


def model(settings: Settings) -> CycleGAN:
    """The zoo's model."""
    settings.without_compile()
    return CycleGAN(settings.image_size, **dict(settings.options))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        total: Tensor = x + self.layers(x)
        return total


def sequential_network(source: nn.Module) -> nn.Sequential:
    """A network written down as a stack of torch's own layers, with the weights of the zoo's."""

    def normed(convolution: nn.Module, activation: nn.Module | None) -> list[nn.Module]:
        width = convolution.out_channels
        return [convolution, nn.InstanceNorm2d(width), *([activation] if activation else [])]  # type: ignore[arg-type]

    def padded(inner: int, outer: int, kernel: int, bias: bool = False) -> list[nn.Module]:
        return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inner, outer, kernel, bias=bias)]

    if isinstance(source, PatchDiscriminator):
        convolutions = [source.start, *source.layers, source.end]
        layers: list[nn.Module] = []
        for i, old in enumerate(convolutions):
            options: dict[str, Any] = {"stride": old.stride, "padding": old.padding, "bias": old.bias is not None}
            new = nn.Conv2d(old.in_channels, old.out_channels, 4, **options)
            inner = 0 < i < len(convolutions) - 1
            activation = nn.LeakyReLU(0.2, True)
            layers += normed(new, activation) if inner else [new, activation] if i == 0 else [new]
    else:
        if not isinstance(source, ResnetGenerator) or source.attention:
            raise ValueError("only ResNet generators without attention have loops")
        colors, c = source.start.in_channels, source.start.out_channels
        pad, first = padded(colors, c, 7)
        layers = [pad, *normed(first, nn.ReLU(True))]
        for width in (c, 2 * c):
            layers += normed(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.ReLU(True))
        for _ in source.blocks:
            (pad1, conv1), (pad2, conv2) = padded(4 * c, 4 * c, 3), padded(4 * c, 4 * c, 3)
            layers.append(Residual(pad1, *normed(conv1, nn.ReLU(True)), pad2, *normed(conv2, None)))
        for width in (4 * c, 2 * c):
            layers += normed(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1, bias=False), nn.ReLU(True))
        layers += [*padded(c, colors, 7, bias=True), nn.Tanh()]
    network = nn.Sequential(*layers)
    copy_parameters(source, network)
    return network


class Textbook:
    """The authors' code without its prints: every pass by itself, torch's own layers, default Adam, float32."""

    fused: bool | None = None

    def __init__(self, source: CycleGAN, noise: Noise) -> None:
        self.hparams: Any = source.hparams
        if not self.hparams["identity_ratio"] or source.ema_decay is not None:
            raise ValueError("only identity terms and no average have loops to compare with")
        self.networks: dict[str, nn.Module] = {name: self.network(network) for name, network in source.named_children()}
        self.ab, self.ba = self.networks["generator_ab"], self.networks["generator_ba"]
        self.d_a, self.d_b = self.networks["discriminator_a"], self.networks["discriminator_b"]
        adam: dict[str, Any] = {"lr": self.hparams["learning_rate"], "betas": (0.5, 0.999)}
        adam["fused"] = self.fused
        self.optimizer_g = torch.optim.Adam(chain(self.ab.parameters(), self.ba.parameters()), **adam)
        self.optimizer_d = torch.optim.Adam(chain(self.d_a.parameters(), self.d_b.parameters()), **adam)
        self.pools = {domain: ImagePool(self.hparams["pool_size"]) for domain in "ab"}
        self.noise = noise
        self.index = 0

    def network(self, source: nn.Module) -> nn.Module:
        """A copy of one of the zoo's networks."""
        return sequential_network(source)

    def pooled(self, domain: str, fake: Tensor) -> Tensor:
        """Fakes for a discriminator, some of them earlier ones."""
        draws = self.noise(self.index).uniform(f"pool/{domain}", len(fake), 2).cpu()
        return self.pools[domain].exchange(fake.detach(), draws)

    def freeze(self, frozen: bool) -> None:
        """Whether the discriminators' weights take gradients."""
        for discriminator in (self.d_a, self.d_b):
            discriminator.requires_grad_(not frozen)

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        a, b = batch["image_a"], batch["image_b"]
        weight = self.hparams["cycle_weight"]
        fake_b = self.ab(a)
        cycled_a = self.ba(fake_b)
        fake_a = self.ba(b)
        cycled_b = self.ab(fake_a)
        self.freeze(True)
        self.optimizer_g.zero_grad()
        loss_g = weight * self.hparams["identity_ratio"] * F.l1_loss(self.ab(b), b)
        loss_g = loss_g + weight * self.hparams["identity_ratio"] * F.l1_loss(self.ba(a), a)
        loss_g = loss_g + (self.d_b(fake_b) - 1).square().mean() + (self.d_a(fake_a) - 1).square().mean()
        loss_g = loss_g + weight * F.l1_loss(cycled_a, a) + weight * F.l1_loss(cycled_b, b)
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.freeze(False)
        self.optimizer_d.zero_grad()
        losses = []
        for domain, discriminator, real, fake in (("b", self.d_b, b, fake_b), ("a", self.d_a, a, fake_a)):
            pooled = self.pooled(domain, fake)
            loss = 0.5 * ((discriminator(real) - 1).square().mean() + discriminator(pooled).square().mean())
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        self.optimizer_d.step()
        self.index += 1
        return {"generator": loss_g.detach(), "discriminator": losses[0] + losses[1]}


class Plain(Textbook):
    """The zoo's maths and options in a loop by hand: fewer and larger passes, fused Adam."""

    fused = True

    def __init__(self, source: CycleGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, noise)
        self.settings = settings

    def network(self, source: nn.Module) -> nn.Module:
        """A copy of one of the zoo's networks, with its kernels."""
        return copy.deepcopy(source)

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        a, b = batch["image_a"], batch["image_b"]
        weight = self.hparams["cycle_weight"]
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            fake_b, identity_b = self.ab(torch.cat([a, b])).chunk(2)
            fake_a, identity_a = self.ba(torch.cat([b, a])).chunk(2)
            self.freeze(True)
            loss_g = (self.d_b(fake_b) - 1).square().mean() + (self.d_a(fake_a) - 1).square().mean()
            loss_g = loss_g + weight * (F.l1_loss(self.ba(fake_b), a) + F.l1_loss(self.ab(fake_a), b))
            identity = F.l1_loss(identity_b, b) + F.l1_loss(identity_a, a)
            loss_g = loss_g + weight * self.hparams["identity_ratio"] * identity
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        self.freeze(False)
        with self.settings.autocast():
            losses = []
            for domain, discriminator, real, fake in (("a", self.d_a, a, fake_a), ("b", self.d_b, b, fake_b)):
                of_real, of_fake = discriminator(torch.cat([real, self.pooled(domain, fake)])).chunk(2)
                losses.append(0.5 * ((of_real - 1).square().mean() + of_fake.square().mean()))
            loss_d = losses[0] + losses[1]
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        self.index += 1
        return {"generator": loss_g.detach(), "discriminator": loss_d.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no pools, no loss beyond a sum, no optimizer."""

    def __init__(self, source: CycleGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        pairs = (self.ab, self.ba), (self.d_a, self.d_b)
        self.parameters = [[*chain.from_iterable(network.parameters() for network in pair)] for pair in pairs]

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        a, b = batch["image_a"], batch["image_b"]
        with self.settings.autocast():
            made_b, made_a = self.ab(torch.cat([a, b])), self.ba(torch.cat([b, a]))
            fake_b, fake_a = made_b[: len(a)], made_a[: len(a)]
            self.freeze(True)
            outputs = [made_a, made_b, self.d_b(fake_b), self.d_a(fake_a), self.ba(fake_b), self.ab(fake_a)]
        torch.autograd.grad(outputs, self.parameters[0], [torch.ones_like(x) for x in outputs])
        self.freeze(False)
        with self.settings.autocast():
            outputs = [
                discriminator(torch.cat([real, fake.detach()]))
                for discriminator, real, fake in ((self.d_a, a, fake_a), (self.d_b, b, fake_b))
            ]
        torch.autograd.grad(outputs, self.parameters[1], [torch.ones_like(x) for x in outputs])
        return {}


def plain(source: CycleGAN, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: CycleGAN, settings: Settings, noise: Noise) -> Textbook:
    """The loop of the reference; the settings do not touch it."""
    return Textbook(source, noise)


def networks(source: CycleGAN, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
