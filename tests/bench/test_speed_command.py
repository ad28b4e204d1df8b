"""`zoo bench speed`: what it prints, and what it refuses; batches of random numbers for every architecture."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import zoo
from tests.cli.parts import command, the_line
from tests.cli.test_recipes import settings, shrunk
from zoo.bench import speed
from zoo.bench.driving import Endless, Program, cycle, fit
from zoo.bench.random_batches import random_batch
from zoo.bench.speed import Form, choose, forms, time_form

CPU = torch.device("cpu")


def test_every_architecture_has_a_form_and_row_and_diagonal_both() -> None:
    found = forms()
    assert {form.architecture for form in found} == set(zoo.ARCHITECTURES)
    assert [f.recipe for f in found if f.architecture == "PixelRNN"] == [
        "pixelrnn-mnist28-diagonal-small",
        "pixelrnn-mnist28-row-small",
    ]
    assert choose("DCGAN, vae")[0] == Form("DCGAN", "dcgan-emoji32-small")
    assert [form.architecture for form in choose("progressive_gan,wgan-gp")] == ["ProgressiveGAN", "WGANGP"]
    assert choose("dcgan-emoji64-small") == [Form("DCGAN", "dcgan-emoji64-small")]


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.recipe)
def test_batches_of_random_numbers_are_of_the_models_kind(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    small = settings(form.recipe)
    small["model"] = shrunk(small["model"])
    small["model"]["init_args"].pop("text_encoder", None)
    monkeypatch.setattr(speed.yaml, "safe_load", lambda text: small)
    torch.manual_seed(0)
    model, data = form.build()
    steps = 0

    def program(_: Any) -> Program:
        nonlocal steps
        yield cycle(model)
        steps = model.batch_index + 1

    fit(model, Endless([random_batch(model, 4, data)]), program, CPU)
    assert steps == cycle(model)


def test_binary_images_labels_and_growth_are_those_of_the_recipe() -> None:
    vae, data = Form("VAE", "vae-mnist28-smoke").build()
    assert random_batch(vae, 4, data)["image"].unique().tolist() == [-1, 1]
    semi, data = Form("SemiSupervisedAAE", "aae-mnist28-semi100-smoke").build()
    batch = random_batch(semi, 4, data)
    assert batch["labelled"]["image"].shape == (100, 1, 28, 28)
    assert batch["labelled"]["label"].min() >= 0
    grown, _ = Form("ProgressiveGAN", "progressive_gan-emoji32-smoke").build()
    assert grown.progress["resolution"] == 32
    assert grown.progress["alpha"] == 1


def test_a_table_of_two_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("bench", "speed", "--only", "gan,vae", "--seconds", "0.01", "--device", "cpu") == 0
    machine, head, gan, vae = capsys.readouterr().out.splitlines()
    assert f"threads {torch.get_num_threads()}, precision 32-true, torch {torch.__version__}" in machine
    assert " ".join(head.split()) == "architecture recipe image batch train/s make/s memory outside parameters FLOPs"
    assert gan.split()[:4] == ["GAN", "gan-mnist28-small", "1x28x28", "100"]
    assert vae.split()[:4] == ["VAE", "vae-mnist28-small", "1x28x28", "100"]
    assert len({len(line.rstrip()) for line in (head, gan, vae)}) == 1


def test_everything_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--only", "autoencoder,classifier-mnist28-small", "--seconds", "0.01", "--device", "cpu", "--json")
    assert command("bench", "speed", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["precision"] == "32-true"
    assert found["failed"] == {}
    autoencoder, classifier = found["rows"]
    assert autoencoder["made_by"] == "real_and_fake"
    assert autoencoder["sampling_images_per_second"] > 0
    assert classifier["sampling_images_per_second"] is None
    for row in found["rows"]:
        assert row["training_images_per_second"] > 0
        assert 0 < row["outside_passes"] < 1
        assert row["parameters"] > 10_000
        assert row["flops_per_image"] > 0


def test_a_failure_is_one_line_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = time_form

    def fails(form: Form, *args: Any) -> Any:
        if form.architecture == "GAN":
            raise ValueError("no such thing\nas a second line")
        return real(form, *args)

    monkeypatch.setattr(speed, "time_form", fails)
    assert command("bench", "speed", "--only", "gan,vae", "--seconds", "0.01", "--device", "cpu") == 1
    out, err = capsys.readouterr()
    assert "GAN (gan-mnist28-small) failed: no such thing\n" in out
    assert "VAE" in out.splitlines()[-1]
    assert the_line(err) == "1 of 2 failed: gan-mnist28-small"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "dcgn"), "there is no architecture 'dcgn': did you mean 'dcgan'?"),
        (("--seconds", "0"), "--seconds must be above 0, not 0"),
        (("--device", "cuda"), "--device cuda: there is none here: take --device cpu"),
        (("--device", "gpu"), "argument --device: invalid choice: 'gpu'"),
        (("--precision", "8"), "argument --precision: invalid choice: '8'"),
        (("--precision", "16-mixed", "--device", "cpu"), "--precision 16-mixed is for GPUs: take bf16-mixed on a CPU"),
        (("--onyl", "gan"), "there is no option --onyl: did you mean '--only'?"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command("bench", "speed", *arguments) == 2
    assert the_line(capsys.readouterr().err).startswith(message)
