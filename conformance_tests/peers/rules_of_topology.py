"""One property for each rule about counts, schedule and topology; none of them fails because of another rule.

They read the masks that a library starts with, and the numbers of connections that it moves, wherever another rule says
how many these are. pytest runs them where they are named: ``nox -s peers``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance_tests.peers.cases import FROZEN, SHAPES, by, distinct, kind_and_line, outside, smallest, walk
from rigl_core.adapter import make_plan
from rigl_core.parts.drop_fractions import Constant
from rigl_core.testing import Array, Harness, NotOffered, Recorded, Step, Training, checks, oracle, start


def flat(step: Step, name: str) -> tuple[list[float], list[float], list[bool], list[bool]]:
    """A layer's magnitudes, the magnitudes of its gradient, and its masks before and after, flat."""
    weight, gradient = step.before.weights[name].reshape(-1).tolist(), step.gradients[name].reshape(-1).tolist()
    before, after = (record.masks[name].reshape(-1).tolist() for record in (step.before, step.after))
    return [oracle.magnitude(x, "float32") for x in weight], [abs(x) for x in gradient], before, after


def explained(weight: list[float], gradient: list[float], before: list[bool], after: list[bool]) -> bool:
    """Whether a mask is that of rules T1 to T3, for some number of connections that are kept."""
    active, size = [i for i, x in enumerate(before) if x], sum(after)
    for keep in range(min(len(active), size) + 1):
        kept = oracle.largest(weight, active, keep)
        grown = oracle.largest(gradient, [i for i in range(len(before)) if i not in kept], size - keep)
        if {i for i, x in enumerate(after) if x} == kept | grown:
            return True
    return False


def moved(step: Step, name: str) -> int:
    """How many connections a step dropped."""
    return int((step.before.masks[name] & ~step.after.masks[name]).sum())


@checks("B1")
@smallest(by(FROZEN), errors_break=True)
def test_the_active_count_is_exact(harness: Harness, mode: str, training: Training) -> None:
    plan = make_plan(training.recipe, training.layers)
    shared = {plan.layers[i].name: plan.active[i] for pool in plan.pools for i in pool}
    session = start(harness, mode, training)
    for when, masks in [("at the start", session.masks())] + [
        (f"after step {step.number}", dict(step.after.masks)) for step in walk(session, training, outside(training))
    ]:
        active = sum(int(masks[name].sum()) for name in shared)
        assert active == sum(shared.values()), f"{active} active weights {when}, the budget is {sum(shared.values())}"


@checks("B3")
@smallest(by(FROZEN))
def test_a_layer_has_its_share_within_one_weight(harness: Harness, mode: str, training: Training) -> None:
    plan = make_plan(training.recipe, training.layers)
    for name, mask in start(harness, mode, training).masks().items():
        planned = plan.active[[layer.name for layer in plan.layers].index(name)]
        actual = int(mask.sum())
        assert abs(actual - planned) <= 1, f"{actual} active weights in {name}, its share is {planned}"


@checks("M1")
@smallest(by(FROZEN, method="SET", shapes=SHAPES[2:], every=(2, 3)), errors_break=True)
def test_set_grows_as_many_as_it_drops(harness: Harness, mode: str, training: Training) -> None:
    moves = 0
    for step in walk(start(harness, mode, training), training):
        for name, mask in step.before.masks.items():
            counts = int(mask.sum()), int(step.after.masks[name].sum())
            text = f"step {step.number} of SET takes {name} from {counts[0]} to {counts[1]} weights"
            assert counts[0] == counts[1], text
            moves += moved(step, name)
    assert moves, f"SET moves nothing in {training.steps} steps"


@checks("S1")
@smallest(by(FROZEN, shapes=SHAPES[2:], every=(2, 3)))
def test_updates_fire_when_the_schedule_says(harness: Harness, mode: str, training: Training) -> None:
    for step in walk(start(harness, mode, training), training, outside(training)):
        changed = any((step.after.masks[name] != mask).any() for name, mask in step.before.masks.items())
        possible = any(mask.sum() >= 4 and not mask.all() for mask in step.before.masks.values())
        assert not changed or step.updates, f"the topology moves in step {step.number}"
        assert changed or not (step.updates and possible), f"the topology stays in step {step.number}"


@checks("S3")
@smallest(by(FROZEN, shapes=SHAPES[2:]))
def test_the_drop_fraction_is_measured_from_begin(harness: Harness, mode: str, training: Training) -> None:
    if isinstance(training.recipe.drop_fraction, Constant):
        raise NotOffered("a drop fraction that decays")
    updates = 0
    for step in walk(start(harness, mode, training), training, outside(training)):
        if step.updates:
            fraction = training.recipe.drop_fraction.fraction(training.schedule.progress(updates))
            updates += 1
            for name, mask in step.before.masks.items():
                expected, room = fraction * mask.sum(), (~mask).sum()
                if mask.sum() > 1 and room > expected:
                    dropped = moved(step, name)
                    text = f"update {updates} drops {dropped} of {mask.sum()}, the drop fraction is {fraction:.3f}"
                    assert abs(dropped - expected) < 1, text


@checks("S4")
@smallest(by(FROZEN, shapes=[((n, 10),) for n in range(2, 12)], alpha=0.7))
def test_the_drop_count_is_exact(harness: Harness, mode: str, training: Training) -> None:
    if not isinstance(training.recipe.drop_fraction, Constant):
        raise NotOffered("a constant drop fraction, whose counts are known")
    for step in walk(start(harness, mode, training), training, outside(training)):
        for name, mask in step.before.masks.items():
            if step.updates and 1 < mask.sum() <= (~mask).sum():
                expected, dropped = oracle.drop_count(0.7, int(mask.sum())), moved(step, name)
                assert dropped == expected, (
                    f"drops {dropped} of {mask.sum()} by the fraction 0.7, instead of {expected}"
                )


@checks("T1")
@smallest(by(FROZEN))
def test_the_smallest_weights_are_dropped(harness: Harness, mode: str, training: Training) -> None:
    for zeros in (False, True):
        session = start(harness, mode, training)
        if zeros:
            session.write({name: np.zeros_like(weight) for name, weight in training.params.items()})
        for step in walk(session, training, outside(training)):
            for name in step.before.masks:
                weight, _, before, after = flat(step, name)
                dropped = [weight[i] for i, x in enumerate(before) if x and not after[i]]
                kept = [weight[i] for i, x in enumerate(before) if x and after[i]]
                room = not all(x or y for x, y in zip(before, after, strict=True))  # else the dropped grow again
                small = not (dropped and kept and room) or max(dropped) <= min(kept)
                assert small, (
                    f"drops a weight of {max(dropped, default=0):.3g}, keeps one of {min(kept, default=0):.3g}"
                )
                if zeros:
                    assert_no_revival(step, name)


def assert_no_revival(step: Step, name: str) -> None:
    """Assert that a row's new connections have its largest gradients: some libraries grow row by row."""
    gradient, before, after = np.abs(step.gradients[name]), step.before.masks[name], step.after.masks[name]
    for row in range(len(before)):
        grown, left = (gradient[row][~before[row] & own] for own in (after[row], ~after[row]))
        text = "active weights are 0: inactive ones are kept in their place, and not for their gradient"
        assert not grown.size or not left.size or grown.min() >= left.max(), text


@checks("T2")
@smallest(by(FROZEN))
def test_the_largest_gradients_grow(harness: Harness, mode: str, training: Training) -> None:
    for step in walk(start(harness, mode, training), training, lambda *_: dict(distinct(training))):
        for name in step.before.masks:
            text = f"step {step.number} does not grow the largest gradients among all connections that it did not keep"
            assert explained(*flat(step, name)), text


@checks("T3")
@smallest(by(FROZEN, shapes=(*SHAPES[:3], ((16, 16),))))
def test_ties_go_to_the_lower_index(harness: Harness, mode: str, training: Training) -> None:
    session = start(harness, mode, training)
    equal = {name: np.ones_like(weight) for name, weight in training.params.items()}
    session.write({name: np.where(session.masks().get(name, True), x, 0) for name, x in equal.items()})
    for step in walk(session, training, lambda *_: dict(equal)):
        for name in step.before.masks:
            if step.updates and np.unique(step.before.weights[name][step.before.masks[name]]).size == 1:
                assert explained(*flat(step, name)), f"among equal weights or gradients of {name}, later ones go first"


@checks("T4")
@smallest(by(FROZEN))
def test_a_weight_of_nan_counts_as_zero(harness: Harness, mode: str, training: Training) -> None:
    session = start(harness, mode, training)
    masks = session.masks()
    weights = {name: np.where(masks.get(name, True), x, 0) for name, x in training.params.items()}
    places = {name: int(np.flatnonzero(mask)[0]) for name, mask in masks.items() if mask.sum() > 1 and not mask.all()}
    for name, place in places.items():
        weights[name].reshape(-1)[place] = np.nan
    session.write(weights)
    for step in walk(session, training, outside(training)):
        for name, place in places.items():
            if step.updates and moved(step, name) and step.before.masks[name].reshape(-1)[place]:
                assert not step.after.masks[name].reshape(-1)[place], "a weight of NaN stays, others are dropped"


@checks("T5")
@smallest(by(FROZEN))
def test_gradients_that_are_not_finite_defer_the_update(harness: Harness, mode: str, training: Training) -> None:
    for spoiled in ("fc0.bias", "a layer"):

        def gradients(number: int, before: Recorded, spoiled: str = spoiled) -> dict[str, Array | None]:
            given = outside(training)(number, before)
            name = next((n for n, mask in before.masks.items() if not mask.all()), "fc0.bias")
            name = spoiled if spoiled in given else name
            values = given[name]
            assert values is not None
            inactive = ~before.masks[name] if name in before.masks else np.ones(values.shape, bool)
            if training.schedule.fires(number):
                values.reshape(-1)[np.flatnonzero(inactive)[0]] = np.nan
            return given

        for step in walk(start(harness, mode, training), training, gradients):
            changed = any((step.after.masks[name] != mask).any() for name, mask in step.before.masks.items())
            assert not (changed and step.updates), f"the topology moves by a gradient with NaN in {spoiled}"


@checks("T6")
@smallest(by(FROZEN))
def test_layers_without_information_stay(harness: Harness, mode: str, training: Training) -> None:
    run_without(harness, mode, training, {})
    name = training.layers[-1].name
    for missing in (False, True) if harness.unused_layers else (False,):
        text = "without a gradient" if missing else "whose gradient is 0"
        try:
            run = run_without(
                harness, mode, training, {name: None if missing else np.zeros_like(training.params[name])}
            )
        except Exception as died:
            raise AssertionError(f"an update dies of a layer {text}: {kind_and_line(died)}") from died
        for step in run:
            changed = int((step.before.masks[name] & ~step.after.masks[name]).sum())
            assert not changed, f"{changed} connections of a layer {text} move"


def run_without(harness: Harness, mode: str, training: Training, quiet: dict[str, Any]) -> list[Step]:
    """The steps of a training with other gradients for a layer."""
    return list(walk(start(harness, mode, training), training, lambda *_: {**distinct(training), **quiet}))
