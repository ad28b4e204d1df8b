"""The task that translators are measured on: images, the domain to translate them to, and their true pairs there."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["TranslationTask"]


class TranslationTask(NamedTuple):
    """Images outside a domain, and the images that their translations to that domain should equal.

    Attributes:
        image: the images, (N, C, H, W) in [-1, 1].
        origin: numbers of their own domains, (N,).
        domain: number of the domain to translate to.
        source: their own domains, as translators take them: attributes (N, A), or "a" or "b".
        target: the domain to translate to, in the same form: attributes (A,), or "b" or "a".
        paired: whether an image has a true pair in the domain, (N,) bool.
        true: the pairs of those that have one, (M, C, H, W) in [-1, 1].
    """

    image: Tensor
    origin: Tensor
    domain: int
    source: Any
    target: Any
    paired: Tensor
    true: Tensor
