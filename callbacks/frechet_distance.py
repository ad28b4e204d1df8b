"""Fréchet distance between real images and a model's, as a function and as a callback.

A value means little without its protocol, which is part of every result, such as
`fd[features=efficientnet-lite0, resize=antialias-bilinear-128, real=emoji32-train-2048, fake=2048, weights=raw]`.
Values with different protocols do not belong into one column. So the protocol of a model that grows, and has not yet
reached its full size, names its `stage`, whose enlarged images were compared.

Features are computed in chunks of a fixed size by global index, the last one padded, and summed in float64: so the
value does not depend on the number of ranks, beyond 1e-10 relative.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from zoo.callbacks import base
from zoo.callbacks.base import Result
from zoo.callbacks.measuring import MeasuringCallback
from zoo.callbacks.metrics.extractors import load_extractor
from zoo.callbacks.metrics.frechet import FrechetMetric

__all__ = ["FrechetDistance", "Result", "frechet_distance"]


def frechet_distance(
    model: nn.Module,
    datamodule: base.HasReference,
    *,
    num_samples: int = 2048,
    extractor: str | nn.Module = "efficientnet-lite0",
    inception_weights: str | Path | None = None,
    split: str = "train",
    seed: int = 0,
    chunk_size: int = 64,
    cache_dir: str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    resolution: int | None = None,
) -> Result:
    """Fréchet distance between real images and as many of the model's; no Trainer is needed.

    The model is left as it was, and so are all random generators. In a distributed run every rank must call this.

    Args:
        model: has `real_and_fake(batch, seed=, first=)`, as all models of the zoo have.
        datamodule: has `reference_batches`, as all DataModules of the zoo have.
        num_samples: real images, and generated ones.
        extractor: "efficientnet-lite0", or a module `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`.
        inception_weights: path of the Inception weights of FID; with them the value is FID.
        split: of the real images.
        seed: seed of the generated images.
        chunk_size: images at a time; part of how the value is rounded.
        cache_dir: where statistics of real images are kept; by default `$ZOO_HOME/statistics`, else
            `~/.cache/generative-zoo/statistics`.
        device: where features are computed; by default where the model is.
        progress: show a progress bar.
        resolution: of a model that grows: compare its images of this side with real ones averaged down to it.

    Raises:
        TypeError: the model or the DataModule lacks the method, or a resolution is given and the model does not grow.
        ValueError: the split has fewer images, the extractor is not known, or model or images have no such resolution.
    """
    base.check_at_least("frechet_distance", 2, num_samples=num_samples)
    base.check_at_least("frechet_distance", 1, chunk_size=chunk_size)
    base.require(model, base.ComparesSets, "frechet_distance")
    base.require(datamodule, base.HasReference, "frechet_distance")
    _check_resolution(model, resolution, seed, "frechet_distance")
    with base.evaluating(model, seed):  # building a network draws random numbers
        network = load_extractor(extractor, inception_weights)
    return _Evaluation(network, num_samples, split, seed, chunk_size, resolution, _Statistics(cache_dir))(
        cast(Any, model), datamodule, device, progress
    )


class FrechetDistance(MeasuringCallback):
    """Measures the Fréchet distance while a model trains; logs `fd`, or `fid` with Inception weights.

    Each value goes to the loggers and, with its protocol, to the terminal; the protocol also goes to the loggers'
    hyperparameters and into metrics.csv. The best checkpoint can follow it: `ModelCheckpoint(monitor="fd")`, with
    `every_n_train_steps` or `every_n_epochs` as here. The values are those of `frechet_distance`.

    Args:
        every_n_epochs: a value after each of so many epochs; None for none.
        every_n_steps: a value after each of so many training steps; None for none.
        at_start: a value of the untrained model.
        at_end: a value of the trained model.
        num_samples: real images, and generated ones.
        extractor: "efficientnet-lite0", or a module `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`.
        inception_weights: path of the Inception weights of FID.
        split: of the real images.
        seed: seed of the generated images, the same for all values.
        chunk_size: images at a time.
        cache_dir: where statistics of real images are kept; by default under `$ZOO_HOME` or `~/.cache/generative-zoo`.
        resolution: of a model that grows: compare its images of this side with real ones averaged down to it.

    Attributes:
        last: the latest result, None before the first.
        best: smallest value and its step, None before the first.
        history: all (step, value) of the run.
        protocol: protocol of the values, None before the first.

    Raises:
        TypeError: at the start of a fit, if the model or the DataModule lacks the method, or a resolution is given and
            the model does not grow.
        ValueError: at the start of a fit, if the model has no such resolution.
        ModuleNotFoundError: at the start of a fit, if the extractor's packages are not installed.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        *,
        at_start: bool = False,
        at_end: bool = True,
        num_samples: int = 2048,
        extractor: str | nn.Module = "efficientnet-lite0",
        inception_weights: str | Path | None = None,
        split: str = "train",
        seed: int = 0,
        chunk_size: int = 64,
        cache_dir: str | Path | None = None,
        resolution: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, at_start=at_start, at_end=at_end)
        base.check_at_least("FrechetDistance", 2, num_samples=num_samples)
        base.check_at_least("FrechetDistance", 1, chunk_size=chunk_size)
        self.extractor = extractor
        self.inception_weights = inception_weights
        self.seed = seed
        self.resolution = resolution
        self._options = (num_samples, split, seed, chunk_size, resolution)
        self._statistics = _Statistics(cache_dir)
        self._evaluation: _Evaluation | None = None

    @property
    def state_key(self) -> str:
        """Tells several of these callbacks apart in a checkpoint."""
        name = "inception" if self.inception_weights else self.extractor
        parts = {"extractor": name if isinstance(name, str) else getattr(name, "name", None)}
        if self.resolution is not None:
            parts["resolution"] = str(self.resolution)
        return self._generate_state_key(**parts)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model, data and extractor before any time is spent."""
        if stage != "fit":
            return
        base.require(pl_module, base.ComparesSets, "FrechetDistance")
        base.require(getattr(trainer, "datamodule", None), base.HasReference, "FrechetDistance")
        _check_resolution(pl_module, self.resolution, self.seed, "FrechetDistance")
        if self._evaluation is None:
            with base.evaluating(pl_module, self.seed):  # building a network draws random numbers
                network = load_extractor(self.extractor, self.inception_weights)
            self._evaluation = _Evaluation(network, *self._options, self._statistics)

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result:
        """The distance now."""
        assert self._evaluation is not None
        progress = trainer.progress_bar_callback is not None
        return self._evaluation(cast(Any, model), cast(Any, trainer).datamodule, None, progress)


# Inside ---------------------------------------------------------------------------------------------------------------


def _check_resolution(model: nn.Module, resolution: int | None, seed: int, asker: str) -> None:
    """Make sure that a model has images of a resolution, before any time is spent."""
    if resolution is None:
        return
    if not isinstance(model, base.Grows):
        raise TypeError(
            f"{asker}: resolution={resolution} is for models that grow, which {type(model).__name__} does not"
        )
    with base.evaluating(model, seed):
        cast(Any, model).sample(1, seed=seed, resolution=resolution)  # the model knows which it has, and says so


@dataclass
class _Evaluation:
    """One protocol, applied to a model and a DataModule."""

    extractor: nn.Module
    num_samples: int
    split: str
    seed: int
    chunk_size: int
    resolution: int | None
    statistics: _Statistics

    def __call__(
        self, model: Any, datamodule: base.HasReference, device: torch.device | str | None, progress: bool
    ) -> Result:
        start = time.monotonic()
        rank, world = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
        home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        device = home if device is None else torch.device(device)
        self.extractor.to(device)
        with base.evaluating(model, self.seed), base.evaluating(self.extractor, self.seed):
            chunks = self._chunks(model, datamodule, home, rank, world)
            # Rank zero has the first chunk; it tells these real images from others of the same name.
            head = next(chunks, None)
            facts = None if head is None else (self._features(head[1], device).shape[1], head[2].shape[-1])
            width, side = base.from_rank_zero(facts)
            metric = FrechetMetric(width).to(device if device.type != "mps" else "cpu")  # mps has no float64
            name = f"{datamodule.name}-{self.split}-{self.num_samples}"
            key = self._key(name, head[1]) if rank == 0 and head else ""
            known = self.statistics.get(key, width) if rank == 0 else None
            is_known = base.from_rank_zero(known is not None)
            if known is not None:
                metric.load_real_state(known)
            total = -(-self.num_samples // (self.chunk_size * world))
            bar = tqdm(
                total=total, desc="Fréchet distance", unit="chunk", leave=False, disable=not progress or rank > 0
            )
            with bar:
                for count, real, fake in itertools.chain([head] if head else [], chunks):
                    if not is_known:
                        metric.update(self._features(real, device)[:count], real=True)
                    metric.update(self._features(fake, device)[:count], real=False)
                    bar.update()
            if not is_known:
                state = metric.real_state()
                if rank == 0:
                    self.statistics.put(key, name, state)
            value = base.from_rank_zero(float(metric.compute()))
        return Result(value, self._protocol(model, name, side), self._metric_name, time.monotonic() - start)

    @property
    def _metric_name(self) -> str:
        return str(getattr(self.extractor, "metric", "fd"))

    def _protocol(self, model: nn.Module, real: str, side: int) -> str:
        averaged = any(network.endswith("_ema") for network in getattr(model, "inference_networks", ()))
        place = ""
        if self.resolution is not None:
            place = f", resolution={self.resolution}"
        elif isinstance(model, base.Grows) and (reached := int(model.progress["resolution"])) < side:
            place = f", stage={reached}"
        return (
            f"{self._metric_name}[features={self.extractor.name}, resize={getattr(self.extractor, 'resize', 'none')}, "
            f"real={real}, fake={self.num_samples}, weights={'ema' if averaged else 'raw'}{place}]"
        )

    def _chunks(
        self, model: Any, datamodule: base.HasReference, home: torch.device, rank: int, world: int
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """This rank's (number of images, real ones, fakes), all of the same padded length."""
        batches = datamodule.reference_batches(
            self.num_samples, self.chunk_size, split=self.split, rank=rank, world_size=world
        )
        for first, batch in batches:
            count = min(self.chunk_size, self.num_samples - first)
            if (given := _length(batch)) != count:
                raise ValueError(
                    f"reference_batches of {datamodule.name} gave {given} images from {first}, not {count}"
                )
            padded = move_data_to_device(_pad(batch, count, self.chunk_size), home)
            if self.resolution is None:
                real, fake = model.real_and_fake(padded, seed=self.seed, first=first)
            else:
                real, fake = self._at_resolution(model, padded, first)
            yield count, real, fake

    def _at_resolution(self, model: Any, batch: Any, first: int) -> tuple[Tensor, Tensor]:
        """Real images averaged down, and as many of the model's at that size, with their labels if it has classes."""
        real, side = batch["image"], cast(int, self.resolution)
        height, width = real.shape[2:]
        if height != width or height % side:
            raise ValueError(f"real images of {height} x {width} pixels have no means of {side} x {side}")
        conditions = {"label": batch["label"]} if base.class_count(model) else {}
        fake = model.sample(len(real), seed=self.seed, first=first, resolution=side, **conditions)
        return F.avg_pool2d(real, height // side), fake

    def _features(self, images: Tensor, device: torch.device) -> Tensor:
        """Features of images in float32, without the shortcuts that a device would take."""
        images = images.to(device, torch.float32)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        with torch.autocast(device.type, enabled=False), _exact_convolutions():
            features = self.extractor(images)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"extractor {self.extractor.name} must return (N, d) features, not {shape}")
        return features

    def _key(self, name: str, real: Tensor) -> str:
        """What the statistics of real images depend on: a digest of data, extractor and protocol."""
        digest = hashlib.sha256()
        facts = [name, str(self.extractor.name), getattr(self.extractor, "resize", "none"), self.chunk_size]
        facts += [] if self.resolution is None else [f"resolution={self.resolution}"]  # keys of plain ones stay
        digest.update(json.dumps([*facts, list(real.shape)]).encode())
        for tensor in (real, *self.extractor.state_dict().values()):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Convolutions on CUDA in full float32 (not TF32, the default) and always by the same algorithm."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision
    cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision = False, True, "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision = before


def _length(batch: Any) -> int:
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    return next(len(value) for value in tensors if isinstance(value, Tensor))


def _pad(batch: Any, count: int, size: int) -> Any:
    """A batch of `count` images repeated up to `size`."""
    if count == size:
        return batch
    rows = [i % count for i in range(size)]
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, dict):
        return {key: _pad(value, count, size) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and len(batch) == count:
        return [batch[i] for i in rows]
    return batch


class _Statistics:
    """Sums over the features of real images, kept in files and, for the latest, in memory.

    The files only save time: one that is damaged, or that cannot be written, is as good as none.
    """

    def __init__(self, folder: str | Path | None) -> None:
        cache = os.environ.get("ZOO_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "generative-zoo")
        self.folder = Path(folder if folder is not None else Path(cache, "statistics")).expanduser()
        self._latest: tuple[str, dict[str, Tensor]] | None = None

    def get(self, key: str, width: int) -> dict[str, Tensor] | None:
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        for path in self.folder.glob(f"*-{key[:16]}.safetensors"):
            try:
                with safetensors.safe_open(path, "pt") as file:
                    facts = file.metadata() or {}
                    state = {name: file.get_tensor(name) for name in ("count", "sum", "outer")}
            except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError):
                continue
            if facts.get("key") == key and facts.get("sha256") == _digest(state) and len(state["sum"]) == width:
                self._latest = key, state
                return state
        return None

    def put(self, key: str, name: str, state: dict[str, Tensor]) -> None:
        state = {name: value.cpu() for name, value in state.items()}
        self._latest = key, state
        content = safetensors.torch.save(state, {"key": key, "sha256": _digest(state), "images": name})
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            base.atomic_write(self.folder / f"{safe}-{key[:16]}.safetensors", lambda file: file.write(content))
        except OSError as error:
            rank_zero_warn(f"statistics of real images were not kept for the next time: {error}")


def _digest(state: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
