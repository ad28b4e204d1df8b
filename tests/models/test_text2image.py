from __future__ import annotations

from pathlib import Path
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
from zoo.nn.text2image import PROJECTION_DIM, Discriminator, Generator, Residual
from zoo.pretrained.migrations import current_arguments
from zoo.text2image import Text2Image

SIZES: dict[str, Any] = {"channels": [4, 4], "hidden_features": 4, "embedding_dim": 6, "max_length": 80}
ENCODER: dict[str, Any] = {"kind": "char", **SIZES}
HALVED = {"kind": "repeated", "every": 2}
PROMPTS = ["a red apple", "a green apple", "something else"]


class TestText2Image(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> Text2Image:
        small: dict[str, Any] = {"latent_dim": 5, "base_channels": 4, "discriminator_channels": 4}
        model = Text2Image(16, text_encoder=ENCODER, prompts=PROMPTS, **{**small, **self.options})
        # Its untrained images would all be grey: so few channels of such small weights, and nothing normalised yet.
        for generator in (model.generator, model.generator_ema):
            for parameter in () if generator is None else generator.parameters():
                parameter.data.mul_(10 if parameter.dim() == 4 else 1)
        return model

    def comparable(self) -> Text2Image:
        """Without the bias in front of a normalisation, which takes it away."""
        model = self.tiny()
        model.discriminator.project[0].bias.register_hook(torch.zeros_like)
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        def draw(name: str, *shape: int) -> Tensor:
            return rng.uniform((n, *shape), rng.key(seed, name), low=-1, high=1, dtype=torch.float64).to(dtype)

        return {
            "image": draw("image", 3, 16, 16),
            "caption_embedding": draw("caption", 6),
            "mismatched_embedding": draw("mismatched", 6),
        }


class TestText2ImageSentences(TestText2Image):
    """Batches of sentences, and everything that is off by default."""

    options = {  # noqa: RUF012
        "ema_decay": 0.9,
        "accumulate": 2,
        "gradient_clip": 1.0,
        "channels_last": True,
        "augment": True,
        "decay": HALVED,
    }

    def test_overfits_one_batch(self, model: GenerativeModel) -> None:
        pytest.skip("DiffAugment shows the discriminator other images in each step, so that it cannot")

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return {
            "image": super().batch(n, seed=seed, dtype=dtype)["image"],
            "caption": [f"number {i} of {seed}" for i in range(n)],
            "mismatched_caption": [f"not number {i} of {seed}" for i in range(n)],
        }


class TestText2ImagePlain(TestText2Image):
    """The conditional GAN without mismatched pairs and without sentences between two; batches lack the former."""

    options = {"mismatch_weight": 0.0, "interpolation_weight": 0.0}  # noqa: RUF012

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        batch = super().batch(n, seed=seed, dtype=dtype)
        del batch["mismatched_embedding"]
        return batch


@pytest.fixture
def model() -> Text2Image:
    torch.manual_seed(0)
    return TestText2Image().tiny()


@pytest.fixture
def batch() -> Batch:
    return TestText2Image().batch(6)


# The networks --------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_authors_code() -> None:
    """Theirs have biases in all convolutions, zero before every step; ours have none."""
    with torch.device("meta"):
        model = Text2Image()
    counts = []
    for network in (model.generator, model.discriminator):
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert all(m.bias is None for m in convolutions)
        counts.append(sum(p.numel() for p in network.parameters()) + sum(m.out_channels for m in convolutions))
    assert counts == [18_909_699, 4_032_321]


@pytest.mark.parametrize(("size", "sides", "residuals"), [(8, [4], 1), (32, [4, 8, 16], 2), (64, [4, 8, 16, 32], 2)])
def test_shapes(size: int, sides: list[int], residuals: int) -> None:
    generator, discriminator = Generator(size, 3, 5, 6, 4), Discriminator(size, 3, 6, 4)
    seen = []
    for module in generator.layers:
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[3]))
    x = generator(torch.randn(2, 5), torch.randn(2, 6))
    assert x.shape == (2, 3, size, size)
    assert seen == sides
    assert sum(isinstance(module, Residual) for module in generator.layers) == residuals
    assert discriminator.features(x).shape[2:] == (4, 4)
    assert discriminator(x, torch.randn(2, 6)).shape == (2,)


def test_the_start_is_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    generator = Generator(8, 3, 5, 6, 4).double().eval()
    z, text = torch.randn(2, 5).double(), torch.randn(2, 6).double()
    given = torch.cat([z, F.leaky_relu(generator.project[0](text), 0.2)], 1)
    expected = generator.layers(F.conv_transpose2d(given[:, :, None, None], generator.start.weight))
    assert torch.allclose(generator(z, text), expected, rtol=0, atol=1e-12)


def test_the_sentence_reaches_both_networks_where_the_paper_says(model: Text2Image) -> None:
    """Beside the noise, and beside the discriminator's maps of 4 x 4, at each place alike."""
    text = torch.randn(2, 6, requires_grad=True)
    inputs: list[Tensor] = []
    model.generator.layers.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    model.discriminator.meet.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    x = model.generator(torch.randn(2, 5), text)
    logits = model.discriminator(x.detach(), text)
    for output in (x, logits):
        (gradient,) = torch.autograd.grad(output.square().sum(), text, retain_graph=True)
        assert (gradient != 0).any(1).all()
    maps = inputs[1][:, -PROJECTION_DIM:]
    assert maps.shape[2:] == (4, 4)
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    assert torch.equal(maps[:, :, 0, 0], model.discriminator.project(text))


def test_one_pass_over_the_images_serves_two_sentences(model: Text2Image, batch: Batch) -> None:
    model.eval()
    x, own, other = batch["image"], batch["caption_embedding"], batch["mismatched_embedding"]
    features = model.discriminator.features(x)
    for text in (own, other):
        together = model.discriminator.discriminate(features, model.discriminator.project(text))
        assert torch.equal(together, model.discriminator(x, text))


# The objective -------------------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """A discriminator whose logit is the mean of the image plus the sum of the embedding."""

    def features(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))

    def project(self, text: Tensor) -> Tensor:
        return text.sum(1)

    def discriminate(self, features: Tensor, projected: Tensor) -> Tensor:
        return features + projected

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return self.discriminate(self.features(x), self.project(text))


class Constant(nn.Module):
    """A generator whose images have the first number of the embedding everywhere."""

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        return text[:, :1, None, None].expand(-1, 3, 16, 16)


def scripted(**options: Any) -> tuple[Text2Image, Batch]:
    case = TestText2Image()
    case.options = options
    model = case.tiny()
    model.discriminator, model.generator = Scripted(), Constant()  # type: ignore[assignment]
    own, other = torch.zeros(4, 6), torch.zeros(4, 6)
    own[:, 0], other[:, 1] = torch.tensor([0.5, -0.5, 1.0, 0.0]), torch.tensor([1.0, 2.0, -1.0, 0.0])
    image = torch.tensor([0.25, -0.5, 0.0, 1.0])[:, None, None, None].expand(-1, 3, 16, 16)
    return model, {"image": image, "caption_embedding": own, "mismatched_embedding": other}


def test_terms_by_hand() -> None:
    """softplus of logits written out: real .75 -1 1 1, fake 2 t = 1 -1 2 0, mismatched 1.25 1.5 -1 1."""
    model, batch = scripted()
    terms = model.discriminator_loss(batch, model.forward_shared(batch))
    # log(1 + e^x) at -.75 is .386871, at 1 1.313262, at -1 .313262, at 2 2.126928, at 0 .693147
    assert terms["real"].item() == pytest.approx((0.386871 + 1.313262 + 0.313262 + 0.313262) / 4, abs=1e-6)
    assert terms["fake"].item() == pytest.approx(0.5 * (1.313262 + 0.313262 + 2.126928 + 0.693147) / 4, abs=1e-6)
    # log(1 + e^1.25) = 1.501929, log(1 + e^1.5) = 1.701413
    assert terms["mismatched"].item() == pytest.approx(0.5 * (1.501929 + 1.701413 + 0.313262 + 1.313262) / 4, abs=1e-6)

    # Between (.5 + 1) / 2 = .75 and (-.5 + 0) / 2 = -.25: logits 1.5 and -.5; divided by 4 + 2.
    shared = model.forward_shared(batch)
    assert torch.equal(shared["all"][4:, 0], torch.tensor([0.75, -0.25]))
    terms = model.generator_loss(batch, shared)
    assert terms["adversarial"].item() == pytest.approx((0.313262 + 1.313262 + 0.126928 + 0.693147) / 6, abs=1e-6)
    # log(1 + e^-1.5) = .201413, log(1 + e^.5) = .974077
    assert terms["between"].item() == pytest.approx((0.201413 + 0.974077) / 6, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_weights(weight: float) -> None:
    model, batch = scripted(mismatch_weight=weight, interpolation_weight=2 * weight)
    full, _ = scripted(mismatch_weight=0.5, interpolation_weight=1.0)
    shared = model.forward_shared(batch)
    expected = full.discriminator_loss(batch, shared) | full.generator_loss(batch, full.forward_shared(batch))
    found = model.discriminator_loss(batch, shared) | model.generator_loss(batch, shared)
    assert found["real"] == expected["real"]
    assert found["fake"].item() == pytest.approx((1 - weight) / 0.5 * expected["fake"].item())
    if weight:
        assert found["mismatched"].item() == pytest.approx(weight / 0.5 * expected["mismatched"].item())
        assert found["between"].item() == pytest.approx(2 * weight * expected["between"].item())
        assert found["adversarial"] == expected["adversarial"]
    else:
        assert "mismatched" not in found
        assert "between" not in found
        assert found["adversarial"].item() == pytest.approx(expected["adversarial"].item() * 6 / 4)


def test_sentences_between_two_are_never_shown_as_real(model: Text2Image, batch: Batch) -> None:
    shared = model.forward_shared(batch)
    assert shared["all"].shape == (9, 6)
    assert shared["fake"].shape[0] == 9
    seen = []
    model.discriminator.features.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    model.discriminator.project.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.discriminator_loss(batch, shared)
    assert seen[:2] == [6, 6]
    assert torch.equal(seen[2], batch["caption_embedding"])
    assert torch.equal(seen[3], batch["mismatched_embedding"])


def test_augmentation_changes_what_the_discriminator_sees(batch: Batch) -> None:
    values = []
    for augment in (False, True):
        torch.manual_seed(0)
        model = Text2Image(16, text_features=6, base_channels=4, discriminator_channels=4, augment=augment)
        shared = model.forward_shared(batch)
        values.append(model.discriminator_loss(batch, shared) | model.generator_loss(batch, shared))
    assert all(values[0][name] != values[1][name] for name in ("real", "fake", "mismatched", "adversarial", "between"))


def test_variants() -> None:
    with torch.device("meta"):
        cls, int_ = Text2Image.gan_cls(), Text2Image.gan_int()
        normed = Text2Image.gan_cls(projection_norm=True)
    assert (cls.hparams["mismatch_weight"], cls.hparams["interpolation_weight"]) == (0.5, 0.0)
    assert (int_.hparams["mismatch_weight"], int_.hparams["interpolation_weight"]) == (0.0, 1.0)
    assert cls.generator.start.weight.shape[1] == 8 * 196
    assert cls.decay.every == 40 * (82_783 // 64)
    # The authors' code for COCO has no norm of the compressed sentence, that for the other two has one.
    for model, norms in ((cls, 0), (int_, 1), (normed, 1)):
        assert sum(isinstance(module, nn.BatchNorm1d) for module in model.discriminator.modules()) == norms
        assert model.discriminator.project(torch.zeros(2, 1024, device="meta")).shape == (2, 128)


def test_the_step_size_is_halved() -> None:
    with torch.device("meta"):
        model = Text2Image(learning_rate=1.0, decay=HALVED | {"every": 10})
    assert [model.optimizer_overrides("generator", s)["lr"] for s in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]


@pytest.mark.slow
def test_after_training_shuffled_sentences_change_the_verdict() -> None:
    """Four colours told by the embedding: the discriminator knows whose is whose."""
    torch.manual_seed(0)
    label = torch.arange(32) % 4
    colors = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])
    text = 2 * F.one_hot(label, 6).float()
    image = 0.8 * colors[label][:, :, None, None].expand(-1, -1, 8, 8)
    data = {"image": image, "caption_embedding": text, "mismatched_embedding": text.roll(1, 0)}
    small: dict[str, Any] = {"latent_dim": 4, "base_channels": 8, "discriminator_channels": 8}
    model = Text2Image(8, text_features=6, learning_rate=1e-3, **small)
    trainer(max_epochs=10).fit(model, datamodule=Data([data] * 20))
    with torch.no_grad():
        right, wrong = (model.eval().discriminator(image, t) for t in (text, text.roll(1, 0)))
    assert (right > wrong).float().mean() > 0.9


# Sentences -----------------------------------------------------------------------------------------------------------


def test_samples_of_sentences(model: Text2Image) -> None:
    one = model.sample(3, seed=1, text="a red apple")
    assert_near(model.sample(3, seed=1, text=["a red apple"] * 3), one)
    assert_near(model.sample(3, seed=1, embedding=model.encode_text(["a red apple"])[0]), one)
    assert not torch.allclose(one, model.sample(3, seed=1, text="a green pear"), atol=1e-5)
    # From given noise, and by default of the first prompt.
    assert_near(model.generate(model.latent(3, seed=1)), one)
    with pytest.raises(ValueError, match="2 sentences for 3 images"):
        model.sample(3, text=["a", "b"])
    with pytest.raises(ValueError, match="no condition 'label'"):
        model.sample(3, label=1)


def test_normalized_sentences_have_one_length(batch: Batch) -> None:
    """So that it does not matter how long the encoder's embeddings are."""
    torch.manual_seed(0)
    model = Text2Image(16, text_features=6, normalize_embeddings=True, base_channels=4, discriminator_channels=4)
    assert torch.allclose(model.embedding(batch, "caption").norm(dim=1), torch.tensor(6.0).sqrt())
    one, other = (model.sample(2, seed=0, embedding=k * batch["caption_embedding"][:2]) for k in (1, 0.01))
    assert_near(other, one)
    between, _ = model._between(model.embedding(batch, "caption"))
    assert torch.allclose(between.norm(dim=1), torch.tensor(6.0).sqrt()), "those between two as well"
    assert_near(model.real_and_fake(batch, seed=0, first=0)[1][:2], one)


def test_without_sentences_it_says_what_it_needs(batch: Batch) -> None:
    model = Text2Image(16, text_features=6, base_channels=4, discriminator_channels=4)
    assert model.inference_networks == ("generator",)
    with pytest.raises(ValueError, match=r"give text=... or embedding=..."):
        model.sample(2)
    with pytest.raises(ValueError, match=r"give text=... or embedding=..."):
        model.generate(model.latent(2))
    with pytest.raises(ValueError, match="no text encoder"):
        model.sample(2, text="a")
    assert model.sample(2, seed=0, embedding=batch["caption_embedding"][:2]).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="batches must hold caption_embedding, or caption for"):
        model.embedding({"image": batch["image"], "caption": ["a"]}, "mismatched")


def test_a_file_holds_the_text_encoder(model: Text2Image, tmp_path: Path) -> None:
    """And is loaded without the file that the encoder was taken from."""
    encoder = zoo.TextEncoder(16, base_channels=4, **SIZES)
    pretrained.save(encoder, tmp_path / "encoder.safetensors")
    model = Text2Image(16, text_encoder=str(tmp_path / "encoder.safetensors"), base_channels=4, prompts=["a"])
    expected = model.sample(2, seed=0, text="a red apple")
    pretrained.save(model, tmp_path / "model.safetensors", networks=model.inference_networks)
    (tmp_path / "encoder.safetensors").unlink()
    again = zoo.load(tmp_path / "model.safetensors")
    assert torch.equal(again.sample(2, seed=0, text="a red apple"), expected)
    assert again.text_encoder.digest() == encoder.text_network.digest()


def test_embeddings_of_another_encoder_are_refused(model: Text2Image, batch: Batch) -> None:
    data = Data([batch])
    data.encoder_digest = "12345678"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"the data's text_encoder \(12345678\) is not the model's"):
        trainer().fit(model, datamodule=data)


def test_real_and_fake_depend_on_seed_and_index(model: Text2Image, batch: Batch) -> None:
    real, fake = model.real_and_fake(batch, seed=0, first=0)
    assert torch.equal(real, batch["image"])
    part = {name: value[2:] for name, value in batch.items()}
    assert_near(model.real_and_fake(part, seed=0, first=2)[1], fake[2:])
    assert not torch.allclose(model.real_and_fake(batch, seed=1, first=0)[1], fake)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, "image_size 48 is not supported: take 28, or a power of two"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Text2Image(**options)


def test_arguments_of_earlier_versions() -> None:
    old = {"projection": 128, "normalize_text": True, "betas": [0.5, 0.999], "halve_every": 4000}
    path, arguments = current_arguments("zoo.Text2Image", old)
    assert arguments == {"normalize_embeddings": True, "decay": {"kind": "repeated", "every": 4000}}
    assert current_arguments(path, arguments) == (path, arguments)
    assert current_arguments(path, {"halve_every": 0})[1] == {"decay": None}
    with pytest.raises(ValueError, match="no longer has projection=4"):
        current_arguments(path, {"projection": 4})
