"""What every architecture must do. A test class derives from `ModelContract` and says how to build a tiny model."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from tests.fake_cuda import captured_steps, fit
from tests.numerics import assert_near
from tests.ranks import on_ranks
from tests.replays import captured_on_cpu, first_difference
from zoo.base import AdversarialModel, Batch, GenerativeModel, SingleObjectiveModel
from zoo.engine.distributed import MultiNetStrategy
from zoo.export.files import largest_difference, opened, serialized
from zoo.export.functions import functions_of
from zoo.vae import VAE

SNAPSHOTS = Path(__file__).parent / "models" / "state_dicts"
ACCELERATOR = "cpu"
"""Where the Trainers below run; tests/gpu changes it."""


class Rest:
    """A sampler that gives what is left of an epoch and, as Lightning expects, keeps the epoch's full length."""

    def __init__(self, length: int, start: int) -> None:
        self.length, self.start = length, start

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.length))


class Data(L.LightningDataModule):
    """Batches of a contract as a DataModule whose position is restored; each rank takes its slice."""

    value_range = (-1, 1)

    def __init__(self, batches: list[Batch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        start = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        dataset: Any = [share(batch, rank, world) for batch in self.batches]
        return DataLoader(dataset, batch_size=None, sampler=Rest(len(dataset), start))


def share(batch: Batch, rank: int, world: int) -> Batch:
    """A rank's contiguous slice of a global batch."""
    size = len(next(iter(batch.values()))) // world
    return {key: value[rank * size : (rank + 1) * size] for key, value in batch.items()}


def trainer(world: int = 1, **options: Any) -> Trainer:
    """A plain, silent Trainer."""
    warnings.simplefilter("ignore")
    defaults: dict[str, Any] = {
        "accelerator": ACCELERATOR,
        "devices": world,
        "strategy": MultiNetStrategy() if world > 1 else "auto",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "max_epochs": 1,
    }
    return Trainer(**defaults | options)


def state_of(model: GenerativeModel) -> dict[str, Tensor]:
    """A copy of the weights and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def fit_on_ranks(contract: type[ModelContract], world: int, steps: int, oracle_of: int = 1) -> dict[str, Tensor]:
    """Final weights of a float64 run with batch statistics over all ranks."""
    case = contract()
    torch.manual_seed(0)
    model = case.oracle(oracle_of).double()
    batches = [case.batch(case.global_batch, seed=i, dtype=torch.float64) for i in range(steps)]
    run = trainer(world, precision="64-true", sync_batchnorm=world > 1)
    run.fit(model, datamodule=Data(batches))
    return state_of(model)


def plain_samples(model: GenerativeModel, batch: Batch) -> list[Any]:
    """The samples of a batch as a data set of torchvision has them: images of 8 bits in a tuple with their label."""
    eight_bits = {
        name: ((value + 1) * 127.5).round().to(torch.uint8)
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 4
    }
    batch = {name: eight_bits.get(name, value) for name, value in batch.items() if not isinstance(value, dict)}
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    in_order = [name for name in model.batch_fields if name in batch]
    return [tuple(row[name] for name in in_order) if len(in_order) == len(batch) else row for row in rows]


class ModelContract:
    """Tests of one architecture; subclasses define `tiny` and `batch`."""

    global_batch = 6
    """Divisible by 2 and 3."""
    balanced: tuple[str, ...] = ()
    """Parameters whose gradient is exactly zero at the start, because terms cancel each other."""
    samples = True
    """Whether the architecture can sample; others reconstruct."""

    sampling_waits = 0
    """Times that the host waits for a GPU in a call of `sample`."""

    def tiny(self) -> GenerativeModel:
        """The architecture at its smallest."""
        raise NotImplementedError

    def comparable(self) -> GenerativeModel:
        """The same for comparisons to 1e-12, without weights whose gradient is rounding noise alone."""
        return self.tiny()

    def oracle(self, world: int) -> GenerativeModel:
        """The architecture as one process must have it to equal `world` ranks, where some state is each rank's own."""
        return self.comparable()

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        """A batch of n, different for different seeds."""
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> GenerativeModel:
        torch.manual_seed(0)
        return self.tiny()

    def steps(self, model: GenerativeModel) -> int:
        """Batches after which every phase has stepped."""
        return max(getattr(model, "step_every", {}).values(), default=1) * getattr(model, "accumulate", 1)

    def pictures(self, model: GenerativeModel) -> Tensor:
        """Some images that the model makes, the same for the same weights."""
        if self.samples:
            return model.sample(2, seed=0)
        pictures: Tensor = model.reconstruct(self.batch(2)["image"])  # type: ignore[operator]
        return pictures

    def loss(self, model: GenerativeModel, batch: Batch) -> float:
        """The objective of the first phase, or the only one."""
        if isinstance(model, SingleObjectiveModel):
            return float(sum(terms.detach() for terms in model.objective(batch).values()))
        assert isinstance(model, AdversarialModel)
        objective = next(iter(model.objectives().values()))
        terms = objective(batch, model.forward_shared(batch))
        return float(sum(term.detach() for term in terms.values()))

    # Sampling --------------------------------------------------------------------------------------------------------

    @pytest.fixture
    def sampler(self, model: GenerativeModel) -> GenerativeModel:
        if not self.samples:
            pytest.skip("cannot sample")
        return model

    def test_samples_have_shape_and_range(self, sampler: GenerativeModel) -> None:
        x = sampler.sample(3, seed=0)
        assert x.shape == (3, *sampler.image_shape)
        assert x.dtype == torch.float32
        assert x.min() >= -1
        assert x.max() <= 1
        assert not x.requires_grad

    def test_sample_depends_on_seed_and_index_only(self, sampler: GenerativeModel) -> None:
        x = sampler.sample(5, seed=3)
        parts = torch.cat([sampler.sample(2, seed=3), sampler.sample(3, seed=3, first=2)])
        assert_near(parts, x)
        assert not torch.allclose(x, sampler.sample(5, seed=4), atol=1e-3)
        assert not torch.allclose(x[0], x[1], atol=1e-4)

    def test_sampling_without_seed_differs(self, sampler: GenerativeModel) -> None:
        assert not torch.equal(sampler.sample(2), sampler.sample(2))

    def test_inference_restores_modes_randomness_and_gradients(self, model: GenerativeModel) -> None:
        model.train()
        list(model.modules())[-1].eval()
        modes = [module.training for module in model.modules()]
        requires = [p.requires_grad for p in model.parameters()]
        before, random_state = state_of(model), torch.get_rng_state()
        self.pictures(model)
        real, fake = model.real_and_fake(self.batch(2), seed=0, first=0)
        assert real.shape == fake.shape
        assert modes == [module.training for module in model.modules()]
        assert requires == [p.requires_grad for p in model.parameters()]
        assert torch.equal(random_state, torch.get_rng_state())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    # Training --------------------------------------------------------------------------------------------------------

    def test_each_phase_reaches_its_parameters_and_no_other(self, model: GenerativeModel) -> None:
        if not isinstance(model, AdversarialModel):
            pytest.skip("one phase only")
        optimizers = dict(zip(model.phases, model.configure_optimizers(), strict=True))
        names = {id(p): name for name, p in model.named_parameters()}
        for phase, objective in model.objectives().items():
            model.zero_grad(set_to_none=True)
            batch = self.batch(4)
            with model.only(phase, optimizers):
                shared = model.forward_shared(batch)
                sum(objective(batch, shared).values()).backward()
            # Those that train at all: the layers of a growing network wait for their stage.
            own = {id(p) for group in optimizers[phase].param_groups for p in group["params"] if p.requires_grad}
            reached = {id(p) for p in model.parameters() if p.grad is not None}
            assert {names[i] for i in own} == {names[i] for i in reached}, phase
            zero = {names[id(p)] for p in model.parameters() if p.grad is not None and not p.grad.any()}
            assert zero <= {*self.balanced}, f"{phase}: gradient is zero for {zero}"

    def test_every_parameter_has_an_optimizer(self, model: GenerativeModel) -> None:
        configured: Any = model.configure_optimizers()
        optimizers = configured if isinstance(configured, list) else [configured]
        held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
        missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
        assert not missing

    def test_fit_changes_every_network(self, model: GenerativeModel) -> None:
        before = state_of(model)
        steps = self.steps(model)
        trainer().fit(model, datamodule=Data([self.batch(4, seed=i) for i in range(steps)]))
        for name, network in model.named_children():
            if any(p.requires_grad for p in network.parameters()) or name.endswith("_ema"):
                changed = [not torch.equal(v, before[f"{name}.{k}"]) for k, v in network.state_dict().items()]
                assert any(changed), f"{name} did not change"

    def test_plain_trainer_and_loader(self, model: GenerativeModel) -> None:
        """Tuples of 8-bit images, as torchvision gives them: fit, validate, test, predict; only the fit changes it."""
        samples = plain_samples(model, self.batch(self.global_batch))
        loader: DataLoader[Any] = DataLoader(samples, batch_size=self.global_batch)
        run = trainer()
        run.fit(model, loader, loader)
        assert [name for name in run.callback_metrics if name.startswith("val/")]
        before, own = state_of(model), repr(model.rank_state_dict())
        for evaluate, prefix in ((run.validate, "val/"), (run.test, "test/")):
            (values,) = evaluate(model, loader, verbose=False)
            assert values
            assert all(name.startswith(prefix) and math.isfinite(value) for name, value in values.items()), values
        found = cast(list[dict[str, Tensor]], run.predict(model, loader))
        assert torch.cat([part["index"] for part in found]).tolist() == [*range(len(samples))]
        if model.makes_images:
            assert all(part["image"].shape == (len(part["index"]), *model.image_shape) for part in found)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert repr(model.rank_state_dict()) == own

    def test_global_step_counts_batches_that_stepped(self, model: GenerativeModel) -> None:
        accumulate = getattr(model, "accumulate", 1)
        run = trainer(max_steps=3)
        run.fit(model, datamodule=Data([self.batch(4, seed=i) for i in range(4 * accumulate)]))
        assert run.global_step == 3

    def test_same_seed_gives_the_same_run(self) -> None:
        ends = []
        for _ in range(2):
            L.seed_everything(7, verbose=False)
            model = self.tiny()
            trainer().fit(model, datamodule=Data([self.batch(4, seed=i) for i in range(3)]))
            ends.append(state_of(model))
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    def test_bf16_trains(self, model: GenerativeModel) -> None:
        before = state_of(model)
        batches = [self.batch(4, seed=i) for i in range(self.steps(model))]
        trainer(precision="bf16-mixed").fit(model, datamodule=Data(batches))
        after = state_of(model)
        assert all(torch.isfinite(value).all() for value in after.values())
        assert any(not torch.equal(after[name], before[name]) for name in after)

    def test_a_gpu_never_waits_and_needs_no_float64(self, model: GenerativeModel) -> None:
        """On fake tensors; also fails where tensors of two devices meet."""
        batches = [self.batch(self.global_batch, seed=i) for i in range(max(2, self.steps(model)))]
        draws: list[dict[str, Any]] = [{}] * self.samples
        draws += [{"label": 0}] * (self.samples and "label" in model.conditions)
        seen = fit(model, trainer, Data(batches), draws)
        assert len(seen.steps) == len(batches)
        assert not any(seen.steps), f"a step waits: {seen.steps}"
        assert all(len(waits) == self.sampling_waits for waits in seen.draws), f"a draw waits: {seen.draws}"
        if seen.float64:
            fit(self.tiny(), trainer, Data(batches), draws, has_float64=False)

    # A captured step ------------------------------------------------------------------------------------------------

    @pytest.fixture
    def capturable(self, model: GenerativeModel) -> GenerativeModel:
        """The model with `capture`, where it takes the option in this form."""
        takes = isinstance(model, AdversarialModel) and "capture" not in model.unsupported_options
        if not (takes or isinstance(model, VAE)):
            pytest.skip("has no option capture")
        if getattr(model, "accumulate", 1) > 1 or getattr(model, "optimizer", "") == "adagrad":
            pytest.skip("refused with capture: tests/training/test_capture.py")
        model.capture = True
        return model

    def test_captured_steps_are_the_ordinary_ones(self, capturable: GenerativeModel) -> None:
        """Repeated from a recording, as a graph repeats them: bit for bit the same weights."""
        batches = [self.batch(4, seed=i) for i in range(3 * self.steps(capturable))]
        ordinary = copy.deepcopy(capturable)
        ordinary.capture = False
        trainer().fit(ordinary, datamodule=Data(batches))
        with captured_on_cpu() as recorders:
            trainer().fit(capturable, datamodule=Data(batches))
        assert recorders[0].count > 0
        expected = state_of(ordinary)
        different = [name for name, value in capturable.state_dict().items() if not torch.equal(value, expected[name])]
        assert not different

    def test_a_captured_step_decides_nothing_anew(self, capturable: GenerativeModel) -> None:
        """On fake tensors of a GPU: steps of a pattern run the same operations with the same numbers and memory."""
        if ModelContract not in type(self).__bases__:
            pytest.skip("a further form of its architecture")
        steps = self.steps(capturable)
        batches = [self.batch(4, seed=i) for i in range(2 + 2 * steps)]
        listed = captured_steps(capturable, trainer, Data(batches))
        assert len(listed) == len(batches)
        for one, other in zip(listed[2 : 2 + steps], listed[2 + steps :], strict=True):
            assert first_difference(one, other) is None

    # Resume ----------------------------------------------------------------------------------------------------------

    def test_resume_is_exact(self, tmp_path: Path) -> None:
        batches = [self.batch(4, seed=i) for i in range(8)]
        L.seed_everything(1, verbose=False)
        start = self.tiny()

        straight = copy.deepcopy(start)
        trainer().fit(straight, datamodule=Data(batches))

        # Stopped in mid-epoch at step 3 and taken up by another model, Trainer and random state.
        first = copy.deepcopy(start)
        keep = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=1, save_top_k=1)
        run = trainer(enable_checkpointing=True, callbacks=[keep], max_steps=3)
        run.fit(first, datamodule=Data(batches))
        torch.manual_seed(99)
        resumed = self.tiny()
        run = trainer(enable_checkpointing=True, callbacks=[ModelCheckpoint(dirpath=tmp_path)])
        run.fit(resumed, datamodule=Data(batches), ckpt_path=tmp_path / "last.ckpt")
        assert run.global_step == 8 // getattr(start, "accumulate", 1)
        expected = state_of(straight)
        different = [name for name, value in resumed.state_dict().items() if not torch.equal(value, expected[name])]
        assert not different

    def test_checkpoint_rebuilds_the_model(self, model: GenerativeModel, tmp_path: Path) -> None:
        run = trainer()
        run.fit(model, datamodule=Data([self.batch(4)]))
        run.save_checkpoint(tmp_path / "model.ckpt")
        saved = torch.load(tmp_path / "model.ckpt", weights_only=True)
        again = type(model)(**saved["hyper_parameters"])
        again.load_state_dict(saved["state_dict"])
        assert torch.equal(self.pictures(again), self.pictures(model))

    @pytest.mark.slow
    def test_overfits_one_batch(self, model: GenerativeModel) -> None:
        """The objective of the first phase falls on a fixed batch: a discriminator tells it from the fakes."""
        batch = self.batch(4)
        before = self.loss(model, batch)
        trainer(max_steps=40, max_epochs=-1).fit(model, datamodule=Data([batch] * 10))
        assert self.loss(model, batch) < before

    def test_functions_are_graphs(self, model: GenerativeModel) -> None:
        """Each function exports for any number of images, and the whole model is traced."""
        model.eval()
        functions = functions_of(model)
        for function in functions.values():
            if function.name != "sample":  # the same as generate
                content = serialized(model, function, form="torch_export", dynamic_batch=True)
                assert largest_difference(opened(content, "torch_export"), model, function, (1, 3)) < 1e-4
        if model.main_function in functions:
            example = tuple(functions[model.main_function].draw(2, 0).values())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch would have us use torch.export
                traced = torch.jit.trace(model, example, check_trace=False)
            torch.testing.assert_close(traced(*example), model(*example), atol=1e-4, rtol=1e-4)

    def test_state_dict_keys_are_as_published(self, model: GenerativeModel, request: pytest.FixtureRequest) -> None:
        keys = {name: list(value.shape) for name, value in model.state_dict().items()}
        file = SNAPSHOTS / f"{type(self).__name__.removeprefix('Test')}.json"
        if not file.exists() and request.config.getoption("--write-snapshots"):
            file.write_text(json.dumps(keys, indent=1) + "\n")
        command = f"pytest tests/models/{request.path.name} --write-snapshots"
        assert file.exists(), f"there is no {file.name} yet: `{command}` writes it for a new architecture"
        expected = json.loads(file.read_text())
        assert keys == expected, f"state-dict keys are public: if this is meant, add a migration and delete {file}"

    @pytest.mark.slow
    @pytest.mark.parametrize("world", [2, 3])
    def test_ranks_equal_one_process(self, model: GenerativeModel, world: int) -> None:
        if world == 2 and ModelContract not in type(self).__bases__:
            pytest.skip("a further form of its architecture: three ranks, the harder case, are enough")
        steps = max(3, self.steps(model))
        expected = fit_on_ranks(type(self), 1, steps, world)
        for state in on_ranks(world, fit_on_ranks, type(self), world, steps):
            for name, value in expected.items():
                assert torch.allclose(state[name], value, rtol=0, atol=1e-12), name
