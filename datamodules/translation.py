"""What translators are measured with: images, the domain they are to be translated to, and their true pairs in it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["TranslationTask"]


class TranslationTask(NamedTuple):
    """Images that are not in a domain, and what their translations to it should look like.

    Attributes:
        image: the images, (N, C, H, W) in [-1, 1].
        origin: numbers of their own domains, (N,).
        domain: number of the domain.
        source: their own domains, as translators take them: attributes (N, A), or "a" or "b".
        target: the domain in the same form: attributes (A,), or "b" or "a".
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
