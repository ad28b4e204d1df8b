from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.models import test_text2image as of_text2image
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.projection_text2image import ConditionalBatchNorm, ProjectionDiscriminator, ProjectionText2Image


class TestProjectionText2Image(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    # -1 from each real image, +1 from all it refuses, as long as all lie within the margin.
    balanced = ("discriminator.real.bias",)

    def tiny(self) -> ProjectionText2Image:
        sentences: dict[str, Any] = {"text_encoder": of_text2image.ENCODER, "prompts": of_text2image.PROMPTS}
        model = ProjectionText2Image(16, **sentences, latent_dim=5, base_channels=4, **self.options)
        # Its untrained images would all be grey: so few channels of such small weights, and nothing normalized yet.
        for generator in (model.generator, model.generator_ema):
            for parameter in () if generator is None else generator.parameters():
                parameter.data.mul_(10 if parameter.dim() == 4 else 1)
        return model

    def comparable(self) -> ProjectionText2Image:
        """Without the bias whose gradient is zero but for rounding, of which Adam makes whole steps."""
        model = self.tiny()
        model.discriminator.real.bias.register_hook(torch.zeros_like)
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return of_text2image.TestText2Image().batch(n, seed=seed, dtype=dtype)


class TestProjectionText2ImageSentences(TestProjectionText2Image):
    """Batches of sentences, and what is off by default."""

    options = {"ema_decay": 0.9, "accumulate": 2, "channels_last": True, "augment": True, "diversity_weight": 0.0}  # noqa: RUF012

    def test_overfits_one_batch(self, model: Any) -> None:
        pytest.skip("DiffAugment shows the discriminator other images in each step, so that it cannot")

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        return of_text2image.TestText2ImageSentences().batch(n, seed=seed, dtype=dtype)


@pytest.fixture
def model() -> ProjectionText2Image:
    torch.manual_seed(0)
    return TestProjectionText2Image().tiny()


@pytest.fixture
def batch() -> Batch:
    return TestProjectionText2Image().batch(6)


def test_logit_is_a_projection() -> None:
    """(a + V t) . sum phi(x) + b, written out; V and a divided by their largest singular values."""
    torch.manual_seed(0)
    discriminator = ProjectionDiscriminator(16, 3, 6, 4).double().eval()
    x, text = torch.randn(3, 3, 16, 16).double(), torch.randn(3, 6).double()
    phi = discriminator.layers(x).flatten(2).sum(2)
    a, b, v = discriminator.real.weight[0], discriminator.real.bias, discriminator.text.weight
    expected = torch.stack([(a + v @ (t / 6**0.5)) @ f + b[0] for t, f in zip(text, phi, strict=True)])
    assert phi.shape == (3, 16)
    assert_near(discriminator(x, text), expected)


def test_the_discriminator_is_normalized(model: ProjectionText2Image) -> None:
    x, text = torch.rand(2, 3, 16, 16), torch.rand(2, 6)
    for _ in range(200):  # one power iteration in each pass
        model.discriminator(x, text)
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 7
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)


def test_noise_and_sentence_set_every_normalization(model: ProjectionText2Image) -> None:
    norms = [m for m in model.generator.modules() if isinstance(m, ConditionalBatchNorm)]
    assert len(norms) == 2
    for norm in norms:
        x, condition = torch.randn(8, norm.norm.num_features, 4, 4), torch.randn(8, norm.scale_and_shift.in_features)
        scale, shift = norm.scale_and_shift(condition)[:, :, None, None].chunk(2, 1)
        assert_near(norm(x, condition), F.batch_norm(x, None, None, training=True) * (1 + scale) + shift)
    given: list[Tensor] = []
    norms[1].register_forward_hook(lambda _, inputs, __: given.append(inputs[1]))
    z, text = torch.randn(2, 5), torch.randn(2, 6)
    model.generator(z, text)
    assert torch.equal(given[0], torch.cat([z, model.generator.project(text)], 1))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_terms_by_hand(batch: Batch, weight: float) -> None:
    """With mismatched pairs, and without them, which is the plain conditional GAN."""
    model = ProjectionText2Image(16, text_features=6, latent_dim=5, base_channels=4, mismatch_weight=weight)
    logits = torch.tensor([[2.0, 0.5], [-2.0, 0.5], [1.0, -0.5]])
    model.discriminator.features = lambda x: x.flatten(1)[:, :1]  # type: ignore[method-assign]
    model.discriminator.discriminate = lambda features, text: logits[: len(features) // 2].flatten()  # type: ignore[method-assign]
    batch = {name: value[:2] for name, value in batch.items()}
    shared = model.forward_shared(batch)
    terms = model.discriminator_loss(batch, shared)
    # hinges: real 0 .5; fake 0 1.5; mismatched 2 .5
    found = [terms[name].item() for name in ("real", "fake", "mismatched")]
    assert found == [0.25, (1 - weight) * 0.75, weight * 1.25]
    assert model.generator_loss(batch, shared)["adversarial"].item() == -1.25


def test_diversity_by_hand(model: ProjectionText2Image, batch: Batch) -> None:
    """Mean absolute differences of images and of noises, divided, counted up to the limit."""
    model.hparams.update(diversity_weight=2.0, diversity_limit=0.5)
    z = torch.tensor(
        [[0.0] * 4 + [1.0], [0.0] * 5, [1.0] * 5, [0.0] * 4 + [-1.0], [2.0] * 5, [1.0, -1.0, 1.0, 1.0, 0.0]]
    )
    fake, others = torch.zeros(3, 3, 16, 16), torch.tensor([0.1, -0.6, 0.5])[:, None, None, None].expand(-1, 3, 16, 16)
    shared = {"text": batch["caption_embedding"][:3], "fake": fake, "others": others, "z": z}
    # images differ by .1, .6, .5, noises by .4, 2, .8: ratios .25, .3, .625, the last of which counts as .5
    assert model.generator_loss(batch, shared)["diversity"].item() == pytest.approx(-2 * (0.25 + 0.3 + 0.5) / 3)


def test_second_images_are_of_the_same_sentences_and_other_noise(model: ProjectionText2Image, batch: Batch) -> None:
    given: list[tuple[Tensor, Tensor]] = []
    model.generator.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    shared = model.forward_shared(batch)
    z, text = given[0]
    assert torch.equal(text, torch.cat([shared["text"]] * 2))
    assert (z[:6] != z[6:]).all()
    assert torch.equal(z[:6], model.training_noise(6)), "the discriminator's fakes are those of this batch"
    model.hparams["diversity_weight"] = 0.0
    assert "others" not in model.forward_shared(batch)


def test_which_sentence_meets_which_image(model: ProjectionText2Image, batch: Batch) -> None:
    """Real images their own and another's, generated ones their own; all embeddings of one norm."""
    seen: list[tuple[Tensor, Tensor]] = []
    discriminate = model.discriminator.discriminate
    model.discriminator.discriminate = lambda *given: (seen.append(given), discriminate(*given))[1]  # type: ignore
    shared = model.forward_shared(batch)
    model.discriminator_loss(batch, shared)
    features, text = seen[0]
    assert torch.equal(features[:6], features[12:])
    own, other = (6**0.5 * F.normalize(batch[f"{kind}_embedding"]) for kind in ("caption", "mismatched"))
    assert_near(text, torch.cat([own, own, other]))


@pytest.mark.slow
def test_learns_colors_from_sentences() -> None:
    """Four colors told by the embedding: the images that it draws have them."""
    torch.manual_seed(0)
    label = torch.arange(32) % 4
    colors = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])
    text = F.one_hot(label, 6).float()
    image = 0.8 * colors[label][:, :, None, None].expand(-1, -1, 8, 8)
    data = {"image": image, "caption_embedding": text, "mismatched_embedding": text.roll(1, 0)}
    model = ProjectionText2Image(8, text_features=6, latent_dim=4, base_channels=8, learning_rate=1e-3)
    trainer(max_epochs=10).fit(model, datamodule=Data([data] * 30))
    drawn = model.sample(32, seed=0, embedding=text).mean((2, 3))
    assert (torch.cdist(drawn, 0.8 * colors).argmin(1) == label).float().mean() > 0.9
