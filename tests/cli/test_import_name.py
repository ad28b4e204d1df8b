"""One import name: folders of a user's own that are called `callbacks` and `datamodules` and ours live side by side."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.pretrained import migrations

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["callbacks", "datamodules"])
def test_the_bare_name_is_refused_in_one_line(name: str) -> None:
    result = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert f"imported as `zoo.{name}`" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("with_init", [True, False])
def test_a_users_own_folders_are_theirs(tmp_path: Path, with_init: bool) -> None:
    for name in ("callbacks", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(f"WHOSE = 'the {name} of the user'\n")
        if with_init:
            (tmp_path / name / "__init__.py").write_text("")
    code = (
        "import callbacks.own, datamodules.own, zoo\n"
        "from zoo.callbacks import SampleGrid\n"
        "from zoo.datamodules import Emoji\n"
        "print(callbacks.own.WHOSE, datamodules.own.WHOSE, SampleGrid.__module__, Emoji.__module__, sep=', ')"
    )
    site = tmp_path / "site"  # as installed: `zoo` alone
    site.mkdir()
    (site / "zoo").symlink_to(ROOT / "zoo")
    run = [sys.executable, "-c", f"import sys; sys.path.append({str(site)!r})\n{code}"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (
        "the callbacks of the user, the datamodules of the user, zoo.callbacks.sample_grid, zoo.datamodules.emoji"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("callbacks.SampleGrid", "zoo.callbacks.SampleGrid"),
        ("datamodules.emoji.Emoji", "zoo.datamodules.emoji.Emoji"),
        ("zoo.dcgan.DCGAN", "zoo.dcgan.DCGAN"),
        ("callbacks", "callbacks"),
        ("lightning.pytorch.callbacks.Timer", "lightning.pytorch.callbacks.Timer"),
    ],
)
def test_class_paths_of_earlier_versions(old: str, new: str) -> None:
    assert migrations.current_class_path(old) == new


def test_a_configuration_of_an_earlier_version() -> None:
    text = "data: {class_path: datamodules.Emoji, init_args: {image_size: 32}}\n"
    text += "trainer: {callbacks: [{class_path: callbacks.SampleGrid}], max_steps: 3}\n"
    assert migrations.current_names(yaml.safe_load(text)) == {
        "data": {"class_path": "zoo.datamodules.Emoji", "init_args": {"image_size": 32}},
        "trainer": {"callbacks": [{"class_path": "zoo.callbacks.SampleGrid"}], "max_steps": 3},
    }


@pytest.mark.parametrize("path", ["datamodules.Emoji", "zoo.datamodules.attributes.Attributes", "Unpaired"])
def test_the_option_fit_of_an_earlier_version_is_read(path: str) -> None:
    found = migrations.current_names({"data": {"class_path": path, "init_args": {"fit": True, "image_size": 64}}})
    assert found["data"]["init_args"] == {"fit_to_frame": True, "image_size": 64}


def test_the_option_fit_of_a_source_by_name_is_read() -> None:
    given = {"class": "datamodules.Patches", "init_args": {"source_arguments": {"fit": True}}}
    assert migrations.current_names(given)["init_args"] == {"source_arguments": {"fit_to_frame": True}}
