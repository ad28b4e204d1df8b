"""Loops of Puzzle-GAN; the textbook one is that of the authors' code. Needs `--patches 3`.

A generator step comes with every second batch: measure turns of whole cycles, `--steps 2`.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings
from zoo.nn.layers import StartMap
from zoo.puzzlegan import PuzzleGAN

NETWORKS = ("encoder", "mask_generator", "generator", "discriminator")


def model(settings: Settings) -> PuzzleGAN:
    """The zoo's model."""
    settings.without_compile()
    if not settings.patches:
        raise ValueError("this model makes images of patches: say how many, --patches 3")
    return PuzzleGAN(settings.image_size, channels_last=settings.channels_last, **dict(settings.options))


class Start(nn.ConvTranspose2d):
    """A start map as the textbook has it."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps from vectors."""
        return super().forward(input[:, :, None, None])


class Textbook:
    """The authors' code without its prints: gradients through everything in every step, default Adam, float32.

    With the two further composites, of generated parts and generated backgrounds, that enter no loss of theirs. All
    patches pass the encoder together, as in the zoo: one by one, each would be normalized by itself.
    """

    fused: bool | None = None

    def __init__(self, source: PuzzleGAN, settings: Settings, noise: Noise) -> None:
        self.hparams: Any = source.hparams
        self.networks: dict[str, nn.Module] = {name: copy.deepcopy(getattr(source, name)) for name in NETWORKS}
        self.encoder, self.mask_generator, self.generator, self.discriminator = self.networks.values()
        if self.fused is None:
            for network in self.networks.values():
                network.to(memory_format=torch.contiguous_format)
                for module in network.modules():
                    if isinstance(module, StartMap):
                        module.__class__ = Start  # type: ignore[assignment]
        adam: dict[str, Any] = {"lr": self.hparams["learning_rate"], "betas": (0.5, 0.999)}
        adam["fused"] = self.fused
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        makers = chain(*(self.networks[name].parameters() for name in NETWORKS[:3]))
        self.optimizer_g = torch.optim.Adam(makers, **adam)
        self.noise = noise
        self.index = 0

    def assemble(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Images and masks."""
        z = self.noise(self.index).uniform("z", len(patches), self.hparams["latent_dim"], low=-1.0, high=1.0)
        features, embedding = self.encoder(patches)
        mask, joined = self.mask_generator(features, embedding)
        image: Tensor = self.generator(embedding, z, joined)
        return image, mask

    def differences(self, batch: dict[str, Tensor], fake: Tensor, mask: Tensor) -> Tensor:
        """The terms of mask and appearance."""
        x, m = batch["image"], batch["mask"]
        of_mask: Tensor = self.hparams["l1_weight"][0] * (mask - m).abs().sum()
        appearance: Tensor = self.hparams["l1_weight"][0] * (fake * mask - x * m).abs().sum()
        return of_mask + appearance

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, m, other = batch["image"], batch["mask"], batch["other"]
        fake, mask = self.assemble(batch["patches"])
        made = fake.detach()
        ones, zeros = x.new_ones(len(x)), x.new_zeros(len(x))
        of_real = self.discriminator(x).sigmoid()
        pairs = ((other, x), (x, other), (made, x), (x, made))  # the parts, and the background that they are put on
        composites = [parts * m + background * (1 - m) for parts, background in pairs]
        of_fakes = [self.discriminator(images).sigmoid() for images in (made, *composites)]
        loss_d = F.binary_cross_entropy(of_real, ones)
        for of_fake in of_fakes[:3]:
            loss_d = loss_d + F.binary_cross_entropy(of_fake, zeros)
        self.optimizer_d.zero_grad()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        losses = {"discriminator": loss_d.detach()}
        self.index += 1
        if self.index % self.hparams["n_critic"]:
            return losses
        # Generator: with gradients in the discriminator's weights that nobody uses.
        loss_g = F.binary_cross_entropy(self.discriminator(fake).sigmoid(), ones) + self.differences(batch, fake, mask)
        self.optimizer_g.zero_grad()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        return losses | {"generator": loss_g.detach()}


class Plain(Textbook):
    """The zoo's maths and options in a loop by hand: frozen discriminator, fused Adam, memory layout, precision."""

    fused = True

    def __init__(self, source: PuzzleGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.settings = settings
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format

    def judged(self, *kinds: Tensor) -> list[Tensor]:
        """Logits of each kind of images."""
        discriminator: Any = self.discriminator
        laid_out = [x.contiguous(memory_format=self.layout) for x in kinds]
        logits: list[Tensor] = discriminator.discriminate_all(*laid_out)
        return logits

    def made(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Images and masks in the precision of the patches."""
        rows = patches.flatten(0, 1).contiguous(memory_format=self.layout)
        fake, mask = self.assemble(rows.unflatten(0, patches.shape[:2]))
        return fake.to(patches.dtype), mask.to(patches.dtype)

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, m, other = batch["image"], batch["mask"], batch["other"]
        is_due = (self.index + 1) % self.hparams["n_critic"] == 0
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            with torch.set_grad_enabled(is_due):
                fake, mask = self.made(batch["patches"])
            real, *fakes = self.judged(x, fake.detach(), other * m + x * (1 - m), x * m + other * (1 - m))
            loss_d = F.softplus(-real).mean() + torch.stack([F.softplus(logits).mean() for logits in fakes]).sum()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        losses = {"discriminator": loss_d.detach()}
        self.index += 1
        if not is_due:
            return losses
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            loss_g = F.softplus(-self.judged(fake)[0]).mean() + self.differences(batch, fake, mask)
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        self.discriminator.requires_grad_(True)
        return losses | {"generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no loss beyond a sum, no optimizer."""

    def __init__(self, source: PuzzleGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.parameters = [*chain(*(self.networks[name].parameters() for name in NETWORKS[:3]))]

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x, other = batch["image"], batch["other"]
        self.index += 1
        is_due = self.index % self.hparams["n_critic"] == 0
        with self.settings.autocast():
            with torch.set_grad_enabled(is_due):
                fake, mask = self.made(batch["patches"])
            outputs = self.judged(x, fake.detach(), other, other)
        torch.autograd.grad(outputs, [*self.discriminator.parameters()], [torch.ones_like(y) for y in outputs])
        if is_due:
            self.discriminator.requires_grad_(False)
            with self.settings.autocast():
                outputs = [*self.judged(fake), mask]
            torch.autograd.grad(outputs, self.parameters, [torch.ones_like(y) for y in outputs])
            self.discriminator.requires_grad_(True)
        return {}


plain, textbook, networks = Plain, Textbook, Networks
