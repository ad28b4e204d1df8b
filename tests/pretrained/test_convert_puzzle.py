"""The importer of Puzzle-GAN: networks written down as the authors' code lays them out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.cli.parts import command
from tests.numerics import assert_near
from zoo import convert, pretrained

NAMES = ("partenc", "maskgen", "imggen", "disc")


def halving(a: int, b: int) -> nn.Module:
    return nn.Conv2d(a, b, kernel_size=5, stride=2, padding=2)


def doubling(a: int, b: int) -> nn.Module:
    return nn.ConvTranspose2d(a, b, kernel_size=5, stride=2, padding=2)


def normed(width: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(width), activation)


class Network(nn.Module):
    """Layers under the name `model`."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)


class Encoder(Network):
    """Biases everywhere, no normalisation in the first level and the embedding, which are as the others otherwise."""

    def __init__(self, widths: list[int], channels: int, embedding: int) -> None:
        levels = [nn.Sequential(halving(channels, widths[0]), nn.LeakyReLU(0.2))]
        for a, b in pairwise(widths):
            levels.append(nn.Sequential(halving(a, b), normed(b, nn.LeakyReLU(0.2))))
        super().__init__([*levels, nn.Sequential(nn.Conv2d(widths[-1], embedding, 4), nn.LeakyReLU(0.2))])

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for level in self.model:
            x = level(x)
            outputs.append(x)
        return outputs


class Decoder(Network):
    """Convolutions and what follows them in turn; `times` as many channels come in as the level below has."""

    def __init__(self, widths: list[int], inputs: int, times: int, channels: int, last: nn.Module) -> None:
        widths = widths[::-1]
        layers = [nn.ConvTranspose2d(inputs, widths[0], 4), normed(widths[0], nn.ReLU())]
        for a, b in pairwise(widths):
            layers += [doubling(times * a, b), normed(b, nn.ReLU())]
        super().__init__([*layers, doubling(times * widths[-1], channels), last])

    def forward(self, x: Tensor, beside: list[Tensor]) -> list[Tensor]:
        """What each level gives with what is beside it, and the picture."""
        outputs = []
        for i in range(len(self.model) // 2):
            conv, rest = self.model[2 * i], self.model[2 * i + 1]
            x = rest(conv(x, output_size=[4 * 2**i, 4 * 2**i]))
            if i < len(beside):
                x = torch.cat([x, beside[i]], 1)
            outputs.append(x)
        return outputs


class Discriminator(Network):
    def __init__(self, widths: list[int], channels: int) -> None:
        layers = [halving(channels, widths[0]), nn.LeakyReLU(0.2)]
        for a, b in pairwise(widths):
            layers += [halving(a, b), normed(b, nn.LeakyReLU(0.2))]
        super().__init__([*layers, nn.Conv2d(widths[-1], 1, 4), nn.Sigmoid()])

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def reference(widths: list[int], channels: int = 3, embedding: int = 6, latent: int = 5) -> list[Network]:
    """Four networks with weights and statistics that are not the initial ones."""
    torch.manual_seed(0)
    networks = [
        Encoder(widths, channels, embedding),
        Decoder(widths, embedding, 2, 1, nn.Sigmoid()),
        Decoder(widths, embedding + latent, 3, channels, nn.Tanh()),
        Discriminator(widths, channels),
    ]
    for network in networks:
        for module in network.eval().modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 1)
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.uniform_(module.bias, -1, 1)
    return networks


def write(networks: list[Network], folder: Path, prefix: str = "", drop: str = "-") -> list[Path]:
    paths = []
    for name, network in zip(NAMES, networks, strict=True):
        state = {prefix + key: value for key, value in network.state_dict().items() if not key.endswith(drop)}
        paths.append(folder / f"epoch_25_net_net_{name}.pth")
        torch.save(state, paths[-1])
    return paths


@pytest.mark.parametrize(
    ("widths", "channels", "prefix", "drop"),
    [
        ([4, 8, 16, 32], 3, "module.", "num_batches_tracked"),
        ([2, 4, 8, 16, 16], 3, "", "-"),  # 128 pixels
        ([4], 1, "", "-"),
    ],
)
def test_same_outputs_as_the_reference(
    widths: list[int], channels: int, prefix: str, drop: str, tmp_path: Path
) -> None:
    networks = reference(widths, channels)
    paths = write(networks, tmp_path, prefix, drop)
    encoder, mask_generator, generator, discriminator = (network.double() for network in networks)
    before = torch.get_rng_state()
    model = convert.puzzlegan(paths)
    assert torch.equal(before, torch.get_rng_state())
    side = 4 * 2 ** len(widths)
    assert model.image_shape == (channels, side, side)
    assert (model.latent_dim, model.hparams["embedding_dim"], model.hparams["base_channels"]) == (5, 6, widths[0])
    model.double()  # deep networks magnify roundings
    patches = torch.rand(2, 3, channels, side, side, dtype=torch.float64) * 2 - 1
    z = torch.rand(2, 5, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        features = [sum(level) for level in zip(*(encoder(x) for x in patches.unbind(1)), strict=True)]
        masks = mask_generator(features[-1], features[-2::-1])
        images = generator(torch.cat([features[-1], z[:, :, None, None]], 1), masks[:-1])
        image, mask = model(patches, z)
        assert_near(mask, masks[-1], 1e-6)  # loaded in float32
        assert_near(image, images[-1], 1e-6)
        assert masks[-1].std() > 0.01
        assert images[-1].std() > 0.01, "not all the same, whatever the weights"
        logits = model.discriminator(image)
        assert_near(logits.sigmoid(), discriminator(image).flatten(), 1e-6)
        assert logits.abs().max() < 10, "where a sigmoid shows what a logit is"


def test_without_the_discriminator(tmp_path: Path) -> None:
    paths = write(reference([4, 8]), tmp_path)
    whole, makers = convert.puzzlegan(paths), convert.puzzlegan(paths[:3])
    patches = torch.rand(1, 2, 3, 16, 16)
    assert torch.equal(makers.assemble(patches, seed=0)[0], whole.assemble(patches, seed=0)[0])
    assert not torch.equal(makers.discriminator.judge.weight, whole.discriminator.judge.weight)


def test_the_command(tmp_path: Path) -> None:
    paths = write(reference([4, 8]), tmp_path)
    out = tmp_path / "puzzle.safetensors"
    assert command("import", "puzzlegan", "--from", "hellbell", *paths, "--out", out) == 0
    patches = torch.rand(2, 3, 3, 16, 16)
    expected = convert.puzzlegan(paths).assemble(patches, seed=0)
    for found, value in zip(pretrained.load(out).assemble(patches, seed=0), expected, strict=True):
        assert torch.equal(found, value)
    assert any(name.startswith("discriminator.") for name in load_file(out))
    # What no file was given for is untrained and stays out.
    alone = tmp_path / "alone.safetensors"
    assert command("import", "puzzlegan", "--from", "hellbell", *paths[:3], "--out", alone) == 0
    assert not any(name.startswith("discriminator.") for name in load_file(alone))
    assert torch.equal(pretrained.load(alone).assemble(patches, seed=0)[0], expected[0])


def test_other_files_are_refused(tmp_path: Path) -> None:
    paths = write(reference([4, 8]), tmp_path)
    enc, mask, image, disc = paths
    with pytest.raises(ValueError, match=r"^unknown layout 'lua' of puzzlegan: take hellbell$"):
        convert.puzzlegan(paths, layout="lua")
    with pytest.raises(ValueError, match=r"^hellbell makes images with net_partenc and net_maskgen and net_imggen tog"):
        convert.puzzlegan(paths[:2])
    with pytest.raises(
        ValueError, match=r"net_disc\.pth does not have the layout of hellbell: it (lacks|also has) mod"
    ):
        convert.puzzlegan([disc, mask, image])
    with pytest.raises(ValueError, match=r"net_imggen\.pth does not fit: size mismatch for levels"):
        convert.puzzlegan([enc, image, mask])

    torch.save(torch.load(disc) | {"model.3.0.extra": torch.zeros(8)}, disc)
    with pytest.raises(
        ValueError, match=r"net_disc\.pth does not have the layout of hellbell: it also has model\.3\.0"
    ):
        convert.puzzlegan(paths)
    state = torch.load(image)
    del state["model.2.bias"]
    torch.save(state, image)
    with pytest.raises(
        ValueError, match=r"net_imggen\.pth does not have the layout of hellbell: it lacks model\.2\.bi"
    ):
        convert.puzzlegan(paths)
    torch.save(torch.load(enc) | {"model.1.0.bias": torch.zeros(1)}, enc)
    with pytest.raises(
        ValueError, match=r"net_partenc\.pth does not fit: model\.1\.0\.bias has 1 values for 8 channels"
    ):
        convert.puzzlegan(paths)


def test_files_of_different_networks_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("small", "wide", "large")]
    for folder in folders:
        folder.mkdir()
    files = zip(folders, ([4, 8], [8, 16], [4, 8, 16]), strict=True)
    small, wide, large = (write(reference(widths), folder) for folder, widths in files)
    with pytest.raises(ValueError, match=r"net_disc\.pth does not fit: size mismatch"):
        convert.puzzlegan([*small[:3], wide[3]])
    with pytest.raises(
        ValueError, match=r"large.*net_maskgen\.pth is for 32 pixels, .*small.*partenc\.pth for 16: giv"
    ):
        convert.puzzlegan([small[0], large[1], small[2]])
    # Maps that do not double.
    with pytest.raises(ValueError, match=r"net_partenc\.pth does not fit: size mismatch for embed\.0\.weight"):
        convert.puzzlegan(write(reference([4, 6]), tmp_path))
