"""StarGAN: one generator translates images between many domains, told by a label which one to make.

    D minimizes  E D(G(x, c')) - E D(x) + 10 E (||grad D||_2 - 1)^2 + L_cls(D_cls(x), c)
    G minimizes  -E D(G(x, c')) + L_cls(D_cls(G(x, c')), c') + 10 E |x - G(G(x, c'), c)|_1

x has the label c, and c' are the labels of the batch in another order. Choi, Choi, Kim, Ha, Kim and Choo, "StarGAN:
Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation", CVPR 2018, arXiv 1711.09020. The
defaults are the paper's for five attributes of CelebA at 128 pixels, details those of the authors' code. A form with a
critic for each domain is `zoo.stargan_critics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Terms, TrainingOptions, inference
from zoo.engine import rng
from zoo.engine.cross_rank import all_gather_rows
from zoo.engine.devices import upload
from zoo.nn.losses import discriminator_terms, generator_term, interpolate_pairs, norm_penalty
from zoo.nn.schedules import Decay
from zoo.nn.stargan import Discriminator, Generator
from zoo.nn.stargan_labels import LabelSets

__all__ = ["StarGAN"]

CELEBA = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
RAFD = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
# NOTE(paper): the authors' code takes one step's share off in each 1000 steps, and so ends at 99.9 % of the first rate.
DECAY = Decay("linear", constant=100_000, length=100_000)


class StarGAN(AdversarialModel):
    """Translator between domains that attributes and categories describe.

    Batches hold `image` and `attributes` (N, number of labels) float, 0 or 1: the attributes first, then each set of
    categories one-hot. One set of categories alone may be given as `label` (N,) int64 instead. With `joint` they also
    hold `label_set` (N,) int64, the number of the set whose labels the image has (no DataModule here gives such ones).

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        attributes: names of labels that are each on or off.
        categories: sets of names; an image has one of each set.
        joint: an image has the labels of one set only: the attributes are a set, and each set of categories is.
        base_channels: channels of the generator's largest hidden map.
        discriminator_channels: channels of the discriminator's first map; None takes `base_channels`.
        num_blocks: residual blocks in the generator.
        discriminator_layers: halving convolutions in the discriminator.
        classification_weight: weight of the labels' cross entropy.
        cycle_weight: weight of the reconstruction.
        n_critic: discriminator steps per generator step.
        learning_rate: Adam's step size, for both networks.
        decay: how this rate falls, by steps of the discriminator; None keeps it.
        options: see `TrainingOptions`.

    Attributes:
        multiple: sides of images must be multiples of this.
        labels: the labels and their domain vectors.

    Raises:
        ValueError: an unsupported size, no labels, a name given twice, or one label set with `joint`.

    References:
        Choi et al. 2018, sections 3 and 5, appendix 7.2 (tables 4 and 5); Gulrajani et al. 2017 (WGAN-GP).
    """

    main_function, multiple = "translate", 4
    inference_networks = ("generator", "discriminator")
    unsupported_options = {"capture": "the host draws the order of the labels"}  # noqa: RUF012
    optional_networks = ("discriminator",)  # the authors' generator may be imported alone
    generator_class: ClassVar[type[nn.Module]] = Generator
    discriminator_class: ClassVar[type[nn.Module]] = Discriminator

    def __init__(
        self,
        image_size: int = 128,
        image_channels: int = 3,
        attributes: Sequence[str] = CELEBA,
        categories: Sequence[Sequence[str]] = (),
        *,
        joint: bool = False,
        base_channels: int = 64,
        discriminator_channels: int | None = None,
        num_blocks: int = 6,
        discriminator_layers: int = 6,
        classification_weight: float = 1.0,
        cycle_weight: float = 10.0,
        n_critic: int = 5,
        learning_rate: float = 1e-4,
        decay: Decay | dict[str, Any] | None = DECAY,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(step_every={"generator": n_critic}, **options)
        attributes, categories = list(attributes), [list(names) for names in categories]
        self.save_hyperparameters()
        if image_size % (least := max(4, 2**discriminator_layers)):
            raise ValueError(f"image_size {image_size} must be a multiple of {least} (2^discriminator_layers)")
        self.labels = LabelSets(attributes, categories, joint)
        self.target_names = self.labels.names
        self.decay = Decay.of(decay)
        self.generator = self.generator_class(image_channels, base_channels, num_blocks, self.labels.num_features)
        sizes = image_size, image_channels, discriminator_channels or base_channels, discriminator_layers
        self.discriminator = self.discriminator_class(*sizes, len(self.labels.names))
        self.average_networks()

    @classmethod
    def celeba_rafd(cls, image_size: int = 256, **options: Any) -> StarGAN:
        """The paper's joint training on CelebA (label set 0) and RaFD (label set 1); options replace arguments."""
        return cls(image_size, **dict[str, Any](categories=[RAFD], joint=True) | options)

    # Translation -----------------------------------------------------------------------------------------------------

    @inference
    def translate(self, x: Tensor, target: str | int | Tensor, domain: Tensor | None = None) -> Tensor:
        """Images in other domains.

        Args:
            x: images.
            target: name or number of a label; or int64 numbers, one per image; or domain vectors.
            domain: the images' own domain vectors, in which a label is changed; None asks the discriminator. With
                `joint` attributes need it; categories do not, as each stands for itself.

        Shape:
            x: (N, C, H, W) in [-1, 1], sides divisible by 4; target: (N,) or (N, num_features); output as x.

        Raises:
            ValueError: there is no such label, or `domain` is needed.
        """
        return self._translate(x, self.labels.requested(x, target, lambda: self._source_domain(x, domain))).clamp(-1, 1)

    @inference
    def reconstruct(self, x: Tensor, domain: Tensor | None = None, target: Tensor | None = None) -> Tensor:
        """Images translated into other domains and back.

        Args:
            x: images.
            domain: their own domain vectors; None asks the discriminator.
            target: domain vectors on the way; None takes for each image the first label that changes it.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output as x.
        """
        own = self._source_domain(x, domain)
        wanted = self.labels.first_change(own) if target is None else self.labels.requested(x, target, lambda: own)
        return self._translate(self._translate(x, wanted), own).clamp(-1, 1)

    @inference
    def translations(self, batch: Batch) -> dict[str, Tensor]:
        """The images of a batch (N, C, H, W) and their translations to every label, by name."""
        x, targets = batch["image"], self.labels.targets(self.labels.domain(batch))
        return {"real": x} | {name: self.translate(x, target) for name, target in targets.items()}

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and each with one label changed, drawn for (seed, first + i)."""
        x = batch["image"]
        drawn = rng.integers(len(self.target_names), (len(x),), rng.key(seed, "target"), first, device=x.device)
        return x, self.translate(x, self.labels.changed(self.labels.domain(batch), drawn))

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities (N, number of labels) by the discriminator: of each attribute, and within each set.

        Images of another size are scaled until their shorter side is that of training.
        """
        size, sides = self.hparams["image_size"], x.shape[2:]
        if min(sides) != size:
            scaled = [max(size, round(side * size / min(sides))) for side in sides]
            x = F.interpolate(x, scaled, mode="bilinear", antialias=True)
        return self.labels.probabilities(self._discriminate(x)[1])

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Anomaly score (N,), the critic's negative mean value: higher means less realistic."""
        return -self._discriminate(x)[0].mean((2, 3)).amax(1)

    def _translate(self, x: Tensor, domain: Tensor) -> Tensor:
        return cast(Tensor, self.averaged("generator")(x, domain))

    def _discriminate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        network = self.require_network("discriminator", "the discriminator is needed, import both files")
        return cast(tuple[Tensor, Tensor], network(x))

    def _source_domain(self, x: Tensor, domain: Tensor | None) -> Tensor:
        """The given domain vectors of images, or what the discriminator takes them for."""
        if domain is not None:
            return domain.to(x.device, x.dtype).expand(x.size(0), -1)
        if self.labels.joint:
            raise ValueError("with joint training give domain=...: which label set holds is not seen from an image")
        self.require_network("discriminator", "give domain=..., the labels that the images have")
        return self.labels.likeliest(self.classify(x)).to(x.dtype)

    # Training --------------------------------------------------------------------------------------------------------

    def check_data(self, data: Any) -> None:
        """Refuse data with other labels."""
        names = getattr(data, "class_names", {})
        self.require_same("labels", names.get("attributes", names.get("label", self.target_names)), self.target_names)

    def label_values(self, batch: Batch) -> range | None:
        """The classes, where they stand in `label`."""
        return self.labels.label_values(batch)

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """Domain vectors c, those of the targets c', and the translations."""
        target = self.draw_targets(domain := self.labels.domain(batch))
        return {"domain": domain, "target": target, "fake": self.generator(batch["image"], target)}

    def draw_targets(self, domain: Tensor) -> Tensor:
        """The domain vectors (N, num_features) of the batch over all ranks in a drawn order, within each label set."""
        # NOTE(paper): a batch may mix label sets; the authors' code alternates batches of the one and of the other.
        everything = all_gather_rows(domain)
        order = rng.permutation(len(everything), self.draw_key("target"))
        first = self.first_index(len(domain))
        order = upload(order, domain.device)
        return everything[self.labels.within_sets(order, everything)[first : first + len(domain)]]

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E D(G(x, c')) - E D(x) + 10 E (||grad D||_2 - 1)^2 + w E L_cls(D_cls(x), c)."""
        x, fake, weight = batch["image"], shared["fake"].detach(), self.hparams["classification_weight"]
        n = len(x)
        # In one pass: nothing is normalized here.
        values, logits = self.discriminator(torch.cat([x, fake.to(x.dtype)]))
        terms = discriminator_terms("wasserstein", values[:n], values[n:])
        terms["classification"] = weight * self.labels.cross_entropy(logits[:n], shared["domain"])
        mix = rng.uniform((n,), self.draw_key("mix"), self.first_index(n), device=self.device, dtype=x.dtype)
        gradient = cast(Discriminator, self.discriminator).input_gradient(interpolate_pairs(x, fake, mix))
        return terms | {"gradient_penalty": 10.0 * norm_penalty(gradient)}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E D(G(x, c')) + w E L_cls(D_cls(G(x, c')), c') + w E |x - G(G(x, c'), c)|_1."""
        x, fake, weight = batch["image"], shared["fake"], self.hparams["classification_weight"]
        values, logits = self.discriminator(fake)
        back = self.generator(fake, shared["domain"])
        return {
            "adversarial": generator_term("wasserstein", values),
            "reconstruction": self.hparams["cycle_weight"] * (x - back).abs().mean(),
            "classification": weight * self.labels.cross_entropy(logits, shared["target"]),
        }

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        return self.adam_for_each((self.discriminator, self.generator), self.hparams["learning_rate"], (0.5, 0.999))
