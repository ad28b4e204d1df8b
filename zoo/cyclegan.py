"""CycleGAN: translates between two sets of images without known pairs.

    G_ab and G_ba minimize  E (D_b(G_ab(a)) - 1)^2 + E (D_a(G_ba(b)) - 1)^2
                            + 10 (E |G_ba(G_ab(a)) - a| + E |G_ab(G_ba(b)) - b|)
                            + 5 (E |G_ab(b) - b| + E |G_ba(a) - a|),
    D_b minimizes  1/2 E (D_b(b) - 1)^2 + 1/2 E D_b(G_ab(a))^2,  and D_a likewise

Zhu, Park, Isola and Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
2017, arXiv 1703.10593. The defaults are those of the authors' PyTorch code, with the identity terms always on; use a
batch size of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms, TrainingOptions, inference
from zoo.engine import rng
from zoo.nn.cyclegan import ImagePool, PatchDiscriminator, initialize, make_generator
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.schedules import Decay

__all__ = ["CycleGAN"]

# The authors' code sets the rate of epoch e, counted from 1, to 1 - max(0, e + 1 - 100) / 101 of the first: it falls
# from the 100th epoch on, and is 0 in the 200th.
DECAY = Decay("linear", "epochs", constant=98, length=101)


class CycleGAN(AdversarialModel):
    """Translator between images of two domains, a and b.

    Batches hold `image_a` and `image_b`; which image of one stands next to which of the other means nothing.

    Args:
        image_size: side of the images in training; the networks take any other size divisible by `multiple` as well.
        image_channels: channels of the images.
        base_channels: width of the generators' outermost and the discriminators' first layers.
        num_blocks: residual blocks of a resnet; the paper has 6 for 128 pixels, and 9 for 256 and more.
        domain_names: names of the domains a and b, which `translate` knows too.
        generator_kind: "resnet" is the paper's. "attention_resnet" also draws an attention mask, through which the
            drawing is blended into the input. "unet", which the authors' code has too, halves them down to a pixel.
        discriminator_layers: strided layers of a discriminator; 3 see patches of 70x70 pixels, 2 of 34x34, 0 pixels.
        discriminator_channels: width of the discriminators' first layers; None takes `base_channels`.
        cycle_weight: weight of the cycle terms.
        identity_ratio: weight of the identity terms, as a multiple of `cycle_weight`; 0 for none.
        pool_size: fakes that an image pool holds; 0 for no pools.
        pools_per_process: pools per domain and process, each for an equal share of the batch; one process with W of
            them trains as W processes with one each.
        learning_rate: step size of Adam at first.
        decay: how this rate falls; None keeps it.
        options: see `TrainingOptions`.

    Attributes:
        multiple: sides of images must be multiples of this: 4, for a U-Net `image_size`.

    Raises:
        ValueError: images that are too small for the networks, or a number out of its range.

    References:
        Zhu et al. 2017, sections 3, 4 and 7; the authors' PyTorch code; Pumarola et al. 2018 (attention).
    """

    batch_fields, main_function = ("image_a", "image_b"), "translate"
    inference_networks = ("generator_ab", "generator_ba")
    optional_networks = inference_networks  # files of one direction are published
    averaged_networks = inference_networks
    unsupported_options = {"capture": "the host draws what its pools exchange"}  # noqa: RUF012

    def __init__(
        self,
        image_size: int = 256,
        image_channels: int = 3,
        base_channels: int = 64,
        num_blocks: int = 9,
        *,
        domain_names: Sequence[str] = ("a", "b"),
        generator_kind: Literal["resnet", "attention_resnet", "unet"] = "resnet",
        discriminator_layers: int = 3,
        discriminator_channels: int | None = None,
        cycle_weight: float = 10.0,
        identity_ratio: float = 0.5,
        pool_size: int = 50,
        pools_per_process: int = 1,
        learning_rate: float = 2e-4,
        decay: Decay | dict[str, Any] | None = DECAY,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        domain_names = list(domain_names)
        self.save_hyperparameters()
        if len(set(domain_names)) != 2 or domain_names[0] == "b" or domain_names[1] == "a":
            raise ValueError(f"domain_names must be two different names, of a and of b, not {domain_names}")
        if image_size % 4 or image_size < 8:
            raise ValueError(f"image_size must be a multiple of 4 from 8, not {image_size}")
        if image_size < (least := 3 * 2**discriminator_layers):
            raise ValueError(
                f"discriminator_layers {discriminator_layers} needs images of at least {least} pixels; with "
                f"{image_size} take at most {(image_size // 3).bit_length() - 1}"
            )
        self.target_names, self.decay = domain_names, Decay.of(decay)

        def generator() -> nn.Module:
            return make_generator(generator_kind, image_size, image_channels, base_channels, num_blocks)

        def discriminator() -> nn.Module:
            return PatchDiscriminator(image_channels, discriminator_channels or base_channels, discriminator_layers)

        self.generator_ab, self.generator_ba = generator(), generator()
        self.multiple = cast(int, self.generator_ab.multiple)
        self.discriminator_a, self.discriminator_b = discriminator(), discriminator()
        self.apply(initialize)
        self.average_networks()
        self.pools = {domain: [ImagePool(pool_size) for _ in range(pools_per_process)] for domain in ("a", "b")}

    # Translation -----------------------------------------------------------------------------------------------------

    @inference
    def translate(self, x: Tensor, target: str = "b") -> Tensor:
        """Images of the other domain translated.

        Args:
            x: images.
            target: domain to translate to: "a" or "b", or its name.

        Shape:
            Input and output: (N, C, H, W) in [-1, 1], H and W divisible by `multiple`.

        Raises:
            ValueError: there is no such domain, the model's file does not lead to it, or the size does not fit.
        """
        if target not in (domains := dict.fromkeys(["a", "b", *self.target_names])):
            raise ValueError(f"there is no domain {target!r}: take one of {', '.join(domains)}")
        name = "generator_ab" if target in ("b", self.target_names[1]) else "generator_ba"
        network = self.averaged(name, f"no network translates to {target!r}")
        (height, width), multiple = x.shape[2:], self.multiple
        if height % multiple or width % multiple or min(height, width) < 8:
            least = max(8, multiple)
            raise ValueError(
                f"images of {height}x{width} do not fit: sides must be multiples of {multiple} from {least}"
            )
        return cast(Tensor, network(x)).clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) of domain a after the cycle a, b, a."""
        return self.translate(self.translate(x, "b"), "a")

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of domain b, and those of domain a translated to b."""
        return self.real_images(batch), self.translate(batch["image_a"], "b")

    def real_images(self, batch: Batch) -> Tensor:
        """Real images of domain b."""
        return cast(Tensor, batch["image_b"])

    def translations(self, batch: Batch) -> dict[str, Tensor]:
        """Columns (N, C, H, W) of a sheet, by name: images of each domain, translated, and back again."""
        columns: dict[str, Tensor] = {}
        names = dict(zip("ab", self.target_names, strict=True))
        for source, target in (("a", "b"), ("b", "a")):
            columns[names[source]] = real = batch[f"image_{source}"]
            columns[f"to {names[target]}"] = fake = self.translate(real, target)
            columns[f"{names[source]} again"] = self.translate(fake, source)
        return columns

    # Training --------------------------------------------------------------------------------------------------------

    def check_data(self, data: Any) -> None:
        """Refuse other domains; folders A and B, or trainA and trainB, say nothing."""
        given = getattr(data, "domain_names", None) or self.target_names
        names = ([name.lower().removeprefix("train") for name in pair] for pair in (given, self.target_names))
        if ["a", "b"] not in names:
            self.require_same("domains", given, self.target_names)

    def objectives(self) -> dict[str, Objective]:
        """The generators step first, as in the authors' code."""
        return {"generator": self.generator_loss, "discriminator": self.discriminator_loss}

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """The fakes of this batch, and what each generator makes of images of its own target domain."""
        a, b = batch["image_a"], batch["image_b"]
        if not self.hparams["identity_ratio"]:
            return {"fake_b": self.generator_ab(a), "fake_a": self.generator_ba(b)}
        # In one pass: instance normalization treats each image alone.
        fake_b, identity_b = self.generator_ab(torch.cat([a, b])).chunk(2)
        fake_a, identity_a = self.generator_ba(torch.cat([b, a])).chunk(2)
        return {"fake_a": fake_a, "fake_b": fake_b, "identity_a": identity_a, "identity_b": identity_b}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E (D_b(G_ab(a)) - 1)^2 + w E |G_ba(G_ab(a)) - a| + w r E |G_ba(a) - a|, and the same from b to a."""
        weight = self.hparams["cycle_weight"]
        cycled_a, cycled_b = self.generator_ba(shared["fake_b"]), self.generator_ab(shared["fake_a"])
        terms = {
            "adversarial_ab": generator_term("least_squares", self.discriminator_b(shared["fake_b"])),
            "adversarial_ba": generator_term("least_squares", self.discriminator_a(shared["fake_a"])),
            "cycle_a": weight * F.l1_loss(cycled_a, batch["image_a"]),
            "cycle_b": weight * F.l1_loss(cycled_b, batch["image_b"]),
        }
        if weight := weight * self.hparams["identity_ratio"]:
            for domain in ("a", "b"):
                terms[f"identity_{domain}"] = weight * F.l1_loss(shared[f"identity_{domain}"], batch[f"image_{domain}"])
        return terms

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """1/2 E (D_b(b) - 1)^2 + 1/2 E D_b(G_ab(a))^2 with fakes from the pool, and the same for D_a."""
        terms = {}
        for domain, network in (("a", self.discriminator_a), ("b", self.discriminator_b)):
            fake = self._pooled(domain, shared[f"fake_{domain}"].detach())
            real_logits, fake_logits = network(torch.cat([batch[f"image_{domain}"], fake])).chunk(2)
            for name, value in discriminator_terms("least_squares", real_logits, fake_logits).items():
                terms[f"{name}_{domain}"] = 0.5 * value
        return terms

    def _pooled(self, domain: str, fake: Tensor) -> Tensor:
        """Fakes for the discriminator: each share of the batch through its pool, in training."""
        if not self.training:
            return fake
        draws = rng.uniform((len(fake), 2), self.draw_key(f"pool/{domain}"), self.first_index(len(fake)))
        pools = self.pools[domain]
        if len(fake) % len(pools):
            raise ValueError(f"a batch of {len(fake)} cannot be shared among pools_per_process={len(pools)}")
        parts = zip(pools, fake.chunk(len(pools)), draws.chunk(len(pools)), strict=True)
        return torch.cat([pool.exchange(part, numbers) for pool, part, numbers in parts])

    def rank_state_dict(self) -> dict[str, Any]:
        """The image pools."""
        pools = {domain: [pool.state() for pool in pools] for domain, pools in self.pools.items()}
        return super().rank_state_dict() | {"pools": pools}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""
        super().load_rank_state_dict(state)
        for domain, pools in self.pools.items():
            for pool, images in zip(pools, state["pools"][domain], strict=True):
                pool.restore(images)

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for both generators, one for both discriminators."""
        pairs = (self.generator_ab, self.generator_ba), (self.discriminator_a, self.discriminator_b)
        return [
            self.adam(chain(*(n.parameters() for n in pair)), self.hparams["learning_rate"], betas=(0.5, 0.999))
            for pair in pairs
        ]
