"""InfoGAN: a GAN trained so that a part of its input, the codes c, can be recovered from the image.

    D and Q minimize  -E log D(x) - E log(1 - D(G(z, c))) - w L(G, Q),   G minimizes  -E log D(G(z, c)) - w L(G, Q)
    L(G, Q) = E log Q(c | G(z, c)) + H(c),   a lower bound of the mutual information I(c; G(z, c))

Chen et al., "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets",
NIPS 2016, arXiv 1606.03657. The defaults are those of the authors' code for MNIST. Layers in front of a batch
normalization have no bias here, because the normalization would subtract it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms, inference
from zoo.base.latent import sweep
from zoo.base.noise import NoiseOptions, NoiseToImageGAN
from zoo.engine import rng
from zoo.nn.infogan import LatentCodes, RecognitionNetwork, Trunk, initialize, make_networks
from zoo.nn.layers import running_statistics_kept, unit
from zoo.nn.losses import at_least_float32, discriminator_terms, generator_term

__all__ = ["InfoGAN"]


class InfoGAN(NoiseToImageGAN):
    """GAN with categorical and continuous codes that a recognition network Q reads off the images.

    Categories have equal chances, continuous codes follow U(-1, 1). Q shares the trunk of the discriminator and is
    trained with it, as in the authors' code.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the incompressible noise z.
        categorical_codes: number of values of each categorical code.
        num_continuous: number of continuous codes.
        noise: z ~ U(-1, 1), or N(0, 1) as in common ports.
        base_channels: channels of the largest hidden feature map in both networks.
        hidden_features: width of the linear layers.
        negative_slope: of the leaky ReLUs (0.01 in the authors' code, 0.1 in the paper's appendix).
        category_weight: weight of the mutual information with categorical codes.
        continuous_weight: weight of the mutual information with continuous codes.
        generator_learning_rate: Adam's step size for the generator.
        discriminator_learning_rate: Adam's step size for the discriminator and Q.
        update: "alternating": one step of the discriminator, then one of the generator against it, with latents of its
            own; "simultaneous": both steps from one pass with the same latents.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size, no codes, or a categorical code of one value.

    References:
        Chen et al. 2016, equations 5 and 6, and appendix C.1.
    """

    inference_networks = ("generator", "trunk", "discriminator", "recogniser")
    conditions = ("category",)
    make_networks: Callable[..., tuple[nn.Module, Trunk]] = staticmethod(make_networks)

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 62,
        categorical_codes: Sequence[int] = (10,),
        num_continuous: int = 2,
        *,
        noise: Literal["uniform", "normal"] = "uniform",
        base_channels: int = 64,
        hidden_features: int = 1024,
        negative_slope: float = 0.01,
        category_weight: float = 1.0,
        continuous_weight: float = 1.0,
        generator_learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 2e-4,
        update: Literal["alternating", "simultaneous"] = "alternating",
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(update=update, **options)
        self.save_hyperparameters()
        self.latent_dim, self.noise_kind = latent_dim, noise
        self.codes = LatentCodes(categorical_codes, num_continuous)
        self.generator, self.trunk = self.make_networks(latent_dim + self.codes.size, self.hparams)
        self.discriminator = nn.Linear(self.trunk.features, 1)
        self.recogniser = RecognitionNetwork(self.trunk.features, self.codes.num_parameters, negative_slope)
        self.apply(initialize)
        self.average_networks()
        self.lay_out()  # inference too is faster, and published outputs are those of this layout

    # Latents ---------------------------------------------------------------------------------------------------------

    def noise(self, n: int, key: rng.Key, first: int = 0) -> Tensor:
        """Inputs of the generator, z and c; row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim + size of the codes).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        draws = rng.uniform((n, self.latent_dim + self.codes.num_draws), key, first, low=-1.0, high=1.0, **options)
        z, c = draws.split([self.latent_dim, self.codes.num_draws], 1)
        if self.noise_kind == "normal":
            z = rng.normal((n, self.latent_dim), rng.key(key, "z"), first, **options)
        return torch.cat([z, self.codes.draw(c)], 1)

    @inference
    def latent(
        self, n: int, *, seed: int | None = None, first: int = 0, category: int | Tensor | None = None
    ) -> Tensor:
        """The inputs of the generator from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, latent_dim + size of the codes).
        """
        z = self.noise(n, rng.key(self.resolve_seed(seed), "sample"), first)
        if category is None:
            return z
        chosen = self.labels_for(n, category, self.codes.num_categories, "category")
        z, c = z.split([self.latent_dim, self.codes.size], 1)
        return torch.cat([z, self.codes.choose(c, chosen)], 1)

    def sample_inputs(self, n: int, seed: int, first: int, **conditions: Any) -> dict[str, Any]:
        """Noise and codes; `category` is a value of the first categorical code, or one per image."""
        return {"z": self.latent(n, seed=seed, first=first, **conditions)}

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given inputs of the generator.

        Shape:
            z: (N, latent_dim + size of the codes); output: (N, C, H, W) in [-1, 1].
        """
        return 2 * cast(Tensor, self.averaged("generator")(z)) - 1

    @inference
    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images while one code varies and all else stays: `num` rows of `steps` values, of a category all its own.

        Shape:
            Outputs, by the name of the code: (num, steps, C, H, W).
        """
        base = self.latent(num, seed=seed)
        return {
            name: sweep(self.generate, base, self.latent_dim + start, values.to(base))
            for name, (start, values) in self.codes.sweep(steps).items()
        }

    # What Q and the discriminator say --------------------------------------------------------------------------------

    @inference
    def encode(self, x: Tensor) -> Tensor:
        """Posterior Q(c | x): probabilities of the categories, then means of the continuous codes.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, size of the codes).
        """
        logits, mean, _ = self.codes.split(self.recogniser(self.trunk(unit(x))))
        return torch.cat([*(part.softmax(1) for part in logits), mean], 1)

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Posterior of the first categorical code, whose values are classes found without labels.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, categorical_codes[0]).

        Raises:
            ValueError: the model has no categorical code.
        """
        probabilities: Tensor = self.encode(x)[:, : self.codes.num_categories]
        return probabilities

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Anomaly score -log D(x): higher means less realistic.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return F.softplus(-cast(Tensor, self.discriminator(self.trunk(unit(x)))).flatten())

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """In simultaneous updates the fakes and the views of them; alternating phases make their own."""
        return self.fakes(batch, "z") if self.update == "simultaneous" else {}

    def features(self, x: Tensor, purpose: str) -> Tensor:
        """Features of images in [0, 1] in training."""
        if self.augment:
            x = unit(self.augmented(2 * x - 1, purpose))
        return cast(Tensor, self.trunk(x))

    def fakes(self, batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Latents, their images, the discriminator's logits of these and the parameters of Q."""
        n = len(batch["image"])
        z = self.noise(n, self.draw_key(purpose), self.first_index(n))
        # A compiled network does not always notice that it was frozen, but that nobody asks for gradients.
        with torch.set_grad_enabled(torch.is_grad_enabled() and next(self.generator.parameters()).requires_grad):
            image = self.generator(z)
        with running_statistics_kept(self.trunk, self.recogniser):
            features = self.features(image, "fake")
            logits = self.discriminator(features).flatten()
            return {"z": z, "image": image, "logits": logits, "q": at_least_float32(self.recogniser(features))}

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(x) - E log(1 - D(G(z, c))) - w L(G, Q)."""
        fakes = shared or self.fakes(batch, "z/discriminator")
        # Separately: the statistics of real and fake images must not mix in the batch normalization.
        features = self.features(unit(batch["image"]), "real")
        real = self.discriminator(features).flatten()
        # NOTE(paper): the reference's running statistics are those of real and generated images together. Here they are
        # those of real images, which `encode`, `classify` and `score` are for; Q learns nothing from these.
        with torch.no_grad():
            self.recogniser(features)
        return discriminator_terms("non_saturating", real, fakes["logits"]) | self.information(fakes)

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(G(z, c)) - w L(G, Q)."""
        fakes = shared or self.fakes(batch, "z/generator")
        return {"adversarial": generator_term("non_saturating", fakes["logits"])} | self.information(fakes)

    def information(self, fakes: dict[str, Tensor]) -> Terms:
        """-w L(G, Q) of each categorical code, and of the continuous ones together."""
        c = fakes["z"][:, self.latent_dim :]
        logits, mean, _ = self.codes.split(fakes["q"])
        terms: Terms = {}
        for i, bound in enumerate(self.categorical_bounds(c, logits, fakes)):
            terms[f"category{i}" if i else "category"] = -self.hparams["category_weight"] * bound
        if self.codes.continuous:
            bound = self.codes.continuous_bound(c, mean)
            terms["continuous"] = -self.hparams["continuous_weight"] * bound
        return terms

    def categorical_bounds(self, c: Tensor, logits: list[Tensor], fakes: dict[str, Tensor]) -> list[Tensor]:
        """E log Q(c | G(z, c)) + H(c) of each categorical code, of which Q gives the logits."""
        return self.codes.categorical_bounds(c, logits)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for the discriminator with Q, and for the generator."""
        networks = nn.ModuleList([self.trunk, self.discriminator, self.recogniser]), self.generator
        rates = self.hparams["discriminator_learning_rate"], self.hparams["generator_learning_rate"]
        return [self.adam(n.parameters(), rate, betas=(0.5, 0.999)) for n, rate in zip(networks, rates, strict=True)]
