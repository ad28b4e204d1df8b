from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.numerics import assert_near
from zoo import convert, pretrained


def reference_generator(nz: int, ngf: int, nc: int) -> nn.Module:
    """The generator as specs and the example's key layout describe it: 64 pixels, under the name `main`."""
    layers: list[nn.Module] = []
    widths = [ngf * 8, ngf * 4, ngf * 2, ngf]
    layers += [nn.ConvTranspose2d(nz, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
    for a, b in pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.ModuleDict({"main": nn.Sequential(*layers)})


def reference_discriminator(ndf: int, nc: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(nc, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for a in (ndf, ndf * 2, ndf * 4):
        layers += [nn.Conv2d(a, a * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(a * 2), nn.LeakyReLU(0.2, True)]
    layers += [nn.Conv2d(ndf * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid()]
    return nn.ModuleDict({"main": nn.Sequential(*layers)})


@pytest.fixture
def nets() -> tuple[nn.Module, nn.Module]:
    generator, discriminator = reference_generator(10, 4, 3), reference_discriminator(4, 3)
    for net in (generator, discriminator):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that are not the initial ones
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
        net.eval()
    return generator, discriminator


def write(nets: tuple[nn.Module, nn.Module], folder: Path, prefix: str = "", drop: str = "-") -> list[Path]:
    paths = []
    for name, net in zip(("netG", "netD"), nets, strict=True):
        state = {prefix + key: value for key, value in net.state_dict().items() if not key.endswith(drop)}
        torch.save(state, folder / f"{name}.pth")
        paths.append(folder / f"{name}.pth")
    return paths


@pytest.mark.parametrize(("prefix", "drop"), [("", "-"), ("module.", "num_batches_tracked")])
def test_same_outputs_as_the_reference(
    nets: tuple[nn.Module, nn.Module], tmp_path: Path, prefix: str, drop: str
) -> None:
    model = convert.dcgan(write(nets, tmp_path, prefix, drop)).double()
    generator, discriminator = (net.double()["main"] for net in nets)
    z = torch.randn(3, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = generator(z[:, :, None, None])
        assert_near(model.generator(z), expected)
        assert_near(model.discriminator(expected).sigmoid(), discriminator(expected).flatten())
    assert model.image_shape == (3, 64, 64)


def test_a_discriminator_of_another_width(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    wide = reference_discriminator(6, 3).eval()
    model = convert.dcgan(write((nets[0], wide), tmp_path)).double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert_near(model.discriminator(x).sigmoid(), wide.double()["main"](x).flatten())
    pretrained.save(model.float(), tmp_path / "wide.safetensors")
    assert pretrained.load(tmp_path / "wide.safetensors").hparams["discriminator_channels"] == 6


def gan_zoo(nets: tuple[nn.Module, nn.Module]) -> list[dict[str, torch.Tensor]]:
    """The weights of both networks under the names of pytorch_GAN_zoo."""
    ends = {"main.0": "formatLayer", "main.1": "main.batchNorm0", "main.12": "main.outlayer"}
    names: list[dict[str, str]] = [ends, {}]
    for i in (1, 2, 3):
        names[0] |= {f"main.{3 * i}": f"main.convTranspose{i}", f"main.{3 * i + 1}": f"main.batchNorm{i}"}
    names[1] |= {"main.0": "main.convTranspose3", "main.11": "decisionLayer"}
    for i, place in zip((2, 1, 0), (2, 5, 8), strict=True):
        names[1] |= {f"main.{place}": f"main.convTranspose{i}", f"main.{place + 1}": f"main.batchNorm{i}"}
    return [
        {f"{theirs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in net.state_dict().items()}
        for net, theirs in zip(nets, names, strict=True)
    ]


@pytest.mark.parametrize("whole", [False, True])
def test_same_outputs_as_pytorch_gan_zoo(nets: tuple[nn.Module, nn.Module], tmp_path: Path, whole: bool) -> None:
    states, paths = gan_zoo(nets), [tmp_path / "netG.pth", tmp_path / "netD.pth"]
    for state, path in zip(states, paths, strict=True):
        torch.save({"netG": states[0], "netD": states[1]} if whole else state, path)
    model = convert.dcgan(paths[:1] if whole else paths, layout="pytorch_GAN_zoo").double()
    assert model.available_networks == ("generator", "discriminator")
    z = torch.randn(2, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = nets[0].double()["main"](z[:, :, None, None])
        assert_near(model.generator(z), expected)
        assert_near(model.discriminator(expected).sigmoid(), nets[1].double()["main"](expected).flatten())
    torch.save(states[1] | {"decisionLayer.weight": torch.zeros(3, 32, 4, 4)}, paths[1])
    torch.save(states[0], paths[0])
    with pytest.raises(ValueError, match=r"netD\.pth does not fit: its discriminator gives 3 values"):
        convert.dcgan(paths, layout="pytorch_GAN_zoo")
    with pytest.raises(ValueError, match=r"netG\.pth does not have the layout of pytorch-examples|main\.0"):
        convert.dcgan(paths[:1])


def test_the_generator_alone(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    model = convert.dcgan(write(nets, tmp_path)[:1]).double()
    z = torch.randn(2, 10, dtype=torch.float64)
    with torch.no_grad():
        assert_near(model.generator(z), nets[0].double()["main"](z[:, :, None, None]))


@pytest.mark.parametrize(("start", "doublings", "channels"), [(4, 3, 1), (7, 2, 3)])
def test_sizes_and_channels_are_read_off_the_shapes(tmp_path: Path, start: int, doublings: int, channels: int) -> None:
    """32 and 28 pixels, as people change the example."""
    widths = [4 * 2**i for i in reversed(range(doublings))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(6, widths[0], start, 1, 0, bias=False)]
    layers += [nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
    for a, b in pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False), nn.Tanh()]
    net = nn.ModuleDict({"main": nn.Sequential(*layers)}).eval()
    torch.save(net.state_dict(), tmp_path / "netG.pth")
    state = torch.get_rng_state()
    model = convert.dcgan([tmp_path / "netG.pth"])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.image_shape == (channels, start * 2**doublings, start * 2**doublings)
    z = torch.randn(2, 6, dtype=torch.float64)
    with torch.no_grad():
        assert_near(model.double().generator(z), net.double()["main"](z[:, :, None, None]))


def test_what_was_imported_is_saved_and_loaded(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    model = convert.dcgan(write(nets, tmp_path))
    pretrained.save(model, tmp_path / "dcgan.safetensors")
    again = pretrained.load(tmp_path / "dcgan.safetensors")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_wrong_files_are_named(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    paths = write(nets, tmp_path)
    with pytest.raises(ValueError, match=r"unknown layout 'lua' of dcgan: take pytorch-examples, pytorch_GAN_zoo"):
        convert.dcgan(paths, layout="lua")
    torch.save({"conv.weight": torch.rand(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not have the layout"):
        convert.dcgan([tmp_path / "other.pth"])
    with pytest.raises(ValueError, match=r"netD\.pth lacks the BatchNorm"):
        convert.dcgan(paths[::-1])
    torch.save(reference_discriminator(4, 1).state_dict(), paths[1])
    with pytest.raises(ValueError, match=r"netD\.pth does not fit: size mismatch"):
        convert.dcgan(paths)
    torch.save({"state_dict": {}, "epoch": 3}, paths[1])
    with pytest.raises(ValueError, match=r"netD\.pth is no plain state dict"):
        convert.dcgan(paths)
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    with pytest.raises(ValueError, match=r"netG\.pth is damaged"):
        convert.dcgan(paths)
