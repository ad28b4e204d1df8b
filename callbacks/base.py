"""What all callbacks share: the state they must not disturb, what they ask of a model, and where pictures go."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image, ImageDraw
from torch import Tensor, nn

__all__ = [
    "Assembles",
    "Classifies",
    "ComparesSets",
    "Completes",
    "DrawsText",
    "Encodes",
    "GeneratesFromNoise",
    "GivesLogProb",
    "GivesLogWeights",
    "Grows",
    "HasFactors",
    "HasPatches",
    "HasReference",
    "HasTranslations",
    "Reconstructs",
    "Result",
    "Samples",
    "Scores",
    "ShowsTranslations",
    "Translates",
    "TranslationTask",
    "Traverses",
    "atomic_write",
    "captioned",
    "check_at_least",
    "class_count",
    "classes",
    "evaluating",
    "evenly",
    "from_rank_zero",
    "grid",
    "log_picture",
    "require",
    "samples_folder",
    "to_levels",
    "write_gif",
    "write_png",
]


@dataclass(frozen=True)
class Result:
    """A measured value and what it is the value of.

    Attributes:
        value: the value.
        protocol: what gave it, such as features, images and weights.
        metric: its short name.
        seconds: how long it took.
    """

    value: float
    protocol: str
    metric: str = "fd"
    seconds: float = 0.0


# What a callback may ask of a model or a DataModule -------------------------------------------------------------------


@runtime_checkable
class Samples(Protocol):
    """A model that draws images; image i depends on (seed, first + i) only."""

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class DrawsText(Protocol):
    """A model that draws what a sentence says."""

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of sentences."""
        ...

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1] for `embedding` (D,) or (n, D)."""
        ...


@runtime_checkable
class Retrieves(Protocol):
    """A model that embeds images and sentences, so that the inner product says how well they fit."""

    def encode(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) of images (N, C, H, W) in [-1, 1]."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of sentences."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A model that makes larger and larger images in training."""

    @property
    def progress(self) -> dict[str, float]:
        """`resolution`, `alpha` (how far it is faded in, 1 when it is) and `images_seen`."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A model that goes on from the upper rows of images."""

    def completions(self, upper: Tensor, num: int, *, seed: int = 0) -> Tensor:
        """Images (N, num, C, H, W) of rows (N, C, rows, W), all in [-1, 1]."""
        ...


@runtime_checkable
class ComparesSets(Protocol):
    """A model that says which real and which generated images are to be compared as sets."""

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of a batch and as many generated ones, (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class GeneratesFromNoise(Protocol):
    """A model that makes images from noise that can be had on its own."""

    def latent(self, n: int, *, seed: int | None = None, first: int = 0) -> Tensor:
        """Noise (n, ...)."""
        ...

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from noise."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A model with codes."""

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, d) of images (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """A model that gives images back through its code."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from images."""
        ...


@runtime_checkable
class ShowsTranslations(Protocol):
    """A model that lays out translations of a batch side by side."""

    def translations(self, batch: Any) -> dict[str, Tensor]:
        """By name of the column: images (N, C, H, W) in [-1, 1]; the given ones have columns too."""
        ...


@runtime_checkable
class Traverses(Protocol):
    """A model whose codes can be varied one at a time."""

    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """By code: images (num, steps, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """A model that tells classes, learnt or found."""

    def classify(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A model that says how unusual images are."""

    def score(self, x: Tensor) -> Tensor:
        """Scores (N,) of images (N, C, H, W) in [-1, 1]; higher is more unusual."""
        ...


@runtime_checkable
class GivesLogWeights(Protocol):
    """A model whose likelihood can be estimated by importance sampling."""

    def log_weights(self, x: Tensor, num_samples: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """log p(x, z) - log q(z | x), (num_samples, N), for draws z of q."""
        ...


@runtime_checkable
class GivesLogProb(Protocol):
    """A model of exact likelihood."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p (N,) in nats of images (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Translates(Protocol):
    """A model that translates images between domains."""

    def translate(self, x: Tensor, target: Any) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from images; target: a domain as the data tell it."""
        ...


@runtime_checkable
class Assembles(Protocol):
    """A model that makes whole images of patches of them."""

    def assemble(self, patches: Tensor, *, seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) in [-1, 1] and masks (N, 1, S, S) in [0, 1] of patches (N, P, C, S, S)."""
        ...


@runtime_checkable
class HasPatches(Protocol):
    """A DataModule whose batches hold `patches` (N, P, C, S, S), their `boxes` (N, P, 4) and `mask` (N, 1, S, S)."""

    num_patches: int


class TranslationTask(NamedTuple):
    """Images that are not in a domain, and what their translations to it should look like.

    Attributes:
        image: the images, (N, C, H, W) in [-1, 1].
        origin: numbers of their own domains, (N,).
        domain: number of the domain.
        source: their own domains as `translate` takes them.
        target: the domain as `translate` takes it.
        paired: which have a true pair in the domain, (N,) bool.
        true: the pairs of those, (M, C, H, W) in [-1, 1].
    """

    image: Tensor
    origin: Tensor
    domain: int
    source: Any
    target: Any
    paired: Tensor
    true: Tensor


@runtime_checkable
class HasTranslations(Protocol):
    """A DataModule whose images come in several domains, none if `domain_names` is empty."""

    domain_names: list[str]

    def translation_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "test", rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """A `TranslationTask` per domain for every `world_size`-th chunk from the `rank`-th."""
        ...


@runtime_checkable
class HasFactors(Protocol):
    """A DataModule whose images are made from factors."""

    factor_sizes: tuple[int, ...]

    def render(self, factors: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of factors (N, F)."""
        ...


@runtime_checkable
class HasReference(Protocol):
    """A DataModule with a fixed subset of images to compare with."""

    name: str

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Any]]:
        """(index of the first image, batch) for every `world_size`-th chunk from the `rank`-th."""
        ...


def require(thing: object, protocol: type, asker: str) -> None:
    """Check that a model or DataModule has what a callback needs.

    Args:
        thing: the model or the DataModule.
        protocol: a runtime-checkable Protocol.
        asker: name of the callback, for the message.

    Raises:
        TypeError: it lacks something; names what.
    """
    if isinstance(thing, protocol):
        return
    needed = sorted(name for name in vars(protocol) | protocol.__annotations__ if not name.startswith("_"))
    if thing is None:
        raise TypeError(f"{asker} needs a DataModule with {' and '.join(needed)}: give the Trainer datamodule=...")
    missing = [name for name in needed if not hasattr(thing, name)]
    raise TypeError(f"{asker} needs {' and '.join(missing)}, which {type(thing).__name__} does not have")


def check_at_least(asker: str, least: int, **values: float | None) -> None:
    """Check arguments that have a lower limit.

    Args:
        asker: name of the callback, for the message.
        least: the limit.
        values: the arguments by name; None passes.

    Raises:
        ValueError: names the first that is below.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{asker}: {name} must be at least {least}, not {value}")


# What a callback must not disturb -------------------------------------------------------------------------------------


@contextmanager
def evaluating(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients and random numbers from `seed` inside; all as before afterwards.

    Restored are the mode of every submodule and the state of the random generators of torch (CPU and the model's CUDA
    device), numpy and Python.

    Args:
        model: the model that is looked at.
        seed: what the generators start from inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    generators = [torch.default_generator]
    generators += [
        torch.cuda.default_generators[device.index or 0]
        for device in {parameter.device for parameter in model.parameters()}
        if device.type == "cuda"
    ]
    states = [generator.get_state() for generator in generators]
    try:
        for module, _ in modes:
            module.training = False
        for generator in generators:
            generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def from_rank_zero(value: Any) -> Any:
    """Rank zero's value of a small object, on all ranks; every rank must call this.

    Args:
        value: this rank's own value.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


# Pictures -------------------------------------------------------------------------------------------------------------


def class_count(model: nn.Module) -> int:
    """Number of classes of a class-conditional model, 0 for others."""
    return int(getattr(model, "hparams", {}).get("num_classes", 0) or 0)


def classes(model: nn.Module, n: int) -> Tensor | None:
    """Labels that cycle over the classes of a conditional model; None for others.

    Shape:
        Output: (n,) int64.
    """
    count = class_count(model)
    device = next((parameter.device for parameter in model.parameters()), None)
    return torch.arange(n, device=device) % count if count > 1 else None


def to_levels(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images as 8-bit RGB; greyscale is repeated.

    Args:
        images: values in [-1, 1].

    Shape:
        images: (N, 1 or 3, H, W); output: (N, H, W, 3) uint8.
    """
    levels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def grid(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Images side by side on white, row after row.

    Args:
        images: values in [-1, 1].
        columns: images per row.
        gap: white pixels between them.

    Shape:
        images: (N, C, H, W).
    """
    tiles = to_levels(images)
    n, height, width, _ = tiles.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = tile
    return Image.fromarray(sheet)


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text below it, in a strip of white whose size does not depend on the text."""
    width, height = max(picture.width, 220), 14  # as wide as the longest lines, so that all pictures of a run are alike
    sheet = Image.new("RGB", (width, picture.height + height), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((3, picture.height), text, "black")
    return sheet


def samples_folder(trainer: Trainer) -> Path:
    """The folder of a run's pictures, made if need be.

    Args:
        trainer: its `default_root_dir` is the run's folder.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder = Path(trainer.default_root_dir, "samples")
    if trainer.is_global_zero:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot make the folder {folder} for pictures: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write pictures to {folder}")
    return folder


def atomic_write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that is whole or absent.

    Args:
        path: where it goes.
        write: writes the content to an open file.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        path: where it goes.
        picture: the picture.
    """
    atomic_write(path, lambda file: picture.save(file, format="PNG"))


def write_gif(path: Path, frames: Sequence[Image.Image], seconds: float, hold: float = 0.0) -> None:
    """Write an endless animation, whole or not at all.

    Args:
        path: where it goes.
        frames: its pictures.
        seconds: length of one round without the hold.
        hold: how much longer the last picture stays.
    """
    # Players slow down below 20 ms; the format counts in hundredths of a second.
    each = max(20, round(seconds * 100 / len(frames)) * 10)
    durations = [each] * (len(frames) - 1) + [each + round(hold * 100) * 10]
    first, *rest = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    options = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0, "optimize": False}
    atomic_write(path, lambda file: first.save(file, format="GIF", **options))


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 1 else [items[-1]]


def log_picture(loggers: Iterable[Any], key: str, picture: Image.Image, step: int) -> None:
    """Hand a picture to the loggers that take pictures; call on rank zero only.

    Args:
        loggers: `trainer.loggers`.
        key: its name there.
        picture: the picture.
        step: training step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(picture), step, dataformats="HWC")
