"""Pretrained weights: safetensors files that say what they are, and their index.

A file holds the networks that the public inference API needs (`inference_networks`), and a header with the class, its
hyperparameters, the data, the measured values and a sum over the weights. Nothing is unpickled; only classes under
`zoo.` are built. The index `weights/index.json` is the one source of names, sums and values; cards are generated from
the index. Importing this package imports no torch.
"""

from zoo.engine.download import sha256
from zoo.pretrained.fetch import card, entry_of, index, list_pretrained, pull, weights_folder
from zoo.pretrained.files import read, save
from zoo.pretrained.loading import load

__all__ = ["card", "entry_of", "index", "list_pretrained", "load", "pull", "read", "save", "sha256", "weights_folder"]
