"""The array API target refuses everything that the standard does not have. Otherwise its passing proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict as xp
import numpy as np
import pytest

from conformance_tests.harnesses.array_api import ArrayAPIHarness
from rigl_core import Criterion, Layer, Recipe, UpdateSchedule
from rigl_core.testing import OptimizerSpec

HARNESS = ArrayAPIHarness()
LAYER = Layer("fc.weight", (2, 3))
ONES = np.ones(LAYER.shape, np.float32)

BEYOND: dict[str, tuple[Callable[[Any], Any], str]] = {
    "boolean indexing": (lambda x: x[x > 0], "boolean_indexing flag has been disabled"),
    "shapes that depend on data": (lambda x: xp.nonzero(x)[0], "data_dependent_shapes flag has been disabled"),
    "NumPy": (lambda x: np.sort(x), "Can't (extract host buffer|convert array)"),
    "arrays on the default device": (lambda x: x + xp.ones(x.shape), "two different devices"),
    "other functions": (lambda x: xp.partition(x, 0), "no attribute 'partition'"),  # type: ignore[operator]
    "sums of bools": (lambda x: xp.sum(x > 0), "Only numeric dtypes are allowed in sum"),
}


@pytest.fixture(params=BEYOND)
def beyond(request: pytest.FixtureRequest) -> tuple[Criterion, str]:
    function, message = BEYOND[request.param]
    return Criterion("beyond", lambda connections, _: function(connections.weight)), message


def test_a_score_beyond_the_standard_is_refused(beyond: tuple[Criterion, str]) -> None:
    criterion, message = beyond
    with pytest.raises(Exception, match=message):
        HARNESS.scores(criterion, ONES.reshape(-1), ONES.reshape(-1), dtype="float32", mode="eager")


def test_a_training_beyond_the_standard_is_refused(beyond: tuple[Criterion, str]) -> None:
    criterion, message = beyond
    with pytest.raises(Exception, match=message):
        HARNESS.start({LAYER.name: ONES}, [LAYER], Recipe(0.5, initial=criterion), OptimizerSpec())
    recipe = Recipe(0.5, schedule=UpdateSchedule(end=1, every=1), grow=criterion)
    session = HARNESS.start({LAYER.name: ONES}, [LAYER], recipe, OptimizerSpec())
    with pytest.raises(Exception, match=message):
        session.step({LAYER.name: ONES})


def test_the_library_stays_as_its_other_users_have_it(beyond: tuple[Criterion, str]) -> None:
    """Other users in the same process, such as scikit-learn and SciPy, must not see our settings of the library."""
    before = xp.get_array_api_strict_flags()
    with pytest.raises(Exception, match=beyond[1]):
        HARNESS.start({LAYER.name: ONES}, [LAYER], Recipe(0.5, initial=beyond[0]), OptimizerSpec())
    HARNESS.random_scores((1, 2), 3, mode="eager")
    assert xp.get_array_api_strict_flags() == before
    assert xp.asarray([1, 2])[xp.asarray([True, False])].shape == (1,)
