"""Small stand-ins: a GAN that draws from global generators, images to compare with, features without weights."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.callbacks.measures import frechet_distance
from zoo.engine.images import to_levels


class Features(nn.Module):
    """Fixed random features of a few pixels; counts what it is asked."""

    name = "random-6"

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weight", torch.randn(3 * 16, width, generator=generator))
        self.shapes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(len(x))
        return (x[..., :4, :4].flatten(1) @ self.weight).tanh()


class Images(L.LightningDataModule):
    """Noise as images, in batches of dicts."""

    name = "noise8"

    def __init__(self, n: int = 64, channels: int = 3, batch_size: int = 8, seed: int = 0, shift: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.image = (torch.rand(n, channels, 8, 8, generator=generator) * 2 - 1 + shift).clamp(-1, 1)
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        items = [{"image": image, "label": torch.tensor(i % 3)} for i, image in enumerate(self.image)]
        return DataLoader(items, self.batch_size)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return self.train_dataloader()

    def split(self, name: str) -> Tensor:
        return self.image

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Any]]:
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            image = self.image[first : min(first + chunk_size, num_samples)]
            yield first, {"image": image, "caption": [str(first + i) for i in range(len(image))]}


class Domains(Images):
    """Images of two domains: noise, and the same darker."""

    def train_dataloader(self) -> Any:
        items = [{"image_a": image, "image_b": image / 2 - 0.5} for image in self.image]
        return DataLoader(items, self.batch_size)  # type: ignore[arg-type]

    def reference_batches(self, *args: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        for first, batch in super().reference_batches(*args, **options):
            yield first, {"image_a": batch["image"], "image_b": batch["image"] / 2 - 0.5, "caption": batch["caption"]}


class PatchedImages(Images):
    """Noise, with two patches of each image."""

    name = "noise8-patches2"
    num_patches = 2

    def __init__(self, n: int = 64) -> None:
        super().__init__(n)
        self.boxes = torch.tensor([[0, 0, 4, 4], [3, 4, 6, 8]]).expand(n, -1, -1).clone()

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        image, boxes = self.image[index], self.boxes[index]
        mask, patches = torch.zeros(len(index), 1, 8, 8), torch.empty(len(index), 2, 3, 8, 8)
        for i, places in enumerate(boxes.tolist()):
            for k, (top, left, bottom, right) in enumerate(places):
                mask[i, :, top:bottom, left:right] = 1
                patches[i, k] = nn.functional.interpolate(image[i : i + 1, :, top:bottom, left:right], (8, 8))[0]
        return {"image": image, "patches": patches, "boxes": boxes, "mask": mask, "other": image.roll(1, 0)}

    def train_dataloader(self) -> Any:
        whole = self.batch(torch.arange(len(self.image)))
        items = [{name: values[i] for name, values in whole.items()} for i in range(len(self.image))]
        return DataLoader(items, self.batch_size)  # type: ignore[arg-type]

    def reference_batches(self, *args: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        for first, batch in super().reference_batches(*args, **options):
            yield first, self.batch(torch.arange(first, first + len(batch["image"])))


class GAN(LightningModule):
    """A GAN with batch normalisation and dropout, whose training draws from torch's, numpy's generators."""

    latent_dim = 4

    def __init__(self, channels: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.generator = nn.Sequential(
                nn.Linear(4 + num_classes, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, channels * 64)
            )
            self.discriminator = nn.Sequential(
                nn.Flatten(), nn.Linear(channels * 64, 16), nn.Dropout(), nn.Linear(16, 1)
            )
        self.generator[2].eval()  # a part that rests; nobody may wake it

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.hparams["channels"], 8, 8

    def latent(self, n: int, *, seed: int | None = None, first: int = 0) -> Tensor:
        rows = [torch.Generator().manual_seed(1000 * (seed or 0) + first + i) for i in range(n)]
        return torch.stack([torch.randn(4, generator=row) for row in rows]).to(self.device, self.dtype)

    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            z = torch.cat([z, nn.functional.one_hot(label, self.hparams["num_classes"]).to(z)], 1)
        return self.generator(z).view(-1, *self.image_shape).tanh()

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, label: Tensor | None = None) -> Tensor:
        np.random.rand()
        torch.rand(3)  # careless: uses up random numbers
        return self.generate(self.latent(n, seed=seed, first=first), label)

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        return batch["image"], self.sample(len(batch["image"]), seed=seed, first=first)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real = batch["image"] + 0.1 * np.random.rand()
        label = batch["label"] if self.hparams["num_classes"] else None
        fake = self.generate(torch.randn(len(real), 4, device=self.device, dtype=self.dtype), label)
        d, g = self.optimizers()  # type: ignore[attr-defined]
        loss = self.discriminator(fake.detach()).mean() - self.discriminator(real).mean()
        d.zero_grad()
        self.manual_backward(loss)
        d.step()
        g.zero_grad()
        self.manual_backward(-self.discriminator(fake).mean())
        g.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.discriminator.parameters(), 1e-2),
            torch.optim.Adam(self.generator.parameters(), 1e-2),
        ]


class Coder(GAN):
    """A fake with a code, the mean and the first pixel of an image; reconstructs the negative; careless too."""

    def reconstruct(self, x: Tensor) -> Tensor:
        self._waste()
        return -x

    def encode(self, x: Tensor) -> Tensor:
        self._waste()
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)

    def completions(self, upper: Tensor, num: int, *, seed: int = 0) -> Tensor:
        self._waste()
        lower = torch.linspace(-1, 1, num, dtype=self.dtype).view(1, num, 1, 1, 1).expand(len(upper), num, 3, 8, 8)
        upper = upper[:, None].expand(-1, num, -1, -1, -1)
        return torch.cat([upper, lower[:, :, :, upper.size(3) :]], 3)

    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        self._waste()
        ramp = torch.linspace(-1, 1, steps).view(1, steps, 1, 1, 1).expand(num, steps, 3, 8, 8)
        kind = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand(num, 3, 3, 8, 8)
        return {"kind": kind, "still": torch.zeros(num, steps, 3, 8, 8), "z0": ramp, "z1": ramp * 0.5}

    def assemble(self, patches: Tensor, *, seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        self._waste()
        return patches.mean(1), (patches[:, 0, :1] + 1) / 2

    def _waste(self) -> None:
        self.generator(torch.rand(3, self.generator[0].in_features, device=self.device, dtype=self.dtype))
        np.random.rand()
        random.random()


class Painter(Coder):
    """Images whose value is the embedding plus the noise; draws from global generators."""

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        self._waste()
        return torch.tensor([[float(c.split()[0])] if c[0] != "Δ" else [0.0] for c in captions])

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        self._waste()
        noise = 0.1 * torch.arange(first, first + n)[:, None]
        return (conditions["embedding"].expand(n, -1) + noise)[:, :, None, None].expand(-1, 3, 8, 8)


def pixels(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images as pictures show them: (N, H, W, 3)."""
    return to_levels(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def trainer(folder: Path, **options: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    return L.Trainer(**defaults | options)


CASES = [(103, 8), (40, 16), (5, 4), (64, 8)]


def distances(folder: str) -> list[float]:
    """Distances for several sizes, each twice (the second with kept statistics); on all ranks, if there are several."""
    in_job = "WORLD_SIZE" in os.environ
    if in_job:
        dist.init_process_group("gloo")
    values = []
    for num_samples, chunk_size in CASES:
        for _ in range(2):
            result = frechet_distance(
                GAN(),
                Images(num_samples),
                num_samples=num_samples,
                chunk_size=chunk_size,
                extractor=Features(),
                cache_dir=folder,
                progress=False,
            )
            values.append(result.value)
    if in_job:
        dist.destroy_process_group()
    return values


def fit_on_ranks(folder: str, watched: bool) -> dict[str, object]:
    """A fit of DCGAN on all ranks with or without the callbacks; what is left of it."""
    from zoo.callbacks import FrechetDistance, Interpolation, SampleGrid
    from zoo.dcgan import DCGAN

    L.seed_everything(1, verbose=False)
    watch = FrechetDistance(
        None, 3, at_start=True, num_samples=41, chunk_size=8, extractor=Features(), cache_dir=Path(folder, "cache")
    )
    run = trainer(
        Path(folder),
        callbacks=[SampleGrid(3, 4), watch, Interpolation(4, num_walks=2, frames=3)] if watched else [],
        strategy="ddp_nets",
        devices=int(os.environ["WORLD_SIZE"]),
        max_steps=5,
        max_epochs=-1,
    )
    model = DCGAN(8, base_channels=4, latent_dim=4)
    run.fit(model, datamodule=Images())
    return {"weights": model.state_dict(), "history": watch.history, "rng": torch.get_rng_state()}
