"""What a loader gives, as the batches that models take: named fields, images on the model's device in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.engine.images import from_levels

__all__ = ["Batch", "image_of", "named_fields", "refuse_other_labels", "refuse_other_range", "scaled_images"]

Batch = dict[str, Any]
"""One batch: a dict with keys such as `image` (N, C, H, W) in [-1, 1] and `label` (N,) int64."""

OTHER_NAMES = {
    "image": ("images", "img", "x", "pixel_values", "input"),
    "label": ("labels", "y", "target", "targets"),
    "caption": ("captions", "text", "sentence"),
}
"""Names that other projects give to the fields of a batch."""

IMAGES = ("image", "image_a", "image_b")


def image_of(batch: Batch) -> Tensor:
    """Images (N, C, H, W) of a batch, of domain a where the batch has two."""
    image: Tensor = batch["image"] if "image" in batch else batch["image_a"]
    return image


def named_fields(batch: Any, fields: Sequence[str], model: str) -> Batch:
    """A batch as a dict under this package's names.

    Args:
        batch: a dict; a tuple or list whose elements are the fields in their order; or a tensor, the first field alone.
        fields: the fields that the model takes.
        model: name of the model, for the message.

    Raises:
        ValueError: there is nothing that could be the first field.
    """
    if isinstance(batch, Tensor):
        batch = (batch,)
    if isinstance(batch, Mapping):
        named = dict(batch)
        for name, others in OTHER_NAMES.items():
            if name not in named and (other := next((other for other in others if other in named), None)):
                named[name] = named.pop(other)
        found = ", ".join(map(repr, batch))
    elif isinstance(batch, list | tuple):
        named = dict(zip(fields, batch, strict=False))
        label = named.get("label")
        if isinstance(label, Tensor) and label.dim() == 2:  # several labels per image, each on or off
            named["attributes"] = named.pop("label")
        elif isinstance(label, list | tuple) and label and isinstance(label[0], str):
            named["caption"] = list(named.pop("label"))
        found = "nothing" if not batch else f"{len(batch)} elements without names"
    else:
        raise ValueError(
            f"batches must be dicts, tuples or tensors, not {type(batch).__name__}: {model} takes {fields[0]!r}"
        )
    for name in fields if fields[0] in IMAGES[1:] else fields[:1]:
        value = named.get(name)
        if not isinstance(value, Tensor) or (name in IMAGES[1:] and value.dim() < 3):  # labels are no other domain
            others = OTHER_NAMES.get(name, ())
            like = f" (or {', '.join(map(repr, others))})" if others else ""
            raise ValueError(f"batches must hold the tensor {name!r}{like} for {model}; there are {found}")
    if isinstance(named.get("label"), Tensor) and not named["label"].is_floating_point():
        named["label"] = named["label"].long()
    return named


def scaled_images(batch: Batch, channels: int | None, dtype: torch.dtype) -> Batch:
    """Images of 8 bits scaled to [-1, 1], gray ones without an axis for channels given one; others keep their values.

    Args:
        batch: named fields.
        channels: channels of the model's images.
        dtype: floating-point type of the model.

    Shape:
        Images: (N, C, H, W), or (N, H, W) for one channel; output: (N, C, H, W).
    """
    for name, value in batch.items():
        if isinstance(value, dict):
            inner = scaled_images(dict(value), channels, dtype)
            if any(inner[key] is not given for key, given in value.items()):
                batch[name] = inner
        if not isinstance(value, Tensor):
            continue
        if name in IMAGES and value.dim() == 3 and channels == 1:
            value = batch[name] = value.unsqueeze(1)
        if value.dtype == torch.uint8 and value.dim() >= 4:
            batch[name] = from_levels(value).to(dtype)
        elif name in IMAGES and value.is_floating_point() and value.dtype != dtype:
            batch[name] = value.to(dtype)
    return batch


def refuse_other_range(batch: Batch) -> None:
    """Refuse images whose values are not in [-1, 1]; waits for the device.

    Args:
        batch: named fields.

    Raises:
        ValueError: names the range that the images have, and what to do.
    """
    for name in IMAGES:
        if not isinstance(image := batch.get(name), Tensor) or not image.numel():
            continue
        if not image.is_floating_point():
            raise ValueError(f"{name} holds {image.dtype}: give uint8 in 0..255, or floats in [-1, 1]")
        low, high = (float(value) for value in image.detach().aminmax())
        # Rounding and resampling may pass the ends by a little.
        if not (-1.1 <= low <= high <= 1.1):
            what = f"values from {low:.4g} to {high:.4g}"
        elif low >= 0 and high > low:
            what = f"values from {low:.4g} to {high:.4g}, as if they lay in [0, 1]"
        else:
            continue
        raise ValueError(
            f"{name} has {what}; models take [-1, 1]: add Normalize(0.5, 0.5) after ToTensor(), or give uint8"
        )


def refuse_other_labels(batch: Batch, values: range, model: str) -> None:
    """Refuse labels that are not a class for each image; waits for the device.

    Args:
        batch: named fields.
        values: the labels that there may be, -1 among them where an image may have none.
        model: name of the model, for the message.

    Raises:
        ValueError: names what the labels are, and what they should be.
    """
    batch = batch.get("labelled", batch)  # where few images have labels
    label, n = batch.get("label"), len(image_of(batch))
    wanted = f"{model} takes `label` as whole numbers in {values[0]}..{values[-1]}, one for each image"
    if label is None:
        raise ValueError(f"{wanted}; batches hold {', '.join(map(repr, batch))}")
    if not isinstance(label, Tensor):
        raise ValueError(f"{wanted}; batches hold a {type(label).__name__}")
    if label.shape != (n,) or label.is_floating_point():
        kind = str(label.dtype).removeprefix("torch.")
        raise ValueError(f"{wanted}; those of {n} images are {kind} of shape {tuple(label.shape)}")
    low, high = (int(value) for value in label.aminmax()) if n else (0, 0)
    if low < values[0] or high > values[-1]:
        raise ValueError(f"{wanted}; they go from {low} to {high}")
