"""The importer of StarGAN: networks written down as the authors' code lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.parts import command
from tests.numerics import assert_near
from zoo import convert, pretrained
from zoo.stargan import StarGAN


def norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        half = [nn.Conv2d(c, c, 3, 1, 1, bias=False), norm(c), nn.ReLU()]
        self.main = nn.Sequential(*half, nn.Conv2d(c, c, 3, 1, 1, bias=False), norm(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.main(x)


class ReferenceG(nn.Module):
    def __init__(self, c: int, labels: int, blocks: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(3 + labels, c, 7, 1, 3, bias=False), norm(c), nn.ReLU()]
        for a in (c, 2 * c):
            layers += [nn.Conv2d(a, 2 * a, 4, 2, 1, bias=False), norm(2 * a), nn.ReLU()]
        layers += [Block(4 * c) for _ in range(blocks)]
        for a in (4 * c, 2 * c):
            layers += [nn.ConvTranspose2d(a, a // 2, 4, 2, 1, bias=False), norm(a // 2), nn.ReLU()]
        self.main = nn.Sequential(*layers, nn.Conv2d(c, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        c = c.view(*c.shape, 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return self.main(torch.cat([x, c], dim=1))


class ReferenceD(nn.Module):
    def __init__(self, size: int, c: int, labels: int, depth: int) -> None:
        super().__init__()
        layers, channels = [], 3
        for i in range(depth):
            layers += [nn.Conv2d(channels, c * 2**i, 4, 2, 1), nn.LeakyReLU(0.01)]
            channels = c * 2**i
        self.main = nn.Sequential(*layers)
        self.conv1 = nn.Conv2d(channels, 1, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, labels, size // 2**depth, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.main(x)
        return self.conv1(h), self.conv2(h).flatten(1)


def nets(labels: int = 5, mask: int = 0, width: int = 4) -> tuple[ReferenceG, ReferenceD]:
    torch.manual_seed(0)
    pair = ReferenceG(4, labels + mask, 2), ReferenceD(32, width, labels, 4)
    for module in pair[0].modules():
        if isinstance(module, nn.InstanceNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()  # which must not matter
    return pair


def write(pair: tuple[nn.Module, ...], folder: Path, drop: str = "-") -> list[Path]:
    paths = []
    for name, net in zip("GD", pair, strict=False):
        paths.append(folder / f"200000-{name}.ckpt")
        torch.save({k: v for k, v in net.state_dict().items() if not k.endswith(drop)}, paths[-1])
    return paths


@pytest.mark.parametrize(
    ("labels", "mask", "width", "drop"), [(5, 0, 4, "-"), (8, 0, 6, "num_batches_tracked"), (13, 2, 4, "-")]
)
def test_same_outputs_as_the_reference(labels: int, mask: int, width: int, drop: str, tmp_path: Path) -> None:
    pair = nets(labels, mask, width)
    model = convert.stargan(write(pair, tmp_path, drop)).double()
    generator, discriminator = (network.double() for network in pair)
    assert model.labels.joint == bool(mask)
    assert model.hparams["image_size"] == 32
    assert {5: "Young", 8: "surprised", 13: "surprised"}[labels] == model.target_names[-1]
    x, c = torch.rand(2, 3, 32, 32).double() * 2 - 1, torch.randint(2, (2, labels + mask)).double()
    with torch.no_grad():
        assert_near(model.translate(x, c), generator(x, c))  # never in evaluation mode
        for ours, theirs in zip(model.discriminator(x), discriminator(x), strict=True):
            assert_near(ours, theirs)


def test_the_generator_alone(tmp_path: Path) -> None:
    pair = nets(3)
    model = convert.stargan(write(pair, tmp_path)[:1])
    assert model.target_names == ["attribute0", "attribute1", "attribute2"]
    assert model.hparams["image_size"] == 128


def test_other_files_are_refused(tmp_path: Path) -> None:
    paths = write(nets(), tmp_path)
    with pytest.raises(ValueError, match=r"200000-G\.ckpt does not have the layout of yunjey"):
        convert.stargan(paths[::-1])
    state = torch.load(paths[0])
    del state["main.4.weight"]
    torch.save(state, paths[0])
    with pytest.raises(ValueError, match=r"200000-G\.ckpt does not fit"):
        convert.stargan(paths)


def test_the_command(tmp_path: Path) -> None:
    paths = write(nets(), tmp_path)
    out = tmp_path / "stargan.safetensors"
    assert command("import", "stargan", "--from", "yunjey", *paths, "--out", out) == 0
    x = torch.rand(1, 3, 32, 32)
    expected = convert.stargan(paths).translate(x, "Male")
    assert_near(pretrained.load(out).translate(x, "Male"), expected)  # type: ignore[operator]


def test_the_generator_alone_by_the_command(tmp_path: Path) -> None:
    """Nothing stands in for the discriminator."""
    pair, out = nets(), tmp_path / "g.safetensors"
    assert command("import", "stargan", "--from", "yunjey", write(pair, tmp_path)[0], "--out", out) == 0
    assert pretrained.read(out)[0]["networks"] == ["generator"]
    model, x = pretrained.load(out).double(), torch.rand(1, 3, 128, 128, dtype=torch.float64)
    assert isinstance(model, StarGAN)
    blond = torch.tensor([[0.0, 1, 0, 0, 1]], dtype=torch.float64)
    with torch.no_grad():
        assert_near(model.translate(x, blond), pair[0].double()(x, blond))
    male = torch.tensor([[0.0, 1, 0, 1, 1]], dtype=torch.float64)
    assert torch.equal(model.translate(x, "Male", blond), model.translate(x, male))
    with pytest.raises(ValueError, match=r"give domain=.*: the model's file holds generator, no discriminator"):
        model.translate(x, "Male")
    for method in (model.classify, model.score):
        with pytest.raises(ValueError, match="import both files: the model's file holds generator, no discriminator"):
            method(x)
    with pytest.raises(ValueError, match=r"give domain="):
        model.reconstruct(x)


def test_expressions_need_no_discriminator(tmp_path: Path) -> None:
    out = tmp_path / "g.safetensors"
    pretrained.save(convert.stargan(write(nets(8), tmp_path)[:1]), out)
    model = pretrained.load(out)
    assert isinstance(model, StarGAN)
    assert model.translate(torch.rand(1, 3, 32, 32), "happy").shape == (1, 3, 32, 32)
