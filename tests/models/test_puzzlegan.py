from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, share, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.puzzlegan import Discriminator, canonical_order
from zoo.pretrained.migrations import current_arguments
from zoo.puzzlegan import MAKERS, PuzzleGAN


class TestPuzzleGAN(ModelContract):
    """Two of the levels, two patches."""

    samples = False
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> PuzzleGAN:
        return PuzzleGAN(16, latent_dim=3, embedding_dim=4, base_channels=4, **self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        def images(purpose: str, *shape: int) -> Tensor:
            return rng.uniform(shape, rng.key(seed, purpose), low=-1, high=1, dtype=torch.float64).to(dtype)

        mask = rng.integers(2, (n, 1, 16, 16), rng.key(seed, "mask")).to(dtype)
        patches = images("patches", n, 2, 3, 16, 16)
        return {
            "image": images("image", n, 3, 16, 16),
            "patches": patches,
            "mask": mask,
            "other": images("other", n, 3, 16, 16),
        }

    def pictures(self, model: Any) -> Tensor:
        return torch.cat(model.assemble(self.batch(2)["patches"], seed=0), 1)


class TestPuzzleGANGray(TestPuzzleGAN):
    """One channel, one level, channels last, an average, another number of patches."""

    def tiny(self) -> PuzzleGAN:
        options: dict[str, Any] = {"channels_last": True, "ema_decay": 0.5}
        return PuzzleGAN(8, 1, latent_dim=3, embedding_dim=4, base_channels=4, **options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        batch = super().batch(n, seed=seed, dtype=dtype)
        batch = {name: values[..., :8, :8] for name, values in batch.items()}
        patches = batch["patches"].flatten(1, 2)[:, :5, None]
        return {**batch, "image": batch["image"][:, :1], "other": batch["other"][:, :1], "patches": patches}


@pytest.fixture
def model() -> PuzzleGAN:
    torch.manual_seed(0)
    return TestPuzzleGAN().tiny()


@pytest.fixture
def batch() -> Batch:
    return TestPuzzleGAN().batch(6)


# The networks --------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_authors_code() -> None:
    """Theirs, without the biases of convolutions before a normalisation."""
    with torch.device("meta"):
        model = PuzzleGAN()
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}
    assert counts == {
        "encoder": 5_357_056 - (128 + 256 + 512),
        "mask_generator": 9_656_257 - (512 + 256 + 128 + 64),
        "generator": 15_016_835 - (512 + 256 + 128 + 64),
        "discriminator": 4_316_545 - (128 + 256 + 512),
    }


def test_shapes_of_every_level() -> None:
    with torch.device("meta"):
        model = PuzzleGAN()
        features, embedding = model.encoder(torch.empty(2, 3, 3, 64, 64))
        mask, joined = model.mask_generator(features, embedding)
        image = model.generator(embedding, torch.empty(2, 128), joined)
    assert [tuple(x.shape[1:]) for x in features] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert embedding.shape == (2, 128)
    assert [tuple(x.shape[1:]) for x in joined] == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32)]
    assert mask.shape == (2, 1, 64, 64)
    assert image.shape == (2, 3, 64, 64)
    assert [level[0].weight.shape[0] for level in model.generator.levels] == [256, 1536, 768, 384, 192]


def test_features_are_sums_over_the_patches(model: PuzzleGAN, batch: Batch) -> None:
    encoder, patches = model.encoder.double().eval(), batch["patches"].double()
    together, embedding = encoder(patches)
    single = [encoder(patches[:, i : i + 1]) for i in range(2)]
    for level, features in enumerate(together):
        assert_near(features, single[0][0][level] + single[1][0][level])
    assert_near(embedding, single[0][1] + single[1][1])


def test_the_start_map_is_a_transposed_convolution(model: PuzzleGAN) -> None:
    start, x = model.generator.levels[0][0].double(), torch.randn(5, 7, dtype=torch.float64)
    expected = F.conv_transpose2d(x[:, :, None, None], start.weight)
    assert_near(start(x), expected)
    start.to(memory_format=torch.channels_last)
    assert_near(start(x), expected)


def test_128_pixels_have_a_level_more() -> None:
    """With the widest maps of the authors' code, 512 channels, twice."""
    with torch.device("meta"):
        model = PuzzleGAN(128)
        image, mask = model.generator, model.mask_generator
        features, embedding = model.encoder(torch.empty(1, 3, 3, 128, 128))
        y, joined = mask(features, embedding)
    widths = [64, 128, 256, 512, 512]
    assert [tuple(x.shape[1:]) for x in features] == [(c, 64 >> i, 64 >> i) for i, c in enumerate(widths)]
    assert [x.shape[1] for x in joined] == [2 * c for c in reversed(widths)]
    assert [level[0].out_channels for level in model.discriminator.levels] == widths
    assert [level[0].out_channels for level in mask.levels] == [*reversed(widths), 1]
    assert [level[0].out_channels for level in image.levels] == [*reversed(widths), 3]
    assert [level[0].in_channels for level in image.levels] == [256, *(3 * c for c in reversed(widths))]
    assert y.shape == (1, 1, 128, 128)
    with torch.device("meta"):
        assert image(embedding, torch.empty(1, 128), joined).shape == (1, 3, 128, 128)


# The order of the patches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_the_order_of_the_patches_has_no_influence_at_all(training: bool, precision: str) -> None:
    torch.manual_seed(0)
    dtype = torch.float64 if precision == "float64" else torch.float32
    model = PuzzleGAN(32, base_channels=8).to(dtype).train(training)
    patches, z = torch.rand(5, 4, 3, 32, 32, dtype=dtype) * 2 - 1, model.noise(5, 1)

    def outputs(patches: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return model(patches, z)

    image, mask = outputs(patches)
    for order in itertools.permutations(range(4)):
        found = outputs(patches[:, list(order)])
        assert torch.equal(found[0], image)
        assert torch.equal(found[1], mask)
    # Each image's patches in an order of their own, and assembled.
    mixed = torch.stack([x[torch.randperm(4)] for x in patches])
    assert torch.equal(model.assemble(mixed, seed=3)[0], model.assemble(patches, seed=3)[0])
    assert not torch.equal(outputs(patches.flip(0))[0], image)
    assert not torch.equal(outputs(torch.cat([patches[:, :3], patches[:, :1]], 1))[0], image)


def test_one_order_keeps_the_patches(batch: Batch) -> None:
    patches = batch["patches"]
    found = canonical_order(patches)
    for i in range(6):
        assert {x.sum().item() for x in found[i]} == {x.sum().item() for x in patches[i]}
    same = torch.ones(2, 3, 1, 4, 4)
    assert torch.equal(canonical_order(same), same)


# The objective -------------------------------------------------------------------------------------------------------


def test_terms_of_the_discriminator_by_hand(model: PuzzleGAN, batch: Batch) -> None:
    """A discriminator that takes the mean of the image for its logit."""

    class Mean(nn.Module):
        def discriminate_all(self, *kinds: Tensor) -> list[Tensor]:
            return [x.mean((1, 2, 3)) for x in kinds]

    model.discriminator = Mean()  # type: ignore[assignment]
    x, other, fake = (torch.full((2, 3, 16, 16), value) for value in (0.5, -0.25, 0.125))
    m = torch.zeros(2, 1, 16, 16)
    m[:, :, :, :4] = 1
    terms = model.discriminator_loss({"image": x, "mask": m, "other": other}, (fake.requires_grad_(), m))

    def cross_entropy(logit: float, real: bool) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -math.log(p if real else 1 - p)

    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {
            "real": cross_entropy(0.5, True),
            "fake": cross_entropy(0.125, False),
            "other_parts": cross_entropy(-0.25 * 0.25 + 0.5 * 0.75, False),
            "own_parts": cross_entropy(0.5 * 0.25 - 0.25 * 0.75, False),
        },
        rel=1e-6,
    )
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("image_size", [8, 16, 64])
def test_kinds_of_images_are_normalized_apart(image_size: int) -> None:
    together = Discriminator(image_size, 3, 4).double()
    apart = copy.deepcopy(together)
    kinds = [torch.randn(5, 3, image_size, image_size, dtype=torch.float64) * (i + 1) + i for i in range(4)]
    logits = together.discriminate_all(*kinds)
    for found, x in zip(logits, kinds, strict=True):
        torch.testing.assert_close(found, apart(x))
    torch.autograd.backward(torch.stack(logits).square().sum())
    torch.autograd.backward(torch.stack([apart(x) for x in kinds]).square().sum())
    for found, expected in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    together.discriminate_all(*kinds)  # as often as `apart` has seen them
    for found, expected in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


def test_composites_are_cut_at_the_mask(model: PuzzleGAN, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    kind = type(model.discriminator)
    inner = kind.discriminate_all
    monkeypatch.setattr(kind, "discriminate_all", lambda self, *kinds: seen.extend(kinds) or inner(self, *kinds))
    shared = model.forward_shared(batch)
    model.discriminator_loss(batch, shared)
    x, other, m = batch["image"], batch["other"], batch["mask"].bool().expand(-1, 3, -1, -1)
    assert len(seen) == 4
    assert torch.equal(seen[0], x)
    assert torch.equal(seen[1], shared[0])
    assert torch.equal(seen[2], torch.where(m, other, x))
    assert torch.equal(seen[3], torch.where(m, x, other))


def test_terms_of_the_generator_by_hand(model: PuzzleGAN) -> None:
    x, m = torch.full((2, 3, 16, 16), 0.5), torch.zeros(2, 1, 16, 16)
    m[0, 0, 0, :10] = 1
    fake, mask = torch.full((2, 3, 16, 16), -0.25), torch.full((2, 1, 16, 16), 0.75)
    terms = model.generator_loss({"image": x, "mask": m}, (fake, mask))
    inside, outside = 10, 2 * 256 - 10
    assert terms["adversarial"].item() == pytest.approx(F.softplus(-model.discriminator(fake)).mean().item())
    assert terms["mask"].item() == pytest.approx(1e-2 * (0.25 * inside + 0.75 * outside), rel=1e-5)
    appearance = 3 * (abs(-0.25 * 0.75 - 0.5) * inside + 0.25 * 0.75 * outside)
    assert terms["appearance"].item() == pytest.approx(1e-2 * appearance, rel=1e-5)


def test_the_weight_falls_from_epoch_to_epoch_evenly_in_its_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        model = PuzzleGAN()
    epoch = 0
    monkeypatch.setattr(PuzzleGAN, "current_epoch", property(lambda self: epoch))
    expected = torch.logspace(-2, -4, 25, dtype=torch.float64).tolist()
    for epoch in range(25):
        assert model.l1_weight() == pytest.approx(expected[epoch], rel=1e-9)
    epoch = 40
    assert model.l1_weight() == pytest.approx(1e-4)


def test_transposed_convolutions_stay_contiguous_in_channels_last() -> None:
    model = PuzzleGAN(16, latent_dim=3, embedding_dim=4, base_channels=4, channels_last=True)
    trainer().fit(model, datamodule=Data([TestPuzzleGAN().batch(2)]))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            stays = type(module) is nn.ConvTranspose2d
            assert module.weight.is_contiguous() == stays or module.weight.is_contiguous(
                memory_format=torch.channels_last
            )


def test_the_averages_of_all_three_networks_make_the_images(batch: Batch) -> None:
    case = TestPuzzleGAN()
    case.options = {"ema_decay": 1 - 1e-12, "n_critic": 1}
    model = case.tiny()
    assert model.inference_networks == ("encoder_ema", "mask_generator_ema", "generator_ema")
    before = {name: copy.deepcopy(network) for name, network in model.named_children()}
    trainer().fit(model, datamodule=Data([batch]))
    for name in MAKERS:
        first, own, average = (
            next(network.parameters())
            for network in (before[name], model.get_submodule(name), model.get_submodule(f"{name}_ema"))
        )
        assert torch.equal(average, first)
        assert not torch.equal(own, first)
    image, _ = model.assemble(batch["patches"], seed=0)
    with torch.no_grad():
        own, _ = model.eval()(batch["patches"], model.noise(6, rng.key(0, "sample")))
    assert not torch.allclose(image, own, atol=1e-4)


def test_a_fit_changes_the_weight_with_its_epochs() -> None:
    case = TestPuzzleGAN()
    case.options = {"weight_epochs": 3, "n_critic": 1}
    model = case.tiny()
    seen: list[float] = []
    weight = model.l1_weight
    model.l1_weight = lambda: seen.append(weight()) or weight()  # type: ignore[method-assign]
    trainer(max_epochs=4).fit(model, datamodule=Data([case.batch(2)]))
    assert seen == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])


def test_sums_are_over_the_whole_step(batch: Batch) -> None:
    """Two halves of a batch, accumulated, weigh as much as the whole one."""
    case = TestPuzzleGAN()
    case.options = {"accumulate": 2}
    halves = case.tiny()
    x, m = batch["image"], batch["mask"]
    shared = (torch.zeros_like(x), torch.full_like(m, 0.5))
    terms = [halves.generator_loss(share(batch, i, 2), (x[:3] * 0, m[:3] * 0 + 0.5)) for i in range(2)]
    whole = TestPuzzleGAN().tiny().generator_loss(batch, shared)
    for name in ("mask", "appearance"):
        assert sum(t[name].item() for t in terms) / 2 == pytest.approx(whole[name].item(), rel=1e-5)


def test_generator_steps_with_every_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    case = TestPuzzleGAN()
    model = case.tiny()
    names = ("encoder", "mask_generator", "generator")
    before = {name: next(getattr(model, name).parameters()).clone() for name in names}
    trainer(max_steps=1).fit(model, datamodule=Data([case.batch(4)] * 4))
    assert all(torch.equal(next(getattr(model, name).parameters()), value) for name, value in before.items())
    trainer(max_steps=2).fit(model, datamodule=Data([case.batch(4)] * 4))
    assert not any(torch.equal(next(getattr(model, name).parameters()), value) for name, value in before.items())


# In use --------------------------------------------------------------------------------------------------------------


def test_assembled_images_and_masks(model: PuzzleGAN, batch: Batch) -> None:
    patches = batch["patches"]
    image, mask = model.assemble(patches, seed=0)
    assert image.shape == (6, 3, 16, 16)
    assert mask.shape == (6, 1, 16, 16)
    assert -1 <= image.min() <= image.max() <= 1
    assert 0 < mask.min() <= mask.max() < 1
    again, same = model.assemble(patches[2:], seed=0, first=2)
    assert_near(again, image[2:])
    assert_near(same, mask[2:])
    other, same = model.assemble(patches, seed=1)
    assert not torch.allclose(other, image, atol=1e-4), "the noise has a say in the image"
    assert torch.equal(same, mask), "and none in the mask"
    assert not torch.equal(model.assemble(patches)[0], model.assemble(patches)[0])
    real, fake = model.real_and_fake(batch, seed=0, first=0)
    assert torch.equal(real, batch["image"])
    assert torch.equal(fake, image)


def test_training_learns_where_patches_lie() -> None:
    """Dark patches lie on the left, light ones on the right."""
    torch.manual_seed(0)
    model = PuzzleGAN(16, base_channels=8, n_critic=1, learning_rate=2e-3, weight_epochs=1000)
    batch = TestPuzzleGAN().batch(4)
    for i in range(4):
        batch["mask"][i] = torch.arange(16) // 8 == i % 2
        batch["patches"][i] = batch["patches"][i] / 10 + i % 2 - 0.5
    trainer(max_steps=80, max_epochs=-1).fit(model, datamodule=Data([batch] * 20))
    with torch.no_grad():
        _, mask = model.train()(batch["patches"], model.noise(4, 0))
    assert ((mask > 0.5) == batch["mask"].bool()).float().mean() > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, "image_size 48 is not supported: take 28, or a power of two from 8"),
        ({"image_size": 4}, "image_size 4 is not supported"),
        ({"l1_weight": (1.0, 0.0)}, "l1_weight must be above 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PuzzleGAN(**options)


def test_what_is_missing_is_named(model: PuzzleGAN, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"patches must be \(N, P, 3, 16, 16\), resized .*; got \(6, 3, 16, 16\)"):
        model.assemble(batch["image"])
    del batch["other"]
    with pytest.raises(ValueError, match="batches must hold 'other'; there are image, patches, mask: take zoo"):
        model.discriminator_loss(batch, model.forward_shared(batch))
    with pytest.raises(NotImplementedError, match="PuzzleGAN cannot sample"):
        model.sample(1)


def test_arguments_of_earlier_versions() -> None:
    weight = [0.02, 0.001]
    old = {"mask_weight": weight, "appearance_weight": weight, "l1_reduction": "sum", "betas": [0.5, 0.999]}
    path, arguments = current_arguments("zoo.PuzzleGAN", old | {"n_critic": 1})
    assert arguments == {"l1_weight": weight, "n_critic": 1}
    assert current_arguments(path, arguments) == (path, arguments)
    with pytest.raises(ValueError, match="mask_weight and appearance_weight must be equal now"):
        current_arguments("zoo.PuzzleGAN", {"mask_weight": weight})
    with pytest.raises(ValueError, match="no longer has l1_reduction='mean'"):
        current_arguments("zoo.PuzzleGAN", {"l1_reduction": "mean"})
