"""The conformance suite, for adapters of this project and of other projects. It needs the extra ``testing``.

The author of an adapter writes one `Harness` and runs the properties on it, with an installed rigl-core:

    python -m rigl_core.testing --harness my_module:MyHarness

The other names are for authors who write their own properties: strategies (`trainings`, `updates`, `values`), recorded
trainings (`start`, `steps`), bit-exact assertions, and the `oracle`, a slow and plain implementation of the contract.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
    import pytest as _pytest  # noqa: F401, PT013
except ModuleNotFoundError as error:
    if error.name not in ("hypothesis", "pytest"):
        raise
    raise ImportError("rigl_core.testing needs Hypothesis and pytest: pip install 'rigl-core[testing]'") from error

from rigl_core.testing import models, oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Session, Setup
from rigl_core.testing.limits import NotOffered
from rigl_core.testing.micro_batches import MicroBatches
from rigl_core.testing.recording import Recorded, Step, assert_same, assert_same_bits, drop_count, start, steps
from rigl_core.testing.reference import ReferenceOptimizer
from rigl_core.testing.strategies import ADAM, SGD, STILL, Training, Update, trainings, updates, values

__all__ = [
    "ADAM",
    "SGD",
    "STILL",
    "Array",
    "Harness",
    "Mask",
    "MicroBatches",
    "NotOffered",
    "OptimizerSpec",
    "Recorded",
    "ReferenceOptimizer",
    "Session",
    "Setup",
    "Step",
    "Training",
    "Update",
    "assert_same",
    "assert_same_bits",
    "checks",
    "drop_count",
    "for_all",
    "models",
    "oracle",
    "start",
    "steps",
    "trainings",
    "updates",
    "values",
]
