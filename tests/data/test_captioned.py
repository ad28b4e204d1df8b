"""Images with sentences: templates, mismatched captions, folders and the layouts of CUB and Oxford-102, embeddings."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import zoo.nn.text
from tests.contract import trainer
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.datamodules import Captioned
from zoo.datamodules.base.captions import CaptionedImages, Captions
from zoo.datamodules.base.draws import uniform_by_index
from zoo.datamodules.base.image_set import Batch
from zoo.engine.rng import key
from zoo.text2image import Text2Image

SIZES: dict[str, Any] = {"channels": [4, 4], "hidden_features": 4, "embedding_dim": 6, "max_length": 80}
ENCODER: dict[str, Any] = {"kind": "char", **SIZES}


def emoji(cache: Path, **options: Any) -> Captioned:
    return Captioned(
        **{
            "cache_dir": cache,
            "image_size": 8,
            "vendors": ["twemoji", "fluent"],
            "batch_size": 16,
            "seed": 0,
            **options,
        }
    )


def captions_of(module: Captioned) -> Any:
    images = module.split("train")
    assert isinstance(images, CaptionedImages)
    return images.captions


# Emoji ---------------------------------------------------------------------------------------------------------------


def test_an_emoji_has_several_sentences(cache: Path) -> None:
    module = emoji(cache)
    known = captions_of(module)
    row = next(i for i, r in enumerate(module.images.table) if r["caption"] == "woman teacher: dark skin tone")  # type: ignore[attr-defined]
    own = known.numbers[known.starts[row] : known.starts[row + 1]].tolist()
    assert [known.texts[i] for i in own] == [
        "woman teacher: dark skin tone",
        "a picture of woman teacher: dark skin tone",
        "woman teacher: dark skin tone, people and body",
        "woman teacher: dark skin tone, woman",
        "twemoji woman teacher: dark skin tone",
        "woman teacher: dark skin tone drawn by twemoji",
        "woman teacher with dark skin",
        "twemoji woman teacher with dark skin",
    ]
    alphabet = set(zoo.nn.text.ALPHABET)
    assert all(set(text) <= alphabet for text in known.texts)
    assert max(map(len, known.texts)) <= 120


def test_no_sentence_describes_two_emoji(cache: Path) -> None:
    known = captions_of(emoji(cache))
    owner: dict[int, int] = {}
    for image in range(len(known.classes)):
        for number in known.numbers[known.starts[image] : known.starts[image + 1]].tolist():
            assert owner.setdefault(number, int(known.classes[image])) == int(known.classes[image])


def test_batches_are_a_function_of_seed_epoch_and_image(cache: Path) -> None:
    module = emoji(cache)
    stream = module.stream()
    batch = stream[range(0, 12)]
    again = pickle.loads(pickle.dumps(stream))[range(4, 8)]
    for name in ("caption", "mismatched_caption"):
        assert again[name] == batch[name][4:8]
    later = stream[range(module.num_train, module.num_train + 12)]
    assert later["caption"] != batch["caption"]
    test = module.split("test")
    assert test.batch(torch.arange(5))["caption"] == test.batch(torch.arange(5))["caption"]


@pytest.mark.parametrize("near", [0.0, 0.5, 1.0])
def test_a_mismatched_caption_is_never_of_the_images_class(cache: Path, near: float) -> None:
    module = emoji(cache, near=near)
    known, images = captions_of(module), module.split("train")
    assert isinstance(images, CaptionedImages)
    owner = {text: int(known.classes[i]) for i in range(len(known.classes)) for text in _own(known, i)}
    index = torch.arange(len(images))
    batch = images.batch(index, seed=3)
    others = torch.tensor([owner[text] for text in batch["mismatched_caption"]])
    assert not (others == batch["emoji"]).any()
    assert torch.equal(batch["caption_class"], batch["emoji"])
    assert all(owner[text] == int(number) for text, number in zip(batch["caption"], batch["emoji"], strict=True))
    bases = [row["base"] for row in module.images.table]  # type: ignore[attr-defined]
    variants = torch.tensor([bases.count(bases[i]) > 1 for i in batch["emoji"].tolist()])
    same = torch.tensor([bases[a] == bases[b] for a, b in zip(batch["emoji"].tolist(), others.tolist(), strict=True)])
    assert float(same[variants].float().mean()) == pytest.approx(near, abs=0.05)
    assert not same[~variants].any()


def _own(known: Any, image: int) -> list[str]:
    return [known.texts[i] for i in known.numbers[known.starts[image] : known.starts[image + 1]].tolist()]


def test_all_other_images_are_drawn_as_mismatches(cache: Path) -> None:
    images = emoji(cache).split("val")
    assert isinstance(images, CaptionedImages)
    n = len(images)
    chance = torch.stack([torch.zeros(n - 2), (torch.arange(n - 2) + 0.5) / (n - 2)], 1)
    for own in (0, n // 3, n - 1):
        found = images.mismatched(torch.full((n - 2,), own), chance)
        classes = images.batch(torch.arange(n))["caption_class"]
        assert sorted(found.tolist()) == [i for i in range(n) if classes[i] != classes[own]]


@pytest.mark.parametrize("near", [0.0, 0.5])
def test_where_no_sentence_is_shared_none_is_drawn_again(cache: Path, near: float) -> None:
    """The published weights were trained with these draws."""
    images = emoji(cache, near=near).split("train")
    assert isinstance(images, CaptionedImages)
    assert images.captions is not None
    assert images.rows is not None
    index = torch.arange(0, len(images), 5)
    chance = uniform_by_index(index, 4, key(3, "captions", 1))
    other = images.rows[images.mismatched(index, chance[:, :2])]
    batch = images.batch(index, seed=3, epoch=1)
    for name, rows, number in (("caption", images.rows[index], 2), ("mismatched_caption", other, 3)):
        drawn = images.captions.sample_captions(rows, chance[:, number : number + 1])
        assert batch[name] == [images.captions.texts[i] for i in drawn.flatten().tolist()]


def test_held_out_combinations_are_the_test_split_and_their_words_are_known(cache: Path) -> None:
    module = emoji(cache, holdout="combinations")
    assert set(module.splits or (module.split("train") and module.splits)) == {"train", "val", "test", "unseen"}
    train, test = (module.split(name).batch(torch.arange(len(module.split(name)))) for name in ("train", "test"))
    assert module.name == "emoji8-twemoji+fluent-holdout"
    assert not set(train["emoji"].tolist()) & set(test["emoji"].tolist())
    table = module.images.table  # type: ignore[attr-defined]
    assert set(test["skin_tone"].tolist()) == {1, 2, 3, 4, 5}

    def combinations(batch: Any) -> set[tuple[str, str, str]]:
        rows = (table[i] for i in batch["emoji"].tolist())
        return {(row["base"], row["gender"], row["skin_tone"]) for row in rows}

    known, asked = combinations(train), combinations(test)
    assert not known & asked
    for place in range(3):
        assert {c[place] for c in asked} <= {c[place] for c in known}
    assert {(base, gender) for base, gender, _ in asked} <= {(base, gender) for base, gender, _ in known}


def test_own_templates(cache: Path) -> None:
    module = emoji(cache, templates=["{name}!", "{thing}, {tone}"])
    assert captions_of(module).texts[0].endswith("!")
    with pytest.raises(ValueError, match=r"unknown word 'colour': take one of name"):
        emoji(cache, templates=["{name} {colour}"])
    with pytest.raises(ValueError, match="does not say which emoji"):
        emoji(cache, templates=["{category}"])
    with pytest.raises(ValueError, match="a template of their own"):
        emoji(cache, templates=["{name} {gender}"])


def test_ranks_draw_what_one_process_draws(cache: Path) -> None:
    module = emoji(cache, batch_size=12)
    batch = next(iter(module.train_dataloader()))
    parts = [module.stream()[range(start, start + 4)] for start in (0, 4, 8)]
    for name in ("caption", "mismatched_caption"):
        assert [text for part in parts for text in part[name]] == batch[name]


# Sentences of several classes -----------------------------------------------------------------------------------------


def described(
    captions: list[list[str]], classes: list[int], rows: list[int] | None = None, **options: Any
) -> CaptionedImages:
    array = np.zeros((len(captions), 1, 1, 1), np.uint8)
    part = None if rows is None else torch.tensor(rows, dtype=torch.long)
    return CaptionedImages([array], {}, part, captions=Captions.of(captions, torch.tensor(classes), **options))


def mismatches(images: CaptionedImages, epochs: int = 200) -> list[list[str]]:
    """Of each image, over epochs."""
    batches = (images.batch(torch.arange(len(images)), epoch=epoch) for epoch in range(epochs))
    return [list(texts) for texts in zip(*(batch["mismatched_caption"] for batch in batches), strict=True)]


def shares(texts: list[str]) -> dict[str, float]:
    return {text: texts.count(text) / len(texts) for text in sorted({*texts})}


def test_a_mismatched_caption_is_none_of_the_images_own() -> None:
    images = described(
        [["an animal", "a bird"], ["an animal", "a jay"], ["an animal"], ["a fish", "an animal", "a cod"]], [0, 0, 1, 1]
    )
    bird, jay, animal, fish = mismatches(images, 600)
    # The image of "an animal" alone cannot serve the birds; of the other image's sentences each one left is as likely.
    for texts in (bird, jay):
        assert shares(texts) == pytest.approx({"a cod": 0.5, "a fish": 0.5}, abs=0.07)
    for texts in (animal, fish):
        assert shares(texts) == pytest.approx({"a bird": 0.5, "a jay": 0.5}, abs=0.07)
    assert images.has_mismatches


def test_a_sentence_that_another_image_of_the_class_has_is_a_mismatch() -> None:
    images = described([["an animal", "a bird"], ["a jay"], ["an animal", "a fish"]], [0, 0, 1])
    assert set(mismatches(images)[0]) == {"a fish"}
    assert shares(mismatches(images, 600)[1]) == pytest.approx({"a fish": 0.5, "an animal": 0.5}, abs=0.07)


def test_only_what_is_shared_is_drawn_again() -> None:
    """Each draw depends on the image alone, of several sentences also on its place."""
    known = [["an animal", f"bird {i}", f"a bird of {i}"] for i in range(20)]
    known += [["an animal", f"fish {i}", f"a fish of {i}"] for i in range(20)]
    table = torch.arange(90.0)[:, None]
    images = described(known, [0] * 20 + [1] * 20, average=3, embeddings=table)
    assert images.captions is not None
    index = torch.arange(40)
    chance = uniform_by_index(index, 12, key(0, "captions", 2))
    other = images.mismatched(index, chance[:, :2])
    before = images.captions.sample_captions(other, chance[:, 5:8])
    after = images.redraw_shared_captions(index, other, before, chance[:, 8:])
    again = before == images.captions.texts.index("an animal")
    assert 20 < int(again.sum()) < 60
    assert torch.equal(after == before, ~again)
    for i in range(40):
        assert {*after[i].tolist()} <= {*images.captions.captions_of(other[i, None])[1].tolist()}, "of the same image"
    batch = images.batch(index, epoch=2)
    assert torch.equal(batch["mismatched_embedding"], table[after].mean(1))
    assert batch["mismatched_caption"] == [images.captions.texts[i] for i in after[:, 0].tolist()]
    part = images.batch(index[7:30], epoch=2)
    assert torch.equal(part["mismatched_embedding"], batch["mismatched_embedding"][7:30])


def test_without_a_sentence_of_its_own_another_class_gives_no_mismatch() -> None:
    assert not described([["an animal", "a bird"], ["an animal"]], [0, 1]).has_mismatches
    assert described([["an animal", "a bird"], ["an animal", "a fish"]], [0, 1]).has_mismatches
    three = [["an animal"], ["an animal"], ["a bird"]]
    assert not described(three, [0, 1, 1], [0, 1]).has_mismatches, "in the split"
    assert described(three, [0, 1, 0], [1, 2]).has_mismatches
    assert not described(three, [0, 1, 0], []).has_mismatches
    assert "mismatched_caption" not in described(three, [0, 0, 0]).batch(torch.arange(3))


# Embeddings ----------------------------------------------------------------------------------------------------------


def test_embeddings_are_computed_once_and_averaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, four = (emoji(cache, vendors=["twemoji"], text_encoder=ENCODER, average=k) for k in (1, 4))
    batch = one.stream()[range(6)]
    (path,) = (cache / "embeddings").glob("*.safetensors")
    table = load_file(path)["embedding"]
    encoder = zoo.nn.text.load_text_encoder(ENCODER)
    assert table.shape == (len(captions_of(one).texts), 6)
    for name, text in (("caption_embedding", "caption"), ("mismatched_embedding", "mismatched_caption")):
        assert_near(batch[name], encoder(batch[text]))
    assert one.encoder_digest == encoder.digest()

    monkeypatch.setattr(zoo.nn.text.CharEncoder, "forward", lambda *_: pytest.fail("computed again"))
    known, images = captions_of(four), four.split("train")
    batch = images.batch(torch.arange(2), seed=1)
    row = int(images.rows[0])  # type: ignore[index]
    choices = {tuple(sorted(c)) for c in np.ndindex(*[len(_own(known, row))] * 4)}
    means = [table[known.numbers[known.starts[row] + torch.tensor(c)]].mean(0) for c in choices]
    assert min(float((mean - batch["caption_embedding"][0]).abs().max()) for mean in means) < 1e-6


# Folders -------------------------------------------------------------------------------------------------------------


def picture(path: Path, value: int, size: tuple[int, int] = (12, 12), ends: int = 0) -> None:
    """Of one colour, its left and right fifth of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (value, ends, ends))
    if ends:
        image.paste((value, 0, 0), (size[0] // 5, 0, size[0] - size[0] // 5, size[1]))
    image.save(path)


def test_a_folder_with_a_table_or_text_files(tmp_path: Path) -> None:
    for i in range(10):
        picture(tmp_path / "own" / f"{i}.png", i)
    rows = [f"{i}.png,picture {i // 2}" for i in range(9)] + ["0.png,the first"]
    (tmp_path / "own" / "captions.csv").write_text("file,caption\n" + "\n".join(rows))
    (tmp_path / "own" / "9.txt").write_text("by a text file\n\nof two lines\n")
    module = Captioned(tmp_path / "own", source="folder", cache_dir=tmp_path / "cache", image_size=8, batch_size=4)
    assert module.name == "own8"
    known = captions_of(module)
    assert _own(known, 0) == ["picture 0", "the first"]
    assert _own(known, 9) == ["by a text file", "of two lines"]
    classes = known.classes.tolist()
    assert [classes[2 * i] == classes[2 * i + 1] for i in range(5)] == [True] * 4 + [False]
    assert len(set(classes)) == 6

    (tmp_path / "own" / "9.txt").unlink()
    with pytest.raises(ValueError, match=r"no caption for 9.png \(and 0 more"):
        Captioned(tmp_path / "own", source="folder", cache_dir=tmp_path / "cache", image_size=8).split("train")


def test_folders_are_classes(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "own" / ("birds" if i % 2 else "fish") / f"{i}.png"
        picture(path, i)
        path.with_suffix(".txt").write_text(f"an animal\nnumber {i}")
    module = Captioned(tmp_path / "own", source="folder", cache_dir=tmp_path / "cache", image_size=8, batch_size=2)
    images = module.split("train")
    batch = images.batch(torch.arange(len(images)), seed=1)
    assert module.class_names["label"] == ["birds", "fish"]
    assert torch.equal(batch["label"], batch["caption_class"])
    for label, text in zip(batch["label"].tolist(), batch["mismatched_caption"], strict=True):
        assert text.startswith("number ")
        assert int(text.removeprefix("number ")) % 2 == label, "of the other class, and not that both are an animal"


def test_sentences_that_do_not_tell_classes_apart_are_refused(tmp_path: Path) -> None:
    for i in range(8):
        path = tmp_path / "own" / ("birds" if i % 2 else "fish") / f"{i}.png"
        picture(path, i)
        path.with_suffix(".txt").write_text("an animal")
    options: dict[str, Any] = {"source": "folder", "cache_dir": tmp_path / "cache", "image_size": 8}
    with pytest.raises(ValueError, match="training images of own8 have no mismatched caption"):
        Captioned(tmp_path / "own", **options).split("train")


@pytest.mark.parametrize(("given", "name"), [(None, "own8"), (True, "own8-squeezed")])
def test_the_pictures_of_a_folder_may_be_squeezed(tmp_path: Path, given: bool | None, name: str) -> None:
    for i in range(4):
        picture(tmp_path / "own" / f"{i}.png", 0, (40, 20), ends=255)
        (tmp_path / "own" / f"{i}.txt").write_text(f"number {i}")
    module = Captioned(tmp_path / "own", source="folder", squeeze=given, cache_dir=tmp_path / "cache", image_size=8)
    assert module.name == name
    assert int(module.split("train").images(torch.arange(1))[0, 1, 4, 0]) == (255 if given else 0)


def birds(folder: Path, source: str) -> None:
    text = folder / "cub_icml" / "text_c10"
    for c, (name, count) in enumerate((("001.Auk", 3), ("002.Jay", 4), ("003.Tit", 3), ("004.Owl", 2))):
        for i in range(count):
            stem = f"{name[4:]}_{i}"
            place = f"CUB_200_2011/images/{name}" if source == "cub" else "jpg"
            picture(folder / place / f"{stem}.jpg", 50 * c + 10 * i, (60, 30), ends=255)
            (text / name).mkdir(parents=True, exist_ok=True)
            (text / name / f"{stem}.txt").write_text("\n".join(f"{name} {i} {k}" for k in range(10)))
    for split, names in (("trainval", "001.Auk 002.Jay 003.Tit"), ("val", "003.Tit"), ("test", "004.Owl")):
        (text.parent / f"{split}classes.txt").write_text("\n".join(names.split()) + "\n")


@pytest.mark.parametrize("source", ["cub", "flowers"])
def test_layouts_of_the_paper(tmp_path: Path, source: Any) -> None:
    birds(tmp_path / "data", source)
    options: dict[str, Any] = {"source": source, "cache_dir": tmp_path / "cache", "image_size": 16, "batch_size": 4}
    module = Captioned(tmp_path / "data", **options)
    sizes = {name: len(module.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 7, "val": 3, "test": 2}
    assert module.name == f"{source}16"
    assert len(Captioned(tmp_path / "data", train_on_val=True, **options).split("train")) == 10
    assert module.load_size == 19
    for batch in (module.stream()[range(4)], module.split("test").batch(torch.arange(2))):
        assert batch["image"].shape[1:] == (3, 16, 16)
        names = [module.class_names["label"][i] for i in batch["label"].tolist()]
        assert all(text.startswith(name) for text, name in zip(batch["caption"], names, strict=True))
        if "mismatched_caption" in batch:
            assert not any(text.startswith(name) for text, name in zip(batch["mismatched_caption"], names, strict=True))
    assert "mismatched_caption" not in module.split("test").batch(torch.arange(2))  # one class
    # Whole pictures, whatever their shape: both ends are there.
    whole = module.split("test").images(torch.arange(2))
    assert whole.shape == (2, 3, 19, 19)
    assert (whole[:, 1, :, [0, -1]] > 200).all()
    assert (whole[:, 1, :, 5:14] < 50).all()
    center = Captioned(tmp_path / "data", squeeze=False, **options)
    assert center.name == f"{source}16-centre"
    assert (center.split("test").images(torch.arange(2))[:, 1, :, [0, -1]] < 50).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "birds"}, "unknown source 'birds'"),
        ({"source": "folder"}, "needs data_dir"),
        ({"source": "cub", "near": 0.5}, "near is for source='emoji'"),
        ({"train_on_val": True}, "for source='cub' and 'flowers'"),
        ({"squeeze": True}, "squeeze is for folders of pictures"),
        ({"average": 4}, "above 1 it needs a text_encoder"),
        ({"load_size": 32}, "load_size must be at least image_size 64"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Captioned(**options)


def test_missing_parts_of_the_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*CUB_200_2011/images"):
        Captioned(tmp_path, source="cub").split("train")
    birds(tmp_path / "data", "cub")
    (tmp_path / "data" / "cub_icml" / "testclasses.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testclasses.txt is missing"):
        Captioned(tmp_path / "data", source="cub", cache_dir=tmp_path / "cache", image_size=8).split("train")


# With a Trainer -------------------------------------------------------------------------------------------------------


class Recorder(L.LightningModule):
    """Notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[Any], ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = ((batch["image"] + 1) * 127.5).round().long().sum((1, 2))  # columns tell crops and mirroring
        rows = (batch["label"], images, batch["caption_embedding"], batch["mismatched_embedding"])
        self.seen.append((batch["caption"], batch["mismatched_caption"], *(x.tolist() for x in rows)))
        loss: Tensor = self.weight * batch["image"].mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def of_birds(folder: Path, **options: Any) -> Captioned:
    """Ten training images of three classes, cropped and mirrored at random, two captions averaged."""
    more = {"train_on_val": True, "text_encoder": ENCODER, "average": 2, "image_size": 16, "cache_dir": folder}
    return Captioned(folder / "data", source="cub", **{**more, **options})


def fitted(folder: Path, steps: int, path: Path | None = None, batch_size: int = 2, **more: Any) -> list[Any]:
    run = trainer(**{"max_epochs": -1, "max_steps": steps, "strategy": "auto", "default_root_dir": folder, **more})
    model = Recorder()
    run.fit(model, of_birds(folder, batch_size=batch_size), ckpt_path=path)
    run.save_checkpoint(folder / f"{steps}.ckpt")
    return model.seen


def test_a_resumed_run_goes_on_at_the_next_images_and_captions(tmp_path: Path) -> None:
    birds(tmp_path / "data", "cub")
    straight = fitted(tmp_path, 13)
    assert len({str(step) for step in straight}) == 13, "other captions in another epoch"
    assert fitted(tmp_path, 7) == straight[:7]
    assert fitted(tmp_path, 13, tmp_path / "7.ckpt") == straight[7:]


def on_rank(folder: str) -> list[Any]:
    return fitted(Path(folder), 6, strategy="ddp", devices=2)


@pytest.mark.slow
def test_real_ranks_share_what_one_process_sees(tmp_path: Path) -> None:
    birds(tmp_path / "data", "cub")
    one = fitted(tmp_path, 6, batch_size=4)
    ranks = on_ranks(2, on_rank, str(tmp_path))
    assert [tuple(x + y for x, y in zip(*steps, strict=True)) for steps in zip(*ranks, strict=True)] == one


def test_the_model_takes_batches_of_its_own_text_encoder(tmp_path: Path) -> None:
    birds(tmp_path / "data", "cub")
    small: dict[str, Any] = {"latent_dim": 4, "base_channels": 4, "discriminator_channels": 4}
    model = Text2Image(16, text_encoder=ENCODER, prompts=["001.Auk 0 1"], **small)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    data = of_birds(tmp_path, batch_size=4)
    trainer(max_epochs=-1, max_steps=4).fit(model, data)
    assert model.text_encoder is not None
    assert data.encoder_digest == model.text_encoder.digest()
    for name, x in model.state_dict().items():
        assert x.isfinite().all()
        if name.endswith("weight"):
            assert torch.equal(x, before[name]) == name.startswith("text_encoder."), name
    assert model.sample(2, seed=0, text="002.Jay 1 2").shape == (2, 3, 16, 16)
    assert model.real_and_fake(next(iter(data.evaluation_loader("test"))), seed=0, first=0)[1].shape == (2, 3, 16, 16)

    other = Text2Image(16, text_encoder={**ENCODER, "hidden_features": 5}, **small)
    with pytest.raises(ValueError, match="is not the model's"):
        trainer(max_epochs=-1, max_steps=4).fit(other, of_birds(tmp_path, batch_size=4))
