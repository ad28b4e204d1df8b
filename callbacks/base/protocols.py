"""What a callback or a measure may ask of a model or of a DataModule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

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
    "Retrieves",
    "Samples",
    "Scores",
    "ShowsTranslations",
    "Translates",
    "Traverses",
]


@runtime_checkable
class Samples(Protocol):
    """A model that draws images; image i depends on (seed, first + i) only."""

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class DrawsText(Protocol):
    """A model that draws images of sentences."""

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of sentences."""
        ...

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1] for `embedding` (D,) or (n, D)."""
        ...


@runtime_checkable
class Retrieves(Protocol):
    """A model that embeds images and sentences; a large inner product means that they match."""

    def encode(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) of images (N, C, H, W) in [-1, 1]."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of sentences."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A model whose images grow in training."""

    @property
    def progress(self) -> dict[str, float]:
        """`resolution`, `alpha` (its share in the images, 1 once it is faded in) and `images_seen`."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A model that completes images from their upper rows."""

    def completions(self, upper: Tensor, num: int, *, seed: int = 0) -> Tensor:
        """Images (N, num, C, H, W) of rows (N, C, rows, W), all in [-1, 1]."""
        ...


@runtime_checkable
class ComparesSets(Protocol):
    """A model that names the real and the generated images to compare as sets."""

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of a batch and as many generated ones, (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class GeneratesFromNoise(Protocol):
    """A model that draws noise and makes images from noise in two steps."""

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
    """A model that shows translations of a batch side by side."""

    def translations(self, batch: Any) -> dict[str, Tensor]:
        """Images (N, C, H, W) in [-1, 1] by name of their column; the given images have columns too."""
        ...


@runtime_checkable
class Traverses(Protocol):
    """A model whose codes can be varied one at a time."""

    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images (num, steps, C, H, W) in [-1, 1] by name of the code."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """A model that assigns images to classes, with or without labels in training."""

    def classify(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A model that gives anomaly scores."""

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
        """Images (N, C, H, W) in [-1, 1] from images; target: a domain in the form of `TranslationTask`."""
        ...


@runtime_checkable
class Assembles(Protocol):
    """A model that makes whole images from patches."""

    def assemble(self, patches: Tensor, *, seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) in [-1, 1] and masks (N, 1, S, S) in [0, 1] from patches (N, P, C, S, S)."""
        ...


@runtime_checkable
class HasPatches(Protocol):
    """A DataModule whose batches hold `patches` (N, P, C, S, S), their `boxes` (N, P, 4) and `mask` (N, 1, S, S)."""

    num_patches: int


@runtime_checkable
class HasTranslations(Protocol):
    """A DataModule whose images come in several domains; `domain_names` is empty where they do not."""

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
