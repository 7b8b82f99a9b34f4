"""Properties of counts over time and of structures (rules B9 and B10), against a slow reading with fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from conformance_tests.test_budget import distributions, layer_lists, rounded, sparsities
from rigl_core import (
    NM,
    Blocks,
    ConstantFanIn,
    CubicRamp,
    ErdosRenyiKernel,
    Layer,
    Recipe,
    Static,
    UpdateSchedule,
    make_plan,
)
from rigl_core.parts.distributions import Distribution
from rigl_core.parts.structures import Structure
from rigl_core.testing.checks import checks

ROUNDED_UP = [Layer("layer0", (2, 1)), Layer("layer1", (4, 1)), Layer("layer2", (4, 1))]
"""While the budget shrinks, the first layer gets one weight, then two, then one."""

ramps = st.builds(CubicRamp, st.sampled_from([0.0, 0.1, 0.3, 0.55]), st.sampled_from([1, 2, 3, 0.5]))
windows = st.builds(lambda updates, every: UpdateSchedule(updates * every, every), st.integers(1, 9), st.integers(1, 3))


def ramped(ramp: CubicRamp, final: float, update: int, updates: int) -> float:
    """The sparsity after an update: the ramp's initial one after the first update, the final one after the last."""
    progress = Fraction(update, updates - 1) if updates > 1 else Fraction(1)
    start = min(ramp.initial, final)
    return final if progress == 1 else float(f"{final + (start - final) * float(1 - progress) ** ramp.power:.12f}")


@checks("B9", "B1")
@example(ROUNDED_UP, "0.9", ErdosRenyiKernel(), CubicRamp(power=1), UpdateSchedule(9, 1))
@settings(max_examples=50)
@given(layer_lists(), sparsities, distributions, ramps, windows)
def test_a_ramp_keeps_the_budget_of_each_update(
    layers: list[Layer], sparsity: str, distribution: Distribution, ramp: CubicRamp, schedule: UpdateSchedule
) -> None:
    """Each row shares the budget of its time. A layer gets more only where a later row needs more: it never grows."""
    final = float(sparsity)
    recipe = Recipe(final, schedule=schedule, distribution=distribution, ramp=ramp)
    plan = make_plan(recipe, layers)
    times = [ramped(ramp, final, update, schedule.updates) for update in range(schedule.updates)]
    alone = [make_plan(Static(s, distribution=distribution), layers).active for s in (min(ramp.initial, final), *times)]
    expected = [tuple(map(max, zip(*alone[i:], strict=True))) for i in range(len(alone))]
    rows = [plan.active_after(update) for update in range(schedule.updates)]
    assert [plan.initial_active, *rows] == expected
    assert plan.active == rows[-1] == alone[-1]
    size = sum(layer.size for layer in layers)
    for row, time in zip(rows, times, strict=True):
        assert 0 <= sum(row) - rounded(f"{time:.12f}", size) < 2 * len(layers)


@checks("B9", "B4")
@settings(max_examples=50)
@given(layer_lists(min_size=3), sparsities, sparsities, ramps, windows)
@example(  # a ramp with a middle, which few draws have
    [Layer(f"layer{i}", (20, 30), (1,), (0,)) for i in range(3)],
    "0.8",
    "0.9",
    CubicRamp(),
    UpdateSchedule(end=10, every=2),
)
def test_pinned_layers_follow_the_ramp_to_their_own_sparsity(
    layers: list[Layer], sparsity: str, own: str, ramp: CubicRamp, schedule: UpdateSchedule
) -> None:
    pinned = {"dense": ["layer0"], "layer_sparsity": {"layer1": float(own)}}
    plan = make_plan(Recipe(float(sparsity), schedule=schedule, ramp=ramp, **pinned), layers)
    assert plan.active == make_plan(Static(float(sparsity), **pinned), layers).active
    assert set(plan.targets[:, 0].tolist()) == {layers[0].size}
    times = [ramped(ramp, float(own), update, schedule.updates) for update in range(schedule.updates)]
    counts = [plan.initial_active[1], *(plan.active_after(u)[1] for u in range(schedule.updates))]
    start = min(ramp.initial, float(own))
    assert counts == [rounded(f"{s:.12f}", layers[1].size) for s in (start, *times[:-1])] + [
        rounded(own, layers[1].size)
    ]
    assert counts == sorted(counts, reverse=True)


@checks("B9", "B5")
@settings(max_examples=50)
@given(layer_lists(min_size=2), sparsities, windows)
def test_on_a_ramp_the_others_compensate_at_every_update(
    layers: list[Layer], sparsity: str, schedule: UpdateSchedule
) -> None:
    size, final = sum(layer.size for layer in layers), float(sparsity)
    assume(rounded(sparsity, size) >= layers[0].size)
    recipe = Recipe(final, schedule=schedule, ramp=CubicRamp(), dense=["layer0"], compensate=True)
    plan = make_plan(recipe, layers)
    assert plan.initial_active == tuple(layer.size for layer in layers)
    for update in range(schedule.updates):
        row = plan.active_after(update)
        budget = rounded(f"{ramped(CubicRamp(), final, update, schedule.updates):.12f}", size)
        assert row[0] == layers[0].size
        assert 0 <= sum(row) - budget < 2 * len(layers)
    assert sum(plan.active) == rounded(sparsity, size)


@checks("B9", "B2")
def test_the_final_sparsity_of_a_ramp_is_read_as_written() -> None:
    """The final sparsity is not rounded to the ramp's 12 decimals: here the last of 14 decides between two counts."""
    layers = [Layer("one", (2 * 10**9,))]
    schedule = UpdateSchedule(end=4, every=1)
    for sparsity, active in ((0.50000000024999, 10**9), (0.50000000025001, 10**9 - 1)):
        plan = make_plan(Recipe(sparsity, schedule=schedule, ramp=CubicRamp()), layers)
        assert plan.active == (active,) == make_plan(Static(sparsity), layers).active


@st.composite
def fitting_layers(draw: st.DrawFn) -> list[Layer]:
    """Layers that every structure fits, in both axis orders."""
    layers = []
    for i in range(draw(st.integers(1, 4))):
        n_out, n_in, kernel = (
            4 * draw(st.integers(1, 3)),
            4 * draw(st.integers(1, 3)),
            draw(st.sampled_from([(), (2, 3)])),
        )
        turned = draw(st.booleans())
        shape = (*kernel, n_in, n_out) if turned else (n_out, n_in, *kernel)
        last = len(shape) - 1
        axes = ((last - 1,), (last,)) if turned else ((1,), (0,))
        layers.append(Layer(f"layer{i}", shape, *axes))
    return layers


def count_step(structure: Any, layer: Layer) -> int:
    """The number of weights by which a layer's count changes at least (rule B10)."""
    if structure.kind == "blocks":
        return int(structure.size**2)
    return layer.n_out if structure.kind == "constant_fan_in" else layer.size // int(structure.m)


@checks("B10", "B9")
@settings(max_examples=50)
@given(
    fitting_layers(),
    st.sampled_from([ConstantFanIn(), NM(2, 4), NM(1, 2), NM(3, 4), Blocks(2), Blocks(4)]),
    sparsities,
    st.none() | ramps,
    windows,
)
def test_counts_of_a_structure(
    layers: list[Layer], structure: Structure, sparsity: str, ramp: CubicRamp | None, schedule: UpdateSchedule
) -> None:
    """At every time, a count is the nearest one with which all groups have equally many units. N of M fixes it."""
    own = structure.sparsity is not None
    final = None if own else float(sparsity)
    plan = make_plan(Recipe(final, schedule=schedule, structure=structure, ramp=ramp), layers)
    free = make_plan(Recipe(final or 0.0, schedule=schedule, ramp=ramp), layers)
    for i, layer in enumerate(layers):
        step = count_step(structure, layer)
        counts = [plan.initial_active[i], *(plan.active_after(u)[i] for u in range(schedule.updates))]
        assert all(count % step == 0 and 0 <= count <= layer.size for count in counts)
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == plan.active[i]
        if isinstance(structure, NM):
            assert plan.active[i] == layer.size // structure.m * structure.n
        else:
            assert abs(plan.active[i] - free.active[i]) * 2 <= step
