"""What a model is: the base classes of all architectures."""

from zoo.base.adversarial import AdversarialModel, Objective, TrainingOptions
from zoo.base.model import Batch, GenerativeModel, Terms, inference
from zoo.base.single_objective import SingleObjectiveModel

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
