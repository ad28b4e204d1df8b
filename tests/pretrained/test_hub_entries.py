"""torch.hub finds every checkpoint in this repository."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import torch

import zoo

ROOT = str(Path(__file__).parents[2])


def test_every_checkpoint_has_an_entry() -> None:
    entries = runpy.run_path(f"{ROOT}/hubconf.py")
    assert {slug.replace("-", "_") for slug in zoo.list_pretrained()} <= set(entries)
    assert entries["gan_mnist28"].__doc__ == "GAN trained on mnist28, in evaluation mode."
    assert all(importlib.util.find_spec(name) for name in entries["dependencies"])


def test_an_entry_is_the_published_model() -> None:
    model = torch.hub.load(ROOT, "gan_mnist28", source="local")
    assert torch.equal(model.sample(2, seed=0), zoo.load("gan-mnist28").sample(2, seed=0))
