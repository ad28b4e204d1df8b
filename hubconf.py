"""Entry points of torch.hub, one for each published checkpoint.

>>> torch.hub.load("OWNER/generative-zoo", "dcgan_emoji64").sample(16, seed=0)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.pretrained import entry_of, index, load

dependencies = ["torch", "lightning", "torchmetrics", "torchvision", "safetensors", "jsonargparse", "yaml"]


def _entry(slug: str) -> Callable[..., Any]:
    def entry(device: str = "cpu") -> Any:
        return load(slug, device=device)

    found = entry_of(slug)
    entry.__doc__ = f"{found['class'].rpartition('.')[2]} trained on {found['data']['name']}, in evaluation mode."
    return entry


globals().update({slug.replace("-", "_"): _entry(slug) for slug in index()})
