"""SRigL as published: whole neurons are taken away, and may come back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rigl_backends.numpy import SGD, sparsify
from rigl_core import (
    DNW,
    MAGNITUDE,
    NM,
    SET,
    Constant,
    ConstantFanIn,
    CubicRamp,
    History,
    Layer,
    SRigL,
    SRigLAsPublished,
    Uniform,
    UpdateSchedule,
    make_plan,
)
from rigl_core.arrays import numpy_namespace as xp
from rigl_core.arrays import topology
from rigl_core.inspect import units
from rigl_core.plan import Counts
from rigl_core.step.neurons import fewer_neurons
from rigl_core.testing import neuron_oracle, oracle

SCHEDULE = UpdateSchedule(end=100, every=1)


def scores(rng: np.random.Generator, size: int) -> Any:
    """Few different numbers, and some infinite ones, so that there are ties."""
    return rng.choice(np.array([0, 1, 2, 3, 4, np.inf], np.float32), size)


@pytest.mark.parametrize("seed", range(300))
def test_an_update_follows_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    neurons, connections = int(rng.integers(1, 7)), int(rng.integers(1, 9))
    fan_in = int(rng.integers(0, connections + 1))
    moves, size = int(rng.integers(0, fan_in + 1)), neurons * connections
    drop, grow = scores(rng, size), scores(rng, size)
    mask = np.zeros(size, np.bool_)
    mask[rng.permutation(size)[: neurons * fan_in - int(rng.integers(0, neurons))]] = True
    gamma_sal = float(rng.choice([0.1, 0.3, 0.5, 0.99, 1]))
    rows = [list(range(i * connections, (i + 1) * connections)) for i in range(neurons)]
    expected = neuron_oracle.fewer_neurons(
        drop.tolist(), grow.tolist(), set(np.flatnonzero(mask)), rows, fan_in, moves, gamma_sal
    )
    shape, counts = (neurons, connections), Counts(fan_in - moves, moves)
    found = fewer_neurons(*(a.reshape(shape) for a in (drop, grow, mask)), counts, gamma_sal, xp=xp)
    assert [set(np.flatnonzero(each)) for each in found] == list(expected)


@pytest.mark.parametrize("seed", range(50))
def test_what_comes_first_is_chosen_before_infinite_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, first, k = scores(rng, 8), rng.random(8) < 0.3, int(rng.integers(0, 9))
    chosen = set(np.flatnonzero(topology.top_k_with(first, values, k, xp=xp)))
    own = set(np.flatnonzero(first))
    others = sorted(set(range(8)) - own)
    assert chosen == own | oracle.largest(values.tolist(), others, max(k - len(own), 0))


def trained(gamma_sal: float) -> tuple[Any, list[Any]]:
    """Masks before each update of a layer, where gradients come to three neurons of eight, and then to others."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(8, 16)).astype(np.float32)}
    recipe = SRigLAsPublished(
        0.75,
        schedule=SCHEDULE,
        gamma_sal=gamma_sal,
        drop_fraction=Constant(0.5),
        distribution=Uniform(first_dense=False),
    )
    optimizer = SGD(params, 0.1)
    sparse = sparsify(params, optimizer, recipe, layers=[Layer("w", (8, 16), (1,), (0,))])
    masks = [sparse.masks["w"].copy()]
    for step in range(40):
        gradient = rng.normal(size=(8, 16)).astype(np.float32)
        gradient[3:] *= 0.01 if step < 20 else 100
        optimizer.step({"w": gradient})
        masks.append(sparse.masks["w"].copy())
    return sparse, masks


def test_neurons_go_and_come_back() -> None:
    sparse, masks = trained(0.9)
    (planned,) = sparse.plan.active
    left = [int(mask.any(axis=1).sum()) for mask in masks]
    assert left[0] == 8
    assert min(left) < 8
    assert any(later > earlier for earlier, later in itertools.pairwise(left))
    for mask, number in zip(masks, left, strict=True):
        assert set(mask.sum(axis=1)) <= {0, planned // number}
        assert mask.sum() in sparse.plan.possible_counts((0,))


def test_a_low_threshold_takes_no_neuron_away() -> None:
    _, masks = trained(0.0001)
    assert all(mask.any(axis=1).all() for mask in masks[:2])


def test_empty_neurons_are_no_waste(recwarn: pytest.WarningsRecorder) -> None:
    sparse, _ = trained(1.0)
    layers = sparse.plan.layers
    assert units(layers, sparse.masks)["w"].empty_share > 0.25
    assert sparse.table.active == (sparse.masks["w"].sum(),)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma_sal": 0}, "gamma_sal is 0: it must be above 0 and at most 1"),
        ({"gamma_sal": 1.5}, "gamma_sal is 1.5: it must be above 0 and at most 1"),
        ({"gamma_sal": 0.12345}, "gamma_sal is 0.12345: .* at most four decimals"),
        ({"gamma_sal": 0.3, "structure": NM(2, 4)}, "gamma_sal is 0.3, and structure .* use structure=ConstantFanIn"),
        ({"gamma_sal": 0.3, "grow": None}, "gamma_sal is 0.3, and grow does not go with it"),
        ({"gamma_sal": 0.3, "grow": MAGNITUDE}, "gamma_sal is 0.3, and grow does not go with it"),
        ({"gamma_sal": 0.3, "ramp": CubicRamp()}, "gamma_sal is 0.3, and ramp does not go with it: leave it out"),
        ({"gamma_sal": 0.3, "floor": 1}, "floor is 1, and structure"),
        ({"gamma_sal": 0.3, "schedule": None}, "gamma_sal is 0.3, and schedule does not go with it"),
        ({"gamma_sal": 0.3, "scope": "global"}, "scope is 'global'"),
    ],
)
def test_what_does_not_go_together(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SRigL(0.9, schedule=SCHEDULE), **options)


@pytest.mark.parametrize("recipe", [SET(0.9, schedule=SCHEDULE), DNW(0.9, schedule=SCHEDULE)], ids=["random", "shadow"])
def test_methods_that_do_not_fit(recipe: Any) -> None:
    with pytest.raises(ValueError, match=r"gamma_sal is 0\.3, and (grow|shadow) does not go with it"):
        replace(recipe, gamma_sal=0.3, structure=ConstantFanIn())


def test_slices_are_refused() -> None:
    layer = Layer("qkv", (3, 8, 8), (2,), (1,), stacked=(0,))
    with pytest.raises(ValueError, match=r"gamma_sal is 0\.3, and layer 'qkv' has 3 slices .* leave it out"):
        make_plan(SRigLAsPublished(0.5, schedule=SCHEDULE), [layer])


def test_a_history_that_is_told_so_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    sparse, masks = trained(1.0)
    history = History(sparse.plan.layers, waste=1)
    empty = history.add(0, {"w": masks[-1]}).empty
    assert empty is not None
    assert empty > 0.25
    assert not recwarn.list
