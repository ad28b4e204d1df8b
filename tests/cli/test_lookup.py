"""Commands that look things up, and the help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

import zoo
from tests.cli.parts import command
from zoo.cli.main import COMMANDS

Fails = Callable[..., str]

PROBE = """
import sys, zoo
from zoo.cli.main import main
for args in (["--help"], ["list"], ["show", sys.argv[1]], ["nonsense"]):
    try:
        main(args)
    except SystemExit:
        pass
heavy = [name for name in ("torch", "lightning", "numpy", "jsonargparse", "PIL", "wandb") if name in sys.modules]
print("heavy:", *heavy)
"""


def test_looking_up_imports_no_torch() -> None:
    slug = next(iter(zoo.list_pretrained()), "none")
    done = subprocess.run([sys.executable, "-c", PROBE, slug], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "heavy:", done.stdout + done.stderr


def test_import_of_the_package_has_what_it_promises() -> None:
    assert {"DCGAN", "load", "list_recipes", "list_pretrained", "__version__"} <= set(dir(zoo))
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = zoo.nonsense


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    out = capsys.readouterr().out
    for name in (*zoo.ARCHITECTURES, *zoo.list_recipes(), *zoo.list_pretrained()):
        assert name in out
    assert out.index("dcgan-emoji32 ") < out.index("DCGAN") < out.index("dcgan-emoji32-smoke")
    assert command("list", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == set(zoo.list_pretrained())


def test_a_list_is_narrowed(capsys: pytest.CaptureFixture[str], fails: Fails) -> None:
    assert zoo.list_pretrained("dcgan*") == ["dcgan-emoji32", "dcgan-emoji64"]
    assert zoo.list_pretrained("CycleGAN") == ["cyclegan-openmoji2noto64"]
    assert zoo.list_pretrained(task="translation") == ["cyclegan-openmoji2noto64", "stargan-emoji64"]
    assert zoo.list_pretrained("*", data="emoji32", max_params=2e6) == ["dcgan-emoji32", "sngan-emoji32"]
    assert zoo.list_pretrained(max_params=50_000) == ["pixelrnn-mnist28-diagonal"]
    assert command("list", "wgan", "--data", "fashion", "--max_params", "1.5M") == 0
    _, line = capsys.readouterr().out.splitlines()
    facts = r"generation +0\.43M  fd [\d.]+ \(efficientnet-lite0, 5000 images\)"
    assert re.fullmatch(f"  wgan_gp-fashionmnist32 +{facts}", line)
    assert command("list", "rnade") == 0
    out = capsys.readouterr().out
    assert "RNADE" in out
    assert "rnade-emoji16-smoke" in out
    assert "Checkpoints" not in out
    assert command("list", "vae*", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["vae-mnist28"]
    assert "there is no task 'translate': did you mean 'translation'" in fails("list", "--task", "translate")
    assert "nothing is named 'dcgna'" in fails("list", "dcgna")
    assert "--max_params is a number such as 500K or 5M" in fails("list", "--max_params", "five")
    assert "there is no such checkpoint" in fails("list", "--data", "imagenet")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(name, "--help") == 0
    out = capsys.readouterr().out
    assert f"zoo {name}" in out.split("example:", 1)[1]


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in COMMANDS)
    assert command("--version") == 0
    assert capsys.readouterr().out.strip() == zoo.__version__


def test_unknown_names_suggest_the_nearest(fails: Callable[..., str]) -> None:
    assert "'fit'" in fails("fitt")
    assert "dcgan-emoji32-smoke" in fails("fit", "--config", "dcgan-emoji32-smok")
    assert "no recipe" in fails("fit", "--config", "nonsense")
    assert "missing.yaml" in fails("fit", "--config", "folder/missing.yaml")
    assert "--num" in fails("sample", "dcgan-emoji32", "--nmu", "3")
    if slugs := zoo.list_pretrained():
        slug = next(iter(slugs))
        for args in (["show"], ["sample"], ["pull"], ["verify"]):
            assert slug in fails(*args, slug[:-1] + "x")


def test_a_missing_argument_is_one_line(fails: Callable[..., str]) -> None:
    for name in ("show", "sample", "pull", "publish", "verify", "import"):
        assert "required" in fails(name)
