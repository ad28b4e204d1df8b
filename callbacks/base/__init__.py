"""What all callbacks share: Protocols of models and data, looking without disturbing, pictures."""

from zoo.callbacks.base.canvas import *  # noqa: F403
from zoo.callbacks.base.checks import *  # noqa: F403
from zoo.callbacks.base.evaluating import *  # noqa: F403
from zoo.callbacks.base.protocols import *  # noqa: F403
