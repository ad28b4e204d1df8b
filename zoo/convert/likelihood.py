"""Importers of NADE and PixelCNN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from zoo.convert import layouts
from zoo.convert.files import State, axes_of, build, expect, fill, load_pth, square, state_of
from zoo.nade import NADE
from zoo.pixelcnn import PixelCNN

__all__ = ["nade", "pixelcnn"]


def nade(paths: Sequence[Path], *, layout: str = "EugenHotaj") -> NADE:
    """NADE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "EugenHotaj": the state dict of that repository's NADE, _in_W, _in_b, _h_W, _h_b, or
            the checkpoint of its trainer.

    Returns:
        The model, with that repository's ReLU. The file does not state the image's shape: it is taken to be a square of
        one channel. Files of color images, whose values that repository reads channel after channel, are refused.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("nade", layout, len(paths))
    path = Path(paths[0])
    state, _ = _state(path)
    expect(state, {"_in_W": 2, "_in_b": 1, "_h_W": 2, "_h_b": 1}, path, layout)
    hidden, pixels = state["_in_W"].shape
    side, channels = square(pixels, path)
    if channels != 1:
        raise ValueError(f"{path} does not fit: {pixels} values are no square image of 1 channel")
    model = build(lambda: NADE(side, channels, hidden, nonlinearity="relu"), path)
    renamed: dict[str, Tensor | list[Tensor]] = {
        "order": model.network.order,
        "input_weight": state["_in_W"].T,
        "hidden_bias": state["_in_b"],
        "output_weight": state["_h_W"][:, None],
        "output_bias": state["_h_b"][:, None],
    }
    fill(model.network, renamed, path)
    return model.eval()


def _state(path: Path) -> tuple[State, tuple[int, ...]]:
    """Weights of that repository, and the shape (C, H, W) of the images that the network has seen, if it has seen any.

    Raises:
        ValueError: the file is damaged, or holds no such weights; or the images were no squares.
    """
    found = load_pth(path)
    state = state_of(found, path, *(["model"] if isinstance(found, dict) and "optimizer" in found else []))
    sizes = [int(state.pop(key)) for key in ("_c", "_h", "_w") if key in state and state[key].numel() == 1]
    if len(sizes) == 3 and sizes[1] != sizes[2]:
        raise ValueError(f"{path} does not fit: it was trained on images of {sizes[1]}x{sizes[2]}, no squares")
    return state, tuple(sizes)


def pixelcnn(paths: Sequence[Path], *, layout: str = "EugenHotaj") -> PixelCNN:
    """PixelCNN for gray images of two levels from the file of another implementation.

    That implementation adds a block's input twice: x becomes 2x + f(x), so that the input of block l is 2^l times the
    input of ours. Positive factors pass through ReLUs: powers of two in the weights make our network equal to it,
    without rounding.

    Args:
        paths: the file.
        layout: whose file it is. "EugenHotaj": the state dict of that repository's PixelCNN, or the checkpoint of its
            trainer.

    Returns:
        The model, for images of the size of those that its network has seen first; of 28 pixels where the file was
        saved before: the weights fit any size.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("pixelcnn", layout, len(paths))
    path = Path(paths[0])
    held, shape = _state(path)
    state = {key: value for key, value in held.items() if not key.endswith(".mask")}
    blocks = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("_causal_layers.")), default=-1)
    names = {f"_causal_layers.{i}._net.{j}": (i, j) for i in range(blocks) for j in (1, 3, 5)}
    expect(state, axes_of(["_input", *names, "_head.1", "_head.3"], 4), path, layout)
    width, channels = state["_input.weight"].shape[:2]
    levels = max(2, state["_head.3.weight"].size(0))
    if channels != 1 or levels != 2:
        raise ValueError(f"{path} does not fit: {channels} channels and {levels} levels, where 1 and 2 can be read")
    head_channels = state["_head.1.weight"].size(0)
    model = build(
        lambda: PixelCNN(
            shape[1] if shape else 28,
            hidden_channels=width // 2,
            num_layers=blocks,
            head_channels=head_channels,
            head_layers=1,
        ),
        path,
    )
    ours = {1: "down", 3: "spatial", 5: "up"}
    renamed: dict[str, Tensor | list[Tensor]] = {}
    for kind in ("weight", "bias"):
        renamed[f"input.{kind}"] = state[f"_input.{kind}"]
        for name, (i, j) in names.items():
            value = state[f"{name}.{kind}"]
            if j == 1 and kind == "weight":
                value = value * 2.0**i
            if j == 5:
                value = value / 2.0 ** (i + 1)
            renamed[f"layers.{i}.{ours[j]}.{kind}"] = value
        scale = 2.0**blocks if kind == "weight" else 1.0
        renamed[f"head.0.{kind}"] = state[f"_head.1.{kind}"] * scale
        renamed[f"head.1.{kind}"] = state[f"_head.3.{kind}"]
    fill(model.network, renamed, path)
    return model.eval()
