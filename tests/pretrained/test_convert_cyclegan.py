"""CycleGAN from the files of the authors' PyTorch code: the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.cli.parts import command, the_line
from tests.numerics import assert_near
from zoo import convert, pretrained
from zoo.cyclegan import CycleGAN


class Block(nn.Module):
    """A residual block as the specification has it, with biases."""

    def __init__(self, c: int, dropout: bool) -> None:
        super().__init__()
        rest = [nn.Dropout(0.5)] * dropout
        self.conv_block = nn.Sequential(
            *[nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU(True), *rest],
            *[nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)],
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def reference_generator(c: int, blocks: int, dropout: bool) -> nn.Module:
    def norm(width: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(width), nn.ReLU(True)]

    up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, c, 7), *norm(c)]
    layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), *norm(2 * c), nn.Conv2d(2 * c, 4 * c, 3, 2, 1), *norm(4 * c)]
    layers += [Block(4 * c, dropout) for _ in range(blocks)]
    layers += [nn.ConvTranspose2d(4 * c, 2 * c, **up), *norm(2 * c), nn.ConvTranspose2d(2 * c, c, **up), *norm(c)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
    return nn.ModuleDict({"model": nn.Sequential(*layers)})


def reference_discriminator(c: int, layers: int) -> nn.Module:
    modules: list[nn.Module] = [nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2)]
    for i in range(layers):
        inner = c * 2 ** (i + 1)
        modules += [nn.Conv2d(inner // 2, inner, 4, 2 if i < layers - 1 else 1, 1)]
        modules += [nn.InstanceNorm2d(inner), nn.LeakyReLU(0.2)]
    modules += [nn.Conv2d(c * 2**layers, 1, 4, 1, 1)]
    return nn.ModuleDict({"model": nn.Sequential(*modules)})


class NestedBlock(nn.Module):
    """A block of the U-Net as that code nests them; its keys are those of its files."""

    def __init__(self, outer: int, inner: int, submodule: nn.Module | None, image_channels: int | None = None) -> None:
        super().__init__()
        self.outermost = image_channels is not None
        outer = image_channels or outer
        down = nn.Conv2d(outer, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(inner if submodule is None else 2 * inner, outer, 4, 2, 1)
        before, norms = [nn.LeakyReLU(0.2, True)], [nn.InstanceNorm2d(inner), nn.InstanceNorm2d(outer)]
        if submodule is None:
            layers = [*before, down, nn.ReLU(True), up, norms[1]]
        elif self.outermost:
            layers = [down, submodule, nn.ReLU(True), up, nn.Tanh()]
        else:
            layers = [*before, down, norms[0], submodule, nn.ReLU(True), up, norms[1], nn.Dropout(0.5)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def reference_unet(c: int, halvings: int) -> nn.Module:
    block: nn.Module = NestedBlock(8 * c, 8 * c, None)
    for _ in range(halvings - 5):
        block = NestedBlock(8 * c, 8 * c, block)
    for width in (4 * c, 2 * c, c):
        block = NestedBlock(width, 2 * width, block)
    return nn.ModuleDict({"model": NestedBlock(3, c, block, 3)})


def reference_pixels(c: int) -> nn.Module:
    modules = [nn.Conv2d(3, c, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(c, 2 * c, 1), nn.InstanceNorm2d(2 * c)]
    return nn.ModuleDict({"net": nn.Sequential(*modules, nn.LeakyReLU(0.2, True), nn.Conv2d(2 * c, 1, 1))})


def write(folder: Path, networks: list[nn.Module], **more: Tensor) -> list[Path]:
    paths = []
    for name, network in zip(("G_A", "G_B", "D_A", "D_B"), networks, strict=False):
        paths.append(folder / f"latest_net_{name}.pth")
        torch.save(network.state_dict() | more, paths[-1])
    return paths


@pytest.mark.parametrize(
    ("blocks", "dropout", "layers", "width", "size"),
    [(6, False, 3, 4, 128), (9, True, 2, 4, 256), (6, False, 3, 6, 128)],
)
def test_same_outputs_as_the_reference(
    tmp_path: Path, blocks: int, dropout: bool, layers: int, width: int, size: int
) -> None:
    networks = [reference_generator(4, blocks, dropout).eval() for _ in range(2)]
    networks += [reference_discriminator(width, layers).eval() for _ in range(2)]
    before = torch.get_rng_state()
    model = convert.cyclegan(write(tmp_path, networks)).double()
    assert torch.equal(before, torch.get_rng_state())
    assert (model.hparams["num_blocks"], model.hparams["image_size"]) == (blocks, size)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    ours = (model.generator_ab, model.generator_ba, model.discriminator_b, model.discriminator_a)
    with torch.no_grad():
        for reference, network in zip(networks, ours, strict=True):
            assert_near(network(x), reference.double()["model"](x))


@pytest.mark.parametrize("size", [128, 256])
def test_u_nets_and_discriminators_of_pixels(tmp_path: Path, size: int) -> None:
    """At another width than the generator's, and with dropout, which has no keys of its own."""
    networks = [reference_unet(2, size.bit_length() - 1).eval() for _ in range(2)]
    networks += [reference_pixels(6).eval() for _ in range(2)]
    model = convert.cyclegan(write(tmp_path, networks)).double()
    found = [model.hparams[name] for name in ("generator_kind", "image_size", "discriminator_layers")]
    assert found == ["unet", size, 0]
    x = torch.rand(1, 3, size, 2 * size, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        for direction, reference in zip("ba", networks, strict=False):
            assert_near(model.translate(x, direction), reference.double()["model"](x.clone()))
        for network, reference in zip((model.discriminator_b, model.discriminator_a), networks[2:], strict=True):
            assert network(x).shape == (1, 1, size, 2 * size)
            assert_near(network(x), reference.double()["net"](x))
    with pytest.raises(ValueError, match=f"of 64x64 do not fit: sides must be multiples of {size} from {size}"):
        model.translate(torch.zeros(1, 3, 64, 64, dtype=torch.float64), "b")


def test_a_published_direction_of_an_old_version(tmp_path: Path) -> None:
    network = reference_generator(4, 6, False)
    statistics = {"model.2.running_mean": torch.zeros(4), "model.2.num_batches_tracked": torch.tensor(3)}
    (path,) = write(tmp_path, [network], **statistics)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert_near(convert.cyclegan([path]).double().translate(x, "b"), network.double()["model"](x))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    networks = [reference_generator(4, 6, False), reference_generator(4, 9, False), reference_discriminator(8, 3)]
    paths = write(tmp_path, networks)
    with pytest.raises(ValueError, match=r"net_G_B.pth does not fit"):
        convert.cyclegan(paths[:2])
    with pytest.raises(ValueError, match=r"net_D_A.pth does not have the layout of junyanz: it (also has|lacks) model"):
        convert.cyclegan([paths[2]])
    with pytest.raises(ValueError, match="unknown layout 'lua' of cyclegan: take junyanz"):
        convert.cyclegan(paths[:1], layout="lua")


def test_one_direction_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stands in for the direction that was not published."""
    network, out = reference_generator(4, 6, False), tmp_path / "one.safetensors"
    (path,) = write(tmp_path, [network])
    assert command("import", "cyclegan", "--from", "junyanz", path, "--out", out) == 0
    header, tensors = pretrained.read(out)
    assert header["networks"] == ["generator_ab"]
    assert {key.partition(".")[0] for key in tensors} == {"generator_ab"}

    model, x = pretrained.load(out).double(), torch.rand(1, 3, 16, 16, dtype=torch.float64)
    assert isinstance(model, CycleGAN)
    with torch.no_grad():
        assert_near(model.translate(x, "b"), network.double()["model"](x))
    for refused in (lambda: model.translate(x, "a"), lambda: model.reconstruct(x)):
        with pytest.raises(ValueError, match="no network translates to 'a': the model's file holds generator_ab, no g"):
            refused()
    pretrained.save(model, tmp_path / "again.safetensors")
    assert pretrained.read(tmp_path / "again.safetensors")[0]["networks"] == ["generator_ab"]

    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "in" / "x.png")
    translate = ["translate", out, tmp_path / "in", tmp_path / "out", "--size", 16, "--to"]
    capsys.readouterr()
    assert command(*translate, "a") == 2
    assert "no network translates to 'a'" in the_line(capsys.readouterr().err)
    assert command(*translate, "b") == 0


def test_both_directions_and_all_four_networks(tmp_path: Path) -> None:
    networks = [reference_generator(4, 6, False) for _ in range(2)]
    networks += [reference_discriminator(4, 3) for _ in range(2)]
    paths, out = write(tmp_path, networks), tmp_path / "model.safetensors"
    assert convert.cyclegan(paths).available_networks is not None
    for count, held in ((2, 2), (3, 3), (4, 4)):
        pretrained.save(convert.cyclegan(paths[:count]), out)
        assert len(pretrained.read(out)[0]["networks"]) == held
        model = pretrained.load(out)
        assert isinstance(model, CycleGAN)
        assert model.reconstruct(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
