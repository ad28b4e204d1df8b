from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from torch.nn import functional as F

from tests.contract import Data, ModelContract, state_of, trainer
from tests.numerics import assert_near
from zoo import recipes
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.progressive_gan_growth import Growth, GrowthSchedule
from zoo.nn.progressive_gan_layers import (
    DownsampleConv2d,
    EqualizedConv2d,
    EqualizedLinear,
    UpsampleConv2d,
    doubled,
    pixel_norm,
    stddev_map,
)
from zoo.pretrained.migrations import current_arguments
from zoo.progressive_gan import ProgressiveGAN

GROWTH: dict[str, Any] = {
    "training_images": 8,
    "transition_images": 16,
    "steps_per_schedule_check": 1,
    "global_batch_size": 4,
}
"""4 pixels for 2 steps of 4 images, 4 steps of a fade, 8 pixels."""


class TestProgressiveGAN(ModelContract):
    """Through all its stages: of 8 batches of 4 the first ones are at 4 pixels, the last one is behind the fade."""

    global_batch = 12  # in groups of 2 on 2 and 3 ranks
    sampling_waits = 2  # for the stage and its share, which those who have the weights only read from them
    growth: dict[str, Any] = {}  # noqa: RUF012
    options: dict[str, Any] = {"minibatch_stddev_group": 2}  # noqa: RUF012

    def tiny(self) -> ProgressiveGAN:
        small = {"fmap_base": 16, "max_channels": 4, "ema_decay": 0.5}
        return ProgressiveGAN(8, 3, 5, growth=GROWTH | self.growth, **small | self.options)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        return {"image": images}

    def oracle(self, world: int) -> ProgressiveGAN:
        """All of a device's batch, where that is a group."""
        options = dict(self.options)
        if options["minibatch_stddev_group"] == 0 and world > 1:
            options["minibatch_stddev_group"] = 12 // world
        return self.other(options, {"global_batch_size": 12})

    def other(self, options: dict[str, Any], growth: dict[str, Any]) -> ProgressiveGAN:
        """The same form with other settings."""
        case = type("Case", (type(self),), {"options": self.options | options, "growth": self.growth | growth})
        model: ProgressiveGAN = case().tiny()
        return model

    @pytest.mark.slow
    def test_overfits_one_batch(self, model: ProgressiveGAN) -> None:
        """At one stage: losses at two stages cannot be compared."""
        super().test_overfits_one_batch(self.other({}, {"first_resolution": 8}))


class TestProgressiveGANFading(TestProgressiveGAN):
    """In mid-fade from the first batch on, with the options of the setting for CIFAR-10."""

    growth = {"training_images": 0, "transition_images": 64}  # noqa: RUF012
    options = {"minibatch_stddev_group": 0, "simultaneous": True, "gradient_target": 750.0}  # noqa: RUF012


def tiny(size: int = 16, growth: dict[str, Any] | None = None, **options: Any) -> ProgressiveGAN:
    torch.manual_seed(0)
    small = {"fmap_base": 32, "max_channels": 8, "minibatch_stddev_group": 2}
    model = ProgressiveGAN(size, 3, 5, growth=GROWTH | (growth or {}), **small | options)
    for p in model.parameters():  # biases too, so that nothing hides behind a 0
        torch.nn.init.normal_(p)
    model.averaged("generator").load_state_dict(model.generator.state_dict())
    return model


def of_recipe(name: str) -> ProgressiveGAN:
    return ProgressiveGAN(**yaml.safe_load(recipes.find(name).read_text())["model"]["init_args"])


# Layers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "generator", "discriminator"),
    [
        (lambda: ProgressiveGAN(1024), 23_079_115, 23_087_249),
        (lambda: ProgressiveGAN(256), 23_044_309, 23_052_353),
        (lambda: ProgressiveGAN(128, fmap_base=2048), 13_629_810, 13_636_897),
        (lambda: of_recipe("progressive_gan-cifar1032-paper"), 1_296_908, 1_298_689),
    ],
)
def test_parameter_counts_of_the_reference(model: Any, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        networks = model()
    assert sum(p.numel() for p in networks.generator.parameters()) == generator
    assert sum(p.numel() for p in networks.discriminator.parameters()) == discriminator


def test_channels_of_the_paper() -> None:
    with torch.device("meta"):
        model = ProgressiveGAN()
    widths = [block.conv1.weight.shape[0] for block in model.generator.blocks]
    assert widths == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [to_rgb.weight.shape[1] for to_rgb in model.generator.to_rgb] == widths
    assert [block.conv0.weight.shape[:2] for block in model.discriminator.blocks] == [(w, w) for w in widths[1:]]
    assert model.discriminator.conv.weight.shape == (512, 513, 3, 3)


def test_equalized_scale() -> None:
    torch.manual_seed(0)
    model = ProgressiveGAN(16, fmap_base=512)
    for name, module in model.named_modules():
        if isinstance(module, EqualizedLinear | EqualizedConv2d):
            weight = module.weight
            gain = 1.0 if ("rgb" in name and "generator" in name) or name.endswith("last") else math.sqrt(2)
            gain = math.sqrt(2) / 4 if name.endswith("start") else gain
            assert module.scale == pytest.approx(gain / math.sqrt(weight[0].numel())), name
            assert weight.std().item() == pytest.approx(1, abs=4 / math.sqrt(weight.numel())), name
            assert not module.bias.any()
            if isinstance(module, EqualizedConv2d) and type(module) is EqualizedConv2d:
                for side in (4, 64):  # the constant is on the images, or on the weights
                    x = torch.randn(1, weight.shape[1], side, side)
                    y = F.conv2d(x, weight * module.scale, module.bias, padding=weight.shape[-1] // 2)
                    assert_near(module(x), y)
    # Every layer keeps the variance of its input, up to the activation's.
    x = torch.randn(64, 256)
    assert EqualizedLinear(256, 1000)(x).var().item() == pytest.approx(2, rel=0.1)


def test_strided_convolutions_are_those_of_single_steps() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    up, down = UpsampleConv2d(3, 5).double(), DownsampleConv2d(3, 5).double()
    for conv in (up, down):
        torch.nn.init.normal_(conv.bias)
    expected = F.conv2d(doubled(x), up.weight * up.scale, up.bias, padding=1)
    assert torch.allclose(up(x), expected, rtol=0, atol=1e-12)
    expected = F.avg_pool2d(F.conv2d(x, down.weight * down.scale, down.bias, padding=1), 2)
    assert torch.allclose(down(x), expected, rtol=0, atol=1e-12)


def test_pixel_norm_gives_unit_mean_square() -> None:
    x = pixel_norm(torch.randn(2, 7, 3, 3) * 100)
    assert torch.allclose(x.square().mean(1), torch.ones(2, 3, 3), atol=1e-5)
    assert not pixel_norm(torch.zeros(1, 7, 2, 2)).any()


def test_minibatch_stddev_is_that_of_groups() -> None:
    x = torch.randn(6, 5, 4, 4, dtype=torch.float64)
    found = stddev_map(x, 3)
    for group in range(2):
        part = x[3 * group : 3 * group + 3]
        expected = (part.var(0, correction=0) + 1e-8).sqrt().mean()
        assert torch.allclose(found[3 * group : 3 * group + 3], expected.expand(3, 1, 4, 4))


def test_a_batch_that_has_no_whole_groups_is_refused() -> None:
    model = tiny(minibatch_stddev_group=4)
    model.discriminate(torch.zeros(3, 3, 4, 4), 3)  # fewer than a group are one
    with pytest.raises(ValueError, match="a batch of 6 per device cannot be cut into groups of 4"):
        model.discriminate(torch.zeros(6, 3, 4, 4), 6)


@pytest.mark.parametrize(
    ("world", "group", "message"),
    [
        (1, 4, None),
        (1, 8, None),
        (2, 2, None),
        (2, 0, None),
        (2, 4, "groups of 4"),
        (2, 8, "groups of 8"),
        (3, 0, "any"),
    ],
)
def test_groups_are_those_of_one_process(
    world: int, group: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 images in all; more than the batch are all of it."""
    model = tiny(minibatch_stddev_group=group)
    model.trainer = fit = trainer()
    monkeypatch.setattr(type(fit), "world_size", property(lambda _: world))
    if message is None:
        model.setup("fit")
        return
    with pytest.raises(ValueError, match=rf"4 images per step at 4 pixels cannot be shared among {world} .* {message}"):
        model.setup("fit")


def test_real_and_fake_images_share_no_group() -> None:
    model = tiny(minibatch_stddev_group=4).double()
    real, fake = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64).unbind(0)
    both = model.discriminate(torch.cat([real, fake]), 2)
    assert_near(both, torch.cat([model.discriminate(real, 2), model.discriminate(fake, 2)]))


# Growing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16])
def test_alpha_0_is_the_stage_before_and_alpha_1_has_no_trace_of_it(size: int) -> None:
    model = tiny()
    before = model.sample(3, seed=0, resolution=size // 2)
    assert torch.equal(model.sample(3, seed=0, resolution=size, alpha=0.0), doubled(before))
    grown = model.sample(3, seed=0, resolution=size)
    assert torch.equal(model.sample(3, seed=0, resolution=size, alpha=1.0), grown)
    half = model.sample(3, seed=0, resolution=size, alpha=0.5)
    assert not torch.equal(half, grown)
    # Other weights of the layer to RGB before change nothing any more.
    with torch.no_grad():
        model.generator_ema.to_rgb[(size // 4).bit_length() - 2].weight.add_(1)
    assert torch.equal(model.sample(3, seed=0, resolution=size), grown)
    assert not torch.equal(model.sample(3, seed=0, resolution=size, alpha=0.5), half)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_discriminator_fades_alike(stage: int) -> None:
    model = tiny()
    x = torch.randn(4, 3, 4 << stage, 4 << stage)
    before = model.discriminator(F.avg_pool2d(x, 2), stage - 1, 1.0, 2)
    assert torch.equal(model.discriminator(x, stage, 0.0, 2), before)
    grown = model.discriminator(x, stage, 1.0, 2)
    with torch.no_grad():
        model.discriminator.from_rgb[stage - 1].weight.add_(1)
    assert torch.equal(model.discriminator(x, stage, 1.0, 2), grown)


def test_real_images_are_faded_too() -> None:
    model = tiny(8, {"training_images": 0, "transition_images": 32})
    model.grow(8)
    assert (model.stage, model.alpha) == (1, 0.25)
    x = torch.randn(2, 3, 8, 8)
    expected = 0.25 * x + 0.75 * doubled(F.avg_pool2d(x, 2))
    assert torch.allclose(model.real(x), expected, atol=1e-6)
    assert torch.allclose(model.real(x.repeat_interleave(2, 2).repeat_interleave(2, 3)), expected, atol=1e-6)
    model.grow(1000)
    assert torch.equal(model.real(x), x)


def test_samples_before_the_last_stage_are_enlarged() -> None:
    model = tiny()
    assert model.progress == {"resolution": 4, "alpha": 1.0, "images_seen": 0}
    x = model.sample(2, seed=0)
    assert x.shape == (2, 3, 16, 16)
    assert torch.equal(x, doubled(doubled(model.sample(2, seed=0, resolution=4))))
    model.grow(12)
    assert torch.equal(model.sample(2, seed=0), doubled(model.sample(2, seed=0, resolution=8, alpha=model.alpha)))
    with pytest.raises(ValueError, match="resolution 32 is none of this model's: take one of 4, 8, 16"):
        model.sample(1, resolution=32)
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]"):
        model.sample(1, resolution=8, alpha=1.5)
    with pytest.raises(ValueError, match="ProgressiveGAN has no classes"):
        model.generate(model.latent(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="ProgressiveGAN has no condition 'size': it has 'resolution', 'alpha'"):
        model.sample(1, size=8)


@pytest.mark.parametrize("images", [0, 12, 24, 36, 48])
def test_layers_of_other_stages_take_no_part(images: int) -> None:
    model = tiny()
    model.grow(images)
    side = 4 << model.stage
    batch = {"image": 2 * torch.rand(4, 3, side, side) - 1}
    sum(model.discriminator_loss(batch, model.forward_shared(batch)).values()).backward()
    sum(model.generator_loss(batch, model.forward_shared(batch)).values()).backward()
    for network in (model.generator, model.discriminator):
        reached = {name for name, p in network.named_parameters() if p.grad is not None}
        assert reached == {name for name, p in network.named_parameters() if p.requires_grad}
        rgb = {name.split(".")[1] for name in reached if "rgb" in name}
        assert rgb == {str(s) for s in ([model.stage - 1, model.stage] if model.alpha < 1 else [model.stage])}


def test_moments_are_forgotten_at_both_ends_of_a_fade() -> None:
    model = tiny(8)  # 4 pixels until image 8, the fade until image 24
    steps = []
    batches = [{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(10)]
    inner = model.training_step

    def training_step(batch: Batch, batch_idx: int) -> None:
        inner(batch, batch_idx)
        optimizer: Any = model.optimizers(use_pl_optimizer=False)[0]
        steps.append({int(state["step"]) for state in optimizer.state.values()})

    model.training_step = training_step  # type: ignore[method-assign]
    trainer().fit(model, datamodule=Data(batches))
    # The fade begins with the first step behind image 8.
    assert steps == [{1}, {2}, {3}, {1}, {2}, {3}, {1}, {2}, {3}, {4}]
    assert int(model.images_seen) == 40


def test_learning_rate_follows_the_resolution() -> None:
    model = tiny(8, {"learning_rates": {8: 0.2}}, learning_rate=0.1)
    assert [model.learning_rate(n) for n in (0, 8, 12, 100)] == [0.1, 0.1, 0.2, 0.2]


def test_the_objective_is_the_papers() -> None:
    model = tiny(8, gradient_target=3.0).double()
    model.grow(20)
    batch = {"image": 2 * torch.rand(4, 3, 8, 8).double() - 1}
    fake = model.forward_shared(batch)
    terms = model.discriminator_loss(batch, fake)
    real = model.real(batch["image"])
    on_real, on_fake = model.discriminate(real, 4), model.discriminate(fake, 4)
    mix = rng.uniform((4,), model.draw_key("mix"), dtype=torch.float64).view(-1, 1, 1, 1)
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.discriminate(between, 4).sum(), between)
    penalty = (gradient.square().sum((1, 2, 3)).sqrt() - 3).square()
    expected = (on_fake - on_real + 10 / 9 * penalty + 0.001 * on_real.square()).mean()
    assert float(sum(terms.values()).detach()) == pytest.approx(expected.item(), rel=1e-9)
    loss = model.generator_loss(batch, fake)["adversarial"]
    assert float(loss.detach()) == pytest.approx(-on_fake.mean().item(), rel=1e-9)


def test_a_lazy_penalty_has_as_many_times_its_weight() -> None:
    models = [tiny(8, penalty_every=every) for every in (1, 3)]
    batch = {"image": 2 * torch.rand(4, 3, 8, 8) - 1}
    found = []
    for step in range(4):
        terms = []
        for model in models:
            model.grow(20)
            model.batch_index = step
            terms.append(model.discriminator_loss(batch, model.forward_shared(batch)))
        eager, lazy = terms
        found.append("gradient_penalty" in lazy)
        if found[-1]:
            assert lazy["gradient_penalty"].item() == pytest.approx(3 * eager["gradient_penalty"].item(), rel=1e-6)
        assert torch.equal(lazy["real"], eager["real"])
    assert found == [False, False, True, False]


def test_a_lazy_penalty_is_logged(tmp_path: Path) -> None:
    model = tiny(8, penalty_every=2)
    logger = CSVLogger(tmp_path)
    batches = [{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(4)]
    trainer(logger=logger, log_every_n_steps=2).fit(model, datamodule=Data(batches))
    columns = Path(logger.log_dir, "metrics.csv").read_text().splitlines()[0].split(",")
    assert "discriminator/gradient_penalty" in columns


def test_memory_layout_changes_nothing() -> None:
    batch = {"image": 2 * torch.rand(4, 3, 8, 8).double() - 1}
    # Weights are drawn in the order of memory: those of one are copied.
    weights = state_of(tiny(8, fused_downscale=True))
    terms = []
    for channels_last in (False, True):
        model = tiny(8, channels_last=channels_last, fused_downscale=True)
        model.load_state_dict(weights)
        model.double().grow(20)
        assert model.generator.blocks[1].conv1.weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        terms.append(model.discriminator_loss(batch, model.forward_shared(batch)))
    first, second = ({name: value.item() for name, value in t.items()} for t in terms)
    assert first == pytest.approx(second, rel=1e-9)


# The schedule ---------------------------------------------------------------------------------------------------------


def reference(model: ProgressiveGAN, total: int, repeats: int) -> Iterator[tuple[int, int, float, int, float]]:
    """The loop of the official code: (images, resolution, lod, minibatch, learning rate) of each of its updates.

    It looks at the schedule once in `repeats` minibatches.
    """
    h, growth, images = model.hparams, model.growth, 0
    top = int(math.log2(h["image_size"]))
    duration = growth.training_images + growth.transition_images
    while images < total:
        phase = images // duration
        rest = images - phase * duration
        lod = top - 2 - phase
        if growth.transition_images:
            lod -= max(rest - growth.training_images, 0) / growth.transition_images
        lod = max(lod, 0.0)
        resolution = 2 ** (top - math.floor(lod))
        minibatch = growth.global_batch_sizes.get(resolution, growth.global_batch_size)
        yield images, resolution, lod, minibatch, growth.learning_rates.get(resolution, h["learning_rate"])
        images += repeats * minibatch


@pytest.mark.parametrize(
    ("make", "total", "repeats"),
    [
        (lambda: of_recipe("progressive_gan-celebahq1024-official-paper"), 12_000_000, 4),
        (ProgressiveGAN.paper, 15_000_000, 4),
        (lambda: ProgressiveGAN.paper(128, growth={"transition_images": 0}), 8_000_000, 4),
        (lambda: of_recipe("progressive_gan-cifar1032-paper"), 3_000_000, 1),
    ],
)
def test_the_whole_schedule_is_the_references(make: Any, total: int, repeats: int) -> None:
    with torch.device("meta"):
        model = make()
    updates = list(reference(model, total, repeats))
    # All around the ends of phases, and else one of 31.
    phases = [(resolution, lod % 1 == 0) for _, resolution, lod, _, _ in updates]
    ends = [i for i, (a, b) in enumerate(pairwise(phases)) if a != b]
    chosen = {*range(0, len(updates), 31), *(j for i in ends for j in range(i - 5, i + 6))}
    for images, resolution, lod, minibatch, rate in [updates[i] for i in sorted(chosen) if 0 <= i < len(updates)]:
        last = images + repeats * minibatch - 1  # still the same update
        for n in (images, images + (repeats - 1) * minibatch, last):
            found = model.schedule(n)
            assert found[0] == resolution
            assert abs(found[1] - (1 - (lod - math.floor(lod)))) < 1e-9
            assert found[2] == minibatch
            assert model.learning_rate(n) == rate
    seen = {resolution for resolution, _ in phases}
    assert seen == {4 << s for s in range(len(seen))}
    assert max(seen) == model.hparams["image_size"]


def test_the_smoke_recipe_reaches_its_last_stage() -> None:
    settings = yaml.safe_load(recipes.find("progressive_gan-emoji32-smoke").read_text())
    model = of_recipe("progressive_gan-emoji32-smoke")
    images, places = 0, []
    for _ in range(settings["trainer"]["max_steps"]):
        resolution, alpha, batch = model.schedule(images)
        places.append((resolution, alpha))
        images += batch
    assert {resolution for resolution, _ in places} == {4, 8, 16, 32}
    assert any(0 < alpha < 1 for _, alpha in places)
    assert places[-2:] == [(32, 1.0)] * 2


def test_the_papers_setting_is_that_of_its_recipe() -> None:
    with torch.device("meta"):
        preset, recipe = ProgressiveGAN.paper(), of_recipe("progressive_gan-celebahq1024-paper")
    assert preset.hparams == recipe.hparams


def test_stages_shorter_than_an_update_are_passed_over() -> None:
    growth = Growth(5, 5, global_batch_size=64, steps_per_schedule_check=2)
    assert [GrowthSchedule(growth, 32)(n)[0] for n in (0, 127, 128)] == [4, 4, 32]
    assert GrowthSchedule(Growth(1, 0, first_resolution=8, global_batch_size=4), 8)(10**9) == (8, 1.0, 4)


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        ({"training_images": 0, "transition_images": 0}, "must not be negative, and not both 0"),
        ({"first_resolution": 32}, "the first resolution 32 is larger than the last, 16"),
        ({"global_batch_sizes": {12: 4}}, "growth.global_batch_sizes: resolutions are powers of two from 4, not 12"),
        ({"global_batch_size": 0}, "must be at least 1"),
        ({"repeats": 2}, "growth has no field 'repeats': take training_images, "),
    ],
)
def test_schedules_that_cannot_be_are_refused(growth: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(growth=growth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 12}, "powers of two from 4, not 12"),
        ({"minibatch_stddev_group": -1}, "minibatch_stddev_group must be at least 0"),
        ({"penalty_every": 0}, "penalty_every must be at least 1"),
        ({"accumulate": 2}, "ProgressiveGAN does not take accumulate: the schedule counts the images of one batch"),
        ({"compile": True}, "ProgressiveGAN does not take compile: "),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("growth", [None, Growth(5, 6, global_batch_sizes={8: 2}), {"training_images": 5}])
def test_growth_is_kept_as_plain_types(growth: Any) -> None:
    with torch.device("meta"):
        model = ProgressiveGAN(16, growth=growth)
        again = ProgressiveGAN(**json.loads(json.dumps(dict(model.hparams))))
    assert again.growth == model.growth == (growth if isinstance(growth, Growth) else Growth(**(growth or {})))


def test_without_an_average_the_generator_makes_the_samples() -> None:
    model = tiny(8, ema_decay=None)
    assert model.inference_networks == ("generator",)
    model.grow(1000)
    assert model.progress["resolution"] == 8
    assert torch.equal(model.sample(2, seed=0), model.generator(model.latent(2, seed=0)).clamp(-1, 1))


def test_images_smaller_than_the_stage_are_refused() -> None:
    model = tiny(16, {"first_resolution": 16})
    with pytest.raises(ValueError, match=r"the data's images are 3x8x8, the model's stage takes 3x16x16"):
        trainer().fit(model, datamodule=Data([{"image": torch.zeros(4, 3, 8, 8)}]))


def test_a_new_fit_starts_at_the_first_image() -> None:
    model = tiny(8)
    batches = [{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(5)]
    for _ in range(2):
        trainer().fit(model, datamodule=Data(batches))
        assert (int(model.images_seen), model.stage) == (20, 1)
    assert all(torch.isfinite(value).all() for value in state_of(model).values())


def test_arguments_of_earlier_versions() -> None:
    old = {
        "image_size": 16,
        "num_classes": 0,
        "channel_base": 32,
        "training_images": 8,
        "transition_images": 0,
        "first_resolution": 4,
        "global_batch_size": 4,
        "global_batch_sizes": {"4": 8},
        "repeats": 1,
        "learning_rates": None,
        "betas": [0.0, 0.99],
        "loss": "wasserstein",
        "gradient_penalty_weight": None,
        "drift": 0.001,
        "stddev_group": 2,
        "n_critic": 1,
        "unit_bias": False,
    }
    path, arguments = current_arguments("zoo.ProgressiveGAN", old)
    assert current_arguments(path, arguments) == (path, arguments)
    assert arguments == {
        "image_size": 16,
        "fmap_base": 32,
        "minibatch_stddev_group": 2,
        "growth": {
            "training_images": 8,
            "transition_images": 0,
            "first_resolution": 4,
            "global_batch_size": 4,
            "global_batch_sizes": {"4": 8},
            "learning_rates": {},
            "steps_per_schedule_check": 1,
        },
    }
    assert ProgressiveGAN(**arguments).schedule(8) == (8, 1.0, 4)
    ours = "zoo.convert.progressive.UnitBiasProgressiveGAN"
    assert current_arguments("zoo.ProgressiveGAN", {"unit_bias": True, "channel_base": 8}) == (ours, {"fmap_base": 8})
    for gone in ({"loss": "least_squares"}, {"num_classes": 3}, {"gradient_penalty_weight": 5.0}, {"n_critic": 2}):
        with pytest.raises(ValueError, match=f"no longer has {next(iter(gone))}="):
            current_arguments("zoo.ProgressiveGAN", gone)
