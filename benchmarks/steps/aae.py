"""Loops of the basic and the semi-supervised AAE of linear layers, with Adam.

The textbook loop is written as most ports of it are. The semi-supervised form has a fourth phase and a second
discriminator, that of the class; `--labelled 100` measures it.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings, copy_parameters
from benchmarks.steps.vae import layers
from zoo.aae import AAE
from zoo.semi_supervised_aae import SemiSupervisedAAE


def model(settings: Settings) -> AAE:
    """The zoo's model."""
    settings.without_compile()
    kind = SemiSupervisedAAE if settings.labelled else AAE
    return kind.modern(image_size=settings.image_size, **dict(settings.options))


class Plain:
    """The zoo's maths and options in a loop by hand: only the gradients that a phase uses, fused Adam."""

    fused: bool | None = True

    def __init__(self, source: AAE, settings: Settings, noise: Noise) -> None:
        pixels = math.prod(source.image_shape)
        semi = source if isinstance(source, SemiSupervisedAAE) else None
        usual = source.prior_kind == "gaussian" and source.prior_std == 1 and source.posterior == "deterministic"
        usual = usual and source.adam_optimizer and source.decay is None and not (semi and semi.affine_classes)
        if not usual or type(source) not in (AAE, SemiSupervisedAAE):
            raise ValueError(
                "only the AAE and the semi-supervised one with the Gaussian prior of deviation 1, a deterministic "
                "encoder, Adam without decay and plain classes have loops to compare with"
            )
        hidden, judges = (
            [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)][:-1]
            for network in (source.encoder, source.discriminators["style"])
        )
        self.latent_dim, self.classes = source.latent_dim, semi.num_classes if semi else 0
        self.input_noise = semi.input_noise_std if semi else 0.0
        code = self.classes + self.latent_dim
        self.encoder = layers(pixels, *hidden, code)
        self.decoder = layers(code, *hidden[::-1], pixels)
        self.judges = nn.ModuleList(layers(size, *judges, 1) for size in (self.latent_dim, self.classes) if size)
        self.networks: dict[str, nn.Module] = {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "discriminators": self.judges,
        }
        for name, network in self.networks.items():
            copy_parameters(source.get_submodule(name), network)
        adam: dict[str, Any] = {"betas": (0.5, 0.999), "fused": self.fused}
        rates = {phase: setting.learning_rate for phase, setting in source.phase_settings.items()}
        both, slow = [*self.encoder.parameters(), *self.decoder.parameters()], rates["encoder"]
        self.optimizer_r = torch.optim.Adam(both, lr=rates["reconstruction"], **adam)
        self.optimizer_d = torch.optim.Adam(self.judges.parameters(), lr=slow, **adam)
        self.optimizer_e = torch.optim.Adam(self.encoder.parameters(), lr=slow, **adam)
        rate = rates.get("classification", 0.0)
        self.optimizer_c = torch.optim.Adam(self.encoder.parameters(), lr=rate, **adam) if self.classes else None
        self.weight = source.reconstruction_weight
        self.settings = settings
        self.noise = noise
        self.index = 0

    def images(self, batch: dict[str, Any]) -> Tensor:
        """Flat images in [0, 1]."""
        x: Tensor = ((batch["image"] + 1) / 2).flatten(1)
        return x

    def encode(self, x: Tensor, purpose: str) -> Tensor:
        """The encoder's output: class logits, if there are classes, and the style."""
        if self.input_noise:
            x = x + self.input_noise * self.noise(self.index).normal(f"{purpose}/input", *x.shape)
        code: Tensor = self.encoder(x)
        return code

    def codes(self, x: Tensor, purpose: str) -> list[Tensor]:
        """What each discriminator sees of images: the style, and class probabilities."""
        code = self.encode(x, purpose)
        if not self.classes:
            return [code]
        logits, style = code.split([self.classes, self.latent_dim], 1)
        return [style, logits.softmax(1)]

    def priors(self, n: int) -> list[Tensor]:
        """The same of the priors."""
        draws = self.noise(self.index)
        z = draws.normal("prior", n, self.latent_dim)
        if not self.classes:
            return [z]
        return [z, F.one_hot(draws.integers("class", n, high=self.classes), self.classes).to(z.dtype)]

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = self.images(batch)
        with self.settings.autocast():
            codes = self.codes(x, "reconstruction")
            code = torch.cat(codes[::-1], 1) if self.classes else codes[0]
            error = (self.decoder(code).sigmoid() - x).square().sum(1).mean()
            loss_r = self.weight * error
        torch.autograd.backward(loss_r)
        self.optimizer_r.step()
        self.optimizer_r.zero_grad()
        priors = self.priors(len(x))
        with self.settings.autocast():
            with torch.no_grad():
                codes = self.codes(x, "discriminator")
            terms = []
            for judge, prior, code in zip(self.judges, priors, codes, strict=True):
                on_prior, on_code = judge(torch.cat([prior, code])).chunk(2)
                terms += [F.softplus(-on_prior).mean(), F.softplus(on_code).mean()]
            loss_d = reduce(add, terms)
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        self.judges.requires_grad_(False)
        with self.settings.autocast():
            codes = self.codes(x, "encoder")
            terms = [F.softplus(-judge(code)).mean() for judge, code in zip(self.judges, codes, strict=True)]
            loss_e = reduce(add, terms)
        torch.autograd.backward(loss_e)
        self.optimizer_e.step()
        self.optimizer_e.zero_grad()
        self.judges.requires_grad_(True)
        losses = {"reconstruction": loss_r.detach(), "discriminator": loss_d.detach(), "encoder": loss_e.detach()}
        if self.optimizer_c is not None:
            labelled = batch.get("labelled", batch)
            with self.settings.autocast():
                logits = self.encode(self.images(labelled), "classification")[:, : self.classes]
                loss_c = F.cross_entropy(logits, labelled["label"])
            torch.autograd.backward(loss_c)
            self.optimizer_c.step()
            self.optimizer_c.zero_grad()
            losses["classification"] = loss_c.detach()
        self.index += 1
        return losses


class Textbook(Plain):
    """Steps with sigmoids, every pass by itself, gradients that nobody uses, default Adam, float32."""

    fused = None

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on one batch."""
        x = self.images(batch)
        ones, zeros = torch.ones(len(x), 1, dtype=x.dtype), torch.zeros(len(x), 1, dtype=x.dtype)
        ones, zeros = ones.to(x.device), zeros.to(x.device)
        for optimizer in (self.optimizer_r, self.optimizer_d, self.optimizer_e):
            optimizer.zero_grad()
        code = torch.cat(self.codes(x, "reconstruction")[::-1], 1)
        loss_r = self.weight * x[0].numel() * F.mse_loss(torch.sigmoid(self.decoder(code)), x)
        torch.autograd.backward(loss_r)
        self.optimizer_r.step()
        loss_d = torch.zeros((), dtype=x.dtype).to(x.device)
        codes = self.codes(x, "discriminator")
        for judge, prior, code in zip(self.judges, self.priors(len(x)), codes, strict=True):
            judged = torch.sigmoid(judge(code.detach()))
            on_prior = F.binary_cross_entropy(torch.sigmoid(judge(prior)), ones)
            loss_d = loss_d + on_prior + F.binary_cross_entropy(judged, zeros)
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_e.zero_grad()
        loss_e = torch.zeros((), dtype=x.dtype).to(x.device)
        for judge, code in zip(self.judges, self.codes(x, "encoder"), strict=True):
            loss_e = loss_e + F.binary_cross_entropy(torch.sigmoid(judge(code)), ones)
        torch.autograd.backward(loss_e)
        self.optimizer_e.step()
        losses = {"reconstruction": loss_r.detach(), "discriminator": loss_d.detach(), "encoder": loss_e.detach()}
        if self.optimizer_c is not None:
            labelled = batch.get("labelled", batch)
            self.optimizer_c.zero_grad()
            logits = self.encode(self.images(labelled), "classification")[:, : self.classes]
            loss_c = F.cross_entropy(logits, labelled["label"])
            torch.autograd.backward(loss_c)
            self.optimizer_c.step()
            losses["classification"] = loss_c.detach()
        self.index += 1
        return losses


class Networks(Plain):
    """The passes of `Plain` and nothing else: no noise, no loss beyond a sum, no optimizer."""

    def __init__(self, source: AAE, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.fixed = self.priors(settings.batch_size)

    def split(self, code: Tensor) -> list[Tensor]:
        """Style and class logits, as the discriminators take them."""
        return [*code.split([self.classes, self.latent_dim], 1)][::-1] if self.classes else [code]

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"].flatten(1)
        encoder, decoder, judges = ([*network.parameters()] for network in self.networks.values())
        with self.settings.autocast():
            logits = self.decoder(self.encoder(x))
        torch.autograd.grad(logits, encoder + decoder, torch.ones_like(logits))
        with self.settings.autocast():
            with torch.no_grad():
                codes = self.split(self.encoder(x))
            sets = zip(self.judges, self.fixed, codes, strict=True)
            judged = [judge(torch.cat([prior, code])) for judge, prior, code in sets]
        torch.autograd.grad(judged, judges, [torch.ones_like(both) for both in judged])
        self.judges.requires_grad_(False)
        with self.settings.autocast():
            codes = self.split(self.encoder(x))
            judged = [judge(code) for judge, code in zip(self.judges, codes, strict=True)]
        torch.autograd.grad(judged, encoder, [torch.ones_like(logit) for logit in judged])
        self.judges.requires_grad_(True)
        if self.classes:
            with self.settings.autocast():
                code = self.encoder(batch.get("labelled", batch)["image"].flatten(1))
            torch.autograd.grad(code, encoder, torch.ones_like(code))
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
