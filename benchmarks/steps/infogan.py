"""Loops of InfoGAN with one categorical code, in both forms of its update.

The textbook loop of the alternating update is that of the authors. Beside `update="simultaneous"` stands the usual
formulation of many ports in three passes, one for the discriminator's terms, one for the generator's and one for the
information, each with fakes of its own. Here they are all made at the same weights and with the same latents, so that
the maths are those of the zoo, which takes them from shared forwards; ports step after each pass.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from zoo.infogan import InfoGAN
from zoo.nn.layers import running_statistics_kept, stages


def model(settings: Settings) -> InfoGAN:
    """The zoo's model."""
    settings.without_compile()
    return InfoGAN(settings.image_size, channels_last=settings.channels_last, **dict(settings.options))


def sequential_networks(source: InfoGAN) -> dict[str, nn.Sequential]:
    """The networks written down as one stack of layers each, with the weights of the zoo's."""
    hparams = source.hparams
    start, doublings = stages(hparams["image_size"])
    base, hidden, slope, channels = (
        hparams[name] for name in ("base_channels", "hidden_features", "negative_slope", "image_channels")
    )
    width = base * 2 ** (doublings - 1)
    features = width * start * start
    inputs = source.latent_dim + source.codes.size

    def linear(inner: int, outer: int, activation: nn.Module) -> list[nn.Module]:
        return [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), activation]

    up = [*linear(inputs, hidden, nn.ReLU(True)), *linear(hidden, features, nn.ReLU(True))]
    up.append(nn.Unflatten(1, (width, start, start)))
    down: list[nn.Module] = [nn.Conv2d(channels, base, 4, 2, 1), nn.LeakyReLU(slope, True)]
    for i in range(doublings - 1):
        wide, narrow = width // 2**i, width // 2 ** (i + 1)
        up += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU(True)]
        small, large = base * 2**i, base * 2 ** (i + 1)
        down += [nn.Conv2d(small, large, 4, 2, 1, bias=False), nn.BatchNorm2d(large), nn.LeakyReLU(slope, True)]
    up += [nn.ConvTranspose2d(base, channels, 4, 2, 1), nn.Sigmoid()]
    down += [nn.Flatten(), *linear(features, hidden, nn.LeakyReLU(slope, True))]
    outputs = source.codes.num_parameters
    networks = {
        "generator": nn.Sequential(*up),
        "trunk": nn.Sequential(*down),
        "discriminator": nn.Sequential(nn.Linear(hidden, 1)),
        "recogniser": nn.Sequential(*linear(hidden, 128, nn.LeakyReLU(slope, True)), nn.Linear(128, outputs)),
    }
    for name, network in networks.items():
        copy_parameters(source.get_submodule(name), network)
    return networks


class Plain:
    """The zoo's maths and options in a loop by hand: shared passes, frozen networks, fused Adam, memory layout."""

    fused: bool | None = True

    def __init__(self, source: InfoGAN, settings: Settings, noise: Noise) -> None:
        codes = source.codes
        if type(source) is not InfoGAN or len(codes.categorical) != 1 or not codes.continuous:
            raise ValueError("only InfoGANs with one categorical code and continuous ones have loops")
        stacks = sequential_networks(source)
        self.networks: dict[str, nn.Module] = dict(stacks)
        self.generator, self.trunk, self.discriminator, self.recogniser = stacks.values()
        self.latent_dim, self.values, self.continuous = source.latent_dim, codes.num_categories, codes.continuous
        self.simultaneous = source.update == "simultaneous"
        self.weights: tuple[float, float] = source.hparams["category_weight"], source.hparams["continuous_weight"]
        self.judges = [*chain(self.trunk.parameters(), self.discriminator.parameters(), self.recogniser.parameters())]
        adam: dict[str, Any] = {"betas": (0.5, 0.999), "fused": self.fused}
        rates = source.hparams["discriminator_learning_rate"], source.hparams["generator_learning_rate"]
        self.optimizer_d = torch.optim.Adam(self.judges, lr=rates[0], **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=rates[1], **adam)
        self.layout = torch.contiguous_format
        if self.fused and settings.channels_last:
            self.layout = torch.channels_last
            for network in self.networks.values():
                network.to(memory_format=self.layout)
        self.settings = settings
        self.noise = noise
        self.index = 0

    def latents(self, purpose: str, n: int) -> Tensor:
        """Inputs of the generator: noise, the one-hot category, continuous codes."""
        dims = self.latent_dim + self.continuous
        draws = self.noise(self.index).uniform(purpose, n, dims + 1, low=-1.0, high=1.0)
        z, continuous, chosen = draws.split([self.latent_dim, self.continuous, 1], 1)
        category = ((chosen[:, 0] + 1) * (self.values / 2)).long().clamp(max=self.values - 1)
        return torch.cat([z, F.one_hot(category, self.values).to(z.dtype), continuous], 1)

    def information(self, z: Tensor, features: Tensor) -> Tensor:
        """-w L(G, Q), both codes together."""
        category, codes = z[:, self.latent_dim :].split([self.values, self.continuous], 1)
        logits, mean, _ = self.recogniser(features).split([self.values, self.continuous, self.continuous], 1)
        discrete = F.cross_entropy(logits, category.argmax(1)) - math.log(self.values)
        continuous = 0.5 * ((codes - mean).square() - codes.square()).sum(1).mean()
        lost: Tensor = self.weights[0] * discrete + self.weights[1] * continuous
        return lost

    def kept(self) -> AbstractContextManager[None]:
        """Fakes move no running statistics, as in the zoo."""
        return running_statistics_kept(self.trunk, self.recogniser)

    def judge_real(self, x: Tensor) -> Tensor:
        """The discriminator's logits of real images, which alone move running statistics."""
        features = self.trunk(x)
        with torch.no_grad():
            self.recogniser(features)
        logits: Tensor = self.discriminator(features)
        return logits

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = ((batch["image"] + 1) / 2).contiguous(memory_format=self.layout)
        losses = self.shared_step(x) if self.simultaneous else self.alternating_step(x)
        self.index += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def shared_step(self, x: Tensor) -> dict[str, Tensor]:
        """Both steps from one pass of the fakes."""
        z = self.latents("z", len(x))
        with self.settings.autocast():
            with self.kept():
                features = self.trunk(self.generator(z))
                logits, information = self.discriminator(features), self.information(z, features)
            on_real = self.judge_real(x)
            loss_d = F.softplus(-on_real).mean() + F.softplus(logits).mean() + information
            loss_g = F.softplus(-logits).mean() + information
        torch.autograd.backward(loss_d, inputs=self.judges, retain_graph=True)
        torch.autograd.backward(loss_g, inputs=[*self.generator.parameters()])
        for optimizer in (self.optimizer_d, self.optimizer_g):
            optimizer.step()
            optimizer.zero_grad()
        return {"discriminator": loss_d, "generator": loss_g}

    def alternating_step(self, x: Tensor) -> dict[str, Tensor]:
        """The discriminator's step, then the generator's with latents of its own."""
        z = self.latents("z/discriminator", len(x))
        with self.settings.autocast():
            with torch.no_grad():
                fake = self.generator(z)
            with self.kept():
                features = self.trunk(fake)
                loss_d = F.softplus(self.discriminator(features)).mean() + self.information(z, features)
            loss_d = loss_d + F.softplus(-self.judge_real(x)).mean()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        z = self.latents("z/generator", len(x))
        for p in self.judges:
            p.requires_grad_(False)
        with self.settings.autocast(), self.kept():
            features = self.trunk(self.generator(z))
            loss_g = F.softplus(-self.discriminator(features)).mean() + self.information(z, features)
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        for p in self.judges:
            p.requires_grad_(True)
        return {"discriminator": loss_d, "generator": loss_g}


class Textbook(Plain):
    """Three passes with all gradients in each, sigmoids, default Adam, channels first, float32."""

    fused = None

    def __init__(self, source: InfoGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.criterion = nn.BCELoss()

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = (batch["image"] + 1) / 2
        if self.simultaneous:
            loss_d, loss_g = self.three_passes(x)
            self.optimizer_d.step()
        else:
            z = self.latents("z/discriminator", len(x))
            self.optimizer_d.zero_grad()
            fake = self.generator(z).detach()
            loss_d = self.real_pass(x) + self.fake_pass(fake, z)
            self.optimizer_d.step()
            loss_g = self.generator_pass(self.latents("z/generator", len(x)))
        self.optimizer_g.step()
        self.index += 1
        return {"discriminator": loss_d, "generator": loss_g}

    def three_passes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both steps from a pass each for generator, discriminator and information; returns the losses."""
        z = self.latents("z", len(x))
        loss_g = self.generator_pass(z, information=False)
        self.optimizer_d.zero_grad()  # of what the generator's pass has left there
        loss_d = self.real_pass(x) + self.fake_pass(self.generator(z).detach())
        information = self.information(z, self.trunk(self.generator(z)))
        torch.autograd.backward(information)
        return loss_d + information.detach(), loss_g + information.detach()

    def real_pass(self, x: Tensor) -> Tensor:
        """Gradients of the discriminator's term of real images; returns the loss."""
        loss: Tensor = self.criterion(torch.sigmoid(self.discriminator(self.trunk(x))), torch.ones(len(x), 1).to(x))
        torch.autograd.backward(loss)
        return loss.detach()

    def fake_pass(self, fake: Tensor, z: Tensor | None = None) -> Tensor:
        """Gradients of the discriminator's term of fakes, and of the information where z is given."""
        features = self.trunk(fake)
        zeros = torch.zeros(len(fake), 1).to(fake)
        loss: Tensor = self.criterion(torch.sigmoid(self.discriminator(features)), zeros)
        if z is not None:
            loss = loss + self.information(z, features)
        torch.autograd.backward(loss)
        return loss.detach()

    def generator_pass(self, z: Tensor, information: bool = True) -> Tensor:
        """Gradients of the generator's term, and of the information if it belongs to the same pass."""
        self.optimizer_g.zero_grad()
        features = self.trunk(self.generator(z))
        loss: Tensor = self.criterion(torch.sigmoid(self.discriminator(features)), torch.ones(len(z), 1).to(z))
        if information:
            loss = loss + self.information(z, features)
        torch.autograd.backward(loss)
        return loss.detach()


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def __init__(self, source: InfoGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.z = self.latents("z", settings.batch_size)

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"].contiguous(memory_format=self.layout)
        with self.settings.autocast(), torch.set_grad_enabled(self.simultaneous):
            fake = self.generator(self.z)
        with self.settings.autocast():
            features = self.trunk(fake)
            outputs = [self.discriminator(features), self.recogniser(features)]
            real = self.discriminator(self.trunk(x))
        ones = [torch.ones_like(output) for output in outputs]
        both = [*outputs, real], [*ones, ones[0]]
        torch.autograd.grad(both[0], self.judges, both[1], retain_graph=self.simultaneous)
        if not self.simultaneous:
            for p in self.judges:
                p.requires_grad_(False)
            with self.settings.autocast():
                features = self.trunk(self.generator(self.z))
                outputs = [self.discriminator(features), self.recogniser(features)]
        torch.autograd.grad(outputs, [*self.generator.parameters()], ones)
        for p in self.judges:
            p.requires_grad_(True)
        return {}


def plain(source: InfoGAN, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: InfoGAN, settings: Settings, noise: Noise) -> Textbook:
    """The usual loop; of the settings only the model's own touch it."""
    return Textbook(source, settings, noise)


def networks(source: InfoGAN, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
