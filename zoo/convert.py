"""Importers of reference checkpoints: one function per architecture, one branch per layout (`zoo.layouts`).

Only here are `.pth` files read, and with `weights_only=True`: nothing in them is executed. Sizes, widths and channels
are read off the weights' shapes; what a file does not say, such as beta, has the architecture's default.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo import layouts
from zoo.beta_vae import BetaVAE
from zoo.cyclegan import CycleGAN
from zoo.dcgan import DCGAN
from zoo.infogan import InfoGAN
from zoo.nade import NADE
from zoo.pixelcnn import PixelCNN
from zoo.stargan import CELEBA, RAFD, StarGAN
from zoo.vae import VAE, Networks

__all__ = ["beta_vae", "cyclegan", "dcgan", "infogan", "nade", "pixelcnn", "stargan", "vae"]

State = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)

_LINEAR = ("weight", "bias")
_NORM = (*_LINEAR, "running_mean", "running_var")
_COUNT = "num_batches_tracked"  # files from before torch 0.4.1 lack it


def read_pth(path: Path, *parts: str) -> State:
    """A state dict from a `.pth` file; the prefix that DataParallel leaves is taken off.

    Args:
        path: the file.
        parts: names under which the state dict lies in the file, outermost first; by default the file is one.

    Raises:
        ValueError: the file is damaged, holds more than tensors and plain values, or no state dict there.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged, no .pth file, or holds more than tensors: it was not read") from error
    for part in parts:
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        if parts:
            raise ValueError(f"{path} has no state dict {'.'.join(parts)}: give the checkpoint as training wrote it")
        raise ValueError(f"{path} is no plain state dict: save the network's state_dict() alone")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def _axes(layers: Iterable[str], weight: int, kinds: Sequence[str] = _LINEAR) -> dict[str, int]:
    """Number of axes of each tensor of layers whose weights have `weight` axes."""
    return {f"{layer}.{kind}": weight if kind == "weight" else 1 for layer in layers for kind in kinds}


def _expect(state: State, axes: dict[str, int], path: Path, layout: str) -> None:
    """Make sure that a state dict has exactly these tensors, besides the counters of BatchNorm.

    Args:
        state: the state dict.
        axes: number of axes of each tensor.
        path: where it came from, for messages.
        layout: its layout, for messages.

    Raises:
        ValueError: it does not.
    """
    found = {key: value.dim() for key, value in state.items() if not key.endswith(_COUNT)}
    for key in sorted(found.keys() | axes.keys()):
        if found.get(key) != axes.get(key):
            wrong = f"lacks {key}" if key not in found else f"also has {key}"
            if key in found and key in axes:
                wrong = f"has {key} with {found[key]} axes, not {axes[key]}"
            raise ValueError(f"{path} does not have the layout of {layout}: it {wrong}")


def _build(make: Callable[[], Model], path: Path) -> Model:
    """Build a model for the weights of a file; sizes that it refuses are the file's fault."""
    try:
        with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's random state stays
            return make()
    except ValueError as error:
        raise ValueError(f"{path} does not fit: {error}") from error


def _fill(network: nn.Module, state: Mapping[str, Tensor | list[Tensor]], path: Path) -> None:
    """Load weights under our names, lists of them one below the other; counters of BatchNorm may be absent."""
    counts = {key: value for key, value in network.state_dict().items() if key.endswith(_COUNT)}
    try:
        joined = {key: torch.cat(value) if isinstance(value, list) else value for key, value in state.items()}
        network.load_state_dict(counts | joined)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from error


def _square(pixels: int, path: Path) -> tuple[int, int]:
    """Side and channels of the square image that has so many values: in grey, else in colour."""
    for channels in (1, 3):
        if channels * math.isqrt(pixels // channels) ** 2 == pixels:
            return math.isqrt(pixels // channels), channels
    raise ValueError(f"{path} does not fit: {pixels} values are no square image of 1 or 3 channels")


def dcgan(paths: Sequence[Path], *, layout: str = "pytorch-examples") -> DCGAN:
    """DCGAN from the files of another implementation.

    Args:
        paths: for "pytorch-examples" netG and netD, in this order; netD may be left out, and is untrained then.
        layout: whose files they are.

    Returns:
        The model; sizes, widths and channels are read off the weights' shapes.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("dcgan", layout, len(paths))
    states = [read_pth(Path(path)) for path in paths]

    # main.0, main.3, main.6, ... are the convolutions, each followed by its BatchNorm at the next number.
    generator = _layers(states[0], paths[0], first_norm=1)
    weights = [layer["conv.weight"] for layer in generator]
    doublings = len(weights) - 1
    image_channels, base_channels = weights[-1].shape[1], weights[-1].shape[0]
    model = _build(
        lambda: DCGAN(
            image_size=weights[0].shape[-1] * 2**doublings,
            image_channels=image_channels,
            latent_dim=weights[0].shape[0],
            base_channels=base_channels,
        ),
        paths[0],
    )
    networks = [(model.generator, generator, paths[0])]
    if len(paths) == 2:
        discriminator = _layers(states[1], paths[1], first_norm=2)
        if (width := len(discriminator[0]["conv.weight"])) != base_channels:
            raise ValueError(
                f"{paths[1]} has width {width}, {paths[0]} has {base_channels}; here both have the same: "
                "import the generator alone"
            )
        networks.append((model.discriminator, discriminator, paths[1]))
    for network, layers, path in networks:
        renamed = {f"layers.{i}.{key}": value for i, layer in enumerate(layers) for key, value in layer.items()}
        _fill(network, renamed, path)
    return model.eval()


def _layers(state: State, path: Path, first_norm: int) -> list[State]:
    """The convolutions in order, each with the norm that follows it, under our names.

    Args:
        state: keys `main.<number>.<name>`.
        path: where it came from, for messages.
        first_norm: 1 if the first convolution has a norm behind it (generator), 2 if not (discriminator).
    """
    numbers = sorted(
        {int(key.split(".")[1]) for key in state if key.startswith("main.") and key.split(".")[1].isdigit()}
    )
    convolutions = [n for n in numbers if state.get(f"main.{n}.weight", torch.empty(0)).dim() == 4]
    if not convolutions or {key.split(".")[0] for key in state} != {"main"}:
        raise ValueError(f"{path} does not have the layout main.0.weight, main.1.weight, ... of pytorch-examples")
    layers = []
    for i, n in enumerate(convolutions):
        layer = {"conv.weight": state[f"main.{n}.weight"]}
        norm = n + 1
        if f"main.{norm}.running_mean" in state:
            prefix = f"main.{norm}."
            layer |= {f"norm.{key.removeprefix(prefix)}": v for key, v in state.items() if key.startswith(prefix)}
        elif i >= first_norm - 1 and i < len(convolutions) - 1:
            raise ValueError(f"{path} lacks the BatchNorm main.{norm} behind main.{n}")
        layers.append(layer)
    return layers


def vae(paths: Sequence[Path], *, layout: str = "pytorch-examples") -> VAE:
    """VAE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "pytorch-examples": linear layers fc1, fc21 (means), fc22 (log variances), fc3, fc4.

    Returns:
        The model. The file does not say how pixels lie: they are those of a square image in grey, else in colour.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("vae", layout, len(paths))
    path = Path(paths[0])
    state = read_pth(path)
    _expect(state, _axes(("fc1", "fc21", "fc22", "fc3", "fc4"), 2), path, layout)
    hidden, pixels = state["fc1.weight"].shape
    side, channels = _square(pixels, path)
    model = _build(
        lambda: VAE(side, channels, len(state["fc21.weight"]), hidden_features=(hidden,)),
        path,
    )
    renamed: dict[str, Tensor | list[Tensor]] = {}
    for kind in _LINEAR:
        renamed[f"encoder.net.0.{kind}"] = state[f"fc1.{kind}"]
        renamed[f"encoder.net.2.{kind}"] = [state[f"fc21.{kind}"], state[f"fc22.{kind}"]]
        renamed[f"decoder.net.0.{kind}"] = state[f"fc3.{kind}"]
        renamed[f"decoder.net.2.{kind}"] = state[f"fc4.{kind}"]
    _fill(model, renamed, path)
    return model.eval()


def beta_vae(paths: Sequence[Path], *, layout: str) -> BetaVAE:
    """BetaVAE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "1konny": a whole checkpoint of that repository's BetaVAE_H or BetaVAE_B, 64 pixels;
            "disentangling-vae": the state dict of that repository's Burgess network, 32 or 64 pixels.

    Returns:
        The model. Neither file says beta, the capacity or the likelihood: they have their defaults.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("beta_vae", layout, len(paths))
    path = Path(paths[0])
    state, networks, image_size = _konny(path) if layout == "1konny" else _disentangling(path)
    model = _build(
        lambda: BetaVAE(
            image_size,
            image_channels=state["encoder.0.weight"].shape[1],
            latent_dim=state["decoder.0.weight"].shape[1],
            networks=networks,
        ),
        path,
    )
    _fill(model, state, path)
    return model.eval()


def _konny(path: Path) -> tuple[State, Networks, int]:
    """The weights, whose names are ours; the networks that have them, and their size."""
    state = read_pth(path, "model_states", "net")
    burgess = "encoder.8.weight" not in state
    convolutions = [f"encoder.{i}" for i in ((0, 2, 4, 6) if burgess else (0, 2, 4, 6, 8))]
    convolutions += [f"decoder.{i}" for i in ((7, 9, 11, 13) if burgess else (3, 5, 7, 9, 11))]
    linear = [f"encoder.{i}" for i in ((9, 11, 13) if burgess else (11,))]
    linear += [f"decoder.{i}" for i in ((0, 2, 4) if burgess else (0,))]
    _expect(state, _axes(convolutions, 4) | _axes(linear, 2), path, "1konny")
    return state, "burgess" if burgess else "conv", 64


def _disentangling(path: Path) -> tuple[State, Networks, int]:
    """The same; rows of means and of log variances, which take turns in the file, are sorted."""
    state = read_pth(path)
    large = "encoder.conv_64.weight" in state
    down = ["conv1", "conv2", "conv3", *["conv_64"] * large]
    up = [*["convT_64"] * large, "convT1", "convT2", "convT3"]
    inwards, outwards = ["lin1", "lin2", "mu_logvar_gen"], ["lin1", "lin2", "lin3"]
    # Our numbers: an activation behind each layer, and a change of shape between convolutions and linear layers.
    names = {f"encoder.{name}": f"encoder.{2 * i}" for i, name in enumerate(down)}
    names |= {f"encoder.{name}": f"encoder.{2 * (len(down) + i) + 1}" for i, name in enumerate(inwards)}
    names |= {f"decoder.{name}": f"decoder.{2 * i}" for i, name in enumerate(outwards)}
    names |= {f"decoder.{name}": f"decoder.{2 * (len(outwards) + i) + 1}" for i, name in enumerate(up)}
    linear = [layer for layer in names if "conv" not in layer]
    _expect(state, _axes(names, 4) | _axes(linear, 2), path, "disentangling-vae")
    renamed = {f"{names[layer]}.{kind}": state[f"{layer}.{kind}"] for layer in names for kind in _LINEAR}
    for kind in _LINEAR:
        head = state[f"encoder.mu_logvar_gen.{kind}"]
        renamed[f"{names['encoder.mu_logvar_gen']}.{kind}"] = torch.cat([head[0::2], head[1::2]])
    return renamed, "burgess", 64 if large else 32


def infogan(paths: Sequence[Path], *, layout: str = "natsu6767") -> InfoGAN:
    """InfoGAN from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "natsu6767": a whole checkpoint of that repository's network for MNIST, with netG,
            discriminator (the trunk), netD and netQ; optimizers and settings in it are ignored.

    Returns:
        The model, with that port's settings where they differ from the authors': z ~ N(0, 1), a slope of 0.1, learned
        deviations, Q learning with the generator. Its convolutions over whole maps are linear layers here. Where it
        normalises the channels of the generator's first map we normalise each feature, which is the same in evaluation,
        but not in further training.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("infogan", layout, len(paths))
    path = Path(paths[0])
    parts = ("netG", "discriminator", "netD", "netQ")
    state = {f"{part}.{key}": value for part in parts for key, value in read_pth(path, part).items()}
    plain = [f"netG.tconv{i}" for i in (1, 2, 3, 4)] + [f"discriminator.conv{i}" for i in (2, 3)] + ["netQ.conv1"]
    heads = [f"netQ.conv_{name}" for name in ("disc", "mu", "var")]
    norms = [f"netG.bn{i}" for i in (1, 2, 3)] + [f"discriminator.bn{i}" for i in (2, 3)] + ["netQ.bn1"]
    axes = _axes(plain, 4, ("weight",)) | _axes(["discriminator.conv1", "netD.conv", *heads], 4)
    _expect(state, axes | _axes(norms, 1, _NORM), path, layout)

    inputs, hidden = state["netG.tconv1.weight"].shape[:2]
    start = state["netG.tconv2.weight"].shape[-1]
    image_channels = state["netG.tconv4.weight"].shape[1]
    values, continuous = len(state["netQ.conv_disc.weight"]), len(state["netQ.conv_mu.weight"])
    model = _build(
        lambda: InfoGAN(
            image_size=4 * start,
            image_channels=image_channels,
            latent_dim=inputs - values - continuous,
            categories=(values,),
            continuous=continuous,
            noise="normal",
            base_channels=len(state["discriminator.conv1.weight"]),
            hidden_features=hidden,
            slope=0.1,
            continuous_weight=0.1,
            recogniser_learns="generator",
            learn_std=True,
            generator_learning_rate=2e-4,
        ),
        path,
    )
    renamed: dict[str, Tensor | list[Tensor]] = {
        "generator.linear.0.weight": state["netG.tconv1.weight"].flatten(1).T,
        "generator.linear.3.weight": state["netG.tconv2.weight"].flatten(1).T,
        "generator.conv.0.weight": state["netG.tconv3.weight"],
        "generator.conv.3.weight": state["netG.tconv4.weight"],
        "generator.conv.3.bias": torch.zeros(image_channels),
        "trunk.conv.0.weight": state["discriminator.conv1.weight"],
        "trunk.conv.0.bias": state["discriminator.conv1.bias"],
        "trunk.conv.2.weight": state["discriminator.conv2.weight"],
        "trunk.linear.0.weight": state["discriminator.conv3.weight"].flatten(1),
        "discriminator.weight": state["netD.conv.weight"].flatten(1),
        "discriminator.bias": state["netD.conv.bias"],
        "recogniser.0.weight": state["netQ.conv1.weight"].flatten(1),
        # conv_var gives log variances: the port takes their exponential.
        "recogniser.3.weight": [state[f"{head}.weight"].flatten(1) for head in heads],
        "recogniser.3.bias": [state[f"{head}.bias"] for head in heads],
    }
    ours = ("generator.linear.1", "generator.linear.4", "generator.conv.1", "trunk.conv.3", "trunk.linear.1")
    for norm, name in zip(norms, (*ours, "recogniser.1"), strict=True):
        for kind in _NORM:
            value = state[f"{norm}.{kind}"]
            renamed[f"{name}.{kind}"] = value.repeat_interleave(start**2) if norm == "netG.bn2" else value
    _fill(model, renamed, path)
    return model.eval()


def nade(paths: Sequence[Path], *, layout: str = "EugenHotaj") -> NADE:
    """NADE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "EugenHotaj": the state dict of that repository's NADE, _in_W, _in_b, _h_W, _h_b.

    Returns:
        The model, with that repository's ReLU. The file does not say how pixels lie: they are those of a square image
        in grey; one in colour, whose values that repository reads channel after channel, is refused.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("nade", layout, len(paths))
    path = Path(paths[0])
    state = read_pth(path)
    _expect(state, {"_in_W": 2, "_in_b": 1, "_h_W": 2, "_h_b": 1}, path, layout)
    hidden, pixels = state["_in_W"].shape
    side, channels = _square(pixels, path)
    if channels != 1:
        raise ValueError(f"{path} does not fit: {pixels} values are no square image of 1 channel")
    model = _build(lambda: NADE(side, channels, hidden, nonlinearity="relu"), path)
    renamed: dict[str, Tensor | list[Tensor]] = {
        "order": model.network.order,
        "input_weight": state["_in_W"].T,
        "hidden_bias": state["_in_b"],
        "output_weight": state["_h_W"][:, None],
        "output_bias": state["_h_b"][:, None],
    }
    _fill(model.network, renamed, path)
    return model.eval()


def pixelcnn(paths: Sequence[Path], *, layout: str = "EugenHotaj") -> PixelCNN:
    """PixelCNN for grey images of two levels from the file of another implementation.

    That implementation adds a block's input twice: x becomes 2x + f(x). Block l then sees 2^l times what ours does; as
    ReLUs keep positive factors, powers of two in the weights make ours equal to it, and they cost no digit.

    Args:
        paths: the file.
        layout: whose file it is. "EugenHotaj": the state dict of that repository's PixelCNN.

    Returns:
        The model, for images of 28 pixels: the file does not know the size, and the weights fit any.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("pixelcnn", layout, len(paths))
    path = Path(paths[0])
    state = {key: value for key, value in read_pth(path).items() if not key.endswith(".mask")}
    blocks = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("_causal_layers.")), default=-1)
    names = {f"_causal_layers.{i}._net.{j}": (i, j) for i in range(blocks) for j in (1, 3, 5)}
    _expect(state, _axes(["_input", *names, "_head.1", "_head.3"], 4), path, layout)
    width, channels = state["_input.weight"].shape[:2]
    levels = max(2, state["_head.3.weight"].size(0))
    if channels != 1 or levels != 2:
        raise ValueError(f"{path} does not fit: {channels} channels and {levels} levels, where 1 and 2 can be read")
    head_features = state["_head.1.weight"].size(0)
    model = _build(
        lambda: PixelCNN(features=width // 2, num_layers=blocks, head_features=head_features, head_layers=1), path
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
    _fill(model.network, renamed, path)
    return model.eval()


def stargan(paths: Sequence[Path], *, layout: str = "yunjey") -> StarGAN:
    """StarGAN from the files of the authors' code, which are published for five attributes of CelebA.

    Args:
        paths: <step>-G.ckpt and <step>-D.ckpt, in this order; the latter may be left out, and is untrained then.
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
        parts = {key: key.split(".") for key in state if "running_" not in key and not key.endswith(_COUNT)}
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
        if (width := len(discriminator["layers.0.weight"])) != base_channels:
            raise ValueError(
                f"{paths[1]} has width {width}, {paths[0]} has {base_channels}; here both have the same: "
                "import the generator alone"
            )
        num_layers = sum(key.startswith("layers.") and value.dim() == 4 for key, value in discriminator.items())
        size = 2**num_layers * discriminator["classifier.weight"].shape[-1]
        options |= {"num_layers": num_layers, "image_size": size}
    model = _build(
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
    for network, state, path in zip((model.generator, model.discriminator), states, paths, strict=False):
        _fill(network, state, Path(path))
    return model.eval()


def cyclegan(paths: Sequence[Path], *, layout: str = "junyanz") -> CycleGAN:
    """CycleGAN from the files of the authors' PyTorch code.

    Args:
        paths: net_G_A (from a to b), net_G_B (from b to a), net_D_A (which judges b), net_D_B (which judges a), in this
            order; the last ones may be left out, and are untrained then. A published net_G of one direction stands for
            net_G_A.
        layout: whose files they are.

    Returns:
        The model. The files do not say the size of the images: it is 256 pixels from 9 residual blocks on, else 128.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("cyclegan", layout, len(paths))
    paths = [Path(path) for path in paths]
    # Files from before torch 0.4 have statistics of their instance normalisations, which nothing uses.
    unused = ("running_mean", "running_var", _COUNT)
    states = [{k: v for k, v in read_pth(path).items() if not k.endswith(unused)} for path in paths]
    renamed = [_resnet(state, path) for state, path in zip(states[:2], paths, strict=False)]
    renamed += [_patches(state, path) for state, path in zip(states[2:], paths[2:], strict=True)]

    base_channels, image_channels = renamed[0]["start.weight"].shape[:2]
    blocks = sum(key.endswith("conv1.weight") for key in renamed[0])
    for state, path in zip(renamed[2:], paths[2:], strict=True):
        if (width := len(state["start.weight"])) != base_channels:
            raise ValueError(
                f"{path} has width {width}, {paths[0]} has {base_channels}; here both have the same: "
                "import the generators alone"
            )
    model = _build(
        lambda: CycleGAN(
            256 if blocks >= 9 else 128,
            image_channels,
            base_channels,
            blocks,
            discriminator_layers=len(renamed[2]) - 4 if len(renamed) > 2 else 3,
        ),
        paths[0],
    )
    networks = (model.generator_ab, model.generator_ba, model.discriminator_b, model.discriminator_a)
    for network, state, path in zip(networks, renamed, paths, strict=False):
        _fill(network, state, path)
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
    _expect(state, _axes([*names, end], 4), path, "junyanz")
    renamed = {f"{name}.weight": state[f"{layer}.weight"] for layer, name in names.items()}
    return renamed | {f"end.{kind}": state[f"{end}.{kind}"] for kind in _LINEAR}


def _patches(state: State, path: Path) -> State:
    """The same of a discriminator."""
    count = sum(value.dim() == 4 for value in state.values()) - 2
    names = {f"model.{2 + 3 * i}": f"layers.{i}" for i in range(count)}
    ends = {"model.0": "start", f"model.{2 + 3 * count}": "end"}
    _expect(state, _axes([*names, *ends], 4), path, "junyanz")
    renamed = {f"{name}.weight": state[f"{layer}.weight"] for layer, name in names.items()}
    return renamed | {f"{name}.{kind}": state[f"{layer}.{kind}"] for layer, name in ends.items() for kind in _LINEAR}
