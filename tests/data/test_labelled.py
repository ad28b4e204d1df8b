"""Semi-supervised batches: which images have labels, how they are drawn, ranks and resume."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from tests.ranks import on_ranks
from zoo.datamodules import MNIST, FashionMNIST
from zoo.datamodules.base import ImageDataModule
from zoo.datamodules.base.image_set import Batch, ImageSet
from zoo.datamodules.base.labelled import LabelledStream, choose_labelled
from zoo.datamodules.base.stream import TrainingStream
from zoo.datamodules.mnist import binarized

N = 60


class Few(MNIST):
    """Image i of 60 is filled with the value i and is of class i % 10; the training images are 0 to 49."""

    def prepare_data(self) -> None:
        pass

    def open(self) -> dict[str, ImageSet]:
        images = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 28, 28), np.uint8)
        fields: dict[str, Tensor | list[str]] = {"label": torch.arange(N) % 10}
        return {
            "train": ImageSet([images], fields, torch.arange(50)),
            "val": ImageSet([images], fields, torch.arange(50, N)),
            "test": ImageSet([images], fields, torch.arange(50, N)),
        }


def few(**options: Any) -> Few:
    return Few(**{"batch_size": 4, "num_labelled": 20, "labelled_batch_size": 3, **options})


def numbers(batch: Batch) -> list[int]:
    return ((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().long().tolist()  # type: ignore[no-any-return]


class Recorder(L.LightningModule):
    """Notes which images it sees, and with which labels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.drawn: list[list[int]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(numbers(batch))
        self.drawn.append(numbers(batch["labelled"]))
        loss: Tensor = self.weight * batch["image"].mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**options: Any) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return L.Trainer(**{**quiet, "accelerator": "cpu", "limit_val_batches": 0, **options})


def fitted(module: ImageDataModule, steps: int, path: Path | None = None, **options: Any) -> Recorder:
    model = Recorder()
    trainer(max_steps=steps, **options).fit(model, module, ckpt_path=path)
    return model


def labelled_images(module: Few) -> list[int]:
    stream = module.stream()
    assert isinstance(stream, LabelledStream)
    rows = stream.labelled.rows
    assert rows is not None
    return rows.tolist()


# Which images --------------------------------------------------------------------------------------------------------


def test_the_labelled_images_are_balanced_and_a_function_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    label = torch.randint(0, 10, (1000,), generator=torch.Generator().manual_seed(0))
    chosen = choose_labelled(label, 100, 0)
    assert chosen.unique().tolist() == chosen.tolist()
    assert label[chosen].bincount().tolist() == [10] * 10
    assert torch.equal(choose_labelled(label, 100, 0), chosen)
    assert not torch.equal(choose_labelled(label, 100, 1), chosen)
    assert set(choose_labelled(label, 50, 0).tolist()) < set(chosen.tolist()), "fewer labels lie within more"
    assert choose_labelled(label, 1000, 0).tolist() == list(range(1000))
    assert labelled_images(few()) == labelled_images(few(seed=0)) != labelled_images(few(seed=1))
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert labelled_images(few()) == labelled_images(few(seed=1))


def test_the_choice_is_even() -> None:
    """Each of 40 images of two classes is among the 10 of a seed with probability 1/4."""
    label = torch.arange(40) % 2
    counts = torch.stack([torch.zeros(40).index_fill(0, choose_labelled(label, 10, s), 1) for s in range(2000)]).sum(0)
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_batches_hold_labels_of_the_chosen_images_only() -> None:
    module = few(batch_size=10)
    chosen = labelled_images(module)
    for _ in range(2):
        for batch in module.train_dataloader():
            assert set(batch) == {"image", "label", "labelled"}
            for i, label in zip(numbers(batch), batch["label"].tolist(), strict=True):
                assert label == (i % 10 if i in chosen else -1)
            own = batch["labelled"]
            assert set(own) == {"image", "label"}
            assert own["image"].shape == (3, 1, 28, 28)
            assert own["label"].dtype == torch.int64
            assert [i % 10 for i in numbers(own)] == own["label"].tolist()
            assert set(numbers(own)) <= set(chosen)


def test_the_order_of_training_is_that_without_labels() -> None:
    plain = [numbers(batch) for batch in few(num_labelled=None).train_dataloader()]
    assert [numbers(batch) for batch in few().train_dataloader()] == plain
    assert type(few(num_labelled=None).stream()) is TrainingStream
    assert set(next(iter(few(num_labelled=None).train_dataloader()))) == {"image", "label"}


def test_all_images_labelled() -> None:
    batches = list(few(num_labelled=50, batch_size=10).train_dataloader())
    assert len(batches) == 5
    for batch in batches:
        assert batch["label"].tolist() == [i % 10 for i in numbers(batch)]
        assert len(batch["labelled"]["image"]) == 3


def test_draws_are_even_and_with_replacement() -> None:
    drawn = Few(num_labelled=20, labelled_batch_size=20_000, batch_size=10).stream()[range(10)]["labelled"]
    counts = torch.tensor(numbers(drawn)).bincount(minlength=50)
    assert counts.count_nonzero() == 20
    assert (counts[counts > 0] - 1000).abs().max() < 5 * (20_000 * 0.05 * 0.95) ** 0.5


def test_evaluation_has_all_labels() -> None:
    module = few()
    for batch in (*module.val_dataloader(), *module.evaluation_loader("train")):
        assert batch["label"].tolist() == [i % 10 for i in numbers(batch)]
    reference = next(module.reference_batches(50, 50))[1]
    assert set(reference) == {"image", "label"}
    assert reference["label"].min() == 0


def test_each_draw_is_binarized_separately() -> None:
    module = few(num_labelled=10, labelled_batch_size=200, binarize="dynamic")
    split = module.split("train")
    gray = np.full((N, 1, 28, 28), 127, np.uint8)
    module.splits["train"] = ImageSet([gray], split.fields, split.rows, lambda *a: binarized(*a, purpose="train"), True)
    first, again = (module.stream()[range(4)]["labelled"]["image"] for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.flatten(1).unique(dim=0)) == 200


def test_the_stream_travels_to_another_process() -> None:
    stream = few().stream()
    sent = pickle.loads(pickle.dumps(stream))[range(8, 12)]
    here = stream[range(8, 12)]
    assert torch.equal(sent["label"], here["label"])
    assert torch.equal(sent["labelled"]["image"], here["labelled"]["image"])


# Resume and ranks ----------------------------------------------------------------------------------------------------


class SaveAtBatch(L.Callback):
    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("saved", [5, 11, 17], ids=["middle", "end of an epoch", "second epoch"])
def test_resume_is_exact(saved: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    whole = fitted(few(), 25)
    first = fitted(few(num_workers=workers), 20, callbacks=[SaveAtBatch(path, saved)])
    assert (first.seen, first.drawn) == (whole.seen[:20], whole.drawn[:20])
    monkeypatch.setenv("PL_GLOBAL_SEED", "6")  # the run keeps its seed, and so its labelled images
    second = fitted(few(num_workers=workers), 25, path)
    assert (second.seen, second.drawn) == (whole.seen[saved + 1 :], whole.drawn[saved + 1 :])


def test_draws_go_on_with_another_batch_size(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    whole = fitted(few(), 6)
    fitted(few(), 3, callbacks=[SaveAtBatch(path, 2)])
    second = fitted(few(batch_size=8, labelled_batch_size=6), 4, path)
    assert list(chain(*second.drawn)) == list(chain(*whole.drawn))[9:15]


def test_overfitting_repeats_the_same_draws() -> None:
    model = Recorder()
    trainer(max_epochs=3, overfit_batches=2).fit(model, few())
    assert model.drawn[:2] == model.drawn[2:4] == model.drawn[4:]
    assert model.drawn[0] != model.drawn[1]


def on_rank(world: int) -> tuple[list[list[int]], list[list[int]]]:
    model = fitted(few(), 8, devices=world, strategy=DDPStrategy(process_group_backend="gloo"))
    return model.seen, model.drawn


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_concatenated_equal_one_process(world: int) -> None:
    one = fitted(few(batch_size=4 * world, labelled_batch_size=3 * world), 8)
    ranks = on_ranks(world, on_rank, world)
    for ours, theirs in zip((one.seen, one.drawn), zip(*ranks, strict=True), strict=True):
        assert [list(chain(*parts)) for parts in zip(*theirs, strict=True)] == ours


# Bad input -----------------------------------------------------------------------------------------------------------


def test_one_line_for_each_mistake() -> None:
    with pytest.raises(ValueError, match=r"^num_labelled must be a multiple of the 10 classes, not 105$"):
        FashionMNIST(num_labelled=105)
    with pytest.raises(
        ValueError, match=r"^num_labelled needs labels, and binarize='fixed' has none: take 'dynamic' or"
    ):
        MNIST(binarize="fixed", num_labelled=100)
    with pytest.raises(
        ValueError,
        match=r"^num_labelled 60 is too large: class 0 has 5 of the 50 training images; take at most 50, or 50",
    ):
        few(num_labelled=60).train_dataloader()
    with pytest.raises(ValueError, match=r"class 1 has 1 of the 3 training images; take at most 2, or 3 for all$"):
        choose_labelled(torch.tensor([0, 1, 0]), 4, 0)
