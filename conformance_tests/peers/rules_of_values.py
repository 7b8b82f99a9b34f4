"""One property for each rule about values, randomness and the promise; see rules_of_topology.py."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from conformance_tests.peers.cases import (
    ADAM,
    FROZEN,
    PLAIN,
    SHAPES,
    by,
    cases,
    distinct,
    first_line,
    outside,
    smallest,
    walk,
)
from rigl_core.adapter import make_plan
from rigl_core.testing import (
    Array,
    Harness,
    NotOffered,
    Recorded,
    Training,
    assert_same,
    checks,
    start,
)


@checks("V1")
@smallest(by(PLAIN, ADAM))
def test_newly_active_connections_start_fresh(harness: Harness, mode: str, training: Training) -> None:
    """After ordinary gradients, so that the optimizer has state."""
    for step in walk(start(harness, mode, training), training, lambda number, _: dict(distinct(training, number))):
        for name, before in step.before.masks.items():
            new = step.after.masks[name] & ~before
            if step.updates:
                assert not step.after.weights[name][new].any(), "a new connection has a weight that is not 0"
                for state in step.after.state[name]:
                    assert not state[new].any(), "a new connection has an optimizer state that is not 0"


@checks("V2")
@smallest(by(FROZEN))
def test_what_is_dropped_and_grown_at_once_keeps_its_value(harness: Harness, mode: str, training: Training) -> None:
    def inside(number: int, before: Recorded) -> dict[str, Array | None]:
        small = {name: np.where(before.masks.get(name, True), 1, 1e-4) for name in training.params}
        return {name: (g * small[name]).astype(np.float32) for name, g in distinct(training).items()}

    for step in walk(start(harness, mode, training), training, inside):
        for name, before in step.before.masks.items():
            stay = before & step.after.masks[name]
            lost = int((step.after.weights[name] != step.before.weights[name])[stay].sum())
            assert not (step.updates and lost), f"dropped and grown again, from 0: {lost} connections"


@checks("V3")
@smallest(by(PLAIN, ADAM))
def test_there_is_no_state_outside_the_mask(harness: Harness, mode: str, training: Training) -> None:
    for step in walk(start(harness, mode, training), training, lambda number, _: dict(distinct(training, number))):
        for name, mask in step.after.masks.items():
            for state in step.after.state[name]:
                count = int((state[~mask] != 0).sum())
                assert not count, f"not 0 after step {step.number}: {count} of the state's numbers outside the mask"


@checks("V4")
@smallest(by(FROZEN))
def test_survivors_keep_weight_and_state(harness: Harness, mode: str, training: Training) -> None:
    """Between the updates they get momentum; at an update they have no gradient, so a gradient step keeps it, too."""

    def gradients(number: int, before: Recorded) -> dict[str, Array | None]:
        return outside(training)(number, before) if training.schedule.fires(number) else dict(distinct(training))

    for step in walk(start(harness, mode, training), training, gradients):
        for name, before in step.before.masks.items():
            grown_again = (step.before.weights[name] != 0) & (step.after.weights[name] == 0)  # which is rule V2's
            stay = before & step.after.masks[name] & ~grown_again
            pairs = [(step.before.weights[name], step.after.weights[name])]
            pairs += zip(step.before.state[name], step.after.state[name], strict=True) if step.updates else []
            for what, (old, new) in zip(("weights", "momentum"), pairs, strict=False):
                changed = int((old != new)[stay].sum())
                assert not (step.updates and changed), f"the {what} of survivors change at an update: {changed} of them"


@checks("N1")
@smallest(lambda: cases((FROZEN,), shapes=[(shape, shape) for shape in ((4, 4), (8, 8))]))
def test_random_choices_depend_on_seed_and_name_alone(harness: Harness, mode: str, training: Training) -> None:
    """The initial mask of a layer is the same after another layer joins the model before it."""
    first, last = training.layers
    between = replace(first, name="more.weight")
    more = {first.name: None, between.name: training.params[first.name]}
    longer = replace(training, layers=(first, between, last), params={**more, **training.params})
    if make_plan(training.recipe, training.layers).active[-1] == make_plan(longer.recipe, longer.layers).active[-1]:
        masks = [start(harness, mode, one).masks()[last.name] for one in (training, longer)]
        assert (masks[0] == masks[1]).all(), f"the initial mask of {last.name} changes with the layers before it"


@checks("N2")
@smallest(by(FROZEN))
def test_the_initial_topology_changes_no_weight_inside(harness: Harness, mode: str, training: Training) -> None:
    if not getattr(harness, "given_weights", True):
        raise NotOffered("a start with a model's own weights")
    session = start(harness, mode, training)
    weights = session.weights()
    for name, mask in session.masks().items():
        changed = int((weights[name] != training.params[name])[mask].sum())
        assert not changed, f"{changed} of {mask.sum()} active weights of {name} are not those of the model"
        assert not weights[name][~mask].any(), f"weights of {name} outside the initial mask are not 0"


@checks("P1")
@smallest(lambda: cases((FROZEN,), shapes=SHAPES[2:]))
def test_masks_are_the_same_in_every_dtype(harness: Harness, mode: str, training: Training) -> None:
    if len(harness.dtypes) < 2:
        raise NotOffered(f"other dtypes than {harness.dtypes[0]}")
    rounded = {name: np.round(param * 8) / 8 for name, param in training.params.items()}
    training = replace(training, params=rounded)
    found: dict[str, Recorded] = {}
    initial = start(harness, mode, training).masks()
    for dtype in harness.dtypes:
        session = start(harness, mode, training, dtype)
        masks = session.masks()  # a library may draw its own weights, in each dtype others
        if any((masks[name] != mask).any() for name, mask in initial.items()):
            continue
        session.write({name: np.where(masks.get(name, True), weight, 0) for name, weight in rounded.items()})
        for number in range(training.steps):
            session.step({name: np.round(g * 8) / 8 for name, g in distinct(training, number).items()})
        found[dtype] = Recorded.of(session)
    if len(found) < 2:
        raise NotOffered("equal initial masks in two dtypes")
    expected = found["float32"].masks
    for dtype, record in found.items():
        same = all((record.masks[name] == mask).all() for name, mask in expected.items())
        assert same, f"the masks in {dtype} are not those in float32"


@checks("P2")
@smallest(by(PLAIN, ADAM, shapes=SHAPES[:4]))
def test_a_stopped_training_goes_on_with_the_same_bits(harness: Harness, mode: str, training: Training) -> None:
    """After a stop before the first update, between two, and after the second."""
    for stop in sorted({1, training.schedule.begin + 1, training.steps - 1}):
        session = start(harness, mode, training)
        for number in range(stop):
            session.step(training.gradients(number))
        resumed = start(harness, mode, training)
        try:
            resumed.load(session.save())
        except NotOffered:
            raise
        except Exception as died:
            text = f"a state after {stop} steps does not load: {type(died).__name__}: {first_line(died)}"
            raise AssertionError(text) from died
        for number in range(stop, training.steps):
            session.step(training.gradients(number))
            resumed.step(training.gradients(number))
            try:
                assert_same(Recorded.of(resumed), Recorded.of(session))
            except AssertionError as differs:
                what = first_line(differs).partition(":")[0]
                text = f"stopped after {stop} steps, it differs after step {number}: {what}"
                raise AssertionError(text) from differs


@checks("P2")
@smallest(by(PLAIN))
def test_a_state_of_another_recipe_is_refused(harness: Harness, mode: str, training: Training) -> None:
    session, schedule = start(harness, mode, training), training.schedule
    session.step(training.gradients(0))
    longer = replace(schedule, end=schedule.end + schedule.every)
    other = start(harness, mode, replace(training, recipe=replace(training.recipe, schedule=longer)))
    try:
        other.load(session.save())
    except ValueError:
        return
    raise AssertionError(f"a state with end={schedule.end} loads into a training with end={longer.end} without a word")


@checks("P3")
@smallest(by(PLAIN))
def test_sparsifying_twice_is_refused_and_changes_nothing(harness: Harness, mode: str, training: Training) -> None:
    session = start(harness, mode, training)
    before = Recorded.of(session)
    try:
        session.sparsify_again()
    except Exception:
        after = Recorded.of(session)
        same = all(np.array_equal(after.weights[name], weight) for name, weight in before.weights.items())
        assert same, "a second scheduler for a model is refused, after it changed the weights"
    else:
        raise AssertionError("a model or an optimizer that is sparse already is made sparse again without a word")


@checks("P4")
@smallest(by(PLAIN))
def test_weights_outside_the_masks_are_told(harness: Harness, mode: str, training: Training) -> None:
    session = start(harness, mode, training)
    session.write({name: np.ones_like(weight) for name, weight in training.params.items()})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        masks, weights = session.masks(), session.weights()
        session.step(training.gradients(0))
    count = sum(int((weights[name][~mask] != 0).sum()) for name, mask in masks.items())
    is_told = any("mask" in str(warning.message) for warning in told)
    assert not count or is_told, f"{count} weights lie outside the masks, and nobody is told"
