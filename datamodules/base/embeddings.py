"""Embeddings of sentences, computed once and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from zoo.engine.files import write_atomically

__all__ = ["cached_embeddings"]

CHUNK = 256  # sentences embedded at once


def cached_embeddings(
    encode: Callable[[Sequence[str]], Tensor], digest: str, texts: Sequence[str], folder: Path, name: str
) -> Tensor:
    """The embedding of each sentence, from the cache or computed.

    Args:
        encode: the text encoder.
        digest: digest of the encoder's weights.
        texts: the sentences.
        folder: folder of the cache.
        name: start of the file's name; the rest identifies encoder and sentences.

    Shape:
        Output: (len(texts), D) float32.
    """
    content = blake2b("\n".join([digest, *texts]).encode(), digest_size=8).hexdigest()
    path = folder / f"{name}-{content}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            parts = range(0, len(texts), CHUNK)
            bar = tqdm(parts, desc="Embedding captions", unit="batch", leave=False, disable=len(texts) < 5000)
            with torch.no_grad():
                rows = torch.cat([encode(texts[start : start + CHUNK]) for start in bar])
            write_atomically(path, save({"embedding": rows.float().contiguous()}))
    return load_file(path)["embedding"]
