"""The importer of Progressive GAN: networks written down as pytorch_GAN_zoo lays them out."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cli.parts import command
from tests.numerics import assert_near
from zoo import convert, pretrained

LOADED = 1e-5
"""Bound on the distance of outputs: the constant of a layer multiplies its bias when the file is read, in float32."""


class Equalized(nn.Module):
    """(weight * x + bias) * c."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
        self.c = math.sqrt(2 / module.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) * self.c


def conv(inputs: int, outputs: int, kernel: int = 3) -> Equalized:
    return Equalized(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def normal(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class ReferenceG(nn.Module):
    def __init__(self, latent: int, widths: list[int]) -> None:
        super().__init__()
        self.formatLayer = Equalized(nn.Linear(latent, 16 * widths[0]))
        self.groupScale0 = nn.ModuleList([conv(widths[0], widths[0])])
        self.scaleLayers = nn.ModuleList(nn.ModuleList([conv(a, b), conv(b, b)]) for a, b in pairwise(widths))
        self.toRGBLayers = nn.ModuleList(conv(width, 3, 1) for width in widths)

    def forward(self, z: Tensor) -> Tensor:
        x = normal(act(self.formatLayer(normal(z))).view(len(z), -1, 4, 4))
        x = normal(act(self.groupScale0[0](x)))
        for scale in self.scaleLayers:
            x = F.interpolate(x, scale_factor=2)
            for layer in scale:
                x = normal(act(layer(x)))
        return self.toRGBLayers[-1](x)


class ReferenceD(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.fromRGBLayers = nn.ModuleList(conv(3, width, 1) for width in widths)
        self.scaleLayers = nn.ModuleList(nn.ModuleList([conv(b, b), conv(b, a)]) for a, b in pairwise(widths))
        self.groupScaleZero = nn.ModuleList(
            [conv(widths[0] + 1, widths[0]), Equalized(nn.Linear(16 * widths[0], widths[0]))]
        )
        self.decisionLayer = Equalized(nn.Linear(widths[0], 1))

    def forward(self, x: Tensor) -> Tensor:
        x = act(self.fromRGBLayers[-1](x))
        for scale in reversed(self.scaleLayers):
            for layer in scale:
                x = act(layer(x))
            x = F.avg_pool2d(x, 2)
        groups = x.view(-1, 4, *x.shape[1:])
        y = (groups.var(1) + 1e-8).sqrt().flatten(1).mean(1)
        y = y.view(-1, 1, 1, 1, 1).expand(-1, 4, 1, 4, 4).reshape(-1, 1, 4, 4)
        x = act(self.groupScaleZero[0](torch.cat([x, y], 1)))
        return self.decisionLayer(act(self.groupScaleZero[1](x.flatten(1))))


def write(folder: Path, widths: list[int], old: bool = False) -> tuple[list[Path], ReferenceG, ReferenceD]:
    torch.manual_seed(0)
    nets = ReferenceG(6, widths), ReferenceD(widths)
    paths = []
    for name, net in zip(("avgG", "netD"), nets, strict=True):
        paths.append(folder / f"{name}.pth")
        state = net.state_dict()
        torch.save({k.replace(".module", "") if old else k: v for k, v in state.items()}, paths[-1])
    return paths, *nets


@pytest.mark.parametrize(("widths", "old"), [([8, 8, 4], False), ([8, 8, 8, 8], True), ([16, 8], False)])
def test_same_outputs_as_the_reference(widths: list[int], old: bool, tmp_path: Path) -> None:
    paths, generator, discriminator = write(tmp_path, widths, old)
    model = convert.progressive_gan(paths).double()
    generator, discriminator = generator.double(), discriminator.double()
    assert model.progress["resolution"] == model.hparams["image_size"] == 4 * 2 ** (len(widths) - 1)
    z = torch.randn(3, 6, dtype=torch.float64)
    x = torch.rand(8, 3, *[model.hparams["image_size"]] * 2, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        images = generator(z)
        assert_near(model.generate(z), images.clamp(-1, 1), LOADED)
        assert_near(model.generator(z), images, LOADED)
        assert_near(model.discriminator(x, len(widths) - 1, 1.0, 4), discriminator(x).flatten(), LOADED)


def test_other_files_are_refused(tmp_path: Path) -> None:
    paths, *_ = write(tmp_path, [8, 4])
    with pytest.raises(ValueError, match=r"netD\.pth does not have the layout of pytorch_GAN_zoo"):
        convert.progressive_gan(paths[::-1])
    with pytest.raises(ValueError, match="its maps have 8, 8, 2 channels, not halves"):
        convert.progressive_gan(write(tmp_path, [8, 8, 2])[0])


def config(monkeypatch: pytest.MonkeyPatch, name: str = "BaseConfig") -> Any:
    """An object of a class of that name in the reference's module, which is gone when the file is read."""
    module = ModuleType("models.utils.config")
    kind = type(name, (), {"__module__": module.__name__})
    setattr(module, name, kind)
    for parent in ("models", "models.utils"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = kind()
    vars(found).update(noiseVectorDim=6, depthScales=[8, 8], lossCriterion="WGANGP", attribKeysOrder=None, alpha=0.0)
    return found


@pytest.mark.parametrize("zipped", [True, False])
def test_the_published_files_are_one(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, *_ = write(tmp_path, [8, 4])
    average, judge = (torch.load(path, weights_only=True) for path in paths)
    latest = {key: value + 1 for key, value in average.items()}
    whole = tmp_path / "celeba.pth"
    with monkeypatch.context() as patch:
        content = {"config": config(patch), "netG": latest, "netD": judge, "avgG": average}
        content["tmp"] = content["config"]
        torch.save(content, whole, _use_new_zipfile_serialization=zipped)
    assert "models.utils.config" not in sys.modules
    expected, found = (convert.progressive_gan(files).state_dict() for files in (paths, [whole]))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "models.utils.config" not in sys.modules
    torch.save({"netG": latest, "netD": judge}, whole)
    with pytest.raises(
        ValueError, match=r"celeba\.pth has no state dict avgG: give the checkpoint as training wrote it$"
    ):
        convert.progressive_gan([whole])


@pytest.mark.parametrize("zipped", [True, False])
def test_other_pickled_objects_are_refused(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, *_ = write(tmp_path, [8, 4])
    content = {name: torch.load(path, weights_only=True) for name, path in zip(("avgG", "netD"), paths, strict=True)}
    with monkeypatch.context() as patch:
        torch.save(content | {"config": config(patch, "Other")}, paths[0], _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"avgG\.pth is damaged, .* or holds more than tensors: it was not read$"):
        convert.progressive_gan(paths[:1])


class Called:
    """Pickled as a call with an argument, which the stub does not take."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return self.kind, (1,)


def test_a_settings_object_that_is_made_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        torch.save({"config": Called(type(config(patch)))}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth is damaged, .* or holds more than tensors: it was not read$"):
        convert.progressive_gan([tmp_path / "odd.pth"])


def test_the_command(tmp_path: Path) -> None:
    paths, *_ = write(tmp_path, [8, 4])
    out = tmp_path / "progressive.safetensors"
    assert command("import", "progressive_gan", "--from", "pytorch_GAN_zoo", *paths, "--out", out) == 0
    expected = convert.progressive_gan(paths).sample(2, seed=0)
    assert_near(pretrained.load(out).sample(2, seed=0), expected)
    assert pretrained.load(out).available_networks == ("generator", "generator_ema", "discriminator")
    # What no file was given for is untrained and stays out.
    alone = tmp_path / "alone.safetensors"
    assert command("import", "progressive_gan", "--from", "pytorch_GAN_zoo", paths[0], "--out", alone) == 0
    assert pretrained.load(alone).available_networks == ("generator", "generator_ema")
