"""What a file may ask for: classes of this package, and those of packages that the caller trusts by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialize

import zoo
from tests.cli.parts import TINY, command
from zoo import pretrained
from zoo.dcgan import DCGAN
from zoo.pretrained.push import push, push_model
from zoo.pretrained.trust import check_trusted
from zoo.pretrained.verify import data_module, verify

OWN = '''
from pathlib import Path

from zoo import DCGAN

Path("imported").touch()


class MyGAN(DCGAN):
    """A GAN of one's own."""

    def __init__(self, image_size: int = 8, shift: float = 0.5, **options) -> None:
        super().__init__(image_size, **options)
        self.save_hyperparameters()

    def generate(self, z):
        """Shifted."""
        return super().generate(z) + self.hparams["shift"]
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of a class in the current folder, whose module is not imported when a test begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    name = f"my_models_{tmp_path.name.replace('-', '_')}"
    Path(f"{name}.py").write_text(OWN)
    model = __import__(name).MyGAN(base_channels=4, latent_dim=5)
    pretrained.save(model, Path("own.safetensors"))
    Path("imported").unlink()
    monkeypatch.delitem(__import__("sys").modules, name)
    return model


def test_functions_of_one_s_own_class_are_exported_on_trust(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", "own.safetensors", "--format=torch_export", "--function=generate", "--out=own.pt2"]
    assert command(*export) == 2
    assert f"--trust {type(own).__module__}" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert command(*export, "--trust", type(own).__module__) == 0
    z = own.latent(1, seed=0)
    images = torch.export.load("own.pt2").module()(z)
    torch.testing.assert_close(images, own.eval().generate(z), atol=1e-5, rtol=0)


def test_a_file_s_class_is_imported_only_on_trust(own: Any) -> None:
    module = type(own).__module__
    for trust in ((), ["other"], module[:-1]):
        with pytest.raises(
            ValueError, match=rf"unless you trust the code of {module}: trust=\['{module}'\], or --trust"
        ):
            zoo.load("own.safetensors", trust=trust)
    assert not Path("imported").exists(), "its code has run"
    for trust in ([module], module, [f"{module}.part"]):
        model = zoo.load("own.safetensors", trust=trust)
        assert torch.equal(model.sample(2, seed=0), own.eval().sample(2, seed=0))


def test_a_class_of_one_s_own_travels(own: Any, tmp_path: Path) -> None:
    module = type(own).__module__
    assert own.push_to_hub(f"{tmp_path}/shared/own") == f"{tmp_path}/shared/own"
    card = pretrained.card("shared/own")
    assert f'zoo.load("shared/own", trust=["{module}"])' in card
    assert f"`{module}.MyGAN`" in card
    with pytest.raises(ValueError, match="unless you trust"):
        zoo.load("shared/own")
    again = __import__(module).MyGAN.from_pretrained("shared/own")
    assert again.hparams["shift"] == 0.5, "who names the class trusts its module"
    assert push("shared/own", tmp_path / "second") == f"{tmp_path}/second/own"
    assert command("sample", "second/own", "--num", "1", "--out", "a.png") == 2
    assert command("sample", "second/own", "--num", "1", "--out", "a.png", "--trust", module) == 0


@pytest.mark.parametrize("name", ["os.system", "zoo", "zoo.DCGAN", "DCGAN", "zoo..os.system", "a b.c", "", "zoo.os.x"])
def test_paths_that_are_never_built(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.safetensors"
    pretrained.save(DCGAN(8, base_channels=4), path)
    header, tensors = pretrained.read(path)
    path.write_bytes(serialize(tensors, {"zoo": json.dumps(header | {"class": name})}))
    with pytest.raises(ValueError, match="asks for"):
        zoo.load(path)


def test_data_and_measures_of_others_need_trust_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"the checkpoint's data asks for 'os\.system'"):
        data_module({"class": "os.system", "init_args": {"command": "touch x"}}, None)
    with pytest.raises(ValueError, match=r"'zoo\.cli\.main\.main' is not of the package zoo\.datamodules"):
        data_module({"class": "zoo.cli.main.main", "init_args": {}}, None)
    check_trusted("my_measures.sharpness", "x", ["my_measures"])
    path = tmp_path / "m.safetensors"
    metric = {"name": "x", "measure": "os.system", "value": 1.0, "protocol": "x[]", "arguments": {}}
    information = {"data": {"class": "os.system", "init_args": {}}, "metrics": [metric]}
    pretrained.save(DCGAN(8, base_channels=4), path, information=information)
    with pytest.raises(ValueError, match=r"asks for 'os\.system'"):
        zoo.evaluate(path, metrics=["own"])
    push_model(DCGAN(8, base_channels=4), f"{tmp_path}/generative-zoo/plain")
    with pytest.raises(ValueError, match="plain was published without a measured value"):
        verify("plain")


def test_a_run_of_one_s_own_class_is_measured_published_and_pushed(own: Any, tmp_path: Path) -> None:
    """The whole way, by commands, from the folder where the class lies."""
    module = type(own).__module__
    args = [
        f"--model={module}.MyGAN",
        "--model.base_channels=4",
        "--model.latent_dim=5",
        *TINY[1:],
        "--name=mine-smoke",
    ]
    assert command("fit", *args, "--trainer.max_steps=2") == 0
    run = Path("runs/mine-smoke")
    for act in (["evaluate", run, "--metrics", "own"], ["publish", run], ["push", run, "zoo"]):
        assert command(*act) == 2
    assert command("sample", run / "checkpoints" / "last.ckpt", "--num=1", "--out=b.png", "--trust", module) == 0
    # The DataModule is the tests' own, of the package `tests`.
    trusted = ["--trust", module, "--trust", "tests"]
    assert command("push", run, "zoo", *trusted) == 0
    assert command("publish", run, *trusted) == 0
    assert pretrained.list_pretrained("mine") == ["mine"]
    more = ["--name=more", "--trainer.max_steps=2", "--init=zoo/mine"]
    assert command("fit", *args[:-1], *more) == 0, "--init trusts the class that the command names"
