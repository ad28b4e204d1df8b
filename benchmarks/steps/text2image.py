"""Loops of Text2Image (GAN-INT-CLS); the textbook one makes each of algorithm 1's passes by itself.

Needs `--sentences 1024`, the length of the embeddings.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings
from zoo.nn.text2image import Generator
from zoo.text2image import Text2Image


def model(settings: Settings) -> Text2Image:
    """The zoo's model."""
    settings.without_compile()
    if not settings.sentences:
        raise ValueError("this model draws sentences: say how long their embeddings are, --sentences 1024")
    options = {"channels_last": settings.channels_last, "text_features": settings.sentences} | dict(settings.options)
    return Text2Image(settings.image_size, **options)


class TextbookGenerator(Generator):
    """The generator with its first layer as the textbook has it."""

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Generate images."""
        given = torch.cat([z, self.project(text)], 1)
        start = F.conv_transpose2d(given[:, :, None, None], self.start.weight)
        images: Tensor = self.layers(start)
        return images


class Textbook:
    """Three whole passes of the discriminator, all gradients in both steps, fakes made twice, default Adam, float32."""

    fused: bool | None = None

    def __init__(self, source: Text2Image, settings: Settings, noise: Noise) -> None:
        self.hparams: Any = source.hparams
        if source.ema_decay is not None or source.normalize_embeddings:
            raise ValueError("only generators without an average and embeddings as they are have loops to compare with")
        self.networks: dict[str, nn.Module] = {
            name: copy.deepcopy(getattr(source, name)) for name in ("generator", "discriminator")
        }
        self.generator, self.discriminator = self.networks.values()
        if self.fused is None:
            for network in self.networks.values():
                network.to(memory_format=torch.contiguous_format)
            self.generator.__class__ = TextbookGenerator
        adam = {"lr": self.hparams["learning_rate"], "betas": (0.5, 0.999), "fused": self.fused}
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.settings, self.noise = settings, noise
        self.index = 0

    def drawn(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Noise, and embeddings with those between two of them."""
        draws, half = self.noise(self.index), len(text) // 2
        between = (text[:half] + text[half : 2 * half]) / 2
        every = torch.cat([text, between]) if self.hparams["interpolation_weight"] else text
        z = draws.normal("z", len(text), self.hparams["latent_dim"])
        if len(every) > len(text):
            z = torch.cat([z, draws.normal("z between", half, self.hparams["latent_dim"])])
        return z, every

    def generator_loss(self, logits: Tensor, n: int) -> Tensor:
        """The mean over sentences and those between two, these weighted."""
        losses = F.softplus(-logits)
        total: Tensor = losses[:n].sum() + self.hparams["interpolation_weight"] * losses[n:].sum()
        return total / len(logits)

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, text, other = batch["image"], batch["caption_embedding"], batch["mismatched_embedding"]
        ones, zeros = x.new_ones(len(x)), x.new_zeros(len(x))
        weight = self.hparams["mismatch_weight"]
        z, every = self.drawn(text)
        fake = self.generator(z, every)
        loss_d = F.binary_cross_entropy_with_logits(self.discriminator(x, text), ones)
        of_fake = self.discriminator(fake[: len(x)].detach(), text)
        loss_d = loss_d + (1 - weight) * F.binary_cross_entropy_with_logits(of_fake, zeros)
        loss_d = loss_d + weight * F.binary_cross_entropy_with_logits(self.discriminator(x, other), zeros)
        self.optimizer_d.zero_grad()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        # Generator: its images again, and gradients in the discriminator's weights that nobody uses.
        loss_g = self.generator_loss(self.discriminator(self.generator(z, every), every), len(x))
        self.optimizer_g.zero_grad()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.index += 1
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Plain(Textbook):
    """The zoo's maths and options in a loop by hand: shared passes, frozen discriminator, fused Adam, precision."""

    fused = True

    def of_images(self, x: Tensor) -> Tensor:
        """The discriminator's features of images, in its memory layout."""
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        discriminator: Any = self.discriminator
        features: Tensor = discriminator.features(x.contiguous(memory_format=layout))
        return features

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, text, other = batch["image"], batch["caption_embedding"], batch["mismatched_embedding"]
        discriminator: Any = self.discriminator
        weight = self.hparams["mismatch_weight"]
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            z, every = self.drawn(text)
            fake = self.generator(z, every)
            real, made, own = self.of_images(x), self.of_images(fake[: len(x)].detach()), discriminator.project(text)
            loss_d = F.softplus(-discriminator.discriminate(real, own)).mean()
            loss_d = loss_d + (1 - weight) * F.softplus(discriminator.discriminate(made, own)).mean()
            loss_d = loss_d + weight * F.softplus(discriminator.discriminate(real, discriminator.project(other))).mean()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        discriminator.requires_grad_(False)
        with self.settings.autocast():
            logits = discriminator.discriminate(self.of_images(fake), discriminator.project(every))
            loss_g = self.generator_loss(logits, len(x))
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        discriminator.requires_grad_(True)
        self.index += 1
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no loss beyond a sum, no optimizer."""

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x, text, other = batch["image"], batch["caption_embedding"], batch["mismatched_embedding"]
        discriminator: Any = self.discriminator
        with self.settings.autocast():
            fake = self.generator(*(drawn := self.drawn(text)))
            real, made, own = self.of_images(x), self.of_images(fake[: len(x)].detach()), discriminator.project(text)
            logits = [
                discriminator.discriminate(real, own),
                discriminator.discriminate(made, own),
                discriminator.discriminate(real, discriminator.project(other)),
            ]
        torch.autograd.grad(logits, [*discriminator.parameters()], [torch.ones_like(y) for y in logits])
        discriminator.requires_grad_(False)
        with self.settings.autocast():
            logits = [discriminator.discriminate(self.of_images(fake), discriminator.project(drawn[1]))]
        torch.autograd.grad(logits, [*self.generator.parameters()], [torch.ones_like(logits[0])])
        discriminator.requires_grad_(True)
        self.index += 1
        return {}


plain, textbook, networks = Plain, Textbook, Networks
