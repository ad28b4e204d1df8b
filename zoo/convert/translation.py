"""Importers of StarGAN and CycleGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from zoo.convert import layouts
from zoo.convert.files import COUNT, LINEAR, State, axes_of, build, expect, fill, read_pth
from zoo.cyclegan import CycleGAN
from zoo.stargan import CELEBA, RAFD, StarGAN

__all__ = ["cyclegan", "stargan"]


def stargan(paths: Sequence[Path], *, layout: str = "yunjey") -> StarGAN:
    """StarGAN from the files of the authors' code, which are published for five attributes of CelebA.

    Args:
        paths: <step>-G.ckpt and <step>-D.ckpt, in this order; the latter may be left out: what needs D is refused then.
        layout: whose files they are.

    Returns:
        The model. The files hold no names: five labels are taken for those of CelebA, eight for those of RaFD, 5 + 8
        with a mask for those of the joint training, and others are numbered attributes. Without D the images are taken
        to have 128 pixels. Running statistics are left out: the authors' code never uses them.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("stargan", layout, len(paths))
    states = []
    for path in map(Path, paths):
        state = read_pth(path)
        parts = {key: key.split(".") for key in state if "running_" not in key and not key.endswith(COUNT)}
        renamed = {".".join("layers" if p == "main" else p for p in names): state[key] for key, names in parts.items()}
        for ours, theirs in (("critic", "conv1"), ("classifier", "conv2")):
            renamed = {key.replace(theirs, ours): value for key, value in renamed.items()}
        states.append(renamed)
    for state, path, wanted in zip(states, paths, ("layers.0.weight", "classifier.weight"), strict=False):
        if "layers.0.weight" not in state or wanted not in state or state[wanted].dim() != 4:
            raise ValueError(f"{path} does not have the layout of {layout}: main.0.weight, ... (D: conv1, conv2 too)")
    generator = states[0]
    numbers = [int(key.split(".")[1]) for key in generator]
    base_channels, inputs = generator["layers.0.weight"].shape[:2]
    image_channels = generator[f"layers.{max(numbers)}.weight"].shape[0]
    features = inputs - image_channels
    names = {5: (CELEBA, ()), 8: ((), (RAFD,)), len(CELEBA) + len(RAFD) + 2: (CELEBA, (RAFD,))}
    attributes, categories = names.get(features, (tuple(f"attribute{i}" for i in range(features)), ()))
    options: dict[str, Any] = {"joint": bool(attributes and categories)}
    if len(states) == 2:
        discriminator = states[1]
        num_layers = sum(key.startswith("layers.") and value.dim() == 4 for key, value in discriminator.items())
        size = 2**num_layers * discriminator["classifier.weight"].shape[-1]
        width = len(discriminator["layers.0.weight"])
        options |= {"discriminator_layers": num_layers, "image_size": size, "discriminator_channels": width}
    model = build(
        lambda: StarGAN(
            image_channels=image_channels,
            attributes=attributes,
            categories=categories,
            base_channels=base_channels,
            num_blocks=max(numbers) - 15,
            **options,
        ),
        Path(paths[0]),
    )
    for name, state, path in zip(("generator", "discriminator"), states, paths, strict=False):
        fill(model.get_submodule(name), state, Path(path))
    model.available_networks = ("generator", "discriminator")[: len(states)]
    return model.eval()


def cyclegan(paths: Sequence[Path], *, layout: str = "junyanz") -> CycleGAN:
    """CycleGAN from the files of the authors' PyTorch code.

    Args:
        paths: net_G_A (from a to b), net_G_B (from b to a), net_D_A (the one of b), net_D_B (the one of a), in this
            order; the last ones may be left out, and what needs them is refused then. A published net_G of one
            direction stands for net_G_A: the model translates to b alone.
        layout: whose files they are.

    Returns:
        The model. The files of a resnet do not say the size of the images: it is 256 pixels from 9 residual blocks on,
        else 128; that of a U-Net is the one which it halves down to a pixel.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("cyclegan", layout, len(paths))
    paths = [Path(path) for path in paths]
    # Files from before torch 0.4 have statistics of their instance normalisations, which nothing uses.
    unused = ("running_mean", "running_var", COUNT)
    states = [{k: v for k, v in read_pth(path).items() if not k.endswith(unused)} for path in paths]
    unet = any(key.startswith("model.model.") for key in states[0])
    renamed = [(_unet if unet else _resnet)(state, path) for state, path in zip(states[:2], paths, strict=False)]
    renamed += [_patches(state, path) for state, path in zip(states[2:], paths[2:], strict=True)]

    generator, options = renamed[0], cast(dict[str, Any], {})
    base_channels, image_channels = generator["down.0.weight" if unet else "start.weight"].shape[:2]
    if unet:
        options |= {"generator_kind": "unet", "image_size": 2 ** _halvings(generator)}
    else:
        options["num_blocks"] = sum(key.endswith("conv1.weight") for key in generator)
        options["image_size"] = 256 if options["num_blocks"] >= 9 else 128
    if len(renamed) > 2:
        start = renamed[2]["start.weight"]
        options["discriminator_channels"] = len(start)
        options["discriminator_layers"] = len(renamed[2]) - 4 if start.shape[-1] > 1 else 0
    model = build(
        lambda: CycleGAN(image_channels=image_channels, base_channels=base_channels, **options),
        paths[0],
    )
    names = ("generator_ab", "generator_ba", "discriminator_b", "discriminator_a")[: len(renamed)]
    for name, state, path in zip(names, renamed, paths, strict=True):
        fill(model.get_submodule(name), state, path)
    model.available_networks = names
    return model.eval()


def _resnet(state: State, path: Path) -> State:
    """A generator's weights under our names, without the biases in front of normalisations, which they take away."""
    blocks = len({key.split(".")[1] for key in state if ".conv_block." in key})
    second = 6 if "model.10.conv_block.6.weight" in state else 5  # with dropout between the convolutions
    names = {"model.1": "start", "model.4": "down.0", "model.7": "down.1"}
    for i in range(blocks):
        names |= {f"model.{10 + i}.conv_block.{n}": f"blocks.{i}.conv{k}" for k, n in ((1, 1), (2, second))}
    names |= {f"model.{10 + blocks}": "up.0", f"model.{13 + blocks}": "up.1"}
    end = f"model.{17 + blocks}"
    expect(state, axes_of([*names, end], 4), path, "junyanz")
    renamed = {f"{name}.weight": state[f"{layer}.weight"] for layer, name in names.items()}
    return renamed | {f"end.{kind}": state[f"{end}.{kind}"] for kind in LINEAR}


def _halvings(state: State) -> int:
    """How often a U-Net halves the side: each time has a convolution on the way in, and one on the way out."""
    return sum(value.dim() == 4 for value in state.values()) // 2


def _unet(state: State, path: Path) -> State:
    """The same of a U-Net, whose blocks lie in one another."""
    halvings = _halvings(state)
    if halvings < 2:
        raise ValueError(f"{path} does not have the layout of junyanz: it has {halvings} blocks of a U-Net")
    names, block = {}, "model.model"
    for i in range(halvings):
        first, last = i == 0, i == halvings - 1
        names[f"{block}.{0 if first else 1}"] = f"down.{i}"
        names[f"{block}.{3 if first or last else 5}"] = f"up.{i}"
        block += ".1.model" if first else ".3.model"
    expect(state, axes_of(names, 4), path, "junyanz")
    biases = ("down.0", f"down.{halvings - 1}", "up.0")
    renamed = {f"{name}.weight": state[f"{layer}.weight"] for layer, name in names.items()}
    return renamed | {f"{name}.bias": state[f"{layer}.bias"] for layer, name in names.items() if name in biases}


def _patches(state: State, path: Path) -> State:
    """The same of a discriminator, of patches (model) or of single pixels (net)."""
    prefix = "net" if "net.0.weight" in state else "model"
    count = sum(value.dim() == 4 for value in state.values()) - 2
    names = {f"{prefix}.{2 + 3 * i}": f"layers.{i}" for i in range(count)}
    ends = {f"{prefix}.0": "start", f"{prefix}.{2 + 3 * count}": "end"}
    expect(state, axes_of([*names, *ends], 4), path, "junyanz")
    renamed = {f"{name}.weight": state[f"{layer}.weight"] for layer, name in names.items()}
    return renamed | {f"{name}.{kind}": state[f"{layer}.{kind}"] for layer, name in ends.items() for kind in LINEAR}
