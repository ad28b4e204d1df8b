"""Previews of a checkpoint: the images on its card, and how much float16 weights change them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Preview", "preview_of"]

IMAGES = 256
# Largest change that float16 weights may cause: relative in log p; absolute in probabilities, cosines and (root mean
# square) gray levels. 1/sqrt(12) is the rounding error of 8-bit images.
LIKELIHOOD, PROBABILITY, COSINE, GRAY_LEVELS = 1e-4, 0.01, 0.01, 1 / math.sqrt(12)


@dataclass(frozen=True)
class Preview:
    """The outputs of a model that stand for the checkpoint.

    Attributes:
        kind: "samples", "translations", "similarities" (of images and sentences), "reconstructions", "assembled images"
            or "probabilities".
        batch: real images with their fields; None where none are needed.
        exact: the model gives likelihoods, by which rounding is judged.
    """

    kind: str
    batch: dict[str, Any] | None
    exact: bool

    def shown(self, model: Any, count: int) -> dict[str, Tensor]:
        """Images by name of their column, or probabilities, or cosines.

        Args:
            model: the model.
            count: images, or rows of them; at most as many as the batch has.
        """
        if self.kind == "samples":
            return {"samples": model.sample(count, seed=0)}
        assert self.batch is not None
        batch = {name: values[:count] for name, values in self.batch.items()}  # tensors, and lists of sentences
        image = batch.get("image", batch.get("image_a"))
        if self.kind == "translations":
            translations: dict[str, Tensor] = model.translations(batch)
            return translations
        if self.kind == "similarities":
            ours, theirs = model.encode(image), model.encode_text(batch["caption"])
            return {"similarities": F.normalize(ours) @ F.normalize(theirs).T}
        if self.kind == "reconstructions":
            return {"images": image, "reconstructions": model.reconstruct(image)}
        if self.kind == "assembled images":
            return {"images": image, "assembled": model.assemble(batch["patches"], seed=0)[0]}
        return {"probabilities": model.classify(image)}

    def rounding(self, model: Any, rounded: Any) -> tuple[str, str, bool]:
        """What rounding the weights changes, by how much, and whether that is little.

        Args:
            model: the model.
            rounded: the same with rounded weights.
        """
        if self.exact:
            assert self.batch is not None
            image = self.batch["image"]
            found = model.log_prob(image).double()
            change = float((found - rounded.log_prob(image).double()).abs().mean())
            little = change < LIKELIHOOD * float(found.abs().mean())
            return "log p", f"{change:.4f} nats on average over {len(image)} images", little
        images = self.kind in ("probabilities", "similarities")
        count = IMAGES if images or self.kind == "samples" else 64
        columns = zip(self.shown(model, count).values(), self.shown(rounded, count).values(), strict=True)
        changes = [(ours - theirs).double() for ours, theirs in columns]
        change = max(float(c.abs().max()) for c in changes)
        count = count if self.batch is None else min(count, len(next(iter(self.batch.values()))))
        over = f"at most over {count} {'images' if images else self.kind}"
        if self.kind == "probabilities":
            return self.kind, f"{100 * change:.3f} percentage points {over}", change < PROBABILITY
        if self.kind == "similarities":
            return self.kind, f"{change:.4f} {over}", change < COSINE
        mean = 127.5 * max(float(c.square().mean().sqrt()) for c in changes)
        return self.kind, f"{mean:.3f} grey levels on average, {127.5 * change:.3f} {over}", mean < GRAY_LEVELS

    def grid(self, model: Any) -> tuple[Tensor, int] | None:
        """Images of a card and the number of columns; None where there is nothing to look at.

        Args:
            model: the model.

        Shape:
            Output: (N, C, H, W) in [-1, 1].
        """
        if self.kind in ("probabilities", "similarities"):
            return None
        if self.kind == "samples":
            return self.shown(model, 64)["samples"], 8
        if self.kind == "translations":
            columns = list(self.shown(model, 12).values())
            return torch.stack(columns, 1).flatten(0, 1), len(columns)
        # Rows of images, each above the row of what is made of them.
        rows = zip(*(images.split(8) for images in self.shown(model, 32).values()), strict=True)
        return torch.cat([part for pair in rows for part in pair]), 8


def preview_of(model: Any, data: Any) -> Preview:
    """What there is to show of a model: samples if it draws them, else what it makes of images, else probabilities.

    Args:
        model: the model.
        data: its DataModule; test images are taken from it.

    Raises:
        ValueError: the model has none of these.
    """
    exact = hasattr(model, "log_prob")
    try:
        model.sample(1, seed=0)
    except NotImplementedError as error:
        kinds = {
            "translations": "translations",
            "encode_text": "similarities",
            "reconstruct": "reconstructions",
            "assemble": "assembled images",
            "classify": "probabilities",
        }
        kind = next((kind for method, kind in kinds.items() if hasattr(model, method)), None)
        if kind is None:
            raise ValueError(
                f"{error}, nor translate, encode text, reconstruct, assemble or classify: there is nothing to show"
            ) from error
    else:
        kind = "samples"
    if kind == "samples" and not exact:
        return Preview(kind, None, exact)
    count = min(IMAGES, len(data.split("test")))
    ((_, batch),) = data.reference_batches(count, count, split="test")
    return Preview(kind, batch, exact)
