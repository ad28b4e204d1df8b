"""StarGAN: one generator translates images between many domains, told by a label which one to make.

    D minimises  E D(G(x, c')) - E D(x) + 10 E (||grad D||_2 - 1)^2 + L_cls(D_cls(x), c)
    G minimises  -E D(G(x, c')) + L_cls(D_cls(G(x, c')), c') + 10 E |x - G(G(x, c'), c)|_1

x has the label c, and c' are the labels of the batch in another order. Choi, Choi, Kim, Ha, Kim and Choo, "StarGAN:
Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation", CVPR 2018, arXiv 1711.09020. The
defaults are the paper's for five attributes of CelebA at 128 pixels, details those of the authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Terms, inference
from zoo.engine import rng
from zoo.engine.cross_rank import all_gather_rows
from zoo.nn.layers import FewChannelConv2d, instance_norm, update_ema
from zoo.nn.losses import AdversarialLoss, discriminator_terms, generator_term, interpolate_pairs, norm_penalty

__all__ = ["Discriminator", "Generator", "StarGAN"]

CELEBA = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
RAFD = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
# Asked for one of these, an image loses the others.
EXCLUSIVE = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation with a scale and a shift, always by the image's own statistics.

    The authors' layers keep running statistics too but are never put into evaluation mode, so nothing reads them.

    Args:
        channels: channels of the maps.
        domain_features: length of a domain vector that changes scale and shift; 0 for none, and `domain` is not read.

    Shape:
        input: (N, C, H, W); domain: (N, domain_features); output as input.
    """

    def __init__(self, channels: int, domain_features: int = 0) -> None:
        super().__init__(channels, affine=True)
        self.domain = nn.Linear(domain_features, 2 * channels, bias=False) if domain_features else None
        if self.domain is not None:
            nn.init.zeros_(self.domain.weight)

    def forward(self, input: Tensor, domain: Tensor | None = None) -> Tensor:
        """Normalise each map of each image."""
        if self.domain is None:
            return instance_norm(input, self.weight, self.bias, self.eps)
        normal = instance_norm(input, eps=self.eps)
        scale, shift = self.domain(domain).chunk(2, 1)
        scale, shift = (self.weight + scale).to(normal.dtype), (self.bias + shift).to(normal.dtype)
        return torch.addcmul(shift[:, :, None, None], normal, scale[:, :, None, None])


class DomainSequential(nn.Sequential):
    """Layers in a row, of which normalisations and residual blocks are told the domain.

    Shape:
        x: (N, C, H, W); domain: (N, domain_features).
    """

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:  # type: ignore[override]
        """What the last layer makes."""
        for layer in self:
            x = layer(x, domain) if isinstance(layer, InstanceNorm | ResidualBlock) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """x + f(x) of two 3x3 convolutions; arguments as for `InstanceNorm`.

    Shape:
        x: (N, C, H, W); domain: (N, domain_features); output as x.
    """

    def __init__(self, channels: int, domain_features: int = 0) -> None:
        super().__init__()
        self.layers = DomainSequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm(channels, domain_features),
            nn.ReLU(True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm(channels, domain_features),
        )

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """The sum."""
        return x + cast(Tensor, self.layers(x, domain))


class Generator(nn.Module):
    """Image and target domain to image: two halvings, residual blocks, two doublings.

    The domain enters as constant maps beside the image's channels. Padding is with zeros: of a constant map the first
    normalisation would leave nothing, were it not for the border.

    Args:
        image_channels: channels of the images.
        base_channels: channels of the largest hidden map.
        num_blocks: residual blocks.
        domain_features: length of a domain vector.
        domain_norm: the domain enters through the scales and shifts of all normalisations instead.
        residual: the last layer draws what is added to the input, at first nothing.

    Shape:
        x: (N, image_channels, H, W), both sides divisible by 4; domain: (N, domain_features); output as x; in [-1, 1],
            unless residual.
    """

    def __init__(
        self,
        image_channels: int,
        base_channels: int,
        num_blocks: int,
        domain_features: int,
        domain_norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.domain_norm, self.residual = domain_norm, residual
        c = base_channels
        maps, told = (0, domain_features) if domain_norm else (domain_features, 0)

        def layer(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [conv, InstanceNorm(channels, told), nn.ReLU(True)]

        self.layers = DomainSequential(
            *layer(nn.Conv2d(image_channels + maps, c, 7, 1, 3, bias=False), c),  # (N, C, H, W)
            *layer(nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), 2 * c),  # (N, 2C, H / 2, W / 2)
            *layer(nn.Conv2d(2 * c, 4 * c, 4, 2, 1, bias=False), 4 * c),  # (N, 4C, H / 4, W / 4)
            *(ResidualBlock(4 * c, told) for _ in range(num_blocks)),
            *layer(nn.ConvTranspose2d(4 * c, 2 * c, 4, 2, 1, bias=False), 2 * c),  # (N, 2C, H / 2, W / 2)
            *layer(nn.ConvTranspose2d(2 * c, c, 4, 2, 1, bias=False), c),  # (N, C, H, W)
            FewChannelConv2d(c, image_channels, 7, 1, 3, bias=False),
        )
        if residual:
            nn.init.zeros_(cast(Tensor, self.layers[-1].weight))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """The images in their target domains."""
        domain = domain.to(x.dtype)
        maps = [] if self.domain_norm else [domain[:, :, None, None].expand(-1, -1, *x.shape[2:])]
        drawn: Tensor = self.layers(torch.cat([x, *maps], 1), domain)
        return x + drawn if self.residual else drawn.tanh()


class Discriminator(nn.Module):
    """Image to critic values of its patches and to logits of its labels; no normalisation.

    Args:
        image_size: side of the images, a multiple of 2^num_layers.
        image_channels: channels of the images.
        base_channels: channels of the first hidden map, doubled with each further one.
        num_layers: convolutions that halve the side.
        num_labels: attributes and categories together.
        domain_critics: there is a critic for each label, whose mean value is the label's logit.

    Shape:
        x: (N, image_channels, S, S); output: (N, 1 or num_labels, S / 2^L, S / 2^L) critic values and (N, num_labels)
            logits.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        base_channels: int,
        num_layers: int,
        num_labels: int,
        domain_critics: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, width = image_channels, base_channels
        for _ in range(num_layers):
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.01, True)]  # (N, width, S / 2, S / 2)
            channels, width = width, 2 * width
        self.layers = nn.Sequential(*layers)
        self.critic = nn.Conv2d(channels, num_labels if domain_critics else 1, 3, 1, 1, bias=False)
        kernel = image_size // 2**num_layers
        self.classifier = None if domain_critics else nn.Conv2d(channels, num_labels, kernel, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Critic values, higher for images taken for real, and logits."""
        features = self.layers(x)
        values = self.critic(features)
        return values, (values if self.classifier is None else self.classifier(features)).mean((2, 3))

    def input_gradient(self, x: Tensor) -> Tensor:
        """Gradient of the sum of an image's critic values with respect to the image, with a graph to the weights.


        Between its kinks the critic is linear: so the gradient is the transposed convolutions of a constant, with the
        slopes that the image has chosen, and a penalty on it costs one backward pass through these. To differentiate
        twice costs twice as much and gives the same.

        Shape:
            x, output: (N, image_channels, S, S).
        """
        slopes = []
        with torch.no_grad():
            for layer in self.layers:
                x = layer(x)
                if isinstance(layer, nn.LeakyReLU):
                    slopes.append(torch.full_like(x, layer.negative_slope).masked_fill_(x > 0, 1.0))
            values = self.critic(x)

        def back(gradient: Tensor, layer: nn.Conv2d) -> Tensor:
            padding = cast(tuple[int, int], layer.padding)
            return F.conv_transpose2d(gradient, layer.weight, stride=layer.stride, padding=padding)

        gradient = back(torch.ones_like(values), self.critic)
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        for layer, slope in zip(reversed(convolutions), reversed(slopes), strict=True):
            gradient = back(gradient * slope, layer)
        return gradient


class StarGAN(AdversarialModel):
    """Translator between domains that attributes and categories describe.

    Batches hold `image` and `attributes` (N, number of labels) float, 0 or 1: the attributes first, then each set of
    categories one-hot. One set of categories alone may be given as `label` (N,) int64 instead. With `joint` they also
    hold `label_set` (N,) int64, the number of the set whose labels the image has; the other labels are taken for 0;
    such batches are the user's own: no DataModule here gives them.

    A domain vector is a row of `attributes`, followed with `joint` by the mask vector, one-hot in the label set.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        attributes: names of labels that are each on or off.
        categories: sets of names of which each image has one.
        joint: an image has the labels of one set only: the attributes are a set, and each set of categories is.
        base_channels: channels of the generator's largest hidden map.
        discriminator_channels: channels of the discriminator's first map; None takes `base_channels`.
        num_blocks: residual blocks in the generator.
        num_layers: halving convolutions in the discriminator.
        domain_norm: the domain vector sets scale and shift of every normalisation in the generator. As maps beside the
            image, as in the paper, the first normalisation takes it away but for what the border leaves.
        residual: the generator draws what is added to the input; it starts as the identity.
        domain_critics: of one set of categories each has a critic of its own, instead of the classifier: it tells real
            images of its domain from translations into it and, half and half, from real images of the other domains.
            Images are then translated into domains other than their own only. There is no gradient penalty with it:
            an image and its translation, between which that lies, are judged by different critics.
        classification_weight: weight of the labels' cross entropy, which `domain_critics` does without.
        cycle_weight: weight of the reconstruction.
        identity_weight: weight of E |x - G(x, c)|_1, CycleGAN's identity term, which the paper does not have: in short
            runs colours may turn into their opposites, which the reconstruction turns back unpunished.
        loss: the adversarial objective; the paper's is Wasserstein, with a gradient penalty.
        gradient_penalty_weight: weight of WGAN-GP's penalty; 0 for none.
        n_critic: discriminator steps per generator step.
        ema_decay: keep an exponential moving average of the generator, which then translates; None for none.
        learning_rate: Adam's step size, for both networks.
        betas: Adam's decay rates.
        constant_steps: steps (of the discriminator) at that rate.
        decay_steps: further steps, over which the rate falls.
        decay: "paper", linearly to zero; "reference_code", once in 1000 steps by what the paper takes off in one.
        accumulate: batches whose gradients make one step.
        gradient_clip: largest gradient norm per network; None does not clip.

    Attributes:
        multiple: of which the sides of images must be multiples.
        translator: name of the network that translates, `generator` or its average `generator_ema`.

    Raises:
        ValueError: an unsupported size, no labels, a name given twice, or options that exclude each other.

    References:
        Choi et al. 2018, sections 3 and 5, appendix 7.2 (tables 4 and 5); Gulrajani et al. 2017 (WGAN-GP); Dumoulin et
        al. 2017, "A Learned Representation for Artistic Style", equation 5 (`domain_norm`); Choi et al. 2020 (StarGAN
        v2), section 2, and Reed et al. 2016, algorithm 1, on mismatched images (`domain_critics`).
    """

    inference_networks = ("generator", "discriminator")
    optional_networks = ("discriminator",)  # the authors' generator may be imported alone
    multiple = 4

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
        num_layers: int = 6,
        domain_norm: bool = False,
        residual: bool = False,
        domain_critics: bool = False,
        classification_weight: float = 1.0,
        cycle_weight: float = 10.0,
        identity_weight: float = 0.0,
        loss: AdversarialLoss = "wasserstein",
        gradient_penalty_weight: float = 10.0,
        n_critic: int = 5,
        ema_decay: float | None = None,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        constant_steps: int = 100_000,
        decay_steps: int = 100_000,
        decay: Literal["paper", "reference_code"] = "paper",
        accumulate: int = 1,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__(step_every={"generator": n_critic}, accumulate=accumulate, gradient_clip=gradient_clip)
        attributes, categories = list(attributes), [list(names) for names in categories]
        self.sets = [list(names) for names in ([attributes] if attributes else []) + list(categories)]
        self.save_hyperparameters()
        if image_size % 2**num_layers or image_size % 4:
            raise ValueError(f"image_size {image_size} must be a multiple of {max(4, 2**num_layers)} (2^num_layers)")
        if decay not in ("paper", "reference_code"):
            raise ValueError(f"decay must be 'paper' or 'reference_code', not {decay!r}")
        self.categorical = [bool(i) or not attributes for i in range(len(self.sets))]
        self.target_names = list(chain(*self.sets))
        if twice := sorted({name for name in self.target_names if self.target_names.count(name) > 1}):
            raise ValueError(f"the label {twice[0]!r} is given twice: each needs a name of its own")
        if not self.target_names or not all(self.sets):
            raise ValueError("StarGAN needs labels: give attributes, categories or both")
        if joint and len(self.sets) < 2:
            raise ValueError("joint training needs two label sets: attributes and categories, or categories twice")
        if domain_critics and (self.categorical != [True] or joint or len(self.target_names) < 2):
            raise ValueError("domain_critics needs one set of categories, at least two, and no attributes")
        if domain_critics and gradient_penalty_weight:
            raise ValueError("domain_critics has no gradient penalty: give gradient_penalty_weight=0, and another loss")
        ends = [sum(len(names) for names in self.sets[: i + 1]) for i in range(len(self.sets))]
        self.spans = [slice(end - len(names), end) for names, end in zip(self.sets, ends, strict=True)]
        self.joint = joint
        self.num_labels, self.num_attributes = len(self.target_names), len(attributes)
        self.domain_features = self.num_labels + (len(self.sets) if joint else 0)
        self.generator = Generator(
            image_channels, base_channels, num_blocks, self.domain_features, domain_norm, residual
        )
        width = base_channels if discriminator_channels is None else discriminator_channels
        self.discriminator = Discriminator(
            image_size, image_channels, width, num_layers, self.num_labels, domain_critics
        )
        self.generator_ema = None if ema_decay is None else copy.deepcopy(self.generator).requires_grad_(False)
        self.translator = "generator" if ema_decay is None else "generator_ema"
        self.inference_networks = (self.translator, "discriminator")

    @classmethod
    def rafd(cls, image_size: int = 128, **options: Any) -> StarGAN:
        """The paper's setting for the eight expressions of RaFD.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {"attributes": (), "categories": [RAFD]}
        return cls(image_size, **setting | options)

    @classmethod
    def celeba_rafd(cls, image_size: int = 256, **options: Any) -> StarGAN:
        """The paper's setting for joint training on CelebA (label set 0) and RaFD (label set 1).

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {"categories": [RAFD], "joint": True}
        return cls(image_size, **setting | options)

    # Domains ---------------------------------------------------------------------------------------------------------

    def domain(self, batch: Batch) -> Tensor:
        """Domain vectors of a batch.

        Shape:
            Output: (N, domain_features).

        Raises:
            ValueError: the batch has other labels than the model.
        """
        labels: Tensor | None = batch.get("attributes")
        if labels is None and self.categorical == [True] and "label" in batch:
            labels = F.one_hot(batch["label"], self.num_labels)
        if labels is None or labels.shape[1] != self.num_labels:
            found = "none" if labels is None else f"{labels.shape[1]} of them"
            raise ValueError(f"batches must hold `attributes` for {', '.join(self.target_names)}; there are {found}")
        labels = labels.to(batch["image"].dtype)
        if not self.joint:
            return labels
        if "label_set" not in batch:
            raise ValueError("joint training needs `label_set` in each batch: the number of each image's label set")
        mask = F.one_hot(batch["label_set"], len(self.sets)).to(labels.dtype)
        known = [mask[:, i : i + 1].expand(-1, len(names)) for i, names in enumerate(self.sets)]
        return torch.cat([labels * torch.cat(known, 1), mask], 1)

    def targets(self, domain: Tensor) -> dict[str, Tensor]:
        """By name of a label, the domain vectors that images are given to have it changed.

        A category replaces that of its set, an attribute is turned over, a colour of hair replaces the others.

        Shape:
            domain: (N, domain_features); outputs as well.
        """
        targets = {}
        hair = [i for i, name in enumerate(self.target_names) if name in EXCLUSIVE]
        for i, (names, span) in enumerate(zip(self.sets, self.spans, strict=True)):
            for column, name in enumerate(names, span.start):
                target = torch.zeros_like(domain) if self.joint else domain.clone()
                target[:, span] = domain[:, span]
                if self.joint:
                    target[:, self.num_labels + i] = 1
                if self.categorical[i]:
                    target[:, span] = 0
                elif column in hair:
                    target[:, hair] = 0
                turned = not (self.categorical[i] or column in hair)
                target[:, column] = 1 - target[:, column] if turned else 1
                targets[name] = target
        return targets

    def _known(self, x: Tensor, domain: Tensor | None) -> Tensor:
        """The given domain vectors of images, or what the discriminator takes them for."""
        if domain is not None:
            return domain.to(x.device, x.dtype).expand(len(x), -1)
        if self.joint:
            raise ValueError("with joint training give domain=...: which label set holds is not seen from an image")
        if not self._has_discriminator():
            raise ValueError(
                "give domain=..., the labels that the images have: the model's file holds no discriminator, which "
                "would tell them"
            )
        parts = self.classify(x).split([*map(len, self.sets)], 1)
        sure = [p == p.amax(1, keepdim=True) if c else p > 0.5 for p, c in zip(parts, self.categorical, strict=True)]
        return torch.cat(sure, 1).to(x.dtype)

    def _has_discriminator(self) -> bool:
        return self.available_networks is None or "discriminator" in self.available_networks

    def _judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's answers; one that no file gave would answer at random."""
        if not self._has_discriminator():
            raise ValueError("the model's file holds no discriminator, which is needed here: import it with both files")
        return cast(tuple[Tensor, Tensor], self.discriminator(x))

    # Translation -----------------------------------------------------------------------------------------------------

    @inference
    def translate(self, x: Tensor, target: str | int | Tensor, domain: Tensor | None = None) -> Tensor:
        """Images in other domains.

        Args:
            x: images.
            target: name or number of a label, see `targets`; or int64 numbers, one per image; or domain vectors.
            domain: the images' own domain vectors, which a label is changed in; None asks the discriminator. With
                `joint` it is needed for attributes, not for categories, each of which stands for itself.

        Shape:
            x: (N, C, H, W) in [-1, 1], sides divisible by 4; target: (N,) or (N, domain_features); output as x.

        Raises:
            ValueError: there is no such label, or `domain` is needed.
        """
        return self._draw(x, self._target(x, target, domain)).clamp(-1, 1)

    def _target(self, x: Tensor, target: str | int | Tensor, domain: Tensor | None) -> Tensor:
        if isinstance(target, Tensor) and target.is_floating_point():
            if target.shape[-1] != self.domain_features:
                raise ValueError(f"a domain vector has {self.domain_features} numbers, not {target.shape[-1]}")
            return target.to(x.device, x.dtype).expand(len(x), -1)
        if isinstance(target, str):
            if target not in self.target_names:
                raise ValueError(f"there is no label {target!r}: take one of {', '.join(self.target_names)}")
            target = self.target_names.index(target)
        number = torch.as_tensor(target, device=x.device).expand(len(x))
        if len(x) and not 0 <= int(number.min()) <= int(number.max()) < self.num_labels:
            raise ValueError(f"labels must lie in 0..{self.num_labels - 1} ({', '.join(self.target_names)})")
        if self.categorical == [True]:
            return F.one_hot(number, self.num_labels).to(x.dtype)
        if self.joint and domain is None and bool((number >= self.num_attributes).all()):
            # A category replaces its whole set, and the mask hides the others: nothing of the source is left.
            domain = x.new_zeros(1, self.domain_features)
        choices = torch.stack([*self.targets(self._known(x, domain)).values()], 1)  # (N, num_labels, domain_features)
        return choices[torch.arange(len(x), device=x.device), number]

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
        domain = self._known(x, domain)
        if target is None:
            target = domain
            for other in reversed(self.targets(domain).values()):
                target = torch.where((other != domain).any(1, keepdim=True), other, target)
        return self._draw(self._draw(x, self._target(x, target, domain)), domain).clamp(-1, 1)

    @inference
    def translations(self, batch: Batch) -> dict[str, Tensor]:
        """The images of a batch and their translations to every label, by name.

        Shape:
            Outputs: (N, C, H, W) in [-1, 1].
        """
        x = batch["image"]
        targets = self.targets(self.domain(batch))
        return {"real": x} | {name: self.translate(x, target) for name, target in targets.items()}

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and each with one label changed, drawn for (seed, first + i).

        Shape:
            Output: two of (N, C, H, W) in [-1, 1].
        """
        x = batch["image"]
        choices = torch.stack([*self.targets(self.domain(batch)).values()], 1)
        drawn = rng.integers(self.num_labels, (len(x),), rng.key(seed, "target"), first, device=x.device)
        return x, self.translate(x, choices[torch.arange(len(x), device=x.device), drawn])

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of all labels by the discriminator: of each attribute, and within each set of categories.

        With `domain_critics` they are the softmax of the critics' mean values: ordered as these are, not calibrated.
        Images of another size are scaled until their shorter side is that of training.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, number of labels).

        Raises:
            ValueError: the file that the model was made of holds no discriminator.
        """
        size, sides = self.hparams["image_size"], x.shape[2:]
        if min(sides) != size:
            scaled = [max(size, round(side * size / min(sides))) for side in sides]
            x = F.interpolate(x, scaled, mode="bilinear", antialias=True)
        parts = self._judged(x)[1].split([*map(len, self.sets)], 1)
        return torch.cat([p.softmax(1) if c else p.sigmoid() for p, c in zip(parts, self.categorical, strict=True)], 1)

    @inference
    def score(self, x: Tensor) -> Tensor:
        """How little the critic takes images for real: its negative mean value, higher is more anomalous.

        With `domain_critics` it is that of the critic who takes the image for real most.

        Shape:
            x: (N, C, S, S) in [-1, 1]; output: (N,).

        Raises:
            ValueError: the file that the model was made of holds no discriminator.
        """
        return -self._judged(x)[0].mean((2, 3)).amax(1)

    def _draw(self, x: Tensor, domain: Tensor) -> Tensor:
        """Translations by the averaged generator, if there is one."""
        return cast(Tensor, self.get_submodule(self.translator)(x, domain))

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse data whose labels have other names: in another order they would be mistaken silently."""
        super().setup(stage)
        given = getattr(getattr(self.trainer, "datamodule", None), "class_names", {})
        names = given.get("attributes", given.get("label", self.target_names))
        if stage == "fit" and list(names) != self.target_names:
            raise ValueError(
                f"the data have the labels {', '.join(names)}; the model has {', '.join(self.target_names)}"
            )

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """Domain vectors c, those of the targets c', and the translations; the discriminator leaves G as it is."""
        x, domain = batch["image"], self.domain(batch)
        target = self._other(domain) if self.hparams["domain_critics"] else self._shuffled(domain)
        with torch.set_grad_enabled("generator" in self.active_phases):
            return {"domain": domain, "target": target, "fake": self.generator(x, target)}

    def _other(self, domain: Tensor) -> Tensor:
        """For each image another category, drawn."""
        drawn = rng.integers(
            self.num_labels - 1,
            (len(domain),),
            self.draw_key("target"),
            self.first_index(len(domain)),
            device=self.device,
        )
        return F.one_hot((domain.argmax(1) + 1 + drawn) % self.num_labels, self.num_labels).to(domain.dtype)

    def _shuffled(self, domain: Tensor) -> Tensor:
        """Domain vectors of the whole batch over all ranks in a drawn order, each within its label set."""
        everything = all_gather_rows(domain)
        order = rng.permutation(len(everything), self.draw_key("target")).to(domain.device)
        if self.joint:
            # NOTE(paper): a batch may mix label sets; the authors' code alternates batches of the one and of the other.
            number = everything[:, self.num_labels :].argmax(1)
            place = number.argsort(stable=True)  # images, set after set
            drawn = order[number[order].argsort(stable=True)]  # as many of each set, in the drawn order
            order = torch.empty_like(order).index_copy_(0, place, drawn)
        first = self.first_index(len(domain))
        return everything[order[first : first + len(domain)]]

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E D(G(x, c')) - E D(x) + w E (||grad D||_2 - 1)^2 + w L_cls(D_cls(x), c).

        With `domain_critics`, for D_k the critic of the domain k: -E D_c(x) + 1/2 E D_c'(G(x, c')) + 1/2 E D_k(x) over
        all k other than c, in the place of the first two and the last.

        Shape:
            Output: scalars.
        """
        x, fake = batch["image"], shared["fake"].detach()
        n = len(x)
        # In one pass: nothing is normalised here.
        values, logits = self.discriminator(torch.cat([x, fake.to(x.dtype)]))
        kind, own, target = self.hparams["loss"], shared["domain"], shared["target"]
        if self.hparams["domain_critics"]:
            image, number = torch.arange(n, device=x.device), own.argmax(1)
            real, wrong = values[image, number], values[n + image, target.argmax(1)]
            others = (number[:, None] + 1 + torch.arange(self.num_labels - 1, device=x.device)) % self.num_labels
            terms = discriminator_terms(kind, real, wrong)
            mismatched = discriminator_terms(kind, real, values[image[:, None], others])["fake"]
            terms |= {"fake": terms["fake"] / 2, "mismatched": mismatched / 2}
        else:
            terms = discriminator_terms(kind, values[:n], values[n:])
            terms["classification"] = self._classification(logits[:n], own)
        if not (weight := self.hparams["gradient_penalty_weight"]):
            return terms
        mix = rng.uniform((n,), self.draw_key("mix"), self.first_index(n), device=self.device, dtype=x.dtype)
        gradient = self.discriminator.input_gradient(interpolate_pairs(x, fake, mix))
        return terms | {"gradient_penalty": weight * norm_penalty(gradient)}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E D(G(x, c')) + w L_cls(D_cls(G(x, c')), c') + w E |x - G(G(x, c'), c)|_1.

        With `domain_critics` D is the critic of the domain c', and there is no L_cls.

        Shape:
            Output: scalars.
        """
        x, fake, domain = batch["image"], shared["fake"], shared["domain"]
        values, logits = self.discriminator(fake)
        weight = self.hparams["identity_weight"]
        # In one pass: instance normalisation treats each image alone.
        twice = self.generator(torch.cat([fake, x]), domain.repeat(2, 1)) if weight else self.generator(fake, domain)
        if critics := self.hparams["domain_critics"]:
            values = values[torch.arange(len(x), device=x.device), shared["target"].argmax(1)]
        terms = {
            "adversarial": generator_term(self.hparams["loss"], values),
            "reconstruction": self.hparams["cycle_weight"] * (x - twice[: len(x)]).abs().mean(),
        }
        if not critics:
            terms["classification"] = self._classification(logits, shared["target"])
        return terms | ({"identity": weight * (x - twice[len(x) :]).abs().mean()} if weight else {})

    def _classification(self, logits: Tensor, domain: Tensor) -> Tensor:
        """Cross entropy of the labels in nats: attributes summed, categories by softmax, mean over all images.

        With joint training an image's unknown label sets count nothing.
        """
        loss = logits.new_zeros(len(logits))
        for i, span in enumerate(self.spans):
            found, true = logits[:, span], domain[:, span]
            if self.categorical[i]:
                part = F.cross_entropy(found, true.argmax(1), reduction="none")
            else:
                part = F.binary_cross_entropy_with_logits(found, true, reduction="none").sum(1)
            loss = loss + (part * domain[:, self.num_labels + i] if self.joint else part)
        return cast(float, self.hparams["classification_weight"]) * loss.mean()

    def on_phase_stepped(self, phase: str) -> None:
        """Move the average of the generator."""
        if phase == "generator" and self.generator_ema is not None:
            update_ema(self.generator_ema, self.generator, cast(float, self.hparams["ema_decay"]))

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate: constant, then falling."""
        constant, length = self.hparams["constant_steps"], self.hparams["decay_steps"]
        if self.hparams["decay"] == "paper":
            gone = min(1.0, max(0, step - constant) / length) if length else 0.0
        else:
            # NOTE(paper): the authors' code looks at the rate once in 1000 steps and then takes off one step's share,
            # so that it ends at 99.9 % of the first.
            gone = max(0, step // 1000 - constant // 1000) / length if length else 0.0
        return {"lr": self.hparams["learning_rate"] * (1 - gone)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        rate, betas = self.hparams["learning_rate"], tuple(self.hparams["betas"])
        return [self.adam(network.parameters(), rate, betas=betas) for network in (self.discriminator, self.generator)]
