"""Features of real and of generated images, made once for all metrics that compare them.

Features are computed in chunks of a fixed size by global index, the last one padded; every rank computes its chunks. So
they do not depend on the number of ranks.

Memory: two float32 rows of d features for each image, 390 MiB for 50,000 images with 2,048 features, and a few chunks
of images; the features of the real images are kept in a file for the next time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from zoo.callbacks.base import Grows, class_count, evaluating, from_rank_zero
from zoo.callbacks.extractors import features_of
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.real_features import RealFeatures
from zoo.callbacks.metrics.bank import FeatureBank
from zoo.callbacks.metrics.manifold import manifold_metrics
from zoo.engine.devices import exact_kernels, has_float64

__all__ = ["FeatureSets", "compared_features", "real_count", "stage_of"]


@dataclass
class FeatureSets:
    """Rows of features of real and of generated images, in the order of the images; rank zero alone has them.

    Attributes:
        real: features (M, d) of the real images.
        fake: features (N, d) of the generated images.
        network: the extractor.
        side: side of the real images in pixels.
    """

    real: Tensor
    fake: Tensor
    network: nn.Module
    side: int

    @cached_property
    def manifold(self) -> dict[str, Tensor]:
        """Precision and recall (k = 3), density and coverage (k = 5), authenticity."""
        return manifold_metrics(self.real, self.fake)

    @cached_property
    def fake_logits(self) -> Tensor:
        """Logits (N, K) of the generated images by the extractor's own classes."""
        place = _place(self.network, self.fake.device)
        with torch.no_grad(), exact_kernels():
            parts = [cast(Any, self.network).logits(part.to(place)) for part in self.fake.split(4096)]
        return torch.cat(parts).to(self.fake.device)


def _place(network: nn.Module, default: torch.device) -> torch.device:
    """Device of a network."""
    return next((value.device for value in (*network.parameters(), *network.buffers())), default)


def real_count(at: Evaluation, wanted: int) -> int:
    """Number of real images: as many as are wanted, at most all of the split where the DataModule tells how many."""
    return min(wanted, len(at.data.split(at.split))) if hasattr(at.data, "split") else wanted


def compared_features(
    at: Evaluation,
    network: nn.Module,
    *,
    num_real: int,
    chunk_size: int,
    cache_dir: str | Path | None,
    resolution: int | None = None,
    progress: bool = True,
) -> FeatureSets:
    """Features of `num_real` real images and of `at.num_samples` generated ones; every rank must call this.

    Args:
        at: model, data, split, number of generated images and their seed.
        network: the extractor, on its device.
        num_real: number of real images; 0 for none.
        chunk_size: images at a time.
        cache_dir: folder of features of real images.
        resolution: of a model that grows: side of the images.
        progress: show a progress bar.

    Raises:
        ValueError: the DataModule gives fewer images than it has, or the model's images cannot be compared.
    """
    place = _place(network, at.device)
    with evaluating(network, at.seed):
        pairs = _chunks(at, num_real, chunk_size, resolution)
        # Rank zero has the first chunk, which tells these real images from others of the same name.
        head = next(pairs, None)
        kept = RealFeatures(cache_dir, network, f"{at.data.name}-{at.split}-{num_real}", chunk_size, resolution)
        known = kept.load(head.real, num_real) if at.rank == 0 and head and head.real is not None else None
        is_known = from_rank_zero(known is not None)
        bank = FeatureBank().to(at.device if has_float64(at.device) else "cpu")  # NCCL gathers from its GPU alone
        hidden = not progress or at.rank > 0
        total = -(-max(num_real, at.num_samples or 0) // (chunk_size * at.world_size))
        with tqdm(total=total, desc=f"Features of {at.data.name}", unit="chunk", leave=False, disable=hidden) as bar:
            for chunk in _with(head, pairs):
                for images, is_real, count in chunk.sides(skip_real=is_known):
                    rows = features_of(network, images.to(place))[:count]
                    bank.update(rows, real=is_real, first=chunk.first)
                bar.update()
        with bank.sync_context():
            real, fake = bank.rows(real=True), bank.rows(real=False)
    if known is not None:
        real = known.to(fake.device)
    if at.rank == 0 and not is_known and num_real:
        kept.save(real)
    side = from_rank_zero(head.side if head else 0)
    return FeatureSets(real, fake, network, side)


@dataclass
class _Chunk:
    """Images of one chunk, padded to its full size; None for those that nobody asked for.

    Attributes:
        first: global index of the first image.
        real: real images.
        num_real: how many of them count.
        fake: generated images.
        num_fake: how many of them count.
    """

    first: int
    real: Tensor | None
    num_real: int
    fake: Tensor | None
    num_fake: int

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(cast(Tensor, self.real if self.real is not None else self.fake).shape[-1])

    def sides(self, *, skip_real: bool) -> Iterator[tuple[Tensor, bool, int]]:
        """Images, whether they are real, and how many of them count."""
        if self.real is not None and not skip_real:
            yield self.real, True, self.num_real
        if self.fake is not None:
            yield self.fake, False, self.num_fake


def _with(head: _Chunk | None, others: Iterator[_Chunk]) -> Iterator[_Chunk]:
    if head is not None:
        yield head
        yield from others


def _chunks(at: Evaluation, num_real: int, size: int, resolution: int | None) -> Iterator[_Chunk]:
    """This rank's chunks. Where more images are to be generated than are real, the real images come again."""
    num_fake = at.num_samples or 0
    share = {"rank": at.rank, "world_size": at.world_size}
    whole = real_count(at, max(num_real, num_fake))
    for offset in range(0, max(num_real, num_fake), max(whole, 1)):
        for first, batch in at.data.reference_batches(whole, size, split=at.split, **share):
            count = min(size, whole - first)
            if (given := _length(batch)) != count:
                raise ValueError(f"reference_batches of {at.data.name} gave {given} images from {first}, not {count}")
            reals = min(count, num_real - first) if offset == 0 else 0
            fakes = min(count, num_fake - offset - first)
            if max(reals, fakes) <= 0:
                continue
            padded = move_data_to_device(_padded(batch, count, size), at.device)
            real, fake = _images(at, padded, offset + first, resolution, with_fake=fakes > 0)
            yield _Chunk(offset + first, real if reals > 0 else None, reals, fake, fakes)


def _images(
    at: Evaluation, batch: Any, first: int, resolution: int | None, *, with_fake: bool
) -> tuple[Tensor, Tensor | None]:
    """Real images of a batch, and as many of the model's."""
    if resolution is not None:
        return _at_resolution(at, batch, first, resolution, with_fake=with_fake)
    if not with_fake and hasattr(at.model, "real_images"):
        return at.model.real_images(batch), None
    real, fake = at.model.real_and_fake(batch, seed=at.seed, first=first)
    return real, fake if with_fake else None


def _at_resolution(
    at: Evaluation, batch: Any, first: int, side: int, *, with_fake: bool
) -> tuple[Tensor, Tensor | None]:
    """Real images averaged down, and as many of the model's at that size, with their labels if it has classes."""
    real = batch["image"]
    height, width = real.shape[2:]
    if height != width or height % side:
        raise ValueError(f"real images of {height} x {width} pixels have no means of {side} x {side}")
    conditions = {"label": batch["label"]} if class_count(at.model) else {}
    fake = at.model.sample(len(real), seed=at.seed, first=first, resolution=side, **conditions) if with_fake else None
    return F.avg_pool2d(real, height // side), fake


def stage_of(at: Evaluation, side: int, resolution: int | None) -> dict[str, Any]:
    """What the protocol says of a model that grows: the asked resolution, or the stage that it has not left yet."""
    if resolution is not None:
        return {"resolution": resolution}
    if isinstance(at.model, Grows) and (reached := int(at.model.progress["resolution"])) < side:
        return {"stage": reached}
    return {}


def _length(batch: Any) -> int:
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    return next(len(value) for value in tensors if isinstance(value, Tensor))


def _padded(batch: Any, count: int, size: int) -> Any:
    """A batch of `count` images repeated up to `size`."""
    if count == size:
        return batch
    rows = [i % count for i in range(size)]
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, dict):
        return {key: _padded(value, count, size) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and len(batch) == count:
        return [batch[i] for i in rows]
    return batch
