"""Pretrained weights: safetensors files that say what they are, their registries, and the ways they travel.

A file holds the networks that the public inference API needs (`inference_networks`), and a header with the class, its
hyperparameters, the data, the measured values and a sum over the weights. Nothing is unpickled; only classes under
`zoo.` are built, and those of packages that the caller trusts by name. A registry's `index.json` is the one source of
names, sums and values; cards are generated from it. Importing this package imports no torch.
"""

from zoo.engine.download import sha256
from zoo.pretrained.fetch import card, entry_of, find, known, list_pretrained, pull
from zoo.pretrained.files import read, save
from zoo.pretrained.loading import load
from zoo.pretrained.registries import index, weights_folder

__all__ = [
    "card",
    "entry_of",
    "find",
    "index",
    "known",
    "list_pretrained",
    "load",
    "pull",
    "read",
    "save",
    "sha256",
    "weights_folder",
]
