from __future__ import annotations

import itertools
import math
from importlib import import_module
from typing import Any, TypeVar

import pytest
import torch
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from zoo.aae import AAE
from zoo.base import Batch
from zoo.engine import rng
from zoo.nn.aae import mixture, swiss_roll
from zoo.nn.schedules import Decay
from zoo.pretrained.migrations import current_arguments

Model = TypeVar("Model", bound=AAE)
WIDTHS: dict[str, Any] = {"hidden_features": (8, 8), "discriminator_features": (8, 8), "weight_std": 0.5}


def tiny(model: Model) -> Model:
    """The model with the full weight on the error of its few pixels, which else falls too slowly for the contract."""
    model.reconstruction_weight = 1.0
    return model


class TestAAE(ModelContract):
    options: dict[str, Any] = {}  # noqa: RUF012

    def tiny(self) -> AAE:
        return tiny(AAE(8, latent_dim=2, **WIDTHS, **self.options))

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype), "label": torch.arange(n) % 3}


class TestAAEGaussianPosterior(TestAAE):
    options = {"posterior": "gaussian"}  # noqa: RUF012


class TestAAEUniversalPosterior(TestAAE):
    options = {"posterior": "universal"}  # noqa: RUF012


# The paper's claims ---------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_paper() -> None:
    model = AAE()
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}
    assert counts == {"encoder": 1_794_008, "decoder": 1_794_784, "discriminators": 1_011_001}


@pytest.mark.parametrize("component", [0, 3, 9])
def test_parts_of_the_mixture(component: int) -> None:
    z = mixture(rng.normal((20_000, 2), 1), torch.full((20_000,), component))
    angle = component * 2 * math.pi / 10
    along, across = torch.tensor([math.cos(angle), math.sin(angle)]), torch.tensor([-math.sin(angle), math.cos(angle)])
    assert (z @ along).mean().item() == pytest.approx(1.4, abs=0.02)
    assert (z @ along).std().item() == pytest.approx(0.5, rel=0.03)
    assert (z @ across).std().item() == pytest.approx(0.05, rel=0.03)


def test_parts_of_the_swiss_roll_follow_each_other() -> None:
    ends = [swiss_roll(torch.tensor([0.0, 1.0]), torch.tensor([k, k])) for k in range(10)]
    for one, other in itertools.pairwise(ends):
        assert torch.allclose(one[1], other[0], atol=1e-6)
    assert ends[-1][1].norm().item() == pytest.approx(3)


def test_prior_counts_as_real_and_codes_as_fake() -> None:
    model = AAE(latent_dim=2, hidden_features=(4,), discriminator_features=(4,))
    for p in model.parameters():
        p.data.zero_()
    model.discriminators["style"][-1].bias.data.fill_(3.0)  # takes everything for a draw from the prior
    batch = {"image": torch.zeros(4, 1, 28, 28)}
    terms = model.discriminator_loss(batch, None)
    assert terms["style_prior"].item() == pytest.approx(F.softplus(torch.tensor(-3.0)).item())
    assert terms["style_code"].item() == pytest.approx(F.softplus(torch.tensor(3.0)).item())
    assert model.encoder_loss(batch, None)["style"].item() == pytest.approx(F.softplus(torch.tensor(-3.0)).item())


@pytest.mark.slow
def test_codes_come_to_follow_the_prior() -> None:
    """Data of two groups, whose codes without a prior lie in two heaps."""
    torch.manual_seed(0)
    base = torch.rand(2, 1, 8, 8)
    images = (base[torch.arange(256) % 2] + 0.3 * torch.randn(256, 1, 8, 8)).clamp(0, 1) * 2 - 1
    widths = {"hidden_features": (64,), "discriminator_features": (64, 64)}
    model = AAE.modern(image_size=8, latent_dim=2, adversarial_learning_rate=1e-3, **widths)
    trainer(max_steps=1500, max_epochs=-1).fit(model, datamodule=Data([{"image": images}] * 50))
    z = model.encode(images)
    assert z.mean(0).abs().max() < 0.35
    assert z.std(0).sub(1).abs().max() < 0.35
    quantiles = torch.linspace(0.1, 0.9, 9)
    assert z.quantile(quantiles, 0).T.sub(torch.distributions.Normal(0.0, 1.0).icdf(quantiles)).abs().max() < 0.6


@pytest.mark.parametrize("prior", ["mixture", "swiss_roll"])
def test_codes_of_the_other_priors_are_scaled(prior: Any) -> None:
    one, two = (AAE(latent_dim=2, prior=prior, prior_std=std, hidden_features=(4,)) for std in (1.0, 2.0))
    z = one.prior(50, 3)
    assert z.norm(dim=1).max() > 1
    assert torch.equal(two.prior(50, 3), 2 * z)


def test_phases_and_their_optimizers() -> None:
    model = AAE(8, hidden_features=(4,))
    assert model.phases == ("reconstruction", "discriminator", "encoder")
    optimizers = model.configure_optimizers()
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.01, 0.1, 0.1]
    assert [o.param_groups[0]["momentum"] for o in optimizers] == [0.9, 0.1, 0.1]


def test_step_sizes_fall_at_the_epochs_of_the_paper_or_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    def rates(model: AAE, epoch: int) -> list[float]:
        monkeypatch.setattr(model, "_trainer", type("Run", (), {"current_epoch": epoch, "max_epochs": 5000})())
        return [model.optimizer_overrides(phase, 0)["lr"] for phase in model.phases]

    model = AAE(8, hidden_features=(4,))
    assert rates(model, 49) == pytest.approx([0.01, 0.1, 0.1])
    assert rates(model, 50) == pytest.approx([0.001, 0.01, 0.01])
    assert rates(model, 1000) == pytest.approx([0.0001, 0.001, 0.001])
    assert rates(AAE.modern(image_size=8), 1000) == pytest.approx([1e-3, 1e-4, 1e-4])
    decay = {"kind": "milestones", "unit": "epochs", "milestones": {3: 0.5}}
    for model in (AAE(8, decay=decay), AAE.modern(image_size=8, decay=decay)):
        first, *_ = rates(model, 0)
        assert rates(model, 2)[0] == first
        assert rates(model, 50)[0] == first / 2


@pytest.mark.parametrize("posterior", ["gaussian", "universal"])
def test_posteriors_are_noisy_in_training_only(posterior: Any) -> None:
    model = AAE(8, hidden_features=(6,), posterior=posterior, weight_std=None)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(model.encode(x), model.encode(x))
    noisy = [model.code(x, purpose) for purpose in ("one", "other")]
    assert not torch.allclose(noisy[0], noisy[1])


def test_gaussian_posterior_has_the_mean_and_deviation_that_the_encoder_gives() -> None:
    model = AAE(8, latent_dim=1, hidden_features=(4,), posterior="gaussian").double()
    head = model.encoder.net[-1]
    head.weight.data.zero_()
    head.bias.data = torch.tensor([3.0, math.log(0.25)]).double()
    z = model.code(torch.rand(20_000, 1, 8, 8).double(), "reconstruction")
    assert z.mean().item() == pytest.approx(3, abs=0.02)
    assert z.std().item() == pytest.approx(0.5, rel=0.02)


def test_settings_and_conditions_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="set latent_dim=2, not 8"):
        AAE(prior="mixture")
    with pytest.raises(ValueError, match="AAE does not take ema_decay: it averages a generator"):
        AAE(ema_decay=0.9)
    with pytest.raises(ValueError, match="AAE has no condition 'label'"):
        AAE(8, hidden_features=(4,)).sample(1, label=0)


# Earlier arguments ----------------------------------------------------------------------------------------------------

OF_ALL_FORMS: dict[str, Any] = {
    "image_size": 28,
    "image_channels": 1,
    "latent_dim": 4,
    "prior": "gaussian",
    "prior_std": 1.0,
    "posterior": "deterministic",
    "noise_dim": 10,
    "networks": "mlp",
    "hidden_features": [500, 500],
    "base_channels": 64,
    "discriminator_features": [500, 500],
    "input_noise": 0.0,
    "class_noise": 0.0,
    "transformed_classes": False,
    "reconstruction_weight": 0.0012755102040816326,
    "optimizer": "adam",
    "reconstruction_learning_rate": 0.002,
    "adversarial_learning_rate": 0.001,
    "classification_learning_rate": 0.001,
    "decay_epochs": [25, 35],
    "betas": [0.5, 0.999],
    "weight_std": None,
}
CLASSES = {"num_classes": 10, "input_noise": 0.3, "transformed_classes": True}
FORMS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "basic": ({"num_classes": 0}, "zoo.aae.AAE", {}),
    "label_in_prior": (
        {"num_classes": 10, "prior": "swiss_roll", "latent_dim": 2},
        "zoo.label_prior_aae.LabelPriorAAE",
        {"prior": "swiss_roll"},
    ),
    "supervised": ({"num_classes": 3}, "zoo.supervised_aae.SupervisedAAE", {"latent_dim": 4, "num_classes": 3}),
    "semi_supervised": (
        CLASSES,
        "zoo.semi_supervised_aae.SemiSupervisedAAE",
        {"num_classes": 10, "input_noise_std": 0.3, "affine_classes": True, "classification_learning_rate": 0.001},
    ),
    "clustering": (
        CLASSES | {"class_noise": 0.3},
        "zoo.clustering_aae.ClusteringAAE",
        {"num_classes": 10, "input_noise_std": 0.3, "affine_classes": True, "class_noise_std": 0.3},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_earlier_arguments_of_a_form_make_its_class(form: str) -> None:
    given, path, expected = FORMS[form]
    found, arguments = current_arguments("zoo.aae.AAE", OF_ALL_FORMS | {"form": form} | given)
    assert found == path
    assert expected.items() <= arguments.items()
    assert Decay.of(arguments["decay"]) == Decay("milestones", unit="epochs", milestones={25: 0.1, 35: 0.01})
    assert not {"form", "decay_epochs", "betas", "networks"} & arguments.keys()
    module, _, name = found.rpartition(".")
    model = getattr(import_module(module), name)(**arguments)
    assert type(model)(**model.hparams).hparams == model.hparams
    assert current_arguments(found, arguments) == (found, arguments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": "conv"}, r"zoo\.aae\.AAE no longer has networks='conv'"),
        ({"form": "supervised", "num_classes": 3, "posterior": "gaussian"}, r"SupervisedAAE no longer has posterior="),
        ({"form": "semi_supervised", "num_classes": 3, "class_noise": 0.3}, r"AAE no longer has class_noise=0\.3"),
    ],
)
def test_earlier_arguments_without_a_class_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        current_arguments("zoo.aae.AAE", OF_ALL_FORMS | given)
