from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.contract import ModelContract
from zoo.base import Batch, GenerativeModel
from zoo.engine import rng
from zoo.nn.augment import diff_augment
from zoo.nn.stargan import Generator
from zoo.pretrained.migrations import current_arguments
from zoo.stargan_critics import DomainCritics, DomainCriticStarGAN, DomainGenerator, DomainNorm


class TestDomainCriticStarGAN(ModelContract):
    samples = False

    def tiny(self) -> DomainCriticStarGAN:
        """With a last layer that is not zero: else the translations of the first step are the images."""
        model = DomainCriticStarGAN(
            8,
            domains=["red", "green", "blue"],
            base_channels=4,
            discriminator_channels=6,
            num_blocks=1,
            discriminator_layers=2,
            n_critic=2,
            ema_decay=0.5,
            augment=True,
        )
        nn.init.normal_(model.generator.layers[-1].weight, 0, 0.1)
        model.generator_ema.load_state_dict(model.generator.state_dict())
        return model

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 3, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)
        return {"image": images, "label": torch.arange(n) % 3}

    def pictures(self, model: GenerativeModel) -> Tensor:
        assert isinstance(model, DomainCriticStarGAN)
        return model.reconstruct(self.batch(2)["image"])


@pytest.fixture
def model() -> DomainCriticStarGAN:
    torch.manual_seed(0)
    return TestDomainCriticStarGAN().tiny()


def test_a_critic_of_each_domain_and_its_mean_as_logit() -> None:
    values, logits = DomainCritics(32, 3, 2, 4, 5)(torch.rand(2, 3, 32, 32))
    assert values.shape == (2, 5, 2, 2)
    torch.testing.assert_close(logits, values.mean((2, 3)))


def test_the_generator_starts_as_the_identity() -> None:
    generator = DomainGenerator(3, 4, 1, 2)
    x, domain = torch.rand(2, 3, 8, 8) * 2 - 1, torch.eye(2)
    assert torch.equal(generator(x, domain), x)
    nn.init.ones_(generator.layers[-1].weight)
    assert not torch.allclose(generator(x, domain), x)


def test_the_domain_sets_scale_and_shift_of_normalizations() -> None:
    """At first none differs; then exactly those of its row, in the middle of the image too."""
    torch.manual_seed(0)
    norm = DomainNorm(3, 2)
    x = torch.randn(2, 3, 5, 5)
    plain = F.instance_norm(x)
    torch.testing.assert_close(norm(x, torch.eye(2)), plain)
    nn.init.normal_(norm.domain.weight)
    scale, shift = norm.domain.weight.T.chunk(2, 1)  # (2, 3) each
    expected = (1 + scale)[:, :, None, None] * plain + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, torch.eye(2)), expected)
    assert DomainGenerator(3, 4, 1, 2).layers[0].in_channels == 3


def test_far_from_the_border_only_normalizations_tell_the_domain() -> None:
    """The first normalization removes constant maps of the domain, except at the borders."""
    torch.manual_seed(0)
    changes = []
    for generator in (Generator(3, 4, 0, 2).double(), DomainGenerator(3, 4, 0, 2).double()):
        nn.init.normal_(generator.layers[-1].weight, 0, 0.1)
        for module in generator.modules():
            if isinstance(module, DomainNorm):
                nn.init.normal_(module.domain.weight)
        one, other = generator(torch.randn(1, 3, 128, 128).double().expand(2, -1, -1, -1), torch.eye(2).double())
        changes.append((one - other)[:, 48:80, 48:80].abs().mean().item())
    assert changes[0] < 0.1 * changes[1]


@pytest.mark.parametrize("augment", [False, True])
def test_terms(model: DomainCriticStarGAN, augment: bool) -> None:
    model.double().augment = augment
    batch = TestDomainCriticStarGAN().batch(6, dtype=torch.float64)
    shared = model.forward_shared(batch)
    own, target, fake = shared["domain"].argmax(1), shared["target"].argmax(1), shared["fake"]
    assert torch.equal(own, batch["label"])
    assert (own != target).all()
    rows = torch.arange(6)
    # Only what the critics see is changed, each kind of image by draws of its own.
    seen = {"real": batch["image"], "fake": fake}
    if augment:
        seen = {name: diff_augment(x, model.draw_key(f"augment/{name}"), colors=False) for name, x in seen.items()}
    real, made = model.discriminator(seen["real"])[0], model.discriminator(seen["fake"])[0]
    others = torch.stack([real[rows, (own + i) % 3] for i in (1, 2)])
    expected = {
        "real": (real[rows, own] - 1).square().mean().item(),
        "fake": made[rows, target].square().mean().item() / 2,
        "mismatched": others.square().mean().item() / 2,
    }
    terms = {name: value.item() for name, value in model.discriminator_loss(batch, shared).items()}
    assert terms == pytest.approx(expected, rel=1e-12)
    expected = {
        "adversarial": (made[rows, target] - 1).square().mean().item(),
        "reconstruction": 10 * F.l1_loss(model.generator(fake, shared["domain"]), batch["image"]).item(),
    }
    terms = {name: value.item() for name, value in model.generator_loss(batch, shared).items()}
    assert terms == pytest.approx(expected, rel=1e-12)


def test_other_domains_are_drawn_evenly(model: DomainCriticStarGAN) -> None:
    own = F.one_hot(torch.arange(3000) % 3, 3).float()
    steps = (model.draw_targets(own).argmax(1) - own.argmax(1)) % 3
    assert set(steps.tolist()) == {1, 2}
    assert (steps == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_critics_say_which_domain_and_how_real(model: DomainCriticStarGAN) -> None:
    x = TestDomainCriticStarGAN().batch(6)["image"]
    means = model.discriminator(x)[0].mean((2, 3))
    torch.testing.assert_close(model.classify(x), means.softmax(1))
    torch.testing.assert_close(model.score(x), -means.amax(1))


# As the file of stargan-emoji64 names them.
EARLIER = {
    "attributes": [],
    "categories": [["red", "green", "blue"]],
    "joint": False,
    "num_layers": 3,
    "domain_norm": True,
    "residual": True,
    "domain_critics": True,
    "classification_weight": 1.0,
    "identity_weight": 0.0,
    "loss": "least_squares",
    "gradient_penalty_weight": 0.0,
    "betas": [0.5, 0.999],
    "constant_steps": 7500,
    "decay_steps": 3500,
    "decay": "paper",
}


def test_arguments_of_earlier_versions() -> None:
    path, arguments = current_arguments("zoo.StarGAN", EARLIER)
    assert path == "zoo.stargan_critics.DomainCriticStarGAN"
    assert arguments == {
        "domains": ["red", "green", "blue"],
        "discriminator_layers": 3,
        "decay": {"kind": "linear", "constant": 7500, "length": 3500},
    }
    assert current_arguments(path, arguments) == (path, arguments)


@pytest.mark.parametrize("name", ["residual", "loss"])
def test_critics_in_another_form_are_no_longer_there(name: str) -> None:
    with pytest.raises(ValueError, match="StarGAN no longer has"):
        current_arguments("zoo.StarGAN", EARLIER | {name: {"residual": False, "loss": "hinge"}[name]})


@pytest.mark.parametrize("domains", [[], ["red"]])
def test_fewer_than_two_domains_are_refused(domains: list[str]) -> None:
    with pytest.raises(ValueError, match="domains must name at least two"):
        DomainCriticStarGAN(8, domains=domains)
