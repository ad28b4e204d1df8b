"""GAN: a generator and a discriminator of fully connected layers, and the game between them.

    min_G max_D V(D, G) = E_x log D(x) + E_z log(1 - D(G(z)))

Goodfellow et al., "Generative Adversarial Nets", NIPS 2014, arXiv 1406.2661. The defaults are those of the authors'
code for MNIST: both networks take one gradient step at a time from the same batch and the same fakes, the
discriminator has maxout units and dropout, and G minimises -E log D(G(z)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms, inference
from zoo.base.noise import NoiseToImageGAN
from zoo.engine import rng
from zoo.nn.autoencoders import mlp
from zoo.nn.losses import discriminator_terms, generator_term

__all__ = ["GAN", "Discriminator", "Generator", "Maxout", "optimal_discriminator", "value_at_optimum"]


# The theory of section 4 ----------------------------------------------------------------------------------------------


def optimal_discriminator(p_data: Tensor, p_generator: Tensor) -> Tensor:
    """D*(x) = p_data(x) / (p_data(x) + p_g(x)), the best answer to a fixed generator.

    Args:
        p_data: density (or probability) of the data at some points.
        p_generator: density of the generator's images there.

    Shape:
        all: the same.

    References:
        Goodfellow et al. 2014, proposition 1.
    """
    total = p_data + p_generator
    return torch.where(total > 0, p_data / total, 0.5)  # where neither has mass, any answer is as good


def value_at_optimum(p_data: Tensor, p_generator: Tensor, volume: float | Tensor = 1.0) -> Tensor:
    """V(D*, G) = -log 4 + 2 JSD(p_data || p_g), which is least, -log 4, where both distributions are the same.

    Args:
        p_data: probabilities of the data, or its density on a grid.
        p_generator: the same of the generator's images.
        volume: volume of a grid cell; 1 for probabilities.

    Shape:
        p_data, p_generator: (K,); output: scalar.

    References:
        Goodfellow et al. 2014, theorem 1.
    """
    d = optimal_discriminator(p_data, p_generator)
    value: Tensor = (torch.xlogy(p_data, d) + torch.xlogy(p_generator, 1 - d)) * volume
    return value.sum()


Keep = Callable[[int, int, float], Tensor]


# Networks -------------------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Noise to image: two hidden layers of ReLUs.

    Arguments as for `GAN`.

    Shape:
        z: (N, latent_dim); output: (N, C, H, W) in (0, 1).
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.net = mlp([latent_dim, hidden, hidden, math.prod(shape)])

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Generate images in (0, 1)."""
        return cast(Tensor, self.net(z)).sigmoid().view(-1, *self.shape)


class Maxout(nn.Linear):
    """The largest of `pieces` linear maps, per unit.

    Shape:
        input: (N, inputs); output: (N, units).

    References:
        Goodfellow et al. 2013, "Maxout networks".
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, input: Tensor) -> Tensor:
        """Maps, then the maximum."""
        maps: Tensor = super().forward(input).unflatten(1, (-1, self.pieces))
        return maps.amax(2)


class Discriminator(nn.Module):
    """Image to logit: two layers of maxout or leaky ReLU units, with dropout in front of each layer.

    Arguments as for `GAN`.

    Shape:
        x: (N, C, H, W) in [0, 1]; output: (N,) logits.
    """

    def __init__(self, features: int, units: int, pieces: int, activation: str, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.dropout = dropout
        layers: list[nn.Module]
        if activation == "maxout":
            layers = [Maxout(features, units, pieces), Maxout(units, units, pieces)]
        else:
            layers = [nn.Sequential(nn.Linear(inputs, units), nn.LeakyReLU(0.2, True)) for inputs in (features, units)]
        self.net = nn.ModuleList([*layers, nn.Linear(units, 1)])

    def forward(self, x: Tensor, keep: Keep | None = None) -> Tensor:
        """Logits; `keep(layer, width, rate)` draws what dropout keeps, None keeps all."""
        x = x.flatten(1)
        for i, layer in enumerate(self.net):
            rate = self.dropout[min(i, 1)]
            if keep is not None and rate:
                x = x * keep(i, x.size(1), rate) * (1 / (1 - rate))
            x = layer(x)
        return x.flatten()


class GAN(NoiseToImageGAN):
    """The first generative adversarial network.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        hidden_features: width of the generator's two hidden layers.
        units: width of the discriminator's two hidden layers.
        pieces: linear maps per maxout unit.
        activation: the discriminator's units.
        dropout: share of the discriminator's inputs, and of its hidden units, that is left out in training.
        noise: "uniform" on (-sqrt 3, sqrt 3), which has variance 1; "normal"; "spherical", normal noise of length
            sqrt(latent_dim).
        loss: "non_saturating" (G minimises -E log D(G(z))) or "minimax" (G minimises E log(1 - D(G(z)))).
        optimizer: "sgd" with the authors' schedule of rate and momentum, or "adam".
        learning_rate: step size.
        decay: with "sgd": divide the step size by this after every update, down to 1e-6.
        momentum: with "sgd": momentum in the first epoch and from epoch `momentum_epochs` on, linear between.
        momentum_epochs: see `momentum`.
        betas: with "adam": decay rates.
        n_critic: discriminator steps per generator step.
        weight_range: draw the generator's weights from U(-r, r), the discriminator's from a tenth of it; None keeps
            torch's own initialisation.
        data_bias: start the generator's output at the mean image of the training set, where the DataModule has
            `reference_batches`.
        update: "simultaneous": both networks step from the same weights; "alternating": the discriminator first.
        ema_decay: keep an exponential moving average of the generator, which then makes the samples; None for none.

    References:
        Goodfellow et al. 2014, section 3, algorithm 1, and the authors' code.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 100,
        *,
        hidden_features: int = 1200,
        units: int = 240,
        pieces: int = 5,
        activation: Literal["maxout", "leaky_relu"] = "maxout",
        dropout: tuple[float, float] = (0.2, 0.5),
        noise: Literal["uniform", "normal", "spherical"] = "uniform",
        loss: Literal["non_saturating", "minimax"] = "non_saturating",
        optimizer: Literal["sgd", "adam"] = "sgd",
        learning_rate: float = 0.1,
        decay: float = 1.000004,
        momentum: tuple[float, float] = (0.5, 0.7),
        momentum_epochs: int = 250,
        betas: tuple[float, float] = (0.5, 0.999),
        n_critic: int = 1,
        weight_range: float | None = 0.05,
        data_bias: bool = True,
        update: Literal["alternating", "simultaneous"] = "simultaneous",
        ema_decay: float | None = None,
    ) -> None:
        super().__init__(update=update, step_every={"generator": n_critic}, ema_decay=ema_decay)
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.generator = Generator(self.image_shape, latent_dim, hidden_features)
        self.discriminator = Discriminator(math.prod(self.image_shape), units, pieces, activation, dropout)
        if weight_range is not None:
            for network, limit in ((self.generator, weight_range), (self.discriminator, weight_range / 10)):
                for p in network.parameters():
                    nn.init.uniform_(p, -limit, limit) if p.dim() > 1 else nn.init.zeros_(p)
        self.average_networks()
        self.inference_networks = (*self.inference_networks, "discriminator")

    @classmethod
    def modern(cls, **options: Any) -> GAN:
        """Adam, leaky ReLUs and Gaussian noise in alternating steps, as most tutorials have it.

        Args:
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "activation": "leaky_relu",
            "units": 512,
            "dropout": (0.0, 0.3),
            "noise": "normal",
            "optimizer": "adam",
            "learning_rate": 2e-4,
            "weight_range": None,
            "data_bias": False,
            "update": "alternating",
        }
        return cls(**setting | options)

    def setup(self, stage: str) -> None:
        """Check the strategy; set the generator's output bias to the logits of the mean training image."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and self.hparams["data_bias"] and hasattr(data, "reference_batches"):
            # A resumed run's weights are restored after this.
            total, count = torch.zeros(self.image_shape, dtype=torch.float64), 0
            for _, batch in data.reference_batches(min(10_000, data.num_train), 1000, split="train"):
                total += batch["image"].double().sum(0)
                count += len(batch["image"])
            mean = ((total / count + 1) / 2).clamp(1e-3, 1 - 1e-3)
            for network in (self.generator, self.generator_ema):
                if network is not None:
                    cast(Any, network).net[-1].bias.data.copy_(mean.logit().flatten())

    def noise(self, n: int, key: int, first: int = 0) -> Tensor:
        """Noise vectors; row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim).
        """
        shape = (n, self.latent_dim)
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        if self.hparams["noise"] == "uniform":
            return rng.uniform(shape, key, first, low=-math.sqrt(3), high=math.sqrt(3), **options)
        z = rng.normal(shape, key, first, **options)
        if self.hparams["noise"] == "spherical":
            z = z * (math.sqrt(self.latent_dim) / z.norm(dim=1, keepdim=True))
        return z

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given noise: means, without pixel noise.

        Shape:
            z: (N, latent_dim); output: (N, C, H, W) in [-1, 1].
        """
        return 2 * super().generate(z) - 1

    @inference
    def score(self, x: Tensor) -> Tensor:
        """How little the discriminator takes images for real: -log D(x), higher is more anomalous.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return F.softplus(-cast(Tensor, self.discriminator((x + 1) / 2)))

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """The fakes of this batch; in simultaneous updates also the logits of fake and real images."""
        n = len(batch["image"])
        z = self.noise(n, self.draw_key("z"), self.first_index(n))
        with torch.set_grad_enabled("generator" in self.active_phases):
            shared = {"fake": cast(Tensor, self.generator(z))}
        if self.update == "simultaneous":
            shared["fake_logits"], shared["real_logits"] = self._judge(fake=shared["fake"], real=batch["image"])
        return shared

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-1/2 E log D(x) - 1/2 E log(1 - D(G(z))); the halves are those of the authors' code.

        Shape:
            Output: scalars.
        """
        if "real_logits" in shared:
            real, fake = shared["real_logits"], shared["fake_logits"]
        else:
            fake, real = self._judge(fake=shared["fake"].detach(), real=batch["image"])
        terms = discriminator_terms(self.hparams["loss"], real, fake)
        return {name: 0.5 * term for name, term in terms.items()}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(G(z)), or E log(1 - D(G(z))); the discriminator's dropout is on, as in the authors' code.

        Shape:
            Output: scalar.
        """
        logits = shared.get("fake_logits")
        if logits is None:
            (logits,) = self._judge(generator=shared["fake"])
        return {"adversarial": generator_term(self.hparams["loss"], logits)}

    def _judge(self, **images: Tensor) -> list[Tensor]:
        """Logits of sets of images in one pass, each set with dropout of its own, as no statistics are shared."""
        if "real" in images:
            images["real"] = (images["real"] + 1) / 2

        def keep(layer: int, width: int, rate: float) -> Tensor:
            masks = [
                rng.keep_mask(
                    (len(x), width),
                    1 - rate,
                    self.draw_key(f"dropout/{name}/{layer}"),
                    self.first_index(len(x)),
                    device=x.device,
                )
                for name, x in images.items()
            ]
            return torch.cat(masks)

        logits: Tensor = self.discriminator(torch.cat([*images.values()]), keep)
        return list(logits.split([len(x) for x in images.values()]))

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """Rate and momentum of the authors' schedule."""
        hparams = self.hparams
        if hparams["optimizer"] != "sgd":
            return {}
        first, last = hparams["momentum"]
        share = min(1.0, self.trainer.current_epoch / max(1, hparams["momentum_epochs"] - 1))
        rate = max(1e-6, hparams["learning_rate"] / hparams["decay"] ** step)
        return {"lr": rate, "momentum": first + (last - first) * share}

    def configure_optimizers(self) -> list[Optimizer]:
        """SGD with momentum, or Adam, for each network."""
        hparams = self.hparams
        if hparams["optimizer"] == "adam":
            return [
                self.adam(network.parameters(), hparams["learning_rate"], betas=tuple(hparams["betas"]))
                for network in (self.discriminator, self.generator)
            ]
        return [
            torch.optim.SGD(network.parameters(), hparams["learning_rate"], momentum=hparams["momentum"][0], fused=True)
            for network in (self.discriminator, self.generator)
        ]
