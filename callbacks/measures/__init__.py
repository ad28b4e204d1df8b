"""Measures of a model: each a function of a model and a DataModule that needs no Trainer.

Every measure returns a `Result` whose protocol says what the value means, such as
`class_error[matching=hungarian, test=mnist28-test-10000]`. Values with different protocols do not belong into one
column. In a distributed run every rank must call a measure; each computes its share of the images.

All take the arguments of `MeasureFunction`: `model, datamodule, *, split, num_samples, seed`, and their own options.
`measure` makes a measure of a function of your own.
"""

from zoo.callbacks.measures.anomaly import *  # noqa: F403
from zoo.callbacks.measures.codes import *  # noqa: F403
from zoo.callbacks.measures.evaluation import *  # noqa: F403
from zoo.callbacks.measures.frechet import *  # noqa: F403
from zoo.callbacks.measures.image_metrics import *  # noqa: F403
from zoo.callbacks.measures.likelihood import *  # noqa: F403
from zoo.callbacks.measures.patches import *  # noqa: F403
from zoo.callbacks.measures.registry import *  # noqa: F403
from zoo.callbacks.measures.sets import *  # noqa: F403
from zoo.callbacks.measures.speed import *  # noqa: F403
from zoo.callbacks.measures.text import *  # noqa: F403
from zoo.callbacks.measures.translation import *  # noqa: F403
from zoo.callbacks.measures.translation_sets import *  # noqa: F403
