"""Loops of the WAE and the WAE-GAN (`benchmarks.steps.wae_gan`); pretraining of the encoder is left out.

The textbook loop makes every pass by itself, and the discrepancy from one matrix of distances for each pair of sets.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from benchmarks.steps.vae import layers
from zoo.gaussian_wae import GaussianWAE
from zoo.wae import BETAS, WAE
from zoo.wae_gan import WAEGAN

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def model(settings: Settings) -> WAE:
    """The zoo's model."""
    settings.without_compile()
    return WAE(settings.image_size, **{"pretraining_steps": 0} | dict(settings.options))


def convolution(inner: int, outer: int, kernel: int, side: int, stride: int, bias: bool) -> list[nn.Module]:
    """A convolution padded like TensorFlow's."""
    total = (-(-side // stride) - 1) * stride + kernel - side
    before, after = total // 2, total - total // 2
    if before == after:
        return [nn.Conv2d(inner, outer, kernel, stride, before, bias=bias)]
    return [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inner, outer, kernel, stride, bias=bias)]


def sequential_networks(source: WAE) -> dict[str, nn.Sequential]:
    """The networks written down as one stack of layers each, with the weights of the zoo's."""
    hparams, code = source.hparams, source.latent_dim
    (channels, size, _), base = source.image_shape, hparams["base_channels"]
    kernel, doublings = (5, 3) if size >= 64 else (4, 2)
    down: list[nn.Module] = []
    inner, side = channels, size
    for outer in (base, 2 * base, 4 * base, 8 * base):
        down += [*convolution(inner, outer, kernel, side, 2, False), nn.BatchNorm2d(outer), nn.ReLU(True)]
        inner, side = outer, -(-side // 2)
    down += [nn.Flatten(), nn.Linear(inner * side * side, code)]
    start = size // 2**doublings
    up: list[nn.Module] = [
        nn.Linear(code, inner * start * start),
        nn.ReLU(True),
        nn.Unflatten(1, (inner, start, start)),
    ]
    for _ in range(doublings):
        up.append(nn.ConvTranspose2d(inner, inner // 2, kernel, 2, (kernel - 1) // 2, kernel % 2, bias=False))
        inner //= 2
        up += [nn.BatchNorm2d(inner), nn.ReLU(True)]
    up += convolution(inner, channels, kernel, size, 1, True)
    networks = {"encoder": nn.Sequential(*down), "decoder": nn.Sequential(*up)}
    if isinstance(source, WAEGAN):
        networks["discriminator"] = layers(code, *hparams["discriminator_features"], 1)
    for name, network in networks.items():
        copy_parameters(source.get_submodule(name), network)
    return networks


class Plain:
    """The zoo's maths and options in a loop by hand: one matrix of distances, frozen discriminator, fused Adam."""

    fused: bool | None = True

    def __init__(self, source: WAE, settings: Settings, noise: Noise) -> None:
        hparams = source.hparams
        if hparams["pretraining_steps"] or isinstance(source, GaussianWAE):
            raise ValueError("only deterministic WAEs with pretraining_steps=0 have loops to compare with")
        stacks = sequential_networks(source)
        self.networks: dict[str, nn.Module] = dict(stacks)
        self.encoder, self.decoder = stacks["encoder"], stacks["decoder"]
        self.latent_dim, self.prior_std = source.latent_dim, source.prior_std
        self.input_noise: float = hparams["input_noise_std"]
        self.weight: float = hparams["reconstruction_weight"]
        self.penalty_weight: float = hparams["penalty_weight"]
        self.density_trick: bool = hparams.get("density_trick", False)
        adam: dict[str, Any] = {"betas": BETAS, "fused": self.fused}
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(both, lr=hparams["learning_rate"], **adam)
        self.discriminator = stacks.get("discriminator")
        if self.discriminator is not None:
            rate = hparams["discriminator_learning_rate"]
            self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=rate, **adam)
        self.settings = settings
        self.noise = noise
        self.index = 0

    def prior(self, purpose: str, n: int) -> Tensor:
        """Codes of the prior."""
        z = self.noise(self.index).normal(purpose, n, self.latent_dim)
        return z if self.prior_std == 1 else self.prior_std * z

    def code(self, x: Tensor, purpose: str) -> Tensor:
        """Codes of images."""
        if self.input_noise:
            x = x + self.input_noise * self.noise(self.index).normal(f"{purpose}/input", *x.shape)
        z: Tensor = self.encoder(x)
        return z.float() if z.dtype == torch.bfloat16 else z

    def discrepancy(self, z: Tensor, prior: Tensor) -> Tensor:
        """Unbiased estimate of the squared discrepancy."""
        n, scale = len(z), 2 * self.latent_dim * self.prior_std**2
        both = torch.cat([z, prior])
        norms = both.square().sum(1)
        with torch.autocast(self.settings.device, enabled=False):
            squared = (norms[:, None] + norms - 2 * both @ both.T).clamp(min=0)
        k = torch.stack([c / (c + squared) for c in (scale * s for s in SCALES)]).sum(0)
        same = 1 - torch.eye(n, device=z.device, dtype=z.dtype)
        within = (k[:n, :n] * same).sum() + (k[n:, n:] * same).sum()
        return within / (n * (n - 1)) - 2 * k[:n, n:].mean()

    def judge(self, z: Tensor) -> Tensor:
        """Logits of the discriminator."""
        assert self.discriminator is not None
        logits: Tensor = self.discriminator(z).flatten()
        if self.density_trick:
            variance = self.prior_std**2
            constant = 0.5 * self.latent_dim * math.log(2 * math.pi * variance)
            logits = logits - z.square().sum(1) / (2 * variance) - constant
        return logits

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = (batch["image"] + 1) / 2
        n = len(x)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            z = self.code(x, "encoder")
            error = (self.decoder(z).sigmoid() - x).square().flatten(1).sum(1).mean()
            if self.discriminator is None:
                penalty = self.discrepancy(z, self.prior("prior", n))
            else:
                penalty = F.softplus(-self.judge(z)).mean()
            loss = self.weight * error + self.penalty_weight * penalty
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        losses = {"autoencoder": loss.detach()}
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            prior = self.prior("prior", n)
            with self.settings.autocast():
                with torch.no_grad():
                    z = self.code(x, "discriminator")
                on_prior, on_code = self.judge(torch.cat([prior, z])).chunk(2)
                loss_d = self.penalty_weight * (F.softplus(-on_prior).mean() + F.softplus(on_code).mean())
            torch.autograd.backward(loss_d)
            self.optimizer_d.step()
            self.optimizer_d.zero_grad()
            losses["discriminator"] = loss_d.detach()
        self.index += 1
        return losses


class Textbook(Plain):
    """Sigmoids, every pass by itself, gradients that nobody uses, default Adam, float32."""

    fused = None

    def discrepancy(self, z: Tensor, prior: Tensor) -> Tensor:
        """The same estimate, set by set and scale by scale."""
        n = len(z)
        off_diagonal = 1 - torch.eye(n).to(z)

        def distances(a: Tensor, b: Tensor) -> Tensor:
            return a.pow(2).sum(1, keepdim=True) + b.pow(2).sum(1) - 2 * torch.matmul(a, b.t())

        of_prior, of_codes, between = distances(prior, prior), distances(z, z), distances(z, prior)
        total = torch.zeros(()).to(z)
        for s in SCALES:
            c = 2 * self.latent_dim * self.prior_std**2 * s
            same = (c / (c + of_prior) + c / (c + of_codes)) * off_diagonal
            total = total + same.sum() / (n * n - n) - 2 * (c / (c + between)).sum() / (n * n)
        return total

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = (batch["image"] + 1) / 2
        ones, zeros = torch.ones(len(x)).to(x), torch.zeros(len(x)).to(x)
        self.optimizer.zero_grad()
        z = self.code(x, "encoder")
        error = F.mse_loss(torch.sigmoid(self.decoder(z)), x) * x[0].numel()
        if self.discriminator is None:
            penalty = self.discrepancy(z, self.prior("prior", len(x)))
        else:
            penalty = F.binary_cross_entropy(torch.sigmoid(self.judge(z)), ones)
        loss = self.weight * error + self.penalty_weight * penalty
        torch.autograd.backward(loss)
        self.optimizer.step()
        losses = {"autoencoder": loss.detach()}
        if self.discriminator is not None:
            self.optimizer_d.zero_grad()
            prior = self.prior("prior", len(x))
            on_code = torch.sigmoid(self.judge(self.code(x, "discriminator").detach()))
            on_prior = F.binary_cross_entropy(torch.sigmoid(self.judge(prior)), ones)
            loss_d = self.penalty_weight * (on_prior + F.binary_cross_entropy(on_code, zeros))
            torch.autograd.backward(loss_d)
            self.optimizer_d.step()
            losses["discriminator"] = loss_d.detach()
        self.index += 1
        return losses


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def __init__(self, source: WAE, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.z = self.prior("prior", settings.batch_size)

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x, judge = batch["image"], self.discriminator
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        if judge is not None:
            judge.requires_grad_(False)
        with self.settings.autocast():
            z = self.encoder(x)
            outputs = [self.decoder(z)] if judge is None else [self.decoder(z), judge(z)]
        torch.autograd.grad(outputs, both, [torch.ones_like(output) for output in outputs])
        if judge is not None:
            judge.requires_grad_(True)
            with self.settings.autocast():
                with torch.no_grad():
                    z = self.encoder(x)
                logits = judge(torch.cat([self.z, z]))
            torch.autograd.grad(logits, [*judge.parameters()], torch.ones_like(logits))
        return {}


def plain(source: WAE, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: WAE, settings: Settings, noise: Noise) -> Textbook:
    """The usual loop; the settings do not touch it."""
    return Textbook(source, settings, noise)


def networks(source: WAE, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
