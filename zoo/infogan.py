"""InfoGAN: a GAN whose generator is made to say what a part of its input, the codes c, has done to the image.

    D and Q minimise  -E log D(x) - E log(1 - D(G(z, c))) - w L(G, Q),   G minimises  -E log D(G(z, c)) - w L(G, Q)
    L(G, Q) = E log Q(c | G(z, c)) + H(c),   a lower bound of the mutual information I(c; G(z, c))

Layers in front of a batch normalisation have no bias here, which it would take out again.

Chen et al., "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets",
NIPS 2016, arXiv 1606.03657. The defaults are those of the authors' code for MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms, inference
from zoo.base.noise import NoiseToImageGAN
from zoo.engine import rng
from zoo.nn.augment import random_affine
from zoo.nn.losses import at_least_float32, discriminator_terms, generator_term

__all__ = ["Generator", "InfoGAN", "Recogniser", "Trunk"]


def stages(image_size: int) -> tuple[int, int]:
    """Side of the smallest feature map (7 for 28 pixels, else 4), and how many times it is doubled.

    Raises:
        ValueError: the size is not supported.
    """
    start = 7 if image_size == 28 else 4
    doublings = (image_size // start).bit_length() - 1
    if doublings < 1 or start * 2**doublings != image_size:
        raise ValueError(f"image_size {image_size} is not supported: take 28, or a power of two from 8 (32, 64, ...)")
    return start, doublings


class Generator(nn.Module):
    """Noise and codes to image: two linear layers, then strided transposed convolutions.

    Arguments as for `InfoGAN`.

    Shape:
        z: (N, inputs); output: (N, image_channels, image_size, image_size) in (0, 1).
    """

    def __init__(self, inputs: int, image_size: int, image_channels: int, base_channels: int, hidden: int) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        width = base_channels * 2 ** (doublings - 1)
        self.start_shape = (width, start, start)
        features = math.prod(self.start_shape)
        self.linear = nn.Sequential(
            nn.Linear(inputs, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(True),  # (N, hidden)
            nn.Linear(hidden, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(True),  # (N, C * start * start)
        )
        layers: list[nn.Module] = []
        for _ in range(doublings - 1):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(True),
            ]
            width //= 2  # (N, C / 2, 2H, 2W)
        self.conv = nn.Sequential(*layers, nn.ConvTranspose2d(width, image_channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Generate images in (0, 1)."""
        x = cast(Tensor, self.linear(z)).view(-1, *self.start_shape)
        return cast(Tensor, self.conv(x))


class Trunk(nn.Module):
    """Image to features, shared by the discriminator and the recogniser.

    Arguments as for `InfoGAN`.

    Shape:
        x: (N, image_channels, image_size, image_size) in [0, 1]; output: (N, hidden).
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int, hidden: int, slope: float) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        width = base_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(slope, True)]
        for _ in range(doublings - 1):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(slope, True),
            ]
            width *= 2  # (N, 2C, H / 2, W / 2)
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Sequential(
            nn.Linear(width * start * start, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(slope, True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of images."""
        return cast(Tensor, self.linear(self.conv(x).flatten(1)))


class Recogniser(nn.Sequential):
    """Features to the parameters of Q(c | x): logits of each categorical code, then a mean and s per continuous one.

    Arguments as for `InfoGAN`.

    Shape:
        input: (N, hidden); output: (N, sum(categories) + 2 * continuous).
    """

    def __init__(self, hidden: int, outputs: int, slope: float) -> None:
        layers = [
            nn.Linear(hidden, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(slope, True),
            nn.Linear(128, outputs),
        ]
        super().__init__(*layers)


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), those of convolutions within two deviations; norms' scales from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
    elif isinstance(module, nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(cast(Tensor, module.bias))


class InfoGAN(NoiseToImageGAN):
    """GAN with categorical and continuous codes that a recogniser Q reads off the images.

    Codes are drawn uniformly: categories with equal chances, continuous codes from U(-1, 1); Q's density of continuous
    codes is Gaussian. Q shares the trunk of the discriminator and is trained with it, as in the authors' code.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the incompressible noise z.
        categories: number of values of each categorical code.
        continuous: number of continuous codes.
        noise: z ~ U(-1, 1), or N(0, 1) as in common ports; the codes' distributions stay.
        base_channels: channels of the largest hidden feature map in both networks.
        hidden_features: width of the linear layers.
        slope: negative slope of the leaky ReLUs (0.01 in the authors' code, 0.1 in the paper's appendix).
        category_weight: weight of the mutual information with categorical codes.
        continuous_weight: weight of the mutual information with continuous codes.
        information_warmup: steps over which both weights grow linearly from 0.
        transformed_share: share of the information with categorical codes that Q has to find in images which
            `random_affine` has changed. So categories cannot stand for slant, size or place. In the paper,
            with 0, two classes often share a code while another one is split by its slant.
        recogniser_learns: in which phase Q's own layers learn; with "generator", as in common ports, the shared trunk
            learns nothing of the codes.
        learn_std: Q learns the deviation of continuous codes; else it is 1.
        generator_learning_rate: Adam's step size for the generator.
        discriminator_learning_rate: Adam's step size for the discriminator and the recogniser.
        betas: Adam's decay rates.
        update: "alternating": one step of the discriminator, then one of the generator against it, with latents of its
            own; "simultaneous": both steps from one pass with the same latents.
        accumulate: batches whose gradients make one step.
        gradient_clip: largest gradient norm per optimizer; None does not clip.
        channels_last: lay out convolutions channels last, which is faster on most devices.

    Raises:
        ValueError: an unsupported size, no codes, a categorical code of one value, or a share beyond 0..1.

    References:
        Chen et al. 2016, equations 5 and 6, and appendix C.1.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 62,
        categories: Sequence[int] = (10,),
        continuous: int = 2,
        *,
        noise: Literal["uniform", "normal"] = "uniform",
        base_channels: int = 64,
        hidden_features: int = 1024,
        slope: float = 0.01,
        category_weight: float = 1.0,
        continuous_weight: float = 1.0,
        information_warmup: int = 0,
        transformed_share: float = 0.0,
        recogniser_learns: Literal["discriminator", "generator"] = "discriminator",
        learn_std: bool = False,
        generator_learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        update: Literal["alternating", "simultaneous"] = "alternating",
        accumulate: int = 1,
        gradient_clip: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(update=update, accumulate=accumulate, gradient_clip=gradient_clip)
        self.save_hyperparameters()
        if any(count < 2 for count in categories):
            raise ValueError(f"a categorical code needs at least two values, categories is {list(categories)}")
        if not 0 <= transformed_share <= 1:
            raise ValueError(f"transformed_share must lie in 0..1, not {transformed_share}")
        if not categories and not continuous:
            raise ValueError("InfoGAN needs a code: give categories, continuous or both")
        self.latent_dim = latent_dim
        self.num_classes = 0
        self.categories = tuple(categories)
        self.continuous = continuous
        inputs = latent_dim + sum(self.categories) + continuous
        self.generator = Generator(inputs, image_size, image_channels, base_channels, hidden_features)
        self.trunk = Trunk(image_size, image_channels, base_channels, hidden_features, slope)
        self.discriminator = nn.Linear(hidden_features, 1)
        self.recogniser = Recogniser(hidden_features, sum(self.categories) + 2 * continuous, slope)
        self.apply(initialise)
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.average_networks()
        self.inference_networks = ("generator", "trunk", "discriminator", "recogniser")

    # Latents ---------------------------------------------------------------------------------------------------------

    def noise(self, n: int, key: int, first: int = 0) -> Tensor:
        """Generator inputs (z, one-hot categories, continuous codes); row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim + sum(categories) + continuous).
        """
        dims = self.latent_dim + self.continuous
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        draws = rng.uniform((n, dims + len(self.categories)), key, first, low=-1.0, high=1.0, **options)
        z, continuous, chosen = draws.split([self.latent_dim, self.continuous, len(self.categories)], 1)
        if self.hparams["noise"] == "normal":
            z = rng.normal((n, self.latent_dim), rng.key(key, "z"), first, **options)
        onehots = [
            F.one_hot(((chosen[:, i] + 1) * (count / 2)).long().clamp(max=count - 1), count).to(z.dtype)
            for i, count in enumerate(self.categories)
        ]
        return torch.cat([z, *onehots, continuous], 1)

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw images.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: image i depends on (seed, first + i) only.
            conditions: `category`, a value of the first categorical code, or one per image; by default it is drawn.

        Shape:
            Output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: there is no such condition or category.
        """
        category = conditions.pop("category", None)
        if conditions:
            raise ValueError(f"InfoGAN has no condition {next(iter(conditions))!r}: it has 'category'")
        z = self.latent(n, seed=seed, first=first)
        if category is not None:
            if not self.categories:
                raise ValueError("this model has no categorical code")
            chosen = torch.as_tensor(category, dtype=torch.int64, device=self.device).expand(n)
            if n and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.categories[0]:
                raise ValueError(f"category must lie in 0..{self.categories[0] - 1}")
            end = self.latent_dim + self.categories[0]
            z[:, self.latent_dim : end] = F.one_hot(chosen, self.categories[0]).to(z.dtype)
        return self.generate(z)

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given inputs of the generator.

        Shape:
            z: (N, latent_dim + sum(categories) + continuous); output: (N, C, H, W) in [-1, 1].
        """
        return 2 * cast(Tensor, self.generator(z)) - 1

    @inference
    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images while one code varies and all else stays.

        Args:
            num: fixed latents, a row for each.
            steps: values of a continuous code, from -2 to 2 as in the paper's figures; a category takes all its own.
            seed: seed of the fixed latents.

        Shape:
            Outputs, by the name of the code: (num, steps, C, H, W).
        """
        base = self.latent(num, seed=seed)
        result = {}
        start = self.latent_dim
        for i, count in enumerate(self.categories):
            values = torch.eye(count, device=base.device, dtype=base.dtype)
            name = "category" if len(self.categories) == 1 else f"category{i}"
            result[name] = self._sweep(base, start, values)
            start += count
        values = torch.linspace(-2, 2, steps, device=base.device, dtype=base.dtype).unsqueeze(1)
        for i in range(self.continuous):
            result[f"continuous{i}"] = self._sweep(base, start + i, values)
        return result

    def _sweep(self, base: Tensor, start: int, values: Tensor) -> Tensor:
        z = base.unsqueeze(1).repeat(1, len(values), 1)
        z[:, :, start : start + values.size(1)] = values
        images: Tensor = self.generate(z.flatten(0, 1))
        return images.view(len(base), len(values), *images.shape[1:])

    # What the recogniser says ----------------------------------------------------------------------------------------

    @inference
    def encode(self, x: Tensor) -> Tensor:
        """Posterior Q(c | x): probabilities of the categories, then means of the continuous codes.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, sum(categories) + continuous).
        """
        *logits, mean, _ = self._split(self.recogniser(self._features(x)))
        return torch.cat([*(part.softmax(1) for part in logits), mean], 1)

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Posterior of the first categorical code, whose values are classes found without labels.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, categories[0]).

        Raises:
            ValueError: the model has no categorical code.
        """
        if not self.categories:
            raise ValueError("this model has no categorical code")
        probabilities: Tensor = self.encode(x)[:, : self.categories[0]]
        return probabilities

    @inference
    def score(self, x: Tensor) -> Tensor:
        """How little the discriminator takes images for real: -log D(x), higher is more anomalous.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return F.softplus(-cast(Tensor, self.discriminator(self._features(x))).flatten())

    def _features(self, x: Tensor) -> Tensor:
        """Features of images in [-1, 1]."""
        x = (x + 1) / 2
        if self.hparams["channels_last"]:
            x = x.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.trunk(x))

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Logits of each categorical code, then means and log variances of the continuous ones."""
        parts: tuple[Tensor, ...] = parameters.split([*self.categories, self.continuous, self.continuous], 1)
        return parts

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """In simultaneous updates the latents, and the discriminator's and the recogniser's view of their images."""
        return self._fakes(batch, "z") if self.update == "simultaneous" else {}

    def _fakes(self, batch: Batch, purpose: str, *, gradient: bool = True) -> dict[str, Tensor]:
        n = len(batch["image"])
        z = self.noise(n, self.draw_key(purpose), self.first_index(n))
        with torch.set_grad_enabled(gradient):
            fake = self.generator(z)
        features = self.trunk(fake)
        fakes = {
            "z": z,
            "logits": self.discriminator(features).flatten(),
            "codes": at_least_float32(self.recogniser(features)),
        }
        if self.hparams["transformed_share"]:
            moved = random_affine(fake, self.draw_key(f"{purpose}/affine"), self.first_index(n))
            fakes["transformed_codes"] = at_least_float32(self.recogniser(self.trunk(moved)))
        return fakes

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(x) - E log(1 - D(G(z, c))) - w L(G, Q).

        Shape:
            Output: scalars.
        """
        fakes = shared or self._fakes(batch, "z/discriminator", gradient=False)
        # Separately: the statistics of real and fake images must not mix in the batch normalisation.
        real = self.discriminator(self._features(batch["image"])).flatten()
        terms = discriminator_terms("non_saturating", real, fakes["logits"])
        return terms | (self._information(fakes) if self.hparams["recogniser_learns"] == "discriminator" else {})

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(G(z, c)) - w L(G, Q).

        Shape:
            Output: scalars.
        """
        fakes = shared or self._fakes(batch, "z/generator")
        return {"adversarial": generator_term("non_saturating", fakes["logits"])} | self._information(fakes)

    def _information(self, fakes: dict[str, Tensor]) -> Terms:
        """-w L(G, Q) of each code; the entropy of continuous codes is that of the Gaussian N(0, 1) (authors' code)."""
        z = fakes["z"]
        warmup = self.hparams["information_warmup"]
        weight = min(1.0, self.batch_index / warmup) if warmup else 1.0
        *codes, continuous = z[:, self.latent_dim :].split([*self.categories, self.continuous], 1)
        *logits, mean, log_var = self._split(fakes["codes"])
        transformed = self._split(fakes["transformed_codes"]) if "transformed_codes" in fakes else ()
        terms: Terms = {}
        for i, (code, q) in enumerate(zip(codes, logits, strict=True)):
            log_q = -F.cross_entropy(q, code.argmax(1))
            if transformed:
                log_q = log_q.lerp(-F.cross_entropy(transformed[i], code.argmax(1)), self.hparams["transformed_share"])
            terms[f"category{i}" if i else "category"] = (
                -weight * self.hparams["category_weight"] * (log_q + math.log(q.size(1)))
            )
        if self.continuous:
            if not self.hparams["learn_std"]:
                log_var = torch.zeros_like(log_var)
            log_q = -0.5 * ((continuous - mean).square() * torch.exp(-log_var) + log_var)
            bound = (log_q + 0.5 * continuous.square()).sum(1).mean()  # the constants of both densities cancel
            terms["continuous"] = -weight * self.hparams["continuous_weight"] * bound
        return terms

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for the discriminator with the recogniser, and for the generator."""
        betas = tuple(self.hparams["betas"])
        judges, makers = [self.trunk, self.discriminator], [self.generator]
        (judges if self.hparams["recogniser_learns"] == "discriminator" else makers).append(self.recogniser)
        return [
            self.adam([p for network in networks for p in network.parameters()], self.hparams[rate], betas=betas)
            for networks, rate in ((judges, "discriminator_learning_rate"), (makers, "generator_learning_rate"))
        ]
