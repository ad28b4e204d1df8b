"""Importers of models with codes; tests/pretrained/test_convert.py has those of DCGAN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cli.parts import command
from tests.numerics import assert_near
from zoo import convert, pretrained
from zoo.conv_infogan import ConvInfoGAN
from zoo.convert import layouts

# VAE and beta-VAE -----------------------------------------------------------------------------------------------------


def linear_vae(pixels: int, hidden: int, latent: int) -> nn.ModuleDict:
    sizes = {"fc1": (pixels, hidden), "fc21": (hidden, latent), "fc22": (hidden, latent)}
    sizes |= {"fc3": (latent, hidden), "fc4": (hidden, pixels)}
    return nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})


def convolutional_vae(channels: int, latent: int, kind: str) -> nn.ModuleDict:
    """The two networks of that implementation."""

    def chain(layers: list[nn.Module], make: type[nn.Module], widths: list[int]) -> None:
        for a, b in pairwise(widths):
            layers += [make(a, b, 4, 2, 1), nn.ReLU()]

    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = [nn.Linear(latent, 256)]
    if kind == "H":
        chain(encoder, nn.Conv2d, [channels, 32, 32, 64, 64])
        encoder += [nn.Conv2d(64, 256, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2 * latent)]
        decoder += [nn.Unflatten(1, (256, 1, 1)), nn.ReLU(), nn.ConvTranspose2d(256, 64, 4), nn.ReLU()]
        chain(decoder, nn.ConvTranspose2d, [64, 64, 32, 32, channels])
    else:
        chain(encoder, nn.Conv2d, [channels, 32, 32, 32, 32])
        encoder += [nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
        encoder += [nn.Linear(256, 2 * latent)]
        decoder += [nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU()]
        decoder += [nn.Unflatten(1, (32, 4, 4))]
        chain(decoder, nn.ConvTranspose2d, [32, 32, 32, 32, channels])
    return nn.ModuleDict({"encoder": nn.Sequential(*encoder), "decoder": nn.Sequential(*decoder[:-1])})


class Burgess(nn.Module):
    """The network of that implementation: the head's rows are mean 0, log variance 0, mean 1, ..."""

    def __init__(self, size: int, channels: int, latent: int) -> None:
        super().__init__()
        down, up = ["conv1", "conv2", "conv3"], ["convT1", "convT2", "convT3"]
        if size == 64:
            down, up = [*down, "conv_64"], ["convT_64", *up]
        self.down, self.up = down, up
        encoder: dict[str, nn.Module] = {n: nn.Conv2d(32 if i else channels, 32, 4, 2, 1) for i, n in enumerate(down)}
        encoder |= {
            "lin1": nn.Linear(512, 256),
            "lin2": nn.Linear(256, 256),
            "mu_logvar_gen": nn.Linear(256, 2 * latent),
        }
        decoder: dict[str, nn.Module] = {"lin1": nn.Linear(latent, 256), "lin2": nn.Linear(256, 256)}
        decoder |= {"lin3": nn.Linear(256, 512)}
        decoder |= {n: nn.ConvTranspose2d(32, channels if n == "convT3" else 32, 4, 2, 1) for n in up}
        self.encoder, self.decoder = nn.ModuleDict(encoder), nn.ModuleDict(decoder)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for name in self.down:
            x = self.encoder[name](x).relu()
        x = self.encoder["lin2"](self.encoder["lin1"](x.flatten(1)).relu()).relu()
        pairs = self.encoder["mu_logvar_gen"](x).view(len(x), -1, 2)
        return pairs[..., 0], pairs[..., 1]

    def decode(self, z: Tensor) -> Tensor:
        for name in ("lin1", "lin2", "lin3"):
            z = self.decoder[name](z).relu()
        z = z.view(-1, 32, 4, 4)
        for name in self.up:
            z = self.decoder[name](z if name == self.up[0] else z.relu())
        return z.sigmoid()


def same(model: Any, x: Tensor, mean: Tensor, log_var: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
    """The posterior of images x in [0, 1] and the images of its means are those of the reference."""
    assert not model.training
    posterior = model.double().posterior(2 * x - 1)
    assert_near(posterior.mean, mean)
    assert_near(posterior.variance.log(), log_var)
    assert_near((model.decode(mean) + 1) / 2, decode(mean).view_as(x))


@pytest.mark.parametrize(("pixels", "shape"), [(64, (1, 8, 8)), (192, (3, 8, 8))])
@torch.no_grad()
def test_vae_of_the_example(tmp_path: Path, pixels: int, shape: tuple[int, int, int]) -> None:
    net, path = linear_vae(pixels, 6, 3), tmp_path / "vae.pth"
    torch.save(net.state_dict(), path)
    model = convert.vae([path])
    assert model.image_shape == shape
    net, x = net.double(), torch.rand(4, *shape, dtype=torch.float64)
    h = net["fc1"](x.flatten(1)).relu()
    same(model, x, net["fc21"](h), net["fc22"](h), lambda z: net["fc4"](net["fc3"](z).relu()).sigmoid())


@pytest.mark.parametrize(("kind", "networks"), [("H", "conv"), ("B", "burgess")])
@torch.no_grad()
def test_beta_vae_of_1konny(tmp_path: Path, kind: str, networks: str) -> None:
    net, path = convolutional_vae(1, 3, kind), tmp_path / "last"
    state = {"net": net.state_dict()}
    optimizer = torch.optim.Adam(net.parameters()).state_dict()
    windows = {"recon": None, "kld": "window_3"}
    whole = {"iter": 7, "win_states": windows, "model_states": state, "optim_states": {"optim": optimizer}}
    torch.save(whole, path)
    model = convert.beta_vae([path], layout="1konny")
    assert model.image_shape == (1, 64, 64)
    assert model.hparams["networks"] == networks
    net, x = net.double(), torch.rand(2, 1, 64, 64, dtype=torch.float64)
    same(model, x, *net["encoder"](x).split(3, 1), lambda z: net["decoder"](z).sigmoid())


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
@torch.no_grad()
def test_beta_vae_of_disentangling_vae(tmp_path: Path, size: int, channels: int) -> None:
    net, path = Burgess(size, channels, 3), tmp_path / "model.pt"
    torch.save(net.state_dict(), path)
    model = convert.beta_vae([path], layout="disentangling-vae")
    assert model.image_shape == (channels, size, size)
    net, x = net.double(), torch.rand(2, channels, size, size, dtype=torch.float64)
    same(model, x, *net.encode(x), net.decode)


# NADE -----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_nade_of_eugenhotaj(tmp_path: Path) -> None:
    """The recursion of that repository, value by value."""
    sizes = {"_in_W": (7, 16), "_in_b": (7,), "_h_W": (16, 7), "_h_b": (16,)}
    net, path = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}, tmp_path / "nade.pth"
    torch.save(net, path)
    model = convert.nade([path]).double()
    assert model.image_shape == (1, 4, 4)
    x = (torch.rand(5, 16, dtype=torch.float64) > 0.5).double()
    a, nats = net["_in_b"].expand(5, -1), torch.zeros(5, dtype=torch.float64)
    for i in range(16):
        logits = net["_h_b"][i] + a.relu() @ net["_h_W"][i]
        nats += F.binary_cross_entropy_with_logits(logits, x[:, i], reduction="none")
        a = a + net["_in_W"][:, i] * x[:, i : i + 1]
    assert_near(model.log_prob(2 * x.view(5, 1, 4, 4) - 1), -nats, 1e-6)  # loaded in float32


def after_a_pass(state: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    """With the shape of the images, as that repository's networks keep it from their first forward pass on."""
    return state | {"_c": torch.tensor(1), "_h": torch.tensor(side), "_w": torch.tensor(side)}


def test_nade_after_a_forward_pass_and_in_its_trainers_checkpoint(tmp_path: Path) -> None:
    sizes = {"_in_W": (7, 16), "_in_b": (7,), "_h_W": (16, 7), "_h_b": (16,)}
    state, path = {name: torch.randn(size) for name, size in sizes.items()}, tmp_path / "trainer_state_3.ckpt"
    torch.save(state, path)
    expected = convert.nade([path]).state_dict()
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight])
    scheduler = torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lr_lambda=lambda _: 0.9)
    counts = {"step": 9, "epoch": 3, "examples_processed": 90, "time_taken": 1.5}
    parts = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict()}
    for content in (after_a_pass(state, 4), {"model": after_a_pass(state, 4)} | parts | counts):
        torch.save(content, path)
        found = convert.nade([path]).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    torch.save(after_a_pass(state, 4) | {"_w": torch.tensor(8)}, path)
    with pytest.raises(ValueError, match=r"it was trained on images of 4x8, no squares"):
        convert.nade([path])


def test_pixelcnn_after_a_forward_pass_knows_the_size(tmp_path: Path) -> None:
    net, path = Port(), tmp_path / "pixelcnn.pth"
    torch.save(after_a_pass(net.state_dict(), 12), path)
    model = convert.pixelcnn([path]).double()
    assert model.image_shape == (1, 12, 12)
    x = (torch.rand(2, 1, 12, 12) > 0.5).double()
    assert_near(model.logits(2 * x - 1)[:, 0], net.double()(x))


@pytest.mark.parametrize("pixels", [27, 10])
def test_nade_of_no_square_gray_image(tmp_path: Path, pixels: int) -> None:
    path = tmp_path / "nade.pth"
    sizes = {"_in_W": (7, pixels), "_in_b": (7,), "_h_W": (pixels, 7), "_h_b": (pixels,)}
    torch.save({name: torch.randn(size) for name, size in sizes.items()}, path)
    with pytest.raises(ValueError, match=f"{pixels} values are no square image of 1"):
        convert.nade([path])


# PixelCNN -------------------------------------------------------------------------------------------------------------


class CausalConv(nn.Conv2d):
    """The masked convolution of that repository, for one channel."""

    def __init__(self, see_center: bool, inner: int, outer: int, size: int) -> None:
        super().__init__(inner, outer, size, padding=size // 2)
        mask = torch.zeros(outer, inner, size, size)
        mask[:, :, : size // 2] = 1
        mask[:, :, size // 2, : size // 2 + see_center] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self._net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 1),
            nn.ReLU(),
            CausalConv(True, width // 2, width // 2, 3),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self._net(x)


class Port(nn.Module):
    """A PixelCNN whose blocks add their input, as its loop does once more."""

    def __init__(self) -> None:
        super().__init__()
        self._input = CausalConv(False, 1, 8, 7)
        self._causal_layers = nn.ModuleList(Block(8) for _ in range(3))
        self._head = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.Conv2d(5, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self._input(x)
        for layer in self._causal_layers:
            x = x + layer(x)
        return self._head(x)


@torch.no_grad()
def test_pixelcnn_of_eugenhotaj(tmp_path: Path) -> None:
    net, path = Port(), tmp_path / "pixelcnn.pth"
    torch.save(net.state_dict(), path)
    model = convert.pixelcnn([path]).double()
    x = (torch.rand(2, 1, 28, 28) > 0.5).double()
    assert_near(model.logits(2 * x - 1)[:, 0], net.double()(x))
    assert model.sample(1, seed=0).shape == (1, 1, 28, 28)


def test_pixelcnn_of_another_layout(tmp_path: Path) -> None:
    path = tmp_path / "pixelcnn.pth"
    torch.save(Port().state_dict() | {"_head.5.weight": torch.zeros(1, 1, 1, 1)}, path)
    with pytest.raises(ValueError, match=r"does not have the layout of EugenHotaj: it also has _head\.5\.weight$"):
        convert.pixelcnn([path])


# InfoGAN --------------------------------------------------------------------------------------------------------------


def port(latent: int, base: int, hidden: int, start: int) -> nn.ModuleDict:
    """That port, 4 categories and 2 continuous codes."""
    parts: dict[str, dict[str, nn.Module]] = {
        "netG": {
            "tconv1": nn.ConvTranspose2d(latent + 6, hidden, 1, bias=False),
            "bn1": nn.BatchNorm2d(hidden),
            "tconv2": nn.ConvTranspose2d(hidden, 2 * base, start, bias=False),
            "bn2": nn.BatchNorm2d(2 * base),
            "tconv3": nn.ConvTranspose2d(2 * base, base, 4, 2, 1, bias=False),
            "bn3": nn.BatchNorm2d(base),
            "tconv4": nn.ConvTranspose2d(base, 1, 4, 2, 1, bias=False),
        },
        "discriminator": {
            "conv1": nn.Conv2d(1, base, 4, 2, 1),
            "conv2": nn.Conv2d(base, 2 * base, 4, 2, 1, bias=False),
            "bn2": nn.BatchNorm2d(2 * base),
            "conv3": nn.Conv2d(2 * base, hidden, start, bias=False),
            "bn3": nn.BatchNorm2d(hidden),
        },
        "netD": {"conv": nn.Conv2d(hidden, 1, 1)},
        "netQ": {
            "conv1": nn.Conv2d(hidden, 128, 1, bias=False),
            "bn1": nn.BatchNorm2d(128),
            "conv_disc": nn.Conv2d(128, 4, 1),
            "conv_mu": nn.Conv2d(128, 2, 1),
            "conv_var": nn.Conv2d(128, 2, 1),
        },
    }
    return with_statistics(nn.ModuleDict({name: nn.ModuleDict(layers) for name, layers in parts.items()}))


def with_statistics(nets: nn.ModuleDict) -> nn.ModuleDict:
    """The networks in evaluation, with statistics that are not the initial ones."""
    for module in nets.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -1.0), (module.running_var, 0.5), (module.weight, 0.5)):
                nn.init.uniform_(tensor, low, 2.0)
            nn.init.uniform_(module.bias, -1.0, 1.0)
    return nets.eval()


def save_port(nets: nn.ModuleDict, path: Path, params: dict[str, Any] | None = None) -> Path:
    optimizer = torch.optim.Adam(nets.parameters()).state_dict()
    states: dict[str, Any] = {name: net.state_dict() for name, net in nets.items()}
    torch.save(states | {"optimD": optimizer, "params": params or {"dataset": "MNIST", "num_z": 62}}, path)
    return path


@pytest.mark.parametrize("start", [4, 7])
@torch.no_grad()
def test_infogan_of_natsu6767(tmp_path: Path, start: int) -> None:
    nets = port(5, 4, 8, start)
    model = convert.infogan([save_port(nets, tmp_path / "model_final")]).double()
    nets = nets.double()
    assert model.image_shape == (1, 4 * start, 4 * start)
    assert (model.latent_dim, model.codes.categorical, model.codes.continuous) == (5, (4,), 2)

    z = model.latent(3, seed=0).double()
    g, d, q = nets["netG"], nets["discriminator"], nets["netQ"]
    x = z[:, :, None, None]
    for i in (1, 2, 3):
        x = g[f"bn{i}"](g[f"tconv{i}"](x)).relu()
    x = g["tconv4"](x).sigmoid()
    assert_near((model.generate(z) + 1) / 2, x)

    h = F.leaky_relu(d["conv1"](x), 0.1)
    for i in (2, 3):
        h = F.leaky_relu(d[f"bn{i}"](d[f"conv{i}"](h)), 0.1)
    logits = nets["netD"]["conv"](h).flatten()
    features = model.trunk(x)
    assert_near(model.discriminator(features).flatten(), logits)
    h = F.leaky_relu(q["bn1"](q["conv1"](h)), 0.1)
    expected = [q[f"conv_{name}"](h).flatten(1) for name in ("disc", "mu", "var")]
    (logits,), mean, log_var = model.codes.split(model.recogniser(features))
    for ours, theirs in zip((logits, mean, log_var), expected, strict=True):
        assert_near(ours, theirs)
    assert torch.equal(model.classify(2 * x - 1).argmax(1), expected[0].argmax(1))


def color_port(codes: int, continuous: int, noise: int, base: int) -> nn.ModuleDict:
    """That port for SVHN and CelebA: always with heads for continuous codes, of which CelebA draws none."""
    inputs, first = noise + 10 * codes + continuous, 7 * base
    widths = [first, 4 * base, 2 * base, base, 3]
    generator: dict[str, nn.Module] = {"tconv1": nn.ConvTranspose2d(inputs, first, 2, 1, bias=False)}
    for i, (a, b) in enumerate(pairwise(widths)):
        generator[f"tconv{i + 2}"] = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)
    generator |= {"bn1": nn.BatchNorm2d(first), "bn2": nn.BatchNorm2d(4 * base)}
    trunk: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, base, 4, 2, 1)}
    for i, c in ((2, base), (3, 2 * base)):
        trunk |= {f"conv{i}": nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), f"bn{i}": nn.BatchNorm2d(2 * c)}
    heads = {"conv_disc": 10 * codes, "conv_mu": continuous or 1, "conv_var": continuous or 1}
    recogniser: dict[str, nn.Module] = {"conv1": nn.Conv2d(4 * base, 128, 4, bias=False), "bn1": nn.BatchNorm2d(128)}
    recogniser |= {name: nn.Conv2d(128, width, 1) for name, width in heads.items()}
    parts = {"netG": generator, "discriminator": trunk, "netD": {"conv": nn.Conv2d(4 * base, 1, 4)}, "netQ": recogniser}
    return with_statistics(nn.ModuleDict({name: nn.ModuleDict(layers) for name, layers in parts.items()}))


@pytest.mark.parametrize(("data", "codes", "continuous"), [("SVHN", 4, 4), ("CelebA", 10, 0)])
@torch.no_grad()
def test_infogan_of_natsu6767_in_color(tmp_path: Path, data: str, codes: int, continuous: int) -> None:
    nets = color_port(codes, continuous, 5, 4)
    params = {"dataset": data, "num_z": 5, "num_dis_c": codes, "dis_c_dim": 10, "num_con_c": continuous}
    model = convert.infogan([save_port(nets, tmp_path / "model_final", params)]).double()
    nets = nets.double()
    assert isinstance(model, ConvInfoGAN)
    assert (model.latent_dim, model.codes.categorical, model.codes.continuous) == (5, (10,) * codes, continuous)

    g, d, q = nets["netG"], nets["discriminator"], nets["netQ"]
    z = model.latent(3, seed=0).double()
    x = z[:, :, None, None]
    for i in (1, 2):
        x = g[f"bn{i}"](g[f"tconv{i}"](x)).relu()
    for i in (3, 4):
        x = g[f"tconv{i}"](x).relu()
    x = g["tconv5"](x).tanh()
    images = 2 * x - 1 if data == "SVHN" else x  # the port trains on SVHN's pixels from 0 to 1
    assert_near(model.generate(z), images.clamp(-1, 1))

    images, x = images.clamp(-1, 1), x.clamp(0, 1) if data == "SVHN" else x
    h = F.leaky_relu(d["conv1"](x), 0.1)
    for i in (2, 3):
        h = F.leaky_relu(d[f"bn{i}"](d[f"conv{i}"](h)), 0.1)
    assert_near(model.score(images), -F.logsigmoid(nets["netD"]["conv"](h).flatten()))
    h = F.leaky_relu(q["bn1"](q["conv1"](h)), 0.1)
    probabilities = q["conv_disc"](h).flatten(1).view(3, codes, 10).softmax(2).flatten(1)
    mean = q["conv_mu"](h).flatten(1)[:, :continuous]
    assert_near(model.encode(images), torch.cat([probabilities, mean], 1))


def test_settings_tell_svhn_from_celeba(tmp_path: Path) -> None:
    path = save_port(color_port(4, 4, 5, 4), tmp_path / "file.pth")
    with pytest.raises(
        ValueError, match=r"file\.pth lacks params with dataset, num_z, num_dis_c, dis_c_dim, num_con_c: g"
    ):
        convert.infogan([path])


# All layouts ----------------------------------------------------------------------------------------------------------


def test_each_architecture_of_the_table_has_its_function() -> None:
    assert sorted(layouts.LAYOUTS) == sorted(convert.__all__)


def test_the_command_names_architectures_and_layouts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("import", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for architecture, table in layouts.LAYOUTS.items():
        for layout in table:
            assert any(line.split()[:2] == [architecture, layout] for line in lines)
    torch.save(linear_vae(64, 6, 3).state_dict(), tmp_path / "vae.pth")
    out = tmp_path / "vae.safetensors"
    assert command("import", "vae", "--from", "pytorch-examples", str(tmp_path / "vae.pth"), "--out", str(out)) == 0
    assert pretrained.load(out).sample(2, seed=0).shape == (2, 1, 8, 8)
    save_port(port(5, 4, 8, 4), tmp_path / "infogan.pth")
    arguments = ["import", "infogan", "--from", "natsu6767", str(tmp_path / "infogan.pth"), "--out", str(out)]
    assert command(*arguments) == 2
    assert command(*arguments, "--force") == 0
    assert pretrained.load(out).encode(torch.zeros(2, 1, 16, 16)).shape == (2, 6)


def changed(path: Path, state: dict[str, Tensor], **tensors: Tensor | None) -> Path:
    """A file of a state dict with other tensors; None leaves one out."""
    torch.save({key: value for key, value in (state | tensors).items() if value is not None}, path)
    return path


def test_wrong_files_of_the_other_layouts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    vae = linear_vae(64, 6, 3).state_dict()
    with pytest.raises(ValueError, match=r"^unknown layout '1konny' of vae: take pytorch-examples$"):
        convert.vae([changed(path, vae)], layout="1konny")
    with pytest.raises(ValueError, match=r"^pytorch-examples has the one file state_dict; 2 were given$"):
        convert.vae([path, path])
    for tensors, message in (
        ({"fc3.bias": None}, "it lacks fc3.bias"),
        ({"fc5.bias": torch.zeros(2)}, "it also has fc5.bias"),
        ({"fc1.weight": torch.zeros(6)}, "it has fc1.weight with 1 axes, not 2"),
    ):
        with pytest.raises(ValueError, match=rf"file\.pth does not have the layout of pytorch-examples: {message}$"):
            convert.vae([changed(path, vae, **tensors)])
    with pytest.raises(ValueError, match=r"file\.pth does not fit: 50 values are no square image of 1 or 3 channels"):
        convert.vae([changed(path, linear_vae(50, 6, 3).state_dict())])
    for tensors in ({"fc22.weight": torch.zeros(3, 5)}, {"fc4.bias": torch.zeros(9)}):
        with pytest.raises(ValueError, match=r"file\.pth does not fit: (size mismatch|Sizes of tensors)"):
            convert.vae([changed(path, vae, **tensors)])

    for layout in layouts.LAYOUTS["beta_vae"]:
        torch.save({"model_states": vae, "iter": 3}, path)
        with pytest.raises(ValueError, match=r"file\.pth (has no|is no plain) state dict"):
            convert.beta_vae([path], layout=layout)
    torch.save({"model_states": {"net": vae}}, path)
    with pytest.raises(ValueError, match=r"file\.pth does not have the layout of 1konny: it lacks decoder\.0\.bias"):
        convert.beta_vae([path], layout="1konny")
    with pytest.raises(ValueError, match=r"layout of disentangling-vae: it lacks decoder\.convT1\.bias"):
        convert.beta_vae([changed(path, vae)], layout="disentangling-vae")
    wide = {"decoder.lin1.weight": torch.zeros(256, 4)}
    with pytest.raises(ValueError, match=r"file\.pth does not fit: size mismatch"):
        convert.beta_vae([changed(path, Burgess(32, 1, 3).state_dict(), **wide)], layout="disentangling-vae")

    with pytest.raises(ValueError, match=r"file\.pth has no state dict netG: give the checkpoint as training wrote it"):
        convert.infogan([path])
    nets = port(5, 4, 8, 4)
    nets["netQ"]["conv_more"] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"the layout of natsu6767: it also has netQ\.conv_more\.bias"):
        convert.infogan([save_port(nets, path)])
    with pytest.raises(ValueError, match=r"file\.pth does not fit: image_size 20 is not supported"):
        convert.infogan([save_port(port(5, 4, 8, 5), path)])
    path.write_text("no pickle")
    with pytest.raises(ValueError, match=r"file\.pth is damaged"):
        convert.infogan([path])
