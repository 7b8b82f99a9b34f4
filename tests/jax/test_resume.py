"""A state of another recipe is refused, wherever it comes from; `resume` takes what was changed on purpose."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

import rigl_backends.numpy
from rigl_backends.jax import apply_masks, masks, plan, resume, sparsify, step, table
from rigl_core import SET, SNFS, RigL, Static
from rigl_core.testing.checks import checks
from tests.jax.helpers import RECIPE, SCHEDULE, by_name, make_gradients, make_params, make_step, per_weight, start

LONGER = replace(RECIPE, schedule=replace(SCHEDULE, end=80), seed=9)
DIFFERENT = r"saved under another recipe: schedule was \{.*'end': 40.*\} and is \{.*'end': 80.*\}; seed was 3 and is 9"


def trained(recipe: Any = RECIPE, steps: int = 3) -> tuple[Any, Any]:
    tx = sparsify(optax.adam(1e-2), recipe)
    params, opt_state = start(tx, make_params())
    descend = make_step(tx)
    for number in range(steps):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
    return params, opt_state


@checks("P2", "P3")
@pytest.mark.parametrize("callbacks", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_state_of_another_recipe_is_refused(compiled: bool, callbacks: bool) -> None:
    params, opt_state = trained()
    update = sparsify(optax.adam(1e-2), LONGER, callbacks=callbacks).update
    with pytest.raises(ValueError, match=DIFFERENT):
        (jax.jit(update) if compiled else update)(params, opt_state, params)
    with pytest.raises(ValueError, match=DIFFERENT):
        resume(sparsify(optax.adam(1e-2), LONGER), opt_state, params)


@checks("P2")
def test_arrays_in_the_structure_of_another_state_are_noticed() -> None:
    """Compiled code cannot raise: the topology stays as it was, and whoever looks is told."""
    params, opt_state = trained()
    tx = sparsify(optax.adam(1e-2), LONGER)
    mixed = jax.tree.unflatten(jax.tree.structure(tx.init(params)), jax.tree.leaves(opt_state))
    with pytest.raises(ValueError, match=DIFFERENT):
        tx.update(params, mixed, params)
    after, later, descend = params, mixed, make_step(tx)
    for number in range(3, 9):
        after, later = descend(after, later, make_gradients(params, number))
    for name, mask in opt_state.masks.items():
        np.testing.assert_array_equal(later.masks[name], mask)
    for ask in (lambda: step(later), lambda: masks(later, after), lambda: table(later, after)):
        with pytest.raises(ValueError, match=DIFFERENT):
            ask()


@checks("P2")
def test_libraries_that_save_states_keep_the_recipe(tmp_path: Any) -> None:
    params, opt_state = trained()
    own, other = (sparsify(optax.adam(1e-2), recipe).init(params) for recipe in (RECIPE, LONGER))
    saver = orbax.checkpoint.StandardCheckpointer()
    saver.save(tmp_path / "saved", opt_state)
    saver.wait_until_finished()
    data = flax.serialization.to_bytes(opt_state)
    for restore in (
        lambda like: pickle.loads(pickle.dumps(opt_state)),
        lambda like: flax.serialization.from_bytes(like, data),
        lambda like: saver.restore(tmp_path / "saved", like),
    ):
        assert jax.tree.structure(restore(own)) == jax.tree.structure(opt_state)
        assert int(step(restore(own))) == 3
        with pytest.raises(ValueError, match=r"match|another recipe"):
            sparsify(optax.adam(1e-2), LONGER).update(params, restore(other), params)


@checks("P2", "Z1", "V1", "V3")
@pytest.mark.parametrize(
    ("method", "sparsity"),
    [*((method, sparsity) for method in (RigL, SET, Static) for sparsity in (0.4, 0.9)), (SNFS, 0.4)],
)
def test_another_sparsity_is_numpys(method: Any, sparsity: float) -> None:
    """Masks, weights and moments after the change are those that NumPy's adapter has after its next step."""
    options = {} if method is Static else {"schedule": SCHEDULE}
    old, new = method(0.7, **options), method(sparsity, **options)
    with jax.enable_x64(True):
        params = make_params(jnp.float64)
        reference = by_name(params)
        layers = plan(params, old).layers
        optimizer = rigl_backends.numpy.SGD(reference, 0.0625, 0.5)
        handle = rigl_backends.numpy.sparsify(reference, optimizer, old, layers=layers)
        tx = sparsify(optax.sgd(0.0625, 0.5), old)
        params, opt_state = start(tx, params)
        descend = make_step(tx)
        for number in range(3):
            gradients = make_gradients(params, number)
            optimizer.step(by_name(gradients))
            params, opt_state = descend(params, opt_state, gradients)
        saved, kept = handle.state_dict(), by_name(params)
        moments = copy.deepcopy(optimizer.state)
        handle.remove()
        optimizer = rigl_backends.numpy.SGD(reference, 0.0625, 0.5)
        handle = rigl_backends.numpy.sparsify(reference, optimizer, new, layers=layers)
        handle.load_state_dict(saved, changed=["sparsity"])
        for name, weight in kept.items():
            reference[name][...] = weight
        optimizer.state = moments
        tx = sparsify(optax.sgd(0.0625, 0.5), new)
        opt_state = resume(tx, opt_state, params, changed=["sparsity"])
        params = apply_masks(params, opt_state)
        assert jax.tree.structure(opt_state) == jax.tree.structure(tx.init(params))
        assert table(opt_state, params).total_active == sum(plan(params, new).initial_active)
        for name, own in per_weight(params, opt_state).items():
            assert all(not held[~opt_state.masks[name]].any() for held in own if name in opt_state.masks)
        descend = make_step(tx)
        for number in range(3, 9):
            gradients = make_gradients(params, number)
            optimizer.step(by_name(gradients))
            params, opt_state = descend(params, opt_state, gradients)
            for name, mask in masks(opt_state, params).items():
                np.testing.assert_array_equal(mask, handle.masks[name], err_msg=f"{name} after step {number}")


@checks("P2")
def test_a_longer_schedule_inside_other_states() -> None:
    """The state is found and replaced wherever it is; the masks stay."""
    sparse, longer = (sparsify(optax.adam(1e-2), recipe) for recipe in (RECIPE, LONGER))
    tx, other = optax.chain(optax.clip(1.0), sparse), optax.chain(optax.clip(1.0), longer)
    params, opt_state = start(tx, make_params())
    params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    resumed = resume(longer, opt_state, params, changed=["schedule", "seed"])
    assert jax.tree.structure(resumed) == jax.tree.structure(other.init(params))
    for a, b in zip(masks(resumed, params).values(), masks(opt_state, params).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    make_step(other)(params, resumed, make_gradients(params, 1))
    accumulating = sparsify(optax.MultiSteps(optax.adam(1e-2), 2), LONGER)
    assert int(step(resume(accumulating, opt_state, params, changed=["schedule", "seed"]))) == 1


@checks("P3")
def test_what_resume_refuses() -> None:
    params, opt_state = trained()
    longer = sparsify(optax.adam(1e-2), LONGER)
    with pytest.raises(ValueError, match="another recipe: seed was 3 and is 9"):
        resume(longer, opt_state, params, changed=["schedule"])
    with pytest.raises(TypeError, match="changed is 'schedule': it must be a list"):
        resume(longer, opt_state, params, changed="schedule")
    with pytest.raises(ValueError, match="changed names 'structure'"):
        resume(longer, opt_state, params, changed=["structure"])
    with pytest.raises(TypeError, match="tx is a GradientTransformationExtraArgs: it must be an"):
        resume(optax.adam(1e-2), opt_state, params)
    with pytest.raises(ValueError, match="masks for other layers"):
        resume(longer, opt_state, make_params(layers=["fc1"]), changed=["schedule", "seed"])
