"""CycleGAN: translates between two sets of images of which no pairs are known.

    G_ab and G_ba minimise  E (D_b(G_ab(a)) - 1)^2 + E (D_a(G_ba(b)) - 1)^2
                            + 10 (E |G_ba(G_ab(a)) - a| + E |G_ab(G_ba(b)) - b|)
                            + 5 (E |G_ab(b) - b| + E |G_ba(a) - a|),
    D_b minimises  1/2 E (D_b(b) - 1)^2 + 1/2 E D_b(G_ab(a))^2,  and D_a likewise

Zhu, Park, Isola and Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
2017, arXiv 1703.10593. The defaults are those of the authors' PyTorch code, with the identity terms always on; use a
batch size of 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms, inference
from zoo.engine import rng
from zoo.nn.layers import FewChannelConv2d, attention_blend, instance_norm
from zoo.nn.losses import discriminator_terms, generator_term

__all__ = ["CycleGAN", "ImagePool", "PatchDiscriminator", "ResnetGenerator", "UNetGenerator"]


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that halves or keeps the side; without a bias unless asked for."""
    # NOTE(paper): the authors' convolutions have biases in front of the instance normalisations too, which take them
    # away again; they are left out.
    options = {"padding": (kernel_size - 1) // 2, "bias": False} | options
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, **options)


class ResnetBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, padding_mode="reflect")
        self.conv2 = conv(channels, channels, 3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block changes."""
        y = F.relu(instance_norm(self.conv1(x)))
        return x + instance_norm(self.conv2(y))


class ResnetGenerator(nn.Module):
    """Image to image: halved twice, changed by residual blocks, doubled twice (Johnson et al. 2016).

    Args:
        image_channels: colours.
        base_channels: width at full size.
        blocks: residual blocks.
        attention: blend the drawing into the input through a mask, see `zoo.nn.layers.blend`.

    Shape:
        Input and output: (N, image_channels, H, W), H and W divisible by 4; output in [-1, 1].
    """

    def __init__(self, image_channels: int, base_channels: int, blocks: int, attention: bool = False) -> None:
        super().__init__()
        c = base_channels
        self.multiple = 4
        self.attention = attention
        self.start = conv(image_channels, c, 7, padding_mode="reflect")  # (N, C, H, W)
        self.down = nn.ModuleList([conv(c, 2 * c, 3, 2), conv(2 * c, 4 * c, 3, 2)])  # (N, 4C, H / 4, W / 4)
        self.blocks = nn.Sequential(*[ResnetBlock(4 * c) for _ in range(blocks)])
        up: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": 1, "bias": False}
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * c, 2 * c, 3, **up), nn.ConvTranspose2d(2 * c, c, 3, **up)])
        self.end = FewChannelConv2d(c, image_channels + attention, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Translate images."""
        y = x
        for layer in (self.start, *self.down):
            y = F.relu(instance_norm(layer(y)))
        y = self.blocks(y)
        for layer in self.up:
            y = F.relu(instance_norm(layer(y)))
        y = self.end(y)
        return attention_blend(x, y) if self.attention else torch.tanh(y)


class UNetGenerator(nn.Module):
    """Image to image: halved down to a single pixel and doubled again, each size with a way past the smaller ones.

    Args:
        image_size: side of the images, a power of two of at least 8.
        image_channels: colours.
        base_channels: width at half size; it doubles up to eightfold.

    Shape:
        Input and output: (N, image_channels, H, W), H and W divisible by image_size; output in (-1, 1).

    References:
        Isola et al. 2017 (pix2pix), section 3.2.1 and appendix 6.1.1.
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int) -> None:
        super().__init__()
        levels = image_size.bit_length() - 1
        if image_size != 2**levels or levels < 3:
            raise ValueError(f"image_size {image_size} does not fit a U-Net: take a power of two from 8 (64, 128, ...)")
        self.multiple = image_size
        widths = [image_channels, *(base_channels * 2 ** min(i, 3) for i in range(levels))]
        down, up = [], []
        for i, (outer, inner) in enumerate(pairwise(widths)):
            last = i == levels - 1
            down.append(nn.Conv2d(outer, inner, 4, 2, 1, bias=i == 0 or last))  # (N, inner, H / 2, W / 2)
            up.append(nn.ConvTranspose2d(inner if last else 2 * inner, outer, 4, 2, 1, bias=i == 0))
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(up)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images."""
        kept = [self.down[0](x)]
        for i, layer in enumerate(self.down[1:], 1):
            x = layer(F.leaky_relu(kept[-1], 0.2))
            # A single pixel per map has no statistics.
            kept.append(x if i == len(self.down) - 1 else instance_norm(x))
        x = kept.pop()
        for layer in reversed(self.up[1:]):
            x = torch.cat([kept.pop(), instance_norm(layer(F.relu(x)))], 1)
        return torch.tanh(self.up[0](F.relu(x)))


class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit for each of many overlapping patches, 70x70 pixels large with three layers.

    Args:
        image_channels: colours.
        base_channels: width of the first layer; it doubles up to eightfold.
        layers: strided convolutions; 1, 2, 3, 4, ... see patches of 16, 34, 70, 142, ... pixels.

    Shape:
        Input: (N, image_channels, H, W); output: (N, 1, H / 2^layers - 2, W / 2^layers - 2).
    """

    def __init__(self, image_channels: int, base_channels: int, layers: int) -> None:
        super().__init__()
        widths = [base_channels * 2 ** min(i, 3) for i in range(layers + 1)]
        self.start = conv(image_channels, widths[0], 4, 2, bias=True)
        strides = [2] * (layers - 1) + [1]
        self.layers = nn.ModuleList(
            conv(outer, inner, 4, stride) for (outer, inner), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.end = conv(widths[-1], 1, 4, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the patches."""
        x = F.leaky_relu(self.start(x), 0.2)
        for layer in self.layers:
            x = F.leaky_relu(instance_norm(layer(x)), 0.2)
        return cast(Tensor, self.end(x))


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ImagePool:
    """Earlier fakes, of which the discriminator sees some instead of the new ones.

    While the pool is not full it keeps and gives back what comes. Then, with probability 1/2, it gives one of its
    images and keeps the new one in its place, else it gives the new one back.

    Args:
        size: images that it holds; 0 gives everything back.

    References:
        Shrivastava et al. 2017, section 2.3; the paper, section 4.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, draws: Tensor) -> Tensor:
        """As many images as given, some of them earlier ones.

        Args:
            images: new fakes, without a graph.
            draws: numbers in [0, 1): whether to exchange, and which.

        Shape:
            images: (N, C, H, W); draws: (N, 2), on the CPU; output as images.
        """
        given = []
        for image, (coin, place) in zip(images, draws.tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif self.size and coin < 0.5:
                k = int(place * self.size)
                given.append(self.images[k].to(image))
                self.images[k] = image.clone()
                continue
            given.append(image)
        return torch.stack(given)


def _placeholders(names: Sequence[str]) -> bool:
    """Whether names of domains say nothing: a and b, or the folders trainA and trainB."""
    return [name.lower().removeprefix("train") for name in names] == ["a", "b"]


class CycleGAN(AdversarialModel):
    """CycleGAN for images of two domains, a and b.

    Batches hold `image_a` and `image_b`; which image of one stands beside which of the other means nothing.

    Args:
        image_size: side of the images in training; a ResNet takes any other size divisible by 4 as well.
        image_channels: colours.
        base_channels: width of the generators' outermost and the discriminators' first layers.
        blocks: residual blocks of a generator; the paper has 6 for 128 pixels, and 9 for 256 and more.
        generator: kind of generator.
        attention: the ResNets draw an attention mask too, through which the drawing is blended into the input; without
            it, as in the paper, they must redraw what does not change, flat colours above all.
        domain_names: names of the domains a and b, which `translate` knows too.
        discriminator_layers: strided layers of a discriminator; 3 see patches of 70x70 pixels, 2 of 34x34, 1 of 16x16.
        discriminator_channels: width of the discriminators' first layers; None takes `base_channels`.
        loss: "least_squares", or "non_saturating" (called vanilla in the authors' code).
        cycle_weight: weight of the cycle terms.
        identity_weight: weight of the identity terms, as a multiple of `cycle_weight`; 0 for none.
        pool_size: fakes that an image pool holds; 0 for no pools.
        num_pools: pools per domain and process, each for an equal share of the batch; one process with W of them trains
            as W processes with one each.
        learning_rate: step size of Adam in the constant part.
        betas: of Adam.
        schedule: unit in which `constant` and `decay` count.
        constant: epochs or steps of constant learning rate.
        decay: epochs or steps in which it then falls linearly to 0; 0 for none.
        gradient_clip: largest gradient norm per optimizer; None does not clip.

    Attributes:
        multiple: of which the sides of images must be multiples.

    Raises:
        ValueError: images that are too small for the networks, or a number out of its range.

    References:
        The paper, sections 3, 4 and 7; the authors' PyTorch code for what it leaves open.
    """

    inference_networks = ("generator_ab", "generator_ba")
    optional_networks = inference_networks  # files of one direction are published

    def __init__(
        self,
        image_size: int = 256,
        image_channels: int = 3,
        base_channels: int = 64,
        blocks: int = 9,
        *,
        domain_names: Sequence[str] = ("a", "b"),
        generator: Literal["resnet", "unet"] = "resnet",
        attention: bool = False,
        discriminator_layers: int = 3,
        discriminator_channels: int | None = None,
        loss: Literal["least_squares", "non_saturating"] = "least_squares",
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        num_pools: int = 1,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        schedule: Literal["epochs", "steps"] = "epochs",
        constant: int = 100,
        decay: int = 100,
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__(gradient_clip=gradient_clip)
        domain_names = list(domain_names)
        self.save_hyperparameters()
        if len(set(domain_names)) != 2 or domain_names[0] == "b" or domain_names[1] == "a":
            raise ValueError(f"domain_names must be two different names, of a and of b, not {domain_names}")
        self.target_names = domain_names
        for name, least in {"blocks": 1, "discriminator_layers": 1, "pool_size": 0, "num_pools": 1}.items():
            if (value := self.hparams[name]) < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if generator not in ("resnet", "unet"):
            raise ValueError(f"generator must be 'resnet' or 'unet', not {generator!r}")
        if attention and generator == "unet":
            raise ValueError("attention is of generator='resnet': a U-Net hands its input's features on as it is")
        if schedule not in ("epochs", "steps"):
            raise ValueError(f"schedule must be 'epochs' or 'steps', not {schedule!r}")
        if image_size % 4 or image_size < 8:
            raise ValueError(f"image_size must be a multiple of 4 from 8, not {image_size}")
        if image_size < 3 * 2**discriminator_layers:
            most = (image_size // 3).bit_length() - 1
            raise ValueError(
                f"discriminator_layers {discriminator_layers} needs images of at least {3 * 2**discriminator_layers} "
                f"pixels; with {image_size} take at most {most}"
            )

        def translator() -> nn.Module:
            if generator == "unet":
                return UNetGenerator(image_size, image_channels, base_channels)
            return ResnetGenerator(image_channels, base_channels, blocks, attention)

        self.generator_ab = translator()
        self.generator_ba = translator()
        self.multiple = cast(int, self.generator_ab.multiple)
        judged = (image_channels, discriminator_channels or base_channels, discriminator_layers)
        self.discriminator_a, self.discriminator_b = PatchDiscriminator(*judged), PatchDiscriminator(*judged)
        self.apply(initialise)
        self.pools = {domain: [ImagePool(pool_size) for _ in range(num_pools)] for domain in ("a", "b")}

    # Inference -------------------------------------------------------------------------------------------------------

    @inference
    def translate(self, x: Tensor, target: str) -> Tensor:
        """Images of the other domain translated.

        Args:
            x: images.
            target: domain to translate to: "a" or "b", or its name.

        Shape:
            Input and output: (N, C, H, W) in [-1, 1], H and W divisible by 4 (with U-Nets by the size in training).

        Raises:
            ValueError: there is no such domain, the file that the model was made of does not lead to it, or the size
                does not fit.
        """
        domains = dict.fromkeys("ab") | dict.fromkeys(self.target_names)
        if target not in domains:
            raise ValueError(f"there is no domain {target!r}: take one of {', '.join(domains)}")
        name = "generator_ab" if target in ("b", self.target_names[1]) else "generator_ba"
        network, multiple = self.get_submodule(name), self.multiple
        if self.available_networks is not None and name not in self.available_networks:
            held = ", ".join(self.available_networks)
            raise ValueError(f"no network translates to {target!r}: the model's file holds {held or 'none'}, no {name}")
        if any(side % multiple or side < 8 for side in x.shape[2:]):
            height, width = x.shape[2:]
            raise ValueError(f"images of {height}x{width} do not fit: sides must be multiples of {multiple} from 8")
        return cast(Tensor, network(x)).clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images of domain a after the cycle a, b, a.

        Shape:
            Input and output: (N, C, H, W) in [-1, 1].
        """
        return self.translate(self.translate(x, "b"), "a")

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of domain b, and those of domain a translated to b."""
        return batch["image_b"], self.translate(batch["image_a"], "b")

    def translations(self, batch: Batch) -> dict[str, Tensor]:
        """Columns of a sheet: images of each domain, translated, and back again.

        Shape:
            Output: by name of the column (N, C, H, W) in [-1, 1].
        """
        columns: dict[str, Tensor] = {}
        names = dict(zip("ab", self.target_names, strict=True))
        for source, target in (("a", "b"), ("b", "a")):
            columns[names[source]] = real = batch[f"image_{source}"]
            columns[f"to {names[target]}"] = fake = self.translate(real, target)
            columns[f"{names[source]} again"] = self.translate(fake, source)
        return columns

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse data whose domains have other names: a network would be kept under the wrong one."""
        super().setup(stage)
        if stage != "fit":
            return
        given = list(getattr(getattr(self.trainer, "datamodule", None), "domain_names", None) or self.target_names)
        if given != self.target_names and not any(map(_placeholders, (given, self.target_names))):
            raise ValueError(
                f"the data have the domains {', '.join(given)}; the model's domain_names are "
                f"{', '.join(self.target_names)}"
            )

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """The fakes of this batch, and what each generator makes of images of its own target domain."""
        a, b = batch["image_a"], batch["image_b"]
        if not self.hparams["identity_weight"]:
            return {"fake_b": self.generator_ab(a), "fake_a": self.generator_ba(b)}
        # In one pass: instance normalisation treats each image alone.
        fake_b, identity_b = self.generator_ab(torch.cat([a, b])).chunk(2)
        fake_a, identity_a = self.generator_ba(torch.cat([b, a])).chunk(2)
        return {"fake_a": fake_a, "fake_b": fake_b, "identity_a": identity_a, "identity_b": identity_b}

    def objectives(self) -> dict[str, Objective]:
        """The generators step first, as in the authors' code."""
        return {"generator": self.generator_loss, "discriminator": self.discriminator_loss}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """Both directions' adversarial, cycle and identity terms, for both generators at once.

        Shape:
            Output: scalars.
        """
        kind, weight = self.hparams["loss"], self.hparams["cycle_weight"]
        cycled_a, cycled_b = self.generator_ba(shared["fake_b"]), self.generator_ab(shared["fake_a"])
        terms = {
            "adversarial_ab": generator_term(kind, self.discriminator_b(shared["fake_b"])),
            "adversarial_ba": generator_term(kind, self.discriminator_a(shared["fake_a"])),
            "cycle_a": weight * F.l1_loss(cycled_a, batch["image_a"]),
            "cycle_b": weight * F.l1_loss(cycled_b, batch["image_b"]),
        }
        if weight := weight * self.hparams["identity_weight"]:
            for domain in ("a", "b"):
                terms[f"identity_{domain}"] = weight * F.l1_loss(shared[f"identity_{domain}"], batch[f"image_{domain}"])
        return terms

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """Each discriminator on real images of its domain and on fakes from its pool, halved to slow it down.

        Shape:
            Output: scalars.
        """
        terms = {}
        for domain, judge in (("a", self.discriminator_a), ("b", self.discriminator_b)):
            fake = self._pooled(domain, shared[f"fake_{domain}"].detach())
            real_logits, fake_logits = judge(torch.cat([batch[f"image_{domain}"], fake])).chunk(2)
            for name, value in discriminator_terms(self.hparams["loss"], real_logits, fake_logits).items():
                terms[f"{name}_{domain}"] = 0.5 * value
        return terms

    def _pooled(self, domain: str, fake: Tensor) -> Tensor:
        """Fakes for the discriminator: each share of the batch through its pool."""
        draws = rng.uniform((len(fake), 2), self.draw_key(f"pool/{domain}"), self.first_index(len(fake)))
        pools = self.pools[domain]
        if len(fake) % len(pools):
            raise ValueError(f"a batch of {len(fake)} cannot be shared among num_pools={len(pools)}")
        size = len(fake) // len(pools)
        parts = zip(pools, fake.split(size), draws.split(size), strict=True)
        return torch.cat([pool.exchange(part, numbers) for pool, part, numbers in parts])

    def rank_state_dict(self) -> dict[str, Any]:
        """The image pools."""
        pools = {
            domain: [torch.stack(pool.images).cpu() if pool.images else None for pool in pools]
            for domain, pools in self.pools.items()
        }
        return super().rank_state_dict() | {"pools": pools}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""
        super().load_rank_state_dict(state)
        for domain, pools in self.pools.items():
            for pool, images in zip(pools, state["pools"][domain], strict=True):
                pool.images = [] if images is None else list(images.clone().unbind())

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate: constant, then linear to 0, which it would reach one step after the last.

        Both count from 0: at epoch (or step) e it is learning_rate * (1 - max(0, e + 1 - constant) / (decay + 1)).
        """
        constant, decay = self.hparams["constant"], self.hparams["decay"]
        done = self.current_epoch if self.hparams["schedule"] == "epochs" else step
        factor = 1 - max(0, done + 1 - constant) / (decay + 1) if decay else 1.0
        return {"lr": self.hparams["learning_rate"] * max(0.0, factor)}

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for both generators, one for both discriminators."""
        pairs: Iterable[tuple[nn.Module, nn.Module]] = (
            (self.generator_ab, self.generator_ba),
            (self.discriminator_a, self.discriminator_b),
        )
        return [
            self.adam(
                chain.from_iterable(network.parameters() for network in pair),
                self.hparams["learning_rate"],
                betas=tuple(self.hparams["betas"]),
            )
            for pair in pairs
        ]
