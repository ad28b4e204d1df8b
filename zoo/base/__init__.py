"""What a model is: the base classes of all architectures."""

from zoo.base.adversarial import AdversarialModel, Objective, TrainingOptions
from zoo.base.model import Batch, GenerativeModel, SingleObjectiveModel, Terms, inference

__all__ = [
    "AdversarialModel",
    "Batch",
    "GenerativeModel",
    "Objective",
    "SingleObjectiveModel",
    "Terms",
    "TrainingOptions",
    "inference",
]
