"""AAE: an autoencoder whose codes are made to follow a prior by a discriminator of codes.

    reconstruction:  encoder and decoder minimise  E ||x - dec(enc(x))||^2
    discriminator:   minimises  -E log D(z) - E log(1 - D(enc(x))),   z ~ p(z)
    encoder:         minimises  -E log D(enc(x))

one after the other on every batch; the semi-supervised form adds a fourth phase, in which the encoder minimises the
cross-entropy of its class head on labelled images. Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop,
arXiv 1511.05644. The defaults are the paper's; `AAE.modern()` trains with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms, inference
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.engine.cross_rank import global_mean
from zoo.nn.augment import random_affine
from zoo.nn.autoencoders import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, mlp
from zoo.nn.losses import discriminator_terms, generator_term

__all__ = ["AAE"]

Form = Literal["basic", "label_in_prior", "supervised", "semi_supervised", "clustering"]
Prior = Literal["gaussian", "mixture", "swiss_roll"]

# Momentum, and the epochs at which the step size falls to a tenth, of each phase (the paper's appendix A).
SCHEDULE = {
    "reconstruction": (0.9, (50, 1000)),
    "discriminator": (0.1, (50, 1000)),
    "encoder": (0.1, (50, 1000)),
    "classification": (0.9, (50, 250)),
}


def mixture(draws: Tensor, component: Tensor) -> Tensor:
    """Ten Gaussians like the petals of a flower.

    Args:
        draws: two draws from N(0, 1) each.
        component: which Gaussian, 0 to 9.

    Shape:
        draws: (N, 2); component: (N,); output: (N, 2).

    References:
        Makhzani et al. 2015, figure 4; deviations 0.5 and 0.05 along and across, centres 1.4 from the origin.
    """
    along, across = 0.5 * draws[:, 0] + 1.4, 0.05 * draws[:, 1]
    angle = component * (2 * math.pi / 10)
    return torch.stack([along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos()], 1)


def swiss_roll(draws: Tensor, component: Tensor) -> Tensor:
    """A spiral, cut into ten parts of equal area.

    Args:
        draws: a draw from U(0, 1) each.
        component: which part, 0 to 9.

    Shape:
        draws, component: (N,); output: (N, 2).
    """
    u = ((draws + component) / 10).sqrt()
    angle = 4 * math.pi * u
    return torch.stack([3 * u * angle.cos(), 3 * u * angle.sin()], 1)


class AAE(AdversarialModel, LatentVariableModel):
    """Adversarial autoencoder in the five forms of the paper.

    "basic": codes follow the prior. "label_in_prior": the discriminator also sees the label, class k belongs to part k
    of the prior, and images without a label (-1) to the whole of it. "supervised": the decoder gets the label beside a
    code for style. "semi_supervised": the encoder has a class head, whose probabilities follow Cat(1/K), beside the
    style; it learns from `labelled` = {image, label} in the batch, or else from those labels of the batch that are not
    -1. "clustering": the same without labels, with as many clusters as `num_classes`.

    Args:
        form: see above.
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code, or of the style beside the class.
        num_classes: classes, or clusters.
        prior: distribution of the code; "mixture" and "swiss_roll" have two dimensions and ten parts.
        prior_std: deviation of the Gaussian prior.
        posterior: "deterministic"; "gaussian", a mean and a deviation; "universal", a network of the image and noise.
        noise_dim: length of that noise.
        networks: "mlp", or "conv" for colour images.
        hidden_features: widths of the hidden layers of the encoder; the decoder mirrors them.
        base_channels: channels of the first feature map ("conv").
        discriminator_features: widths of the hidden layers of the discriminators.
        input_noise: deviation of Gaussian noise added to the encoder's input in training.
        class_noise: deviation of Gaussian noise added in training to what the discriminator of classes sees; without,
            as in the paper, it tells probabilities from a prior of ones and zeros by their last digits.
        transformed_classes: in training the class head sees images that `random_affine` has changed, and the
            style is that of the image itself. So classes cannot stand for slant, size or place, which the decoder needs
            but only the style can tell. The paper has no such changes.
        reconstruction_weight: weight of the squared error per image, which is summed over pixels in [0, 1].
        optimizer: "sgd" with the paper's momenta, or "adam".
        reconstruction_learning_rate: step size of the reconstruction phase.
        adversarial_learning_rate: step size of the discriminator and encoder phases.
        classification_learning_rate: step size of the classification phase.
        decay_epochs: epochs at which all step sizes fall to a tenth; None takes the paper's, which differ by phase.
        betas: Adam's decay rates.
        weight_std: draw the weights of linear layers from N(0, weight_std); None keeps torch's own initialisation.

    Raises:
        ValueError: options that exclude each other.

    References:
        Makhzani et al. 2015, sections 2 to 6 and appendix A.
    """

    def __init__(
        self,
        form: Form = "basic",
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 8,
        num_classes: int = 0,
        *,
        prior: Prior = "gaussian",
        prior_std: float = 1.0,
        posterior: Literal["deterministic", "gaussian", "universal"] = "deterministic",
        noise_dim: int = 10,
        networks: Literal["mlp", "conv"] = "mlp",
        hidden_features: Sequence[int] = (1000, 1000),
        base_channels: int = 64,
        discriminator_features: Sequence[int] = (1000, 1000),
        input_noise: float = 0.0,
        class_noise: float = 0.0,
        transformed_classes: bool = False,
        reconstruction_weight: float = 1 / 784,
        optimizer: Literal["sgd", "adam"] = "sgd",
        reconstruction_learning_rate: float = 0.01,
        adversarial_learning_rate: float = 0.1,
        classification_learning_rate: float = 0.1,
        decay_epochs: Sequence[int] | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_std: float | None = 0.01,
    ) -> None:
        super().__init__()
        self.has_classification = form == "semi_supervised"
        self.save_hyperparameters()
        if (form == "basic") != (num_classes == 0):
            raise ValueError(f"form {form!r} needs num_classes {'0' if form == 'basic' else 'of at least 2'}")
        if prior != "gaussian" and latent_dim != 2:
            raise ValueError(f"the prior {prior!r} has two dimensions: set latent_dim=2, not {latent_dim}")
        if form == "label_in_prior" and (prior == "gaussian" or num_classes != 10):
            raise ValueError("form 'label_in_prior' needs the prior 'mixture' or 'swiss_roll', and num_classes=10")
        if posterior == "universal" and networks != "mlp":
            raise ValueError("posterior 'universal' needs networks='mlp'")
        self.form = form
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.prior_std = prior_std
        self.has_class_head = form in ("semi_supervised", "clustering")
        shape = self.image_shape
        outputs = latent_dim * (2 if posterior == "gaussian" else 1) + (num_classes if self.has_class_head else 0)
        inputs = latent_dim + (num_classes if self.has_class_head or form == "supervised" else 0)
        if networks == "mlp":
            extra = noise_dim if posterior == "universal" else 0
            self.encoder = MLPEncoder(shape, hidden_features, outputs, inputs=extra)
            self.decoder = MLPDecoder(inputs, hidden_features[::-1], shape)
        else:
            self.encoder = ConvEncoder(shape, base_channels, outputs)
            self.decoder = ConvDecoder(inputs, base_channels, shape)
        seen = latent_dim + (num_classes + 1 if form == "label_in_prior" else 0)
        self.discriminators = nn.ModuleDict({"style": mlp([seen, *discriminator_features, 1])})
        if self.has_class_head:
            self.discriminators["class"] = mlp([num_classes, *discriminator_features, 1])
        if weight_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, 0.0, weight_std)
                    nn.init.zeros_(module.bias)

    @classmethod
    def modern(cls, form: Form = "basic", **options: Any) -> AAE:
        """Adam in all phases and torch's own initialisation.

        Args:
            form: as for the constructor.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "optimizer": "adam",
            "reconstruction_learning_rate": 1e-3,
            "adversarial_learning_rate": 1e-4,
            "classification_learning_rate": 1e-3,
            "weight_std": None,
        }
        return cls(form, **setting | options)

    # Codes -----------------------------------------------------------------------------------------------------------

    def prior(self, n: int, key: int, first: int = 0, component: Tensor | None = None) -> Tensor:
        """Codes from the prior; row i depends on (key, first + i) only.

        Args:
            n: number of codes.
            key: key of the draws.
            first: global index of the first code.
            component: part of the prior for each, -1 for any; None for any.

        Shape:
            component: (n,); output: (n, latent_dim).
        """
        kind = self.hparams["prior"]
        if kind == "gaussian":
            return super().prior(n, key, first)
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        part = rng.integers(10, (n,), key + 1, first, device=self.device)
        if component is not None:
            part = torch.where(component >= 0, component, part)
        if kind == "mixture":
            z = mixture(rng.normal((n, 2), key, first, **options), part)
        else:
            z = swiss_roll(rng.uniform((n,), key, first, **options), part)
        return z if self.prior_std == 1 else self.prior_std * z

    def _code(self, x: Tensor, purpose: str | None = None) -> tuple[Tensor | None, Tensor]:
        """Class logits (None without a class head) and style of images in [0, 1]; noise only with a purpose."""
        logits, z = self._heads(x, purpose)
        if purpose is not None and self.has_class_head and self.hparams["transformed_classes"]:
            logits, _ = self._heads(self._transformed(x, purpose), f"{purpose}/class")
        return logits, z

    def _transformed(self, x: Tensor, purpose: str) -> Tensor:
        """Images as the class head sees them in training."""
        if not self.hparams["transformed_classes"]:
            return x
        return random_affine(x, self.draw_key(f"{purpose}/affine"), self.first_index(len(x)))

    def _heads(self, x: Tensor, purpose: str | None) -> tuple[Tensor | None, Tensor]:
        """What one pass of the encoder gives for both."""
        hparams, n, first = self.hparams, len(x), self.first_index(len(x))
        options: dict[str, Any] = {"device": x.device, "dtype": x.dtype}
        if purpose is not None and hparams["input_noise"]:
            x = x + hparams["input_noise"] * rng.normal(x.shape, self.draw_key(f"{purpose}/input"), first, **options)
        if hparams["posterior"] == "universal":
            shape = (n, hparams["noise_dim"])
            eta = torch.zeros(shape, **options)
            if purpose is not None:
                eta = rng.normal(shape, self.draw_key(f"{purpose}/eta"), first, **options)
            x = torch.cat([x.flatten(1), eta], 1)
        out = self.encoder(x)
        logits = None
        if self.has_class_head:
            logits, out = out[:, : self.num_classes], out[:, self.num_classes :]
        if hparams["posterior"] == "gaussian":
            out, log_var = out.chunk(2, 1)
            if purpose is not None:
                eps = rng.normal(out.shape, self.draw_key(f"{purpose}/eps"), first, **options)
                out = out + (0.5 * log_var).exp() * eps
        return logits, out

    def mean_code(self, x: Tensor) -> Tensor:
        """Style, behind the class probabilities where the encoder has a class head."""
        logits, z = self._code(x)
        return z if logits is None else torch.cat([logits.softmax(1), z], 1)

    def _onehot(self, label: Tensor) -> Tensor:
        return F.one_hot(label, self.num_classes).to(self.dtype)

    # What the model does with images ---------------------------------------------------------------------------------

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of classes, or clusters.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, num_classes).

        Raises:
            ValueError: the form has no class head.
        """
        logits, _ = self._code((x + 1) / 2)
        if logits is None:
            raise ValueError(f"an AAE of form {self.form!r} does not classify: take 'semi_supervised' or 'clustering'")
        return logits.softmax(1)

    @inference
    def reconstruct(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Images as they come back through the code.

        Args:
            x: images.
            label: their classes, in the supervised form; by default 0.

        Shape:
            x, output: (N, C, H, W) in [-1, 1]; label: (N,).
        """
        z = self.encode(x)
        if self.form == "supervised":
            label = torch.zeros(len(x), dtype=torch.int64, device=x.device) if label is None else label
            z = torch.cat([self._onehot(label), z], 1)
        return self.decode(z)

    @inference
    def latent(self, n: int, *, seed: int | None = None, first: int = 0) -> Tensor:
        """The inputs of the decoder from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, inputs of the decoder).
        """
        seed = self.resolve_seed(seed)
        z = self.prior(n, rng.key(seed, "sample"), first)
        if self.has_class_head or self.form == "supervised":
            label = rng.integers(self.num_classes, (n,), rng.key(seed, "label"), first, device=self.device)
            z = torch.cat([self._onehot(label), z], 1)
        return z

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw codes from the prior and decode them.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: image i depends on (seed, first + i) only.
            conditions: `label`, a class (or cluster, or part of the prior) or one per image; by default it is drawn.

        Shape:
            Output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: there is no such condition or label.
        """
        label = conditions.pop("label", None)
        if conditions:
            raise ValueError(f"AAE has no condition {next(iter(conditions))!r}: it has 'label'")
        if label is None:
            return self.decode(self.latent(n, seed=seed, first=first))
        if not self.num_classes:
            raise ValueError("an AAE of form 'basic' takes no label")
        label = torch.as_tensor(label, dtype=torch.int64, device=self.device).expand(n)
        if n and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}")
        key = rng.key(self.resolve_seed(seed), "sample")
        if self.form == "label_in_prior":
            return self.decode(self.prior(n, key, first, label))
        return self.decode(torch.cat([self._onehot(label), self.prior(n, key, first)], 1))

    @inference
    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images while the class, or one dimension of the style, varies and all else stays.

        Shape:
            Outputs, by name: (num, steps, C, H, W).
        """
        base = self.latent(num, seed=seed)
        classes = base.size(1) - self.latent_dim
        values = torch.linspace(-3, 3, steps, device=base.device, dtype=base.dtype) * self.prior_std
        ways = {"class": (0, torch.eye(classes, device=base.device, dtype=base.dtype))} if classes else {}
        ways |= {f"z{i}": (classes + i, values.unsqueeze(1)) for i in range(self.latent_dim)}
        result = {}
        for name, (start, rows) in ways.items():
            z = base.unsqueeze(1).repeat(1, len(rows), 1)
            z[:, :, start : start + rows.size(1)] = rows
            result[name] = self.decode(z.flatten(0, 1)).unflatten(0, (num, len(rows)))
        return result

    # Training --------------------------------------------------------------------------------------------------------

    def objectives(self) -> dict[str, Objective]:
        """The phases of the paper, with the one of the class head where there is one."""
        objectives: dict[str, Objective] = {
            "reconstruction": self.reconstruction_loss,
            "discriminator": self.discriminator_loss,
            "encoder": self.encoder_loss,
        }
        return objectives | ({"classification": self.classification_loss} if self.has_classification else {})

    def reconstruction_loss(self, batch: Batch, shared: None) -> Terms:
        """Squared error.

        Shape:
            Output: scalar.
        """
        x = (batch["image"] + 1) / 2
        logits, z = self._code(x, "reconstruction")
        if logits is not None:
            z = torch.cat([logits.softmax(1), z], 1)
        elif self.form == "supervised":
            z = torch.cat([self._onehot(batch["label"]), z], 1)
        error = (self.decoder(z).sigmoid() - x).square().flatten(1).sum(1).mean()
        return {"error": self.hparams["reconstruction_weight"] * error}

    def discriminator_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log D(z) - E log(1 - D(enc(x))), for the style and for the class.

        Shape:
            Output: scalars.
        """
        n = len(batch["image"])
        first = self.first_index(n)
        part = batch["label"] if self.form == "label_in_prior" else None
        prior = {"style": self.prior(n, self.draw_key("prior"), first, part)}
        if self.has_class_head:
            label = rng.integers(self.num_classes, (n,), self.draw_key("class"), first, device=self.device)
            prior["class"] = self._onehot(label)
        with torch.no_grad():
            codes = self._codes(batch, "discriminator")
        terms: Terms = {}
        for name, judge in self.discriminators.items():
            prior[name] = self._blurred(name, prior[name], "discriminator/prior")
            codes[name] = self._blurred(name, codes[name], "discriminator/code")
            both = judge(torch.cat([self._with_label(prior[name], batch), self._with_label(codes[name], batch)]))
            for kind, term in discriminator_terms("non_saturating", *both.chunk(2)).items():
                terms[f"{name}_{'prior' if kind == 'real' else 'code'}"] = term
        return terms

    def encoder_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log D(enc(x)), for the style and for the class.

        Shape:
            Output: scalars.
        """
        codes = self._codes(batch, "encoder")
        return {
            name: generator_term(
                "non_saturating", judge(self._with_label(self._blurred(name, codes[name], "encoder/code"), batch))
            )
            for name, judge in self.discriminators.items()
        }

    def classification_loss(self, batch: Batch, shared: None) -> Terms:
        """Cross-entropy of the class head on labelled images, a mean over those of all ranks.

        Shape:
            Output: scalar.
        """
        labelled = batch.get("labelled", batch)
        x = self._transformed((labelled["image"] + 1) / 2, "classification")
        logits, _ = self._heads(x, "classification")
        label = labelled["label"]
        loss = F.cross_entropy(cast(Tensor, logits), label, ignore_index=-1, reduction="sum")
        return {"cross_entropy": global_mean(loss, (label >= 0).sum())}

    def _codes(self, batch: Batch, purpose: str) -> dict[str, Tensor]:
        logits, z = self._code((batch["image"] + 1) / 2, purpose)
        return {"style": z} if logits is None else {"style": z, "class": logits.softmax(1)}

    def _blurred(self, name: str, code: Tensor, purpose: str) -> Tensor:
        """Classes with noise, styles as they are."""
        if name != "class" or not (deviation := self.hparams["class_noise"]):
            return code
        key, first = self.draw_key(purpose), self.first_index(len(code))
        noise = rng.normal(code.shape, key, first, device=code.device, dtype=code.dtype)
        return code + cast(float, deviation) * noise

    def _with_label(self, code: Tensor, batch: Batch) -> Tensor:
        """In the form "label_in_prior" the code with its one-hot label, in whose last place stands "unlabelled"."""
        if self.form != "label_in_prior":
            return code
        label = batch["label"] % (self.num_classes + 1)  # -1 becomes the last
        return torch.cat([code, F.one_hot(label, self.num_classes + 1).to(code.dtype)], 1)

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The step size of a phase, which falls to a tenth at given epochs."""
        hparams = self.hparams
        epochs = hparams["decay_epochs"]
        if epochs is None:
            epochs = SCHEDULE[phase][1] if hparams["optimizer"] == "sgd" else ()
        return {"lr": self._learning_rate(phase) * 0.1 ** sum(self.trainer.current_epoch >= epoch for epoch in epochs)}

    def _learning_rate(self, phase: str) -> float:
        name = phase if phase in ("reconstruction", "classification") else "adversarial"
        return float(self.hparams[f"{name}_learning_rate"])

    def configure_optimizers(self) -> list[Optimizer]:
        """An optimizer for each phase: with momenta of its own, as in the paper, or Adam."""
        parameters = {
            "reconstruction": [*self.encoder.parameters(), *self.decoder.parameters()],
            "discriminator": [*self.discriminators.parameters()],
            "encoder": [*self.encoder.parameters()],
            "classification": [*self.encoder.parameters()],
        }
        if self.hparams["optimizer"] == "adam":
            betas = tuple(self.hparams["betas"])
            return [self.adam(parameters[phase], self._learning_rate(phase), betas=betas) for phase in self.phases]
        return [
            torch.optim.SGD(parameters[phase], self._learning_rate(phase), momentum=SCHEDULE[phase][0], fused=True)
            for phase in self.phases
        ]
