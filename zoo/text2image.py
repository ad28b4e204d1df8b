"""Text2Image: a conditional GAN that draws what a sentence says.

    D minimises  -E log D(x, t) - (1 - w) E log(1 - D(G(z, t), t)) - w E log(1 - D(x, t'))
    G minimises  -(sum_i log D(G(z_i, t_i), t_i) + v sum_j log D(G(z_j, s_j), s_j)) / (number of i and j)

t is the embedding of the image's own sentence, t' that of an image of another class, and s_j = (t_a + t_b) / 2 lies
between two sentences. w = 0 and v = 0 is the plain conditional GAN, w > 0 is GAN-CLS, v > 0 is GAN-INT, and both
together, the default, is GAN-INT-CLS. Reed, Akata, Yan, Logeswaran, Schiele and Lee, "Generative Adversarial Text to
Image Synthesis", ICML 2016, arXiv 1605.05396; networks and details are those of the authors' code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Terms, inference
from zoo.engine import rng
from zoo.engine.cross_rank import all_gather_rows
from zoo.nn.layers import update_ema
from zoo.nn.losses import at_least_float32
from zoo.text_encoders import text_encoder as build_encoder

__all__ = ["Discriminator", "Generator", "Text2Image"]


class Residual(nn.Module):
    """act(x + f(x)) with a bottleneck of a quarter of the channels.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        c = max(1, channels // 4)
        self.act = nn.LeakyReLU(slope, True)
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, c, 1, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(slope, True)),
            *(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(slope, True)),
            *(nn.Conv2d(c, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum, activated."""
        return cast(Tensor, self.act(x + self.layers(x)))


class Generator(nn.Module):
    """Noise and the embedding of a sentence to image.

    The embedding is compressed and put beside the noise; maps of 4 x 4 are doubled to the image's size, and the first
    two of them pass a residual block.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the noise.
        text_features: length of an embedding.
        projection: length of a compressed embedding.
        base_channels: channels of the last hidden map.

    Shape:
        z: (N, latent_dim); text: (N, text_features); output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        latent_dim: int,
        text_features: int,
        projection: int,
        base_channels: int,
    ) -> None:
        super().__init__()
        doublings = stages(image_size)
        self.project = nn.Sequential(nn.Linear(text_features, projection), nn.LeakyReLU(0.2, True))
        width = base_channels * 2 ** (doublings - 1)
        self.start = nn.ConvTranspose2d(latent_dim + projection, width, 4, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(width), Residual(width, 0.0)]  # (N, 8C, 4, 4)
        for i in range(1, doublings):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(width // 2)]
            width //= 2
            layers += [Residual(width, 0.0) if i == 1 else nn.ReLU(True)]  # (N, 4C, 8, 8), (N, 2C, 16, 16), ...
        layers += [nn.ConvTranspose2d(width, image_channels, 4, 2, 1, bias=False), nn.Tanh()]  # (N, 3, 64, 64)
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Generate images."""
        given = torch.cat([z, self.project(text)], 1)
        # A transposed convolution of maps of 1 x 1 is a matrix product, and several times faster as one.
        x = (given @ self.start.weight.flatten(1)).view(len(z), -1, 4, 4)
        return cast(Tensor, self.layers(x))


class Discriminator(nn.Module):
    """Image and the embedding of a sentence to logit: is it real, and does it show what the sentence says?

    `features` of the image and the compressed sentence (`project`) meet in `judge`, so that one pass over the images
    serves several sentences.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        text_features: length of an embedding.
        projection: length of a compressed embedding.
        base_channels: channels of the first hidden map.
        projection_norm: batch norm of compressed embeddings.

    Shape:
        x: (N, image_channels, image_size, image_size); text: (N, text_features); output: (N,) logits.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        text_features: int,
        projection: int,
        base_channels: int,
        projection_norm: bool = True,
    ) -> None:
        super().__init__()
        # NOTE(paper): the authors' code for CUB and Oxford-102 has no activation behind the third convolution, that for
        # COCO has one; here it is there.
        width = base_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        doublings = stages(image_size)
        for i in range(1, doublings):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
            width *= 2
            if i < doublings - 1:
                layers += [nn.LeakyReLU(0.2, True)]
        self.features = nn.Sequential(*layers, Residual(width, 0.2))  # (N, 8C, 4, 4)
        norm = [nn.BatchNorm1d(projection)] if projection_norm else []
        self.project = nn.Sequential(nn.Linear(text_features, projection), *norm, nn.LeakyReLU(0.2, True))
        self.meet = nn.Sequential(
            nn.Conv2d(width + projection, width, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2, True)
        )
        self.end = nn.Conv2d(width, 1, 4, bias=False)

    def judge(self, features: Tensor, projected: Tensor) -> Tensor:
        """Logits of images by their features, for compressed sentences.

        Shape:
            features: (N, 8C, 4, 4); projected: (N, projection); output: (N,).
        """
        maps = projected[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return cast(Tensor, self.end(self.meet(torch.cat([features, maps], 1)))).flatten()

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Logits: positive for images taken for real and fitting."""
        return self.judge(self.features(x), self.project(text))


def stages(image_size: int) -> int:
    """How many times 4 is doubled to reach the image's side.

    Raises:
        ValueError: the side is no power of two from 8.
    """
    doublings = image_size.bit_length() - 3
    if doublings < 1 or image_size != 4 * 2**doublings:
        raise ValueError(f"image_size {image_size} is not supported: take a power of two from 8 (32, 64, ...)")
    return doublings


def initialise(module: nn.Module) -> None:
    """Draw weights of convolutions from N(0, 0.02), scales of norms from N(1, 0.02); linear maps keep torch's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Text2Image(AdversarialModel):
    """Generator of images of sentences: GAN-INT-CLS.

    Batches hold `image`, `caption_embedding` (N, D) and `mismatched_embedding` (N, D), the embedding of a sentence that
    describes an image of another class; or, where the model has a text encoder, `caption` and `mismatched_caption`
    (lists of str) in their place. The text encoder is frozen and part of the published file.

    Args:
        image_size: side of the images, a power of two from 8.
        image_channels: channels of the images.
        text_encoder: name or file of a published `TextEncoder`, "sentence", or settings of an untrained encoder (see
            `zoo.text_encoders.text_encoder`); None for a model that is given embeddings only.
        text_features: length of an embedding where there is no text encoder.
        prompts: sentences that `sample` draws from when it is given none.
        latent_dim: length of the noise.
        projection: length of an embedding that each network has compressed for itself.
        projection_norm: batch norm of the discriminator's compressed embeddings.
        normalize_text: bring every embedding of length D to the norm sqrt(D) first; the paper does not. The generator
            hardly hears short ones beside its noise.
        base_channels: channels of the generator's last hidden map.
        discriminator_channels: channels of the discriminator's first hidden map.
        mismatch_weight: w, the share of mismatched pairs among what the discriminator refuses; 0 needs none.
        interpolation_weight: v, the weight of sentences between two; 0 makes none.
        learning_rate: Adam's step size, for both networks.
        betas: Adam's decay rates.
        halve_every: steps after which the step size is halved, again and again; 0 leaves it.
        ema_decay: keep an exponential moving average of the generator, which then makes the samples; None for none.
        accumulate: batches whose gradients make one step.
        gradient_clip: largest gradient norm per network; None does not clip.
        channels_last: lay out convolutions channels last, which is faster on most devices.

    Raises:
        ValueError: an unsupported size or weight.

    References:
        Reed et al. 2016, sections 4.1 to 4.3, algorithm 1, and the authors' code.
    """

    # NOTE(paper): conv biases are zeroed before every step in the authors' code; here there are none.
    # NOTE(paper): the mismatched pair is a real image with another class's sentence, as in algorithm 1; the code takes
    # another class's image with the sentence, the same pairs in another order.
    # NOTE(paper): in the code the generator's step draws new noise; here both steps use the same images, which are
    # made once, and those of sentences between two are among the batch that is normalised.
    # NOTE(paper): a sentence between two lies in their middle, as in the authors' runs; their code's `interp_type` 2,
    # which goes a random way along the line through them, and so beyond them too, is not built.

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        text_encoder: str | dict[str, Any] | None = None,
        text_features: int = 1024,
        prompts: Sequence[str] = (),
        *,
        latent_dim: int = 100,
        projection: int = 128,
        projection_norm: bool = True,
        normalize_text: bool = False,
        base_channels: int = 128,
        discriminator_channels: int = 64,
        mismatch_weight: float = 0.5,
        interpolation_weight: float = 1.0,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        halve_every: int = 13_800,
        ema_decay: float | None = None,
        accumulate: int = 1,
        gradient_clip: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(accumulate=accumulate, gradient_clip=gradient_clip)
        prompts = list(prompts)
        encoder = None if text_encoder is None else build_encoder(text_encoder)
        # What is kept builds the encoder again anywhere; its weights are those of the checkpoint.
        text_encoder = None if encoder is None else encoder.settings
        text_features = text_features if encoder is None else encoder.features
        self.save_hyperparameters(ignore=["text_encoder", "text_features", "prompts"])
        self.save_hyperparameters({"text_encoder": text_encoder, "text_features": text_features, "prompts": prompts})
        if not 0 <= mismatch_weight < 1:
            raise ValueError(f"mismatch_weight must lie in [0, 1), not {mismatch_weight}")
        if interpolation_weight < 0:
            raise ValueError(f"interpolation_weight must be at least 0, not {interpolation_weight}")
        self.latent_dim, self.text_features, self.prompts = latent_dim, text_features, prompts
        self.generator = Generator(
            image_size, image_channels, latent_dim, text_features, projection, base_channels
        ).apply(initialise)
        self.discriminator = Discriminator(
            image_size, image_channels, text_features, projection, discriminator_channels, projection_norm
        ).apply(initialise)
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.text_encoder = encoder
        self.generator_ema = None
        if ema_decay is not None:
            self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        drawing = "generator" if ema_decay is None else "generator_ema"
        own_weights = encoder is not None and bool(encoder.state_dict())
        self.inference_networks = (drawing, "text_encoder") if own_weights else (drawing,)

    @classmethod
    def gan_cls(cls, image_size: int = 64, **options: Any) -> Text2Image:
        """GAN-CLS, the paper's setting for COCO; use a batch size of 64, and the average of 3 captions.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "interpolation_weight": 0.0,
            "base_channels": 196,
            "discriminator_channels": 196,
            "projection_norm": False,
            "halve_every": 51_720,  # 40 epochs of 82,783 // 64 batches
        }
        return cls(image_size, **setting | options)

    @classmethod
    def gan_int(cls, image_size: int = 64, **options: Any) -> Text2Image:
        """GAN-INT: sentences between two, and no mismatched pairs.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {"mismatch_weight": 0.0}
        return cls(image_size, **setting | options)

    # Sentences -------------------------------------------------------------------------------------------------------

    @inference
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences.

        Shape:
            Output: (N, text_features).

        Raises:
            ValueError: the model has no text encoder.
        """
        if self.text_encoder is None:
            raise ValueError("this model has no text encoder: give embedding=..., of the encoder it was trained with")
        return cast(Tensor, self.text_encoder(captions)).to(self.device, self._type)

    @property
    def _type(self) -> torch.dtype:
        return cast(torch.dtype, self.dtype)

    def _embedding(self, batch: Batch, name: str) -> Tensor:
        """Embeddings of a batch's own or mismatched sentences, given or made."""
        key = "caption_embedding" if name == "caption" else "mismatched_embedding"
        if key in batch:
            return self._scaled(batch[key])
        if name not in batch or self.text_encoder is None:
            raise ValueError(
                f"batches must hold {key}, or {name} for a model with a text encoder, as those of Captioned do"
            )
        return self._scaled(self.encode_text(batch[name]).to(batch["image"].dtype))

    def _scaled(self, embedding: Tensor) -> Tensor:
        """Embeddings as the networks take them."""
        if not self.hparams["normalize_text"]:
            return embedding
        return F.normalize(embedding, dim=-1) * math.sqrt(embedding.shape[-1])

    # Sampling --------------------------------------------------------------------------------------------------------

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw images.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: the noise of image i depends on (seed, first + i) only.
            conditions: `text`, a sentence or one per image; or `embedding` (D,) or (n, D); by default the sentences are
                drawn from `prompts`.

        Shape:
            Output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: there is nothing to draw from, or as many sentences as images are needed.
        """
        text, embedding = conditions.pop("text", None), conditions.pop("embedding", None)
        if conditions:
            raise ValueError(f"Text2Image has no condition {next(iter(conditions))!r}: it has text and embedding")
        seed = self.resolve_seed(seed)
        if embedding is None:
            if text is None and not self.prompts:
                raise ValueError("Text2Image draws what it is told: give text=... or embedding=...")
            if text is None:
                drawn = rng.integers(len(self.prompts), (n,), rng.key(seed, "prompt"), first)
                text = [self.prompts[i] for i in drawn.tolist()]
            if not isinstance(text, str) and len(text) != n:
                raise ValueError(f"{len(text)} sentences for {n} images: give one, or as many")
            embedding = self.encode_text([text] if isinstance(text, str) else list(text))
        given = self._scaled(torch.as_tensor(embedding, device=self.device, dtype=self._type).expand(n, -1))
        z = self._noise(n, rng.key(seed, "sample"), first)
        network = self.generator if self.generator_ema is None else self.generator_ema
        return cast(Tensor, network(z, given)).clamp(-1, 1)

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and generated ones of the same sentences."""
        real: Tensor = batch["image"]
        # To scale an embedding twice changes nothing.
        return real, self.sample(len(real), seed=seed, first=first, embedding=self._embedding(batch, "caption"))

    @inference
    def match(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The discriminator's logit that images are real and show what sentences say.

        Shape:
            x: (N, C, H, W) in [-1, 1]; embedding: (N, D); output: (N,).
        """
        return cast(Tensor, self.discriminator(x, self._scaled(embedding)))

    def _noise(self, n: int, key: int, first: int) -> Tensor:
        return rng.normal((n, self.latent_dim), key, first, device=self.device, dtype=self._type)

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse embeddings of another text encoder: samples of sentences would mean nothing."""
        super().setup(stage)
        given = getattr(getattr(self.trainer, "datamodule", None), "encoder_digest", None)
        if stage == "fit" and given is not None and self.text_encoder is not None:
            own = self.text_encoder.digest()
            if given != own:
                raise ValueError(f"the data's text_encoder ({given}) is not the model's ({own}): give both the same")

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of the batch and, for the generator's step, between two; and the images of all of them."""
        text = self._embedding(batch, "caption")
        n = len(text)
        draws_between = "generator" in self.active_phases and self.hparams["interpolation_weight"] > 0
        between, first = self._between(text) if draws_between else (text[:0], 0)
        z = self._noise(n, self.draw_key("z"), self.first_index(n))
        z = torch.cat([z, self._noise(len(between), self.draw_key("z between"), first)])
        with torch.set_grad_enabled("generator" in self.active_phases):
            return {"text": text, "all": (every := torch.cat([text, between])), "fake": self.generator(z, every)}

    def _between(self, text: Tensor) -> tuple[Tensor, int]:
        """This rank's share of (t_i + t_{i + B / 2}) / 2 over the batch of all ranks, and the number of its first."""
        everything = all_gather_rows(text.detach())
        half = len(everything) // 2
        world = len(everything) // len(text)
        rank = dist.get_rank() if world > 1 else 0
        start, stop = rank * half // world, (rank + 1) * half // world
        return self._scaled((everything[start:stop] + everything[half + start : half + stop]) / 2), start

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E log D(x, t), -(1 - w) E log(1 - D(G(z, t), t)) and -w E log(1 - D(x, t')).

        Shape:
            Output: scalars.
        """
        x, text, weight = batch["image"], shared["text"], self.hparams["mismatch_weight"]
        # Real and fake images separately, as each has its own batch statistics.
        real, fake = self.discriminator.features(x), self.discriminator.features(shared["fake"][: len(x)].detach())
        own = self.discriminator.project(text)
        terms = {
            "real": F.softplus(-at_least_float32(self.discriminator.judge(real, own))).mean(),
            "fake": (1 - weight) * F.softplus(at_least_float32(self.discriminator.judge(fake, own))).mean(),
        }
        if weight:
            other = self.discriminator.project(self._embedding(batch, "mismatched_caption"))
            terms["mismatched"] = weight * F.softplus(at_least_float32(self.discriminator.judge(real, other))).mean()
        return terms

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-(sum log D(G(z, t), t) + v sum log D(G(z, s), s)) / number of t and s.

        Shape:
            Output: scalars.
        """
        loss = F.softplus(-at_least_float32(self.discriminator(shared["fake"], shared["all"])))
        n = len(shared["text"])
        # The mean over all ranks' sentences: the number of those between two may differ from rank to rank.
        total, world = self._counts(n)
        terms = {"adversarial": loss[:n].sum() * (world / total)}
        if self.hparams["interpolation_weight"]:
            terms["between"] = self.hparams["interpolation_weight"] * loss[n:].sum() * (world / total)
        return terms

    def _counts(self, n: int) -> tuple[int, int]:
        """Sentences and sentences between two of all ranks together, and the number of ranks."""
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        every = n * world
        return every + (every // 2 if self.hparams["interpolation_weight"] else 0), world

    def on_phase_stepped(self, phase: str) -> None:
        """Move the averaged generator."""
        if phase == "generator" and self.generator_ema is not None:
            update_ema(self.generator_ema, self.generator, cast(float, self.hparams["ema_decay"]))

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate, halved again and again."""
        every = self.hparams["halve_every"]
        return {"lr": self.hparams["learning_rate"] * (0.5 ** (step // every) if every else 1.0)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        rate, betas = self.hparams["learning_rate"], tuple(self.hparams["betas"])
        return [self.adam(network.parameters(), rate, betas=betas) for network in (self.discriminator, self.generator)]
