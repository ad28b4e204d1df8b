"""What a text means that names a checkpoint."""

from __future__ import annotations

import re

import pytest

from zoo.pretrained import addresses


@pytest.mark.parametrize(
    ("text", "kind", "place", "name", "version"),
    [
        ("dcgan-emoji32", "name", "", "dcgan-emoji32", ""),
        ("runs/a.ckpt", "file", "runs/a.ckpt", "", ""),
        ("/shared/zoo/dcgan", "registry", "/shared/zoo", "dcgan", ""),
        ("hf://me/x.y", "hf", "me/x.y", "", ""),
        ("hf://me/x@refs/pr/1", "hf", "me/x", "", "refs/pr/1"),
        ("wandb://me/zoo/x:v3", "wandb", "me/zoo/x", "", "v3"),
        ("https://h/a/b.safetensors", "web", "https://h/a/b.safetensors", "", ""),
        ("https://h/zoo/dcgan/", "registry", "https://h/zoo", "dcgan", ""),
    ],
)
def test_addresses(text: str, kind: str, place: str, name: str, version: str) -> None:
    found = addresses.parse(text)
    assert (found.kind, found.place, found.name, found.version) == (kind, place, name, version)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("hf://x", "hf://OWNER/NAME@REVISION"),
        ("hf:me/x", "hf://OWNER/NAME"),
        ("hf://a/b/c", "hf://OWNER/NAME"),
        ("wandb://me/x", "wandb://ENTITY/PROJECT/NAME"),
        ("s3://bucket/x", "there are no addresses s3://: take hf://OWNER/NAME"),
        ("https://h", "https://HOST/.../NAME.safetensors"),
        ("https://h/x.zip", "https://HOST/.../NAME.safetensors"),
        ("https://h/x.ckpt", "is a pickle, which could run any code, and was not fetched"),
    ],
)
def test_wrong_addresses_say_what_is_right(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=re.escape(right)):
        addresses.parse(text)
