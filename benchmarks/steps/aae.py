"""Loops of the basic AAE of linear layers, with Adam; the textbook one is written as most ports of it are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from benchmarks.steps.vae import layers
from zoo.aae import AAE


def model(settings: Settings) -> AAE:
    """The zoo's model."""
    settings.without_compile()
    return AAE.modern(image_size=settings.image_size, **dict(settings.options))


class Plain:
    """The zoo's maths and options in a loop by hand: only the gradients that a phase uses, fused Adam."""

    fused: bool | None = True

    def __init__(self, source: AAE, settings: Settings, noise: Noise) -> None:
        if source.form != "basic" or source.hparams["networks"] != "mlp":
            raise ValueError("only the basic form with networks='mlp' has loops to be measured beside")
        pixels, hparams = math.prod(source.image_shape), source.hparams
        hidden, judges = hparams["hidden_features"], hparams["discriminator_features"]
        self.latent_dim = source.latent_dim
        self.encoder = layers(pixels, *hidden, self.latent_dim)
        self.decoder = layers(self.latent_dim, *hidden[::-1], pixels)
        self.discriminator = layers(self.latent_dim, *judges, 1)
        self.networks: dict[str, nn.Module] = {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "discriminators": self.discriminator,
        }
        for name, network in self.networks.items():
            copy_parameters(source.get_submodule(name), network)
        adam: dict[str, Any] = {"betas": tuple(hparams["betas"]), "fused": self.fused}
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        slow = hparams["adversarial_learning_rate"]
        self.optimizer_r = torch.optim.Adam(both, lr=hparams["reconstruction_learning_rate"], **adam)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=slow, **adam)
        self.optimizer_e = torch.optim.Adam(self.encoder.parameters(), lr=slow, **adam)
        self.weight = hparams["reconstruction_weight"]
        self.settings = settings
        self.noise = noise
        self.index = 0

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = ((batch["image"] + 1) / 2).flatten(1)
        n = len(x)
        with self.settings.autocast():
            error = (self.decoder(self.encoder(x)).sigmoid() - x).square().sum(1).mean()
            loss_r = self.weight * error
        torch.autograd.backward(loss_r)
        self.optimizer_r.step()
        self.optimizer_r.zero_grad()
        z = self.noise(self.index).normal("prior", n, self.latent_dim)
        with self.settings.autocast():
            with torch.no_grad():
                code = self.encoder(x)
            on_prior, on_code = self.discriminator(torch.cat([z, code])).chunk(2)
            loss_d = F.softplus(-on_prior).mean() + F.softplus(on_code).mean()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            loss_e = F.softplus(-self.discriminator(self.encoder(x))).mean()
        torch.autograd.backward(loss_e)
        self.optimizer_e.step()
        self.optimizer_e.zero_grad()
        self.discriminator.requires_grad_(True)
        self.index += 1
        return {"reconstruction": loss_r.detach(), "discriminator": loss_d.detach(), "encoder": loss_e.detach()}


class Textbook(Plain):
    """Three steps with sigmoids, every pass by itself, gradients that nobody uses, default Adam, float32."""

    fused = None

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = ((batch["image"] + 1) / 2).flatten(1)
        ones, zeros = torch.ones(len(x), 1, dtype=x.dtype), torch.zeros(len(x), 1, dtype=x.dtype)
        ones, zeros = ones.to(x.device), zeros.to(x.device)
        for optimizer in (self.optimizer_r, self.optimizer_d, self.optimizer_e):
            optimizer.zero_grad()
        loss_r = self.weight * x[0].numel() * F.mse_loss(torch.sigmoid(self.decoder(self.encoder(x))), x)
        torch.autograd.backward(loss_r)
        self.optimizer_r.step()
        z = self.noise(self.index).normal("prior", len(x), self.latent_dim)
        judged = torch.sigmoid(self.discriminator(self.encoder(x).detach()))
        on_prior = F.binary_cross_entropy(torch.sigmoid(self.discriminator(z)), ones)
        loss_d = on_prior + F.binary_cross_entropy(judged, zeros)
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_e.zero_grad()
        loss_e = F.binary_cross_entropy(torch.sigmoid(self.discriminator(self.encoder(x))), ones)
        torch.autograd.backward(loss_e)
        self.optimizer_e.step()
        self.index += 1
        return {"reconstruction": loss_r.detach(), "discriminator": loss_d.detach(), "encoder": loss_e.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def __init__(self, source: AAE, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.z = noise(0).normal("prior", settings.batch_size, self.latent_dim)

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"].flatten(1)
        encoder, decoder, judge = ([*network.parameters()] for network in self.networks.values())
        with self.settings.autocast():
            logits = self.decoder(self.encoder(x))
        torch.autograd.grad(logits, encoder + decoder, torch.ones_like(logits))
        with self.settings.autocast():
            with torch.no_grad():
                code = self.encoder(x)
            both = self.discriminator(torch.cat([self.z, code]))
        torch.autograd.grad(both, judge, torch.ones_like(both))
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            logit = self.discriminator(self.encoder(x))
        torch.autograd.grad(logit, encoder, torch.ones_like(logit))
        self.discriminator.requires_grad_(True)
        return {}


def plain(source: AAE, settings: Settings, noise: Noise) -> Plain:
    """The zoo's maths and options in a plain loop."""
    return Plain(source, settings, noise)


def textbook(source: AAE, settings: Settings, noise: Noise) -> Textbook:
    """The usual loop; the settings do not touch it."""
    return Textbook(source, settings, noise)


def networks(source: AAE, settings: Settings, noise: Noise) -> Networks:
    """The networks' passes alone."""
    return Networks(source, settings, noise)
