"""Options that the data determine: size, channels and classes are said once, of the data."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from zoo.base.batches import image_of, named_fields

__all__ = ["ShapedByData", "constructor_options"]


class ShapedByData:
    """A model that can be built for data.

    Attributes:
        data_options: names of the constructor's options that the data determine: `image_size`, `image_channels`,
            `num_classes` and `class_names` (of the data's labels).
    """

    data_options: tuple[str, ...] = ("image_size", "image_channels")

    @classmethod
    def for_data(cls, data: Any, **options: Any) -> Self:
        """A model for data: as large as their images, with as many channels and classes.

        Args:
            data: a DataModule, or a loader of (N, C, H, W) images.
            options: the constructor's other options; those that are given hold.

        Raises:
            ValueError: the images are not square.
        """
        return cls(**cls.options_for(data, options) | options)

    @classmethod
    def options_for(cls, data: Any, given: Collection[str] = ()) -> dict[str, Any]:
        """The constructor's options that data determine.

        DataModules of this package know most of it unopened; of others the first batch is looked at.

        Args:
            data: a DataModule, or a loader.
            given: options that are not asked for.
        """
        wanted = [name for name in cls.data_options if name in constructor_options(cls) and name not in given]
        found: dict[str, Any] = {}
        if {"image_size", "image_channels"} & {*wanted}:
            channels, size = _image_shape(data, cls.__name__)
            found |= {"image_size": size, "image_channels": channels}
        if {"num_classes", "class_names"} & {*wanted} and (names := _label_names(data)):
            found |= {"num_classes": len(names), "class_names": names}
        return {name: found[name] for name in wanted if name in found}

    def check_unopened(self, data: Any) -> None:
        """Refuse a DataModule that is not the model's, as far as it can be told before anything is loaded.

        Args:
            data: the DataModule, or None.

        Raises:
            ValueError: names what differs.
        """
        model: Any = self
        if hasattr(data, "image_channels") and hasattr(data, "image_size"):
            model.check_images(torch.Size((data.image_channels, data.image_size, data.image_size)))
        if getattr(data, "class_names", {}):
            model.check_data(data)


def constructor_options(kind: type) -> set[str]:
    """Names of the parameters of a class's constructor: its own and those that it passes on."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def _image_shape(data: Any, model: str) -> tuple[int, int]:
    """Channels and side of the images."""
    if hasattr(data, "image_channels") and hasattr(data, "image_size"):
        return data.image_channels, data.image_size
    image = next(_images(data, model))
    channels, height, width = image.shape[-3:] if image.dim() > 3 else (1, *image.shape[-2:])
    if height != width:
        raise ValueError(f"the images are {height}x{width}, {model} makes square ones: crop or resize them")
    return channels, height


def _images(data: Any, model: str) -> Iterator[Tensor]:
    if hasattr(data, "train_dataloader"):
        data.prepare_data()
        data.setup("fit")
        data = data.train_dataloader()
    for batch in data:
        yield image_of(named_fields(batch, ("image", "label"), model))


def _label_names(data: Any) -> list[str]:
    """Names of the classes; of a folder they are known when it has been opened."""
    names: dict[str, list[str]] = getattr(data, "class_names", {})
    if "label" not in names and hasattr(data, "split"):
        data.split("train")
        names = data.class_names
    return list(names.get("label", []))
