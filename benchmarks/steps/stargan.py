"""Loops of StarGAN on ten categories; the textbook one is that of the authors' code.

A generator step comes once in n_critic steps: measure turns of whole cycles, `--steps 5`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.steps import Noise, Settings
from zoo.nn.layers import FewChannelConv2d
from zoo.nn.stargan import InstanceNorm
from zoo.stargan import StarGAN


def model(settings: Settings) -> StarGAN:
    """The zoo's model."""
    settings.without_compile()
    names = [f"class{i}" for i in range(10)]
    return StarGAN(settings.image_size, attributes=(), categories=[names], **dict(settings.options))


class Textbook:
    """The authors' code without its prints: every pass by itself, all gradients in both steps, default Adam, float32.

    Their normalization also keeps running statistics, which nothing reads; here it does not.
    """

    fused: bool | None = None

    def __init__(self, source: StarGAN, settings: Settings, noise: Noise) -> None:
        self.hparams: Any = source.hparams
        if self.hparams["attributes"] or source.labels.joint:
            raise ValueError("only one set of categories has loops to compare with")
        if source.ema_decay is not None:
            raise ValueError("only the paper's networks and terms have loops to compare with")
        self.generator: Any = copy.deepcopy(source.generator)
        self.discriminator: Any = copy.deepcopy(source.discriminator)
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        self.labels = len(source.target_names)
        adam: dict[str, Any] = {"lr": self.hparams["learning_rate"], "betas": (0.5, 0.999)}
        adam["fused"] = self.fused
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.noise = noise
        self.index = 0
        if self.fused is None:
            for module in self.generator.modules():
                if isinstance(module, InstanceNorm):
                    module.__class__ = nn.InstanceNorm2d  # type: ignore[assignment]
                elif isinstance(module, FewChannelConv2d):
                    module.__class__ = nn.Conv2d  # type: ignore[assignment]

    def penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """(||grad D||_2 - 1)^2 between real and fake images."""
        mix = self.noise(self.index).uniform("mix", len(real)).view(-1, 1, 1, 1)
        norm: Tensor = self.gradient(mix * real + (1 - mix) * fake).flatten(1).square().sum(1).sqrt()
        return (norm - 1).square().mean()

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of the critic's values, to be differentiated again."""
        values, _ = self.discriminator(x.requires_grad_(True))
        (gradient,) = torch.autograd.grad(values, x, torch.ones_like(values), create_graph=True)
        return gradient

    def weighted(self, critic: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """The critic's term and the labels' cross entropy."""
        loss: Tensor = critic + self.hparams["classification_weight"] * F.cross_entropy(logits, label)
        return loss

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, label = batch["image"], batch["label"]
        order = self.noise(self.index).permutation("target", len(x)).to(label.device)
        target = label[order]
        domain, wanted = (F.one_hot(values, self.labels).to(x.dtype) for values in (label, target))
        # Discriminator: real, then fake images, then those between.
        values, logits = self.discriminator(x)
        fake = self.generator(x, wanted)
        loss_d = self.weighted(-values.mean() + self.discriminator(fake.detach())[0].mean(), logits, label)
        loss_d = loss_d + 10.0 * self.penalty(x.data, fake.data)
        self.reset()
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        losses = {"discriminator": loss_d.detach()}
        self.index += 1
        if self.index % self.hparams["n_critic"]:
            return losses
        # Generator: the same fakes once more, with gradients in the discriminator's weights that nobody uses.
        fake = self.generator(x, wanted)
        values, logits = self.discriminator(fake)
        back = self.generator(fake, domain)
        loss_g = self.weighted(-values.mean(), logits, target) + self.hparams["cycle_weight"] * (x - back).abs().mean()
        self.reset()
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        return losses | {"generator": loss_g.detach()}

    def reset(self) -> None:
        """Forget all gradients."""
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()


class Plain(Textbook):
    """The zoo's maths and options in a loop by hand: shared fakes, one pass of real and fake images, fused Adam."""

    fused = True

    def __init__(self, source: StarGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.settings = settings

    def gradient(self, x: Tensor) -> Tensor:
        """The same, which the discriminator makes itself."""
        gradient: Tensor = self.discriminator.input_gradient(x)
        return gradient

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch."""
        x, label = batch["image"], batch["label"]
        n, is_due = len(x), (self.index + 1) % self.hparams["n_critic"] == 0
        target = label[self.noise(self.index).permutation("target", n).to(label.device)]
        domain, wanted = (F.one_hot(values, self.labels).to(x.dtype) for values in (label, target))
        # The contexts end before the weights change: autocast keeps the weights that it has converted.
        with self.settings.autocast():
            with torch.set_grad_enabled(is_due):
                fake = self.generator(x, wanted)
            values, logits = self.discriminator(torch.cat([x, fake.detach().to(x.dtype)]))
            loss_d = self.weighted(values[n:].mean() - values[:n].mean(), logits[:n], label)
            loss_d = loss_d + 10.0 * self.penalty(x, fake.detach().to(x.dtype))
        torch.autograd.backward(loss_d)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        losses = {"discriminator": loss_d.detach()}
        self.index += 1
        if not is_due:
            return losses
        self.discriminator.requires_grad_(False)
        with self.settings.autocast():
            values, logits = self.discriminator(fake)
            cycle = (x - self.generator(fake, domain)).abs().mean()
            loss_g = self.weighted(-values.mean(), logits, target) + self.hparams["cycle_weight"] * cycle
        torch.autograd.backward(loss_g)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        self.discriminator.requires_grad_(True)
        return losses | {"generator": loss_g.detach()}


class Networks(Plain):
    """The passes of `Plain` and nothing else: no draws, no loss beyond a sum, no optimizer."""

    def __init__(self, source: StarGAN, settings: Settings, noise: Noise) -> None:
        super().__init__(source, settings, noise)
        self.parameters = [[*network.parameters()] for network in (self.discriminator, self.generator)]

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The passes of one batch."""
        x = batch["image"]
        domain = F.one_hot(batch["label"], self.labels).to(x.dtype)
        self.index += 1
        is_due = self.index % self.hparams["n_critic"] == 0
        with self.settings.autocast():
            with torch.set_grad_enabled(is_due):
                fake = self.generator(x, domain)
            outputs = self.discriminator(torch.cat([x, fake.detach().to(x.dtype)]))
            gradient = self.discriminator.input_gradient(x)
        everything = (*outputs, gradient)
        torch.autograd.grad(everything, self.parameters[0], [torch.ones_like(x) for x in everything], allow_unused=True)
        if is_due:
            self.discriminator.requires_grad_(False)
            with self.settings.autocast():
                everything = (*self.discriminator(fake), self.generator(fake, domain))
            torch.autograd.grad(everything, self.parameters[1], [torch.ones_like(x) for x in everything])
            self.discriminator.requires_grad_(True)
        return {}


plain, textbook, networks = Plain, Textbook, Networks
