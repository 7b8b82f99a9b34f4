"""What a recipe would do to a model, before anything is changed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rigl_backends.jax import choose_layers, masks, plan, sparsify
from rigl_core import ErdosRenyi, GradualPruning, Layer, RigL, UpdateSchedule, make_plan
from rigl_core.testing.checks import checks
from tests.jax.helpers import RECIPE, SCHEDULE, by_name, make_gradients, make_params, make_step, start

CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "layers": {"layers": [Layer("fc2/kernel", (10, 6)), Layer("fc1/kernel", (12, 10))]},
    "include": {"include": ["fc1/bias"]},
    "exclude": {"exclude": ["fc2/*"]},
}


def active(mask_of: Any) -> dict[str, int]:
    return {name: int(np.count_nonzero(mask)) for name, mask in mask_of.items()}


@checks("B1", "B3")
@pytest.mark.parametrize("choice", CHOICES)
def test_a_training_has_the_same_layers_and_counts(choice: str) -> None:
    params, options = make_params(), CHOICES[choice]
    planned = plan(params, RECIPE, **options)
    opt_state = sparsify(optax.sgd(0.1), RECIPE, **options).init(params)
    shown = dict(zip((layer.name for layer in planned.layers), planned.initial_active, strict=True))
    assert list(shown) == list(opt_state.masks)
    assert shown == active(masks(opt_state, params))
    if choice == "default":
        assert planned == make_plan(RECIPE, choose_layers(params))


@checks("B9")
def test_every_update_has_the_planned_counts() -> None:
    recipe = GradualPruning(0.8, schedule=SCHEDULE)
    params = make_params()
    planned, tx = plan(params, recipe), sparsify(optax.sgd(0.1), recipe)
    params, opt_state = start(tx, params)
    descend = make_step(tx)
    for number in range(SCHEDULE.end):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
        after = planned.active_after(SCHEDULE.latest_update(number))
        assert tuple(active(masks(opt_state, params)).values()) == after


def test_shapes_are_enough_and_nothing_changes() -> None:
    params = make_params()
    before, shapes = by_name(params), jax.eval_shape(lambda: params)
    assert plan(shapes, RECIPE) == plan(params, RECIPE)
    assert str(plan(params, RECIPE)).startswith("RigL, sparsity 0.7")
    for name, leaf in by_name(params).items():
        np.testing.assert_array_equal(leaf, before[name])


def test_axes_are_given_by_pattern() -> None:
    recipe = RigL(0.5, schedule=UpdateSchedule(end=9), distribution=ErdosRenyi())
    params = {"w": jnp.ones((12, 10)), "v": jnp.ones((10, 6))}
    with pytest.raises(ValueError, match="in_axes of layer 'v' is unknown"):
        plan(params, recipe)
    layers = plan(params, recipe, axes={"*": ((0,), (1,))}).layers
    assert [(layer.in_axes, layer.out_axes) for layer in layers] == [((0,), (1,))] * 2


@checks("P3")
def test_what_sparsify_refuses_is_refused() -> None:
    params, layers = make_params(), [Layer("fc1/kernel", (12, 10))]
    with pytest.raises(TypeError, match=r"recipe is 0\.9: it must be a Recipe"):
        plan(params, 0.9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers already says what to sparsify: leave out include and exclude"):
        plan(params, RECIPE, layers=layers, axes={"*": ((0,), (1,))})
    with pytest.raises(ValueError, match=r"layers names 'fc1/kernel' of shape \(3, 4\): params has no such array"):
        plan(params, RECIPE, layers=[Layer("fc1/kernel", (3, 4))])
    with pytest.raises(ValueError, match="exclude holds the pattern 'nope', which matches no layer"):
        plan(params, RECIPE, exclude=["nope"])
