from __future__ import annotations

import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from tests.contract import Data, ModelContract, fit_on_ranks, state_of, trainer
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.base import Batch, GenerativeModel
from zoo.cyclegan import CycleGAN
from zoo.engine import rng
from zoo.engine.loop import ExactTraining
from zoo.nn.cyclegan import ImagePool, PatchDiscriminator, ResnetGenerator
from zoo.pretrained.migrations import current_arguments

TINY: dict[str, Any] = {"image_size": 8, "base_channels": 2, "num_blocks": 1, "discriminator_layers": 1}


def images(n: int, purpose: str, seed: int = 0, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    key = rng.key(seed, purpose)
    return rng.uniform((n, 3, size, size), key, low=-1, high=1, dtype=torch.float64).to(dtype)


class TestCycleGAN(ModelContract):
    samples = False
    # Small pools, so that a few steps fill them and exchange images.
    options: dict[str, Any] = {"pool_size": 2}  # noqa: RUF012

    def tiny(self, **options: Any) -> CycleGAN:
        return CycleGAN(**TINY | self.options | options)

    def oracle(self, world: int) -> CycleGAN:
        return self.tiny(pools_per_process=world)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return {f"image_{domain}": images(n, domain, seed, dtype=dtype) for domain in ("a", "b")}

    def pictures(self, model: GenerativeModel) -> Tensor:
        assert isinstance(model, CycleGAN)
        return model.reconstruct(self.batch(2)["image_a"])


# Ranks and pools ------------------------------------------------------------------------------------------------------


def test_the_oracle_of_several_ranks_needs_as_many_pools() -> None:
    one, three = (fit_on_ranks(TestCycleGAN, 1, 3, world) for world in (1, 3))
    assert any(not torch.equal(one[name], three[name]) for name in one if name.startswith("discriminator"))


def test_pool_gives_back_until_it_is_full_and_then_exchanges_half() -> None:
    pool = ImagePool(50)
    new = torch.arange(4050.0).view(-1, 1, 1, 1)
    draws = rng.uniform((4050, 2), rng.key(0, "pool"))
    first = pool.exchange(new[:50], draws[:50])
    assert torch.equal(first, new[:50])
    given = torch.cat([pool.exchange(part, d) for part, d in zip(new[50:].split(7), draws[50:].split(7), strict=True)])
    earlier = given != new[50:]
    assert earlier.float().mean().item() == pytest.approx(0.5, abs=0.025)
    assert (given <= new[50:]).all()
    assert given[earlier].unique().numel() == earlier.sum(), "an image that was given back is no longer in the pool"
    held = torch.stack(pool.images).flatten().tolist()
    returned = set(torch.cat([first, given]).flatten().tolist())
    assert set(held) | returned == set(range(4050)), "every image is in the pool or was shown"
    # The exchanged places are uniform: an image stays 2 x 50 draws on average.
    ages = (new[50:] - given)[earlier]
    assert ages.mean().item() == pytest.approx(100, rel=0.1)


def test_pool_keeps_copies_and_a_pool_of_none_gives_all_back() -> None:
    pool = ImagePool(1)
    x = torch.zeros(1, 3, 2, 2)
    pool.exchange(x, torch.zeros(1, 2))
    x.fill_(5)
    assert torch.equal(pool.exchange(x, torch.zeros(1, 2)), torch.zeros(1, 3, 2, 2))
    assert torch.equal(pool.images[0], torch.full((3, 2, 2), 5.0))
    assert torch.equal(ImagePool(0).exchange(x, torch.zeros(1, 2)), x)


def test_only_the_discriminator_sees_pooled_fakes() -> None:
    torch.manual_seed(0)
    model = CycleGAN(**TINY, pool_size=1)
    seen: list[Tensor] = []
    model.discriminator_b.register_forward_pre_hook(lambda module, x: seen.append(x[0].detach()))
    case = TestCycleGAN()
    for step in range(12):
        model.batch_index = step
        batch = case.batch(1, seed=step)
        shared = model.forward_shared(batch)
        model.generator_loss(batch, shared)
        model.discriminator_loss(batch, shared)
        assert torch.equal(seen[-2], shared["fake_b"])
        assert torch.equal(seen[-1][:1], batch["image_b"])
    fakes, shown = torch.cat(seen[::2]), torch.cat([x[1:] for x in seen[1::2]])
    new = (fakes == shown).flatten(1).all(1)
    assert 2 < new.sum() < 11
    assert all(any(torch.equal(x, fake) for fake in fakes) for x in shown)


def test_pools_of_a_rank_go_through_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = CycleGAN(**TINY, pool_size=3)
    case = TestCycleGAN()
    trainer().fit(model, datamodule=Data([case.batch(2, seed=i) for i in range(4)]))
    other = CycleGAN(**TINY, pool_size=3)
    other.load_rank_state_dict(copy.deepcopy(model.rank_state_dict()))
    for domain in ("a", "b"):
        held, taken = model.pools[domain][0].images, other.pools[domain][0].images
        assert len(held) == 3
        assert all(torch.equal(x, y) for x, y in zip(held, taken, strict=True))
        assert not torch.equal(held[0], model.pools["ab".replace(domain, "")][0].images[0])
    assert CycleGAN(**TINY).rank_state_dict() == {"pools": {"a": [None], "b": [None]}}


def test_a_batch_that_pools_cannot_share() -> None:
    model = CycleGAN(**TINY, pools_per_process=2)
    batch = TestCycleGAN().batch(3)
    with pytest.raises(ValueError, match="a batch of 3 cannot be shared among pools_per_process=2"):
        model.discriminator_loss(batch, model.forward_shared(batch))


# The paper's and the reference's claims -------------------------------------------------------------------------------


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_identity_generators_have_no_cycle_and_no_identity_loss() -> None:
    model = CycleGAN(**TINY)
    model.generator_ab = model.generator_ba = Identity()
    batch = TestCycleGAN().batch(4)
    terms = model.generator_loss(batch, model.forward_shared(batch))
    assert [terms[f"{kind}_{domain}"].item() for kind in ("cycle", "identity") for domain in ("a", "b")] == [0] * 4
    logits = model.discriminator_b(batch["image_a"])
    assert terms["adversarial_ab"].item() == pytest.approx((logits - 1).square().mean().item())
    assert torch.equal(model.reconstruct(batch["image_a"]), batch["image_a"])


def test_terms_are_the_reference_s() -> None:
    torch.manual_seed(0)
    model = CycleGAN(**TINY, pool_size=0)
    batch = TestCycleGAN().batch(3)
    a, b = batch["image_a"], batch["image_b"]
    shared = model.forward_shared(batch)
    generator, discriminator = (loss(batch, shared) for loss in model.objectives().values())
    ab, ba, mse, l1 = model.generator_ab, model.generator_ba, nn.functional.mse_loss, nn.functional.l1_loss

    def towards(logits: Tensor, value: float) -> Tensor:
        return mse(logits, torch.full_like(logits, value))

    d_a, d_b = model.discriminator_a, model.discriminator_b
    expected = {
        "adversarial_ab": towards(d_b(ab(a)), 1),
        "adversarial_ba": towards(d_a(ba(b)), 1),
        "cycle_a": 10 * l1(ba(ab(a)), a),
        "cycle_b": 10 * l1(ab(ba(b)), b),
        "identity_a": 5 * l1(ba(a), a),
        "identity_b": 5 * l1(ab(b), b),
    }
    assert {k: v.item() for k, v in generator.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    expected = {
        "real_a": 0.5 * towards(d_a(a), 1),
        "fake_a": 0.5 * towards(d_a(ba(b)), 0),
        "real_b": 0.5 * towards(d_b(b), 1),
        "fake_b": 0.5 * towards(d_b(ab(a)), 0),
    }
    assert {k: v.item() for k, v in discriminator.items()} == pytest.approx({k: v.item() for k, v in expected.items()})


def test_parameter_counts_of_the_reference() -> None:
    """Without the biases in front of instance normalisations, which cancel."""

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    outside = 64 + 128 + 256 + 128 + 64
    assert count(ResnetGenerator(3, 64, 6)) == 7_837_699 - outside - 6 * 512
    assert count(ResnetGenerator(3, 64, 9)) == 11_378_179 - outside - 9 * 512
    assert count(PatchDiscriminator(3, 64, 3)) == 2_764_737 - (128 + 256 + 512)


@pytest.mark.parametrize(("layers", "side", "field"), [(1, 14, 16), (2, 14, 34), (3, 30, 70)])
def test_a_patch_discriminator_sees_patches(layers: int, side: int, field: int) -> None:
    """Measured through the gradient, without the normalisation, which sees the whole image."""
    network = PatchDiscriminator(3, 2, layers)
    size = (side + 2) * 2**layers
    x = torch.randn(1, 3, size, size, requires_grad=True)
    y = network.start(x)
    for layer in network.layers:
        y = layer(y)
    y = network.end(y)
    assert y.shape == (1, 1, side, side)
    y[0, 0, side // 2, side // 2].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    # Patches of the inner outputs may reach over the border of small images.
    assert int(rows[-1] - rows[0]) + 1 == min(field, size)


@pytest.mark.parametrize("attention", [False, True])
def test_generators_treat_each_image_alone(attention: bool) -> None:
    network = ResnetGenerator(3, 2, 2, attention).double()
    x = images(3, "x", size=16).double()
    assert_near(network(x[1:2]), network(x)[1:2])


def test_attention_leaves_alone_what_its_mask_hides() -> None:
    network = ResnetGenerator(3, 2, 2, attention=True)
    x = images(3, "x", size=16)
    with torch.no_grad():
        network.end.weight.zero_()
        network.end.bias.copy_(torch.tensor([9.0, 9.0, -9.0, -30.0]))  # white and black, hidden
        assert_near(network(x), x)
        network.end.bias[3] = 0
        expected = (x + torch.tensor([1.0, 1.0, -1.0])[:, None, None]) / 2
        assert_near(network(x), expected)


def test_learning_rate_is_the_references() -> None:
    """Of epoch e, counted from 1: 1 - max(0, e + 1 - 100) / 101, which is 0 in the last of 200 epochs."""
    model = CycleGAN(**TINY)
    rates = []
    for epoch in range(1, 201):
        model._trainer = SimpleNamespace(current_epoch=epoch - 1)  # type: ignore[assignment]
        rates.append(model.optimizer_overrides("generator", 0)["lr"] / 2e-4)
    assert rates == pytest.approx([1 - max(0, epoch + 1 - 100) / 101 for epoch in range(1, 201)])
    assert (rates[98], rates[99] < 1, rates[-1]) == (1, True, 0)


def test_learning_rate_by_epochs() -> None:
    model = CycleGAN(**TINY, decay={"kind": "linear", "unit": "epochs", "constant": 0, "length": 2})
    seen = []
    model.on_phase_stepped = lambda phase: seen.append(  # type: ignore[method-assign]
        tuple(round(o.param_groups[0]["lr"] / 2e-4, 6) for o in model.optimizers())
    )
    case = TestCycleGAN()
    trainer(max_epochs=3).fit(model, datamodule=Data([case.batch(2, seed=i) for i in range(2)]))
    assert seen[::2] == [(1, 1)] * 2 + [(0.5, 0.5)] * 2 + [(0, 0)] * 2


def test_steps_at_the_end_of_the_schedule_change_nothing() -> None:
    ends = []
    for steps in (1, 3):
        torch.manual_seed(0)
        model = CycleGAN(**TINY, decay={"kind": "linear", "length": 1})
        batches = [TestCycleGAN().batch(2, seed=i) for i in range(steps)]
        trainer().fit(model, datamodule=Data(batches))
        ends.append(state_of(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_initialization() -> None:
    model = CycleGAN(32, base_channels=16, num_blocks=2, discriminator_layers=2)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        else:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), name


def test_averages_of_both_generators_translate() -> None:
    model = CycleGAN(**TINY, ema_decay=0.5)
    assert model.inference_networks == model.optional_networks == ("generator_ab_ema", "generator_ba_ema")
    x = images(2, "x")
    before = {target: model.translate(x, target) for target in "ab"}
    for network in (model.generator_ab, model.generator_ba):
        nn.init.ones_(network.end.bias)
    assert all(torch.equal(model.translate(x, target), before[target]) for target in "ab")
    model.available_networks = ("generator_ab_ema",)
    assert torch.equal(model.translate(x, "b"), before["b"])
    with pytest.raises(ValueError, match=r"no network translates to 'a': .*, no generator_ba_ema"):
        model.translate(x, "a")


EARLIER = {"attention": True, "generator": "resnet", "blocks": 6, "identity_weight": 0.0, "num_pools": 1}


def test_arguments_of_earlier_versions() -> None:
    old = EARLIER | {"loss": "least_squares", "betas": (0.5, 0.999), "schedule": "steps", "constant": 3, "decay": 4}
    path, arguments = current_arguments("zoo.CycleGAN", old)
    assert arguments == {
        "generator_kind": "attention_resnet",
        "num_blocks": 6,
        "identity_ratio": 0.0,
        "pools_per_process": 1,
        "decay": {"kind": "linear", "unit": "steps", "constant": 2, "length": 5},
    }
    model = CycleGAN(16, discriminator_layers=1, **arguments | {"base_channels": 2, "num_blocks": 1})
    rates = [model.optimizer_overrides("generator", step)["lr"] / 2e-4 for step in range(9)]
    assert rates == pytest.approx([1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0])
    assert current_arguments(path, arguments) == (path, arguments)
    assert current_arguments("zoo.CycleGAN", {"schedule": "steps", "decay": 0})[1] == {"decay": None}
    for gone in ({"generator": "unet"}, {"loss": "non_saturating"}, {"betas": [0.9, 0.999]}):
        with pytest.raises(ValueError, match="CycleGAN no longer has"):
            current_arguments("zoo.CycleGAN", gone)


# Use ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (20, 12), (64, 64)])
def test_translation_of_any_size(size: tuple[int, int]) -> None:
    model = CycleGAN(**TINY)
    x = torch.rand(2, 3, *size)
    assert model.translate(x, "b").shape == x.shape
    assert not torch.equal(model.translate(x, "b"), model.translate(x, "a"))


def test_sets_to_compare_and_columns_of_a_sheet() -> None:
    model = CycleGAN(**TINY)
    batch = TestCycleGAN().batch(3)
    real, fake = model.real_and_fake(batch, seed=0, first=0)
    assert torch.equal(real, batch["image_b"])
    assert torch.equal(fake, model.translate(batch["image_a"], "b"))
    columns = model.translations(batch)
    assert list(columns) == ["a", "to b", "a again", "b", "to a", "b again"]
    assert torch.equal(columns["to b"], fake)
    assert torch.equal(columns["a again"], model.reconstruct(batch["image_a"]))
    with pytest.raises(NotImplementedError, match="CycleGAN cannot sample"):
        model.sample(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_layers": 2}, "needs images of at least 12 pixels; with 8 take at most 1"),
        ({"image_size": 30}, "must be a multiple of 4 from 8, not 30"),
        ({"generator_kind": "u_net"}, "must be 'resnet', 'attention_resnet' or 'unet', not 'u_net'"),
        (
            {"generator_kind": "unet", "image_size": 12},
            "a U-Net needs an image_size that is a power of two from 8, not 12",
        ),
        ({"discriminator_layers": -1}, "discriminator_layers must be at least 0, not -1"),
        ({"decay": {"kind": "linear", "unit": "steps", "lenght": 3}}, "decay has no field 'lenght': take kind"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, not 0"),
        ({"pools_per_process": 0}, "pools_per_process must be at least 1, not 0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CycleGAN(**TINY | options)


def test_domains_are_known_by_name_too() -> None:
    model, x = CycleGAN(**TINY, domain_names=("horse", "zebra")), torch.rand(1, 3, 8, 8)
    assert torch.equal(model.translate(x, "zebra"), model.translate(x, "b"))
    assert torch.equal(model.translate(x, "horse"), model.translate(x, "a"))
    assert not torch.equal(model.translate(x, "horse"), model.translate(x, "zebra"))
    for names in (("horse",), ("horse", "horse"), ("b", "a")):
        with pytest.raises(ValueError, match="domain_names must be two different names"):
            CycleGAN(**TINY, domain_names=names)


def test_bad_translations() -> None:
    model = CycleGAN(**TINY, domain_names=("horse", "ass"))
    with pytest.raises(ValueError, match="there is no domain 'zebra': take one of a, b, horse, ass"):
        model.translate(torch.zeros(1, 3, 8, 8), "zebra")
    with pytest.raises(ValueError, match="images of 8x10 do not fit: sides must be multiples of 4"):
        model.translate(torch.zeros(1, 3, 8, 10), "b")


def test_data_with_other_domains_are_refused() -> None:
    def fit(own: tuple[str, str], given: list[str]) -> None:
        data = Data([TestCycleGAN().batch(2)])
        data.domain_names = given  # type: ignore[attr-defined]
        trainer().fit(CycleGAN(**TINY, domain_names=own), datamodule=data)

    for given in (["openmoji", "twemoji"], ["noto", "openmoji"]):
        with pytest.raises(ValueError, match=r"the data have the domains .*; the model has openmoji, noto"):
            fit(("openmoji", "noto"), given)
    fit(("openmoji", "noto"), ["openmoji", "noto"])
    fit(("a", "b"), ["openmoji", "twemoji"])
    for placeholders in (["A", "B"], ["trainA", "trainB"], []):
        fit(("horse", "zebra"), placeholders)


# A change of ranks ----------------------------------------------------------------------------------------------------


def resumed_on_ranks(folder: str, world: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a straight run, and of one that was saved after 4 of 8 steps and resumed."""
    case = TestCycleGAN()
    batches = [case.batch(4, seed=i) for i in range(8)]

    def fit(path: str | None = None, **options: Any) -> CycleGAN:
        torch.manual_seed(0)
        model = case.tiny()
        trainer(world, **options).fit(model, datamodule=Data(batches), ckpt_path=path)
        return model

    straight = fit()
    keep = ModelCheckpoint(dirpath=folder, save_last=True, every_n_train_steps=1)  # in mid-epoch, as runs do
    fit(max_steps=4, enable_checkpointing=True, callbacks=[keep])
    resumed = fit(f"{folder}/last.ckpt")
    first, second = (
        state_of(model) | {f"pool {d}": torch.stack(pool.images) for d, (pool,) in model.pools.items()}
        for model in (straight, resumed)
    )
    return first, second


@pytest.mark.slow
def test_the_pools_of_two_ranks_are_resumed(tmp_path: Path) -> None:
    ranks = on_ranks(2, resumed_on_ranks, str(tmp_path), 2)
    for straight, resumed in ranks:
        assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    (first, _), (second, _) = ranks
    assert not torch.equal(first["pool a"], second["pool a"]), "each rank has its own"


@pytest.mark.parametrize(
    ("saved", "world", "fate"), [(2, 1, "some are dropped"), (1, 2, "the new ranks take copies"), (2, 2, None)]
)
def test_what_a_change_of_ranks_does_to_pools_is_said(saved: int, world: int, fate: str | None) -> None:
    model = TestCycleGAN().tiny()
    model.pools["a"][0].exchange(images(1, "x"), torch.zeros(1, 2))
    checkpoint = {"zoo": {"seed": 0, "seconds": 0.0, "rank_states": [model.rank_state_dict()] * saved}}
    run: Any = SimpleNamespace(world_size=world, global_rank=world - 1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ExactTraining().on_load_checkpoint(run, TestCycleGAN().tiny(), checkpoint)
    expected = f"the checkpoint is of {saved} ranks, now there are {world}: of what each keeps for itself"
    assert [str(warning.message).startswith(expected) for warning in told] == [True] * (fate is not None)
    assert all(fate in str(warning.message) for warning in told if fate)
    assert not any("\n" in str(warning.message) for warning in told)
