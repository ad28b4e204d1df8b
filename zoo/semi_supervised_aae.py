"""Semi-supervised AAE: a clustering AAE whose classes learn from few labels, in a fourth phase.

    classification:  the encoder minimizes  -E log q(y | x)  on labeled images

Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop, arXiv 1511.05644, section 5; the other phases are those
of `zoo.clustering_aae`.
"""

from __future__ import annotations

from typing import Any, Self, Unpack

from torch.nn import functional as F

from zoo.aae import AAEOptions
from zoo.base import Batch, Objective, Terms
from zoo.clustering_aae import ClusteringAAE
from zoo.engine.cross_rank import global_mean
from zoo.nn.aae import Phase, falls_at
from zoo.nn.layers import unit

__all__ = ["SemiSupervisedAAE"]


class SemiSupervisedAAE(ClusteringAAE):
    """AAE that learns classes from few labels, in a fourth phase.

    The labels are those of `labelled` = {image, label} in the batch, or else those of the batch that are not -1.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the style.
        num_classes: number of classes.
        input_noise_std: deviation of Gaussian noise on the encoder's input in training.
        affine_classes: not in the paper: see `ClusteringAAE`.
        classification_learning_rate: step size of the classification phase.
        options: see `AAEOptions`.

    References:
        Makhzani et al. 2015, section 5, figure 8 and appendix A.
    """

    data_options = ("image_size", "image_channels", "num_classes")

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 10,
        num_classes: int = 10,
        *,
        input_noise_std: float = 0.3,
        affine_classes: bool = False,
        classification_learning_rate: float = 0.1,
        **options: Unpack[AAEOptions],
    ) -> None:
        super().__init__(
            image_size,
            image_channels,
            latent_dim,
            num_classes,
            input_noise_std=input_noise_std,
            affine_classes=affine_classes,
            **options,
        )
        self.save_hyperparameters()
        self.phase_settings["classification"] = Phase(
            ("encoder",), classification_learning_rate, 0.9, falls_at(50, 250)
        )

    @classmethod
    def modern(cls, **options: Any) -> Self:
        """Adam in all phases and torch's own initialization.

        Args:
            options: replace further arguments of the constructor.
        """
        return super().modern(**{"classification_learning_rate": 1e-3} | options)

    def label_values(self, batch: Batch) -> range:
        """The classes, and -1 without one."""
        return range(-1, self.hparams["num_classes"])

    def objectives(self) -> dict[str, Objective]:
        """The three phases of an AAE, then that of the labels."""
        return super().objectives() | {"classification": self.classification_loss}

    def classification_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log q(y | x), a mean over the labeled images of all ranks."""
        labelled = batch.get("labelled", batch)
        x, label = unit(labelled["image"]), labelled["label"]
        logits, _ = self.heads(self.affine(x, "classification") if self.affine_classes else x, "classification")
        loss = F.cross_entropy(logits, label, ignore_index=-1, reduction="sum")
        return {"cross_entropy": global_mean(loss, (label >= 0).sum())}
