"""With and without every callback the final weights are the same, bit for bit."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.monitoring.fakes import GAN, Coder, Domains, Features, Images, Painter, PatchedImages, fit_on_ranks, trainer
from tests.ranks import on_ranks
from zoo.callbacks import (
    Completion,
    FrechetDistance,
    Interpolation,
    LatentScatter,
    LatentTraversal,
    Measure,
    PatchSheet,
    PromptSheet,
    Reconstruction,
    SampleGrid,
    TranslationSheet,
)
from zoo.callbacks.base import evaluating
from zoo.dcgan import DCGAN
from zoo.sngan import SNGAN
from zoo.vae import VAE

pytestmark = pytest.mark.filterwarnings("ignore:.*covariance is singular")


def everything(folder: Path, **fake: Any) -> list[L.Callback]:
    return [
        SampleGrid(4, 9),
        FrechetDistance(None, 4, at_start=True, num_samples=40, cache_dir=folder, **fake or {"extractor": Features()}),
        Interpolation(6, num_walks=2, frames=3),
    ]


def final(folder: Path, model: L.LightningModule, callbacks: list[L.Callback], data: Any) -> dict[str, Tensor]:
    L.seed_everything(5, verbose=False)
    fit = trainer(folder, callbacks=callbacks, max_epochs=2, limit_val_batches=2)
    fit.fit(model, datamodule=data)
    state = {
        f"optimizer/{i}/{key}/{name}": value
        for i, optimizer in enumerate(fit.optimizers)
        for key, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    modes = torch.tensor([module.training for module in model.modules()])
    generators = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64))}
    generators["python"] = torch.tensor(random.getstate()[1][:-1])
    return {**model.state_dict(), **state, **generators, "modes": modes}


def test_a_vae_with_all_that_a_code_offers(tmp_path: Path) -> None:
    def vae() -> L.LightningModule:
        torch.manual_seed(0)
        return VAE(8, 3, 2, hidden_features=(8,))

    callbacks: list[L.Callback] = [
        SampleGrid(4, 9),
        Interpolation(6, num_walks=2, frames=3),
        Reconstruction(3, num_images=4),
        LatentTraversal(5, steps=3),
        LatentScatter(5, num_images=9),
        Measure("elbo", {"num_importance": 2}, every_n_steps=3, at_start=True, num_samples=9),
    ]
    assert_equal(final(tmp_path, vae(), [], Images()), final(tmp_path, vae(), callbacks, Images()))


@pytest.mark.parametrize(
    "callback",
    [
        Completion(4, num_images=2),
        Reconstruction(3, num_images=4),
        LatentTraversal(5, steps=3),
        LatentScatter(5, num_images=9),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_each_picture_of_a_code_alone(tmp_path: Path, callback: L.Callback) -> None:
    bare = final(tmp_path, Coder(), [], Images())
    assert_equal(bare, final(tmp_path, Coder(), [callback], Images()))
    assert list(tmp_path.glob("samples/*-00000032.png"))


def assert_equal(a: dict[Any, Tensor], b: dict[Any, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name]))] == []


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_gan_that_draws_from_the_global_generators(tmp_path: Path, num_classes: int) -> None:
    bare = final(tmp_path, GAN(num_classes=num_classes), [], Images())
    model = GAN(num_classes=num_classes)
    if num_classes:
        model.real_and_fake = lambda batch, seed, first: (  # type: ignore[method-assign]
            batch["image"],
            model.sample(len(batch["image"]), seed=seed, first=first, label=torch.arange(len(batch["image"])) % 3),
        )
    assert_equal(bare, final(tmp_path, model, everything(tmp_path), Images()))


@pytest.mark.parametrize(("kind", "options"), [(DCGAN, {}), (SNGAN, {"ema_decay": 0.9})])
def test_gans_of_the_zoo(tmp_path: Path, kind: type[DCGAN] | type[SNGAN], options: dict[str, Any]) -> None:
    """Batch normalisation, an averaged generator, and the buffers of spectral normalisation."""

    def model() -> DCGAN | SNGAN:
        L.seed_everything(1, verbose=False)
        return kind(8, base_channels=4, latent_dim=4, **options)

    assert_equal(final(tmp_path, model(), [], Images()), final(tmp_path, model(), everything(tmp_path), Images()))
    assert len(list(tmp_path.glob("samples/step-*.png"))) == 5


def test_a_cyclegan_with_its_pools(tmp_path: Path) -> None:
    from zoo.cyclegan import CycleGAN

    def model() -> CycleGAN:
        L.seed_everything(1, verbose=False)
        return CycleGAN(8, base_channels=2, num_blocks=1, discriminator_layers=1, pool_size=3)

    watch = FrechetDistance(None, 4, at_start=True, num_samples=40, cache_dir=tmp_path, extractor=Features())
    bare, watched = model(), model()
    assert_equal(
        final(tmp_path, bare, [], Domains()),
        final(tmp_path, watched, [TranslationSheet(3, num_images=4), watch], Domains()),
    )
    assert_equal(*[dict(enumerate(m.pools["a"][0].images + m.pools["b"][0].images)) for m in (bare, watched)])
    assert len(list(tmp_path.glob("samples/translation-*.png"))) == 6


def test_a_puzzle_gan_with_its_sheet_and_measures(tmp_path: Path) -> None:
    from zoo.puzzlegan import PuzzleGAN

    def model() -> PuzzleGAN:
        L.seed_everything(1, verbose=False)
        return PuzzleGAN(8, base_channels=2, embedding_dim=3, latent_dim=3)

    callbacks: list[L.Callback] = [
        PatchSheet(3, num_images=4),
        Measure("mask_iou", every_n_steps=4, at_start=True, num_samples=9),
        Measure("patch_error", {"shuffled": True}, every_n_steps=5, num_samples=9),
    ]
    assert_equal(final(tmp_path, model(), [], PatchedImages()), final(tmp_path, model(), callbacks, PatchedImages()))
    assert len(list(tmp_path.glob("samples/patches-*.png"))) == 6


def test_a_sheet_of_a_careless_model(tmp_path: Path) -> None:
    bare = final(tmp_path, Coder(), [], PatchedImages())
    assert_equal(bare, final(tmp_path, Coder(), [PatchSheet(3, num_images=4)], PatchedImages()))


def test_a_sheet_of_sentences_of_a_careless_model(tmp_path: Path) -> None:
    sheet = PromptSheet(["0.5 of red", "-0.5 of red"], 3, num_noises=3, between=("0.5", "-0.5"))
    assert_equal(final(tmp_path, Painter(), [], Images()), final(tmp_path, Painter(), [sheet], Images()))
    assert len(list(tmp_path.glob("samples/prompts-*.png"))) > 2


def test_building_an_extractor_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> Features:
        torch.nn.Linear(3, 3)
        np.random.rand()
        return Features()

    monkeypatch.setattr("zoo.callbacks.frechet_distance.load_extractor", build)
    bare = final(tmp_path, GAN(), [], Images())
    assert_equal(bare, final(tmp_path, GAN(), everything(tmp_path, extractor="built"), Images()))


def test_evaluating_restores_after_an_error_and_seeds_inside() -> None:
    model = GAN()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with suppress(RuntimeError), evaluating(model, 3):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
            raise RuntimeError
    assert draws[0] == draws[1]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    """Nobody waits for anybody, the weights are those of an unwatched run, and all ranks know the same values."""
    bare, watched = (on_ranks(2, fit_on_ranks, str(tmp_path / str(flag)), flag) for flag in (False, True))
    for rank in range(2):
        assert_equal(bare[rank]["weights"], watched[rank]["weights"])
        assert torch.equal(bare[rank]["rng"], watched[rank]["rng"])
    assert watched[0]["history"] == watched[1]["history"]
    assert [step for step, _ in watched[0]["history"]] == [0, 3, 5]
    assert len(list((tmp_path / "True").glob("samples/*"))) == 3 + 1 + 4
