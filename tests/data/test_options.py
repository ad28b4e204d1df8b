"""The options that all DataModules share, as the command line and type checkers see them."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from zoo import datamodules
from zoo.datamodules.base import DataOptions, ImageDataModule

SHARED = ["batch_size", "cache_dir", "image_size", "num_workers", "seed"]
SIZES = {  # image_size, batch_size
    "Attributes": (64, 16),
    "CIFAR10": (32, 64),
    "Captioned": (64, 64),
    "CelebA": (64, 64),
    "Emoji": (32, 64),
    "FashionMNIST": (28, 64),
    "ImageFolder": (64, 64),
    "MNIST": (28, 64),
    "Patches": (None, 64),
    "Shapes": (64, 64),
    "Unpaired": (256, 1),
}


def parser(name: str) -> ArgumentParser:
    result = ArgumentParser(exit_on_error=False)
    result.add_class_arguments(getattr(datamodules, name), "data")
    return result


def test_every_data_set_has_a_row_here() -> None:
    assert sorted(SIZES) == datamodules.__all__


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_command_line_knows_the_shared_options_with_their_defaults(name: str) -> None:
    defaults = parser(name).get_defaults().data.as_dict()
    image_size, batch_size = SIZES[name]
    assert [defaults[option] for option in SHARED] == [batch_size, None, image_size, 0, None]


@pytest.mark.parametrize("name", sorted(SIZES))
def test_help_explains_every_option(name: str) -> None:
    lines = parser(name).format_help().split("--data.")
    options = {text.split()[0]: " ".join(text.split()[2:]) for text in lines if "(" in text}
    assert set(SHARED) < set(options)
    unexplained = [option for option, text in options.items() if text.startswith(("(type", "(required"))]
    assert not unexplained


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_reach_the_data_set() -> None:
    given = ["--data.batch_size=7", "--data.num_workers=2", "--data.seed=5", "--data.cache_dir=here"]
    found = parser("MNIST")
    data = found.instantiate_classes(found.parse_args(given)).data
    assert (data.batch_size, data.num_workers, data.seed, str(data.cache_dir)) == (7, 2, 5, "here")


def test_typing_errors_are_refused() -> None:
    with pytest.raises(ArgumentError, match="batch_sise"):
        parser("MNIST").parse_args(["--data.batch_sise=7"])
    with pytest.raises(TypeError, match="batch_sise"):
        datamodules.MNIST(batch_sise=7)  # type: ignore[call-arg]


def test_the_types_are_those_of_the_base() -> None:
    hints: dict[str, Any] = get_type_hints(ImageDataModule.__init__)
    options = get_type_hints(DataOptions)
    assert options == {name: hints[name] for name in options}
    assert set(options) <= set(inspect.signature(ImageDataModule.__init__).parameters)
