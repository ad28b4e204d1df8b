"""What has changed in the constructors of models and DataModules: the tables by which earlier files are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.nn.schedules import Decay

__all__ = ["CHANGES", "Change", "plain"]


def plain(value: Any) -> Any:
    """A tuple as the list that files make of it."""
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Change:
    """What has changed in the constructor of a class.

    Attributes:
        forms: values of earlier arguments that now make a class of its own, and this class's path. The arguments are
            dropped; the first entry that fits holds.
        convert: a function of all arguments, for options that were joined into one.
        renamed: today's name of an argument by its earlier one.
        retired: arguments that the class no longer has, with the value that it now always has.
    """

    forms: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    retired: Mapping[str, Any] = field(default_factory=dict)


_THEANO = {"noise": "uniform", "kernel_size": 5, "linear": True, "norm_eps": 1e-8, "separate_batches": True}
_DCGAN = {
    "num_classes": 0,
    "weight_decay": 0.0,
    "noise": "normal",
    "kernel_size": 4,
    "linear": False,
    "hidden_features": 0,
    "norm_eps": 1e-5,
    "norm_affine": True,
    "separate_batches": False,
    "loss": "non_saturating",
    "discriminator_norm": "batch",
    "gradient_penalty_weight": 0.0,
    "r1_weight": 0.0,
    "n_critic": 1,
}


def _dcgan(arguments: dict[str, Any]) -> dict[str, Any]:
    theano = _THEANO | {"weight_decay": 1e-5}
    if "kernel_size" in arguments and all(arguments.get(key) == value for key, value in theano.items()):
        return {key: value for key, value in arguments.items() if key not in theano} | {"variant": "theano"}
    return arguments


_GROWTH = {
    "training_images": "training_images",
    "transition_images": "transition_images",
    "first_resolution": "first_resolution",
    "global_batch_size": "global_batch_size",
    "global_batch_sizes": "global_batch_sizes",
    "learning_rates": "learning_rates",
    "repeats": "steps_per_schedule_check",
}


def _progressive_gan(arguments: dict[str, Any]) -> dict[str, Any]:
    """Options of the schedule became one; None stood for the default."""
    weights = ("gradient_penalty_weight", "drift")
    kept = {key: value for key, value in arguments.items() if key not in (*weights, *_GROWTH)}
    kept |= {key: arguments[key] for key in weights if arguments.get(key) is not None}
    growth = {new: arguments[old] for old, new in _GROWTH.items() if old in arguments}
    growth = {key: {} if value is None else value for key, value in growth.items()}
    return kept | ({"growth": growth} if growth else {})


_PROGRESSIVE_GAN = Change(
    forms=[({"unit_bias": True}, "zoo.convert.progressive.UnitBiasProgressiveGAN")],
    convert=_progressive_gan,
    renamed={"channel_base": "fmap_base", "stddev_group": "minibatch_stddev_group"},
    retired={
        "betas": (0.0, 0.99),
        "drift": 0.001,
        "gradient_penalty_weight": 10.0,
        "loss": "wasserstein",
        "n_critic": 1,
        "num_classes": 0,
        "unit_bias": False,
    },
)


def _text2image(arguments: dict[str, Any]) -> dict[str, Any]:
    """Steps of a half became a schedule."""
    if "halve_every" not in arguments:
        return arguments
    every = arguments.pop("halve_every")
    return arguments | {"decay": {"kind": "repeated", "every": every} if every else None}


def _puzzlegan(arguments: dict[str, Any]) -> dict[str, Any]:
    """Both differences have one weight."""
    if not {"mask_weight", "appearance_weight"} & arguments.keys():
        return arguments
    mask, appearance = (arguments.pop(f"{name}_weight", (1e-2, 1e-4)) for name in ("mask", "appearance"))
    if plain(mask) != plain(appearance):
        raise ValueError("PuzzleGAN's mask_weight and appearance_weight must be equal now: l1_weight is both")
    return arguments | {"l1_weight": mask}


def _final_rate(arguments: dict[str, Any]) -> dict[str, Any]:
    """The share of the learning rate that was left at the end of a run, as a schedule."""
    if "final_rate" not in arguments:
        return arguments
    final = arguments.pop("final_rate")
    return arguments | {"decay": None if final == 1 else Decay("exponential", final=final).fields()}


def _rnade(arguments: dict[str, Any]) -> dict[str, Any]:
    """None stood for the nonlinearity of the likelihood's paper."""
    return _final_rate({key: value for key, value in arguments.items() if (key, value) != ("nonlinearity", None)})


def _nade(arguments: dict[str, Any]) -> dict[str, Any]:
    """Components of a mixture had no effect on binary images."""
    return _rnade({key: value for key, value in arguments.items() if key != "components"})


_PIXEL_NAMES = {"levels": "num_levels", "features": "hidden_channels", "head_features": "head_channels"}
_PIXELRNN = Change(
    convert=_final_rate, renamed=_PIXEL_NAMES, retired={"cell": "lstm", "head_layers": 2, "residual": True}
)


def _fit_to_frame(arguments: dict[str, Any]) -> dict[str, Any]:
    """The option of a source that is given by name."""
    if not isinstance(given := arguments.get("source_arguments"), dict):
        return arguments
    return arguments | {"source_arguments": {_FIT.get(key, key): value for key, value in given.items()}}


_FIT = {"fit": "fit_to_frame"}
_CRITICS = {
    "domain_critics": True,
    "domain_norm": True,
    "residual": True,
    "loss": "least_squares",
    "gradient_penalty_weight": 0.0,
}


def _stargan(arguments: dict[str, Any]) -> dict[str, Any]:
    old = {key: arguments.pop(key) for key in ("constant_steps", "decay_steps") if key in arguments}
    if (kind := arguments.get("decay")) == "reference_code":
        raise ValueError("StarGAN no longer has decay='reference_code', which kept 99.9 % of the rate: take None")
    if old or kind == "paper":
        constant, length = old.get("constant_steps", 100_000), old.get("decay_steps", 100_000)
        arguments["decay"] = {"kind": "linear", "constant": constant, "length": length} if length else None
    return arguments


def _domain_critics(arguments: dict[str, Any]) -> dict[str, Any]:
    if "categories" in arguments:
        arguments["domains"] = arguments.pop("categories")[0]
    return _stargan(arguments)


def _cyclegan(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("generator") == "unet":
        raise ValueError("CycleGAN no longer has generator='unet': take 'resnet'")
    if arguments.pop("attention", False):
        arguments["generator"] = "attention_resnet"
    old = {key: arguments.pop(key) for key in ("schedule", "constant") if key in arguments}
    if old or isinstance(arguments.get("decay"), int):
        # The rate would have reached 0 one step or epoch after the last.
        constant, length = old.get("constant", 100) - 1, arguments.get("decay", 100) + 1
        decay = {"kind": "linear", "unit": old.get("schedule", "epochs"), "constant": constant, "length": length}
        arguments["decay"] = decay if length > 1 else None
    return arguments


# Options of all forms of the AAE, and of those whose prior and posterior are not a choice.
_AAE = {
    "noise_dim": 10,
    "networks": "mlp",
    "base_channels": 64,
    "reconstruction_weight": 1 / 784,
    "betas": (0.5, 0.999),
}
_AAE_UNIMODAL = _AAE | {"prior": "gaussian", "prior_std": 1.0, "posterior": "deterministic"}
_AAE_CLASSES = {"input_noise": "input_noise_std", "transformed_classes": "affine_classes"}
_NO_CLASSES = {"input_noise": 0.0, "class_noise": 0.0, "transformed_classes": False}


def _aae(arguments: dict[str, Any]) -> dict[str, Any]:
    """Epochs of a tenth became a schedule."""
    if "decay_epochs" not in arguments:
        return arguments
    epochs = arguments["decay_epochs"]
    decay: dict[str, Any] = {"kind": "milestones", "unit": "epochs", "milestones": {}}
    for i, epoch in enumerate(epochs or (), 1):
        decay["milestones"][str(epoch)] = 10.0**-i
    kept = {key: value for key, value in arguments.items() if key != "decay_epochs"}
    return kept | {"decay": decay if epochs is not None else None}


def _unlabeled_aae(arguments: dict[str, Any]) -> dict[str, Any]:
    """Every form had the step size of the classification, which one form has."""
    return {key: value for key, value in _aae(arguments).items() if key != "classification_learning_rate"}


# How the port that `zoo import infogan` reads was trained, which its weights do not need.
_INFOGAN_PORT = {"recogniser_learns": "generator", "learn_std": True}
_INFOGAN_RENAMED = {
    "categories": "categorical_codes",
    "continuous": "num_continuous",
    "slope": "negative_slope",
}
_INFOGAN = {
    "information_warmup": 0,
    "recogniser_learns": "discriminator",
    "learn_std": False,
    "betas": (0.5, 0.999),
}


def _infogan(arguments: dict[str, Any]) -> dict[str, Any]:
    if all(arguments.get(key) == value for key, value in _INFOGAN_PORT.items()):
        return {key: value for key, value in arguments.items() if key not in _INFOGAN_PORT}
    return arguments


def _vae(arguments: dict[str, Any]) -> dict[str, Any]:
    arguments.pop("noise_std", None)  # of the densities other than "bernoulli"
    return _final_rate(arguments)


def _gan(arguments: dict[str, Any]) -> dict[str, Any]:
    """The divisor of the step size after each step as a schedule; options of Adam had no effect on gradient descent."""
    if arguments.get("optimizer", "sgd") == "sgd":
        arguments.pop("betas", None)
    divisor = arguments.get("decay")
    if isinstance(divisor, float | int):
        arguments["decay"] = None if divisor == 1 else Decay("repeated", divisor=divisor).fields()
    return arguments


def _autoencoder(arguments: dict[str, Any]) -> dict[str, Any]:
    arguments.pop("base_channels", None)  # of convolutions
    return arguments


def _warmup_and_fall(arguments: dict[str, Any]) -> dict[str, Any]:
    """Steps in which the learning rate rises, and in which it falls to zero (0: it stays), as a schedule."""
    warmup, fall = arguments.pop("warmup_steps", None), arguments.pop("decay_steps", None)
    if fall:
        arguments["decay"] = Decay("linear", length=fall, warmup=warmup or 0).fields()
    elif warmup:
        arguments["decay"] = Decay("milestones", warmup=warmup).fields()
    elif warmup is not None or fall is not None:
        arguments["decay"] = None
    return arguments


_NOISE = {"input_noise": "input_noise_std"}
_SCHEDULES = {
    "steps": Decay("milestones", unit="epochs", milestones={30: 0.5, 50: 0.1, 100: 0.01}).fields(),
    "smooth": Decay("exponential", final=0.01).fields(),
    "constant": None,
}
_WAE = {
    "penalty": "mmd",
    "kernel": "imq",
    "posterior": "deterministic",
    "networks": "conv",
    "betas": [0.5, 0.999],
    "weight_std": 0.01,
}


def _wae(arguments: dict[str, Any]) -> dict[str, Any]:
    """The names of schedules as schedules; options of the discriminator had no effect without one."""
    for name in ("discriminator_features", "density_trick", "discriminator_learning_rate"):
        arguments.pop(name, None)
    return _wae_gan(arguments)


def _wae_gan(arguments: dict[str, Any]) -> dict[str, Any]:
    if "schedule" in arguments:
        arguments["decay"] = _SCHEDULES[arguments.pop("schedule")]
    if arguments.get("networks", "conv") == "conv":
        arguments.pop("hidden_features", None)
    return arguments


_VAE = Change(convert=_vae, retired={"likelihood": "bernoulli"})


CHANGES: dict[str, Change] = {
    "zoo.aae.AAE": Change(
        forms=[
            ({"form": "label_in_prior"}, "zoo.label_prior_aae.LabelPriorAAE"),
            ({"form": "supervised"}, "zoo.supervised_aae.SupervisedAAE"),
            ({"form": "semi_supervised"}, "zoo.semi_supervised_aae.SemiSupervisedAAE"),
            ({"form": "clustering"}, "zoo.clustering_aae.ClusteringAAE"),
        ],
        convert=_unlabeled_aae,
        retired=_AAE | _NO_CLASSES | {"form": "basic", "num_classes": 0},
    ),
    "zoo.autoencoder.Autoencoder": Change(convert=_autoencoder, retired={"networks": "mlp", "input_noise": 0.0}),
    "zoo.beta_vae.BetaVAE": _VAE,
    "zoo.classifier.Classifier": Change(convert=_warmup_and_fall, renamed={"shift": "max_shift"}),
    "zoo.clustering_aae.ClusteringAAE": Change(
        convert=_unlabeled_aae,
        renamed=_AAE_CLASSES | {"class_noise": "class_noise_std"},
        retired=_AAE_UNIMODAL,
    ),
    "zoo.conditional_dcgan.ConditionalDCGAN": Change(
        retired={k: v for k, v in _DCGAN.items() if k not in ("num_classes", "weight_decay", *_THEANO)}
    ),
    "zoo.convert.progressive.UnitBiasProgressiveGAN": _PROGRESSIVE_GAN,
    "zoo.cyclegan.CycleGAN": Change(
        convert=_cyclegan,
        renamed={
            "blocks": "num_blocks",
            "generator": "generator_kind",
            "identity_weight": "identity_ratio",
            "num_pools": "pools_per_process",
        },
        retired={"betas": (0.5, 0.999), "loss": "least_squares"},
    ),
    "zoo.datamodules.attributes.Attributes": Change(renamed=_FIT),
    "zoo.datamodules.emoji.Emoji": Change(renamed=_FIT),
    "zoo.datamodules.patches.Patches": Change(convert=_fit_to_frame),
    "zoo.datamodules.unpaired.Unpaired": Change(renamed=_FIT),
    "zoo.dcgan.DCGAN": Change(
        forms=[
            (
                _THEANO | {"hidden_features": 1024, "norm_affine": False, "weight_decay": 2.5e-5},
                "zoo.conditional_dcgan.ConditionalDCGAN",
            )
        ],
        convert=_dcgan,
        retired=_DCGAN,
    ),
    "zoo.gan.GAN": Change(
        convert=_gan,
        renamed={"units": "discriminator_features", "pieces": "maxout_pieces"},
        retired={
            "activation": "maxout",
            "dropout": [0.2, 0.5],
            "noise": "uniform",
            "optimizer": "sgd",
            "momentum": [0.5, 0.7],
            "momentum_epochs": 250,
            "n_critic": 1,
            "weight_range": 0.05,
            "data_bias": True,
            "update": "simultaneous",
        },
    ),
    "zoo.gaussian_wae.GaussianWAE": Change(convert=_wae, renamed=_NOISE, retired=_WAE),
    "zoo.gru_pixelrnn.GRUPixelRNN": _PIXELRNN,
    "zoo.infogan.InfoGAN": Change(
        forms=[({"transformed_share": 0.5}, "zoo.transform_invariant_infogan.TransformInvariantInfoGAN")],
        convert=_infogan,
        renamed=_INFOGAN_RENAMED,
        retired=_INFOGAN | {"transformed_share": 0.0},
    ),
    "zoo.label_prior_aae.LabelPriorAAE": Change(
        convert=_unlabeled_aae,
        retired=_AAE
        | _NO_CLASSES
        | {"latent_dim": 2, "num_classes": 10, "prior_std": 1.0, "posterior": "deterministic"},
    ),
    "zoo.multiscale_pixelrnn.MultiScalePixelRNN": _PIXELRNN,
    "zoo.nade.NADE": Change(
        forms=[({"likelihood": "gaussian_mixture"}, "zoo.rnade.RNADE")],
        convert=_nade,
        retired={"likelihood": "bernoulli", "ordering_seed": 0, "tied": False},
    ),
    "zoo.orderless_nade.OrderlessNADE": Change(convert=_final_rate),
    "zoo.pixel_transformer.PixelTransformer": Change(
        convert=_final_rate, renamed={"levels": "num_levels"}, retired={"optimizer": "adam"}
    ),
    "zoo.pixelcnn.PixelCNN": Change(convert=_final_rate, renamed=_PIXEL_NAMES, retired={"skip": False}),
    "zoo.pixelrnn.PixelRNN": Change(
        forms=[
            ({"cell": "gru"}, "zoo.gru_pixelrnn.GRUPixelRNN"),
            ({"cell": "rnn"}, "zoo.tanh_pixelrnn.TanhPixelRNN"),
        ],
        convert=_PIXELRNN.convert,
        renamed=_PIXELRNN.renamed,
        retired=_PIXELRNN.retired,
    ),
    "zoo.progressive_gan.ProgressiveGAN": _PROGRESSIVE_GAN,
    "zoo.puzzlegan.PuzzleGAN": Change(convert=_puzzlegan, retired={"betas": (0.5, 0.999), "l1_reduction": "sum"}),
    "zoo.rnade.RNADE": Change(
        convert=_rnade,
        renamed={"components": "num_components"},
        retired={"nonlinearity": "relu", "ordering_seed": 0, "tied": False},
    ),
    "zoo.semi_supervised_aae.SemiSupervisedAAE": Change(
        convert=_aae, renamed=_AAE_CLASSES, retired=_AAE_UNIMODAL | {"class_noise": 0.0}
    ),
    "zoo.stargan.StarGAN": Change(
        forms=[(_CRITICS, "zoo.stargan_critics.DomainCriticStarGAN")],
        convert=_stargan,
        renamed={"num_layers": "discriminator_layers"},
        retired={
            "betas": (0.5, 0.999),
            "domain_critics": False,
            "domain_norm": False,
            "gradient_penalty_weight": 10.0,
            "identity_weight": 0.0,
            "loss": "wasserstein",
            "residual": False,
        },
    ),
    "zoo.stargan_critics.DomainCriticStarGAN": Change(
        convert=_domain_critics,
        renamed={"num_layers": "discriminator_layers"},
        retired={
            "attributes": [],
            "betas": (0.5, 0.999),
            "classification_weight": 1.0,
            "identity_weight": 0.0,
            "joint": False,
        },
    ),
    "zoo.supervised_aae.SupervisedAAE": Change(convert=_unlabeled_aae, retired=_AAE_UNIMODAL | _NO_CLASSES),
    "zoo.tanh_pixelrnn.TanhPixelRNN": _PIXELRNN,
    "zoo.text2image.Text2Image": Change(
        convert=_text2image,
        renamed={"normalize_text": "normalize_embeddings"},
        retired={"betas": (0.5, 0.999), "projection": 128},
    ),
    "zoo.text_encoder.TextEncoder": Change(
        convert=_warmup_and_fall, renamed={"features": "embedding_dim"}, retired={"margin": 1.0}
    ),
    "zoo.text_encoders.TextEncoder": Change(forms=[({}, "zoo.text_encoder.TextEncoder")]),
    "zoo.transform_invariant_infogan.TransformInvariantInfoGAN": Change(
        convert=_infogan, renamed=_INFOGAN_RENAMED, retired=_INFOGAN
    ),
    "zoo.vae.VAE": _VAE,
    "zoo.wae.WAE": Change(
        forms=[
            ({"penalty": "gan"}, "zoo.wae_gan.WAEGAN"),
            ({"posterior": "gaussian"}, "zoo.gaussian_wae.GaussianWAE"),
        ],
        convert=_wae,
        renamed=_NOISE,
        retired=_WAE,
    ),
    "zoo.wae_gan.WAEGAN": Change(convert=_wae_gan, renamed=_NOISE, retired=_WAE),
}
"""What has changed, by the path of the class."""
