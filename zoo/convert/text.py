"""Importer of text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from zoo.convert import layouts
from zoo.convert.files import LINEAR, axes_of, build, expect, fill, read_pth
from zoo.text_encoder import TextEncoder

__all__ = ["text_encoder"]


def text_encoder(paths: Sequence[Path], *, layout: str = "martinduartemore") -> TextEncoder:
    """The authors' encoder of sentences from the files of a PyTorch port.

    Args:
        paths: the state dict of one encoder, for birds (gated units) or flowers (a plain recurrent network).
        layout: whose file it is.

    Returns:
        The model; its encoder of images is untrained.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("text_encoder", layout, len(paths))
    path = Path(paths[0])
    state = read_pth(path)
    rnn: Literal["gru", "relu"] = "gru" if "rnn.i2h_update.weight" in state else "relu"
    gates = ("_update", "_reset", "") if rnn == "gru" else ("",)
    axes = axes_of(("conv1", "conv2", "conv3"), 3)
    axes |= axes_of([f"rnn.{way}{gate}" for way in ("i2h", "h2h") for gate in gates], 2) | axes_of(("emb_proj",), 2)
    expect(state, axes, path, layout)
    renamed: dict[str, Any] = {f"conv{i}.{kind}": state[f"conv{i}.{kind}"] for i in (1, 2, 3) for kind in LINEAR}
    for kind in LINEAR:
        renamed[f"output.{kind}"] = state[f"emb_proj.{kind}"]
        for ours, theirs in (("input", "i2h"), ("state", "h2h")):
            renamed[f"{ours}.{kind}"] = torch.cat([state[f"rnn.{theirs}{gate}.{kind}"] for gate in gates])
    channels = (len(state["conv1.weight"]), len(state["conv2.weight"]))
    embedding_dim, hidden = state["emb_proj.weight"].shape
    model = build(lambda: TextEncoder(64, 3, channels, hidden, embedding_dim, rnn=rnn), path)
    fill(model.text_network, renamed, path)
    return model.eval()
