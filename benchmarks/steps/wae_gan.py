"""Loops of the WAE-GAN: those of the WAE, with a discriminator of codes."""

from __future__ import annotations

from benchmarks.steps import Settings
from benchmarks.steps.wae import networks, plain, textbook
from zoo.wae_gan import WAEGAN

__all__ = ["model", "networks", "plain", "textbook"]


def model(settings: Settings) -> WAEGAN:
    """The zoo's model."""
    settings.without_compile()
    return WAEGAN(settings.image_size, **{"pretraining_steps": 0} | dict(settings.options))
