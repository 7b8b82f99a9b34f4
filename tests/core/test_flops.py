"""Costs: the paper's formulas, and the costs of a plan for a network."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import (
    SET,
    CostTable,
    Layer,
    Network,
    RigL,
    Static,
    Uniform,
    UpdateSchedule,
    cost_table,
    make_plan,
    specs,
)
from rigl_core.costs.flops import PAPER, dense_step, outputs, pruning_step, rigl_step, snfs_step, static_step
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=1500, every=50)
CONVOLUTION = Layer("conv", (8, 4, 3, 3), in_axes=(1,), out_axes=(0,))

flops_pairs = st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)).map(sorted)
densities = st.integers(0, 99).map(lambda percent: percent / 100)


def chain(n_in: int, rows: list[tuple[int, tuple[int, ...], int]], sparse: int) -> Network:
    """A chain of layers: the first ``sparse`` can be sparse, the others are always dense. Some are convolutions."""
    widths = [n_in, *(n_out for n_out, _, _ in rows)]
    layers = [
        Layer(f"layer{i}", (n_out, widths[i], *kernel), in_axes=(1,), out_axes=(0,))
        for i, (n_out, kernel, _) in enumerate(rows)
    ]
    positions = {layer.name: used for layer, (_, _, used) in zip(layers, rows, strict=True)}
    return Network(tuple(layers[:sparse]), positions, tuple(layers[sparse:]))


rows = st.tuples(st.integers(1, 20), st.sampled_from([(), (3, 3), (1, 5)]), st.integers(1, 50))
networks = st.builds(chain, st.integers(1, 20), st.lists(rows, min_size=1, max_size=5), st.integers(1, 5))


def costs(sparsity: float, network: Network, **options: Any) -> CostTable:
    recipe = Static(sparsity, distribution=Uniform(first_dense=False))
    return cost_table(make_plan(recipe, network), network, **options)


@given(flops_pairs, st.integers(1, 10_000))
def test_rigl_costs_between_static_and_snfs_and_those_up_to_dense(pair: list[int], every: int) -> None:
    f_s, f_d = pair
    assert static_step(f_s) <= rigl_step(f_s, f_d, every) * (1 + 1e-12)
    assert rigl_step(f_s, f_d, every) <= snfs_step(f_s, f_d) * (1 + 1e-12)
    assert snfs_step(f_s, f_d) <= dense_step(f_d)


@given(st.integers(1, 10**12), st.integers(1, 10_000))
def test_at_full_density_all_methods_cost_as_much_as_dense(f_d: int, every: int) -> None:
    assert static_step(f_d) == snfs_step(f_d, f_d) == pruning_step([f_d]) == dense_step(f_d)
    assert rigl_step(f_d, f_d, every) == pytest.approx(dense_step(f_d))


def test_formulas_of_appendix_h() -> None:
    assert (dense_step(10), static_step(2), snfs_step(2, 10)) == (30, 6, 14)
    assert rigl_step(2, 10, every=3) == (3 * 2 * 3 + 2 * 2 + 10) / (3 + 1)
    assert pruning_step([10, 6, 2]) == 18
    with pytest.raises(ValueError, match="every is 0: it must be at least 1"):
        rigl_step(2, 10, every=0)
    with pytest.raises(ValueError, match="f_s is empty"):
        pruning_step([])


@given(networks, densities)
def test_totals_are_sums_of_layers(network: Network, sparsity: float) -> None:
    table = costs(sparsity, network)
    assert table.layers == network.weights
    expected = [2 * n * network.positions[layer.name] for n, layer in zip(table.active, table.layers, strict=True)]
    assert (list(table.flops), table.f_s) == (expected, sum(expected))
    assert table.f_d == sum(2 * layer.size * network.positions[layer.name] for layer in network.weights)


@given(networks, densities, st.integers(1, 500))
def test_at_sparsity_0_nothing_is_saved(network: Network, sparsity: float, steps: int) -> None:
    dense, sparse = costs(0.0, network), costs(sparsity, network)
    assert dense.inference == dense.training(steps) == 1
    assert sparse.f_d == dense.f_d == dense.f_s
    assert sum(dense.weight_bytes()) == 4 * sum(layer.size for layer in network.weights)


@given(networks, densities, densities, st.sampled_from([False, True]))
def test_costs_grow_with_density(network: Network, one: float, other: float, paper: bool) -> None:
    options = {"convention": PAPER} if paper else {}
    denser, sparser = (costs(sparsity, network, **options) for sparsity in sorted((one, other)))
    assert sparser.f_s <= denser.f_s <= denser.f_d
    assert sparser.inference <= denser.inference <= 1
    assert sparser.training(100) <= denser.training(100) <= 1


@given(networks, st.integers(0, 10).map(lambda tenths: tenths / 10 if tenths < 10 else 0.99), st.integers(1, 400))
def test_training_counts_the_dense_gradient_at_the_updates_that_fire(
    network: Network, sparsity: float, steps: int
) -> None:
    schedule = UpdateSchedule(end=200, every=7, begin=3)
    options = {"schedule": schedule, "distribution": Uniform(first_dense=False)}
    rigl, set_ = (cost_table(make_plan(method(sparsity, **options), network), network) for method in (RigL, SET))
    every_step = [
        2 * rigl.f_s + rigl.f_d if schedule.fires(step) else 3 * rigl.f_s for step in range(steps)
    ]  # fmt: skip
    assert rigl.training_flops(steps) == sum(every_step)
    assert set_.training_flops(steps) == static_step(set_.f_s) * steps
    assert set_.training(steps) <= rigl.training(steps)


def test_costs_of_an_mlp_need_no_network() -> None:
    layers = specs.mlp(64, 300, 100, 10)
    density = 1004 / 50200
    assert cost_table(make_plan(Static(0.98), layers)).inference == density
    for recipe in (Static(0.98), SET(0.98, schedule=SCHEDULE)):
        assert cost_table(make_plan(recipe, layers)).training(2000) == pytest.approx(density)
    rigl = cost_table(make_plan(RigL(0.98, schedule=SCHEDULE), layers))
    once = (1970 * 3 * density + 30 * (2 * density + 1)) / 6000
    assert rigl.training(2000) == pytest.approx(once)
    assert rigl.training(100) == pytest.approx((98 * 3 * density + 2 * (2 * density + 1)) / 300)
    assert rigl.training(2000, dense_steps=400) == pytest.approx(5 * once)


def test_bytes() -> None:
    network = Network((Layer("a", (10, 80)),), always_dense=(Layer("b", (5, 5)),))
    sparse = cost_table(make_plan(RigL(0.9, schedule=SCHEDULE), network), network)
    assert sparse.weight_bytes() == (80 * 4 + 100, 25 * 4)
    assert sparse.weight_bytes(value_bytes=2) == (80 * 2 + 100, 25 * 2)
    assert sparse.training_bytes(state_per_weight=2) == (420 + 2 * 320 + 800 * 4, 400)
    static = cost_table(make_plan(Static(0.9), network), network)
    assert static.training_bytes(state_per_weight=2) == (420 + 2 * 320 + 320, 400)


def test_the_table() -> None:
    network = Network((CONVOLUTION, Layer("fc", (10, 8), (1,), (0,))), {"conv": 1024})
    lines = str(cost_table(make_plan(Static(0.5, distribution=Uniform()), network), network)).splitlines()
    assert lines[0] == "Static, inference at 0.9999 of dense"
    assert re.split(r"  +", lines[1]) == [
        "layer", "shape", "positions", "density", "dense FLOPs", "FLOPs", "bytes",
    ]  # fmt: skip
    assert lines[2].split() == ["conv", "8x4x3x3", "1,024", "1.0000", "589,824", "589,824", "1,152"]
    assert lines[3].split() == ["fc", "10x8", "1", "0.5000", "160", "80", "170"]
    assert lines[4].split() == ["total", "0.8913", "589,984", "589,904", "1,322"]
    assert len({len(line) for line in lines[1:]}) == 1


@checks("P3")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": {"cnv": 9}}, "positions names 'cnv': no layer has this name"),
        ({"positions": {"conv": -1}}, r"positions\['conv'\] is -1: it must be a finite number of at least 0"),
        ({"positions": {"conv": float("nan")}}, r"positions\['conv'\] is nan"),
        ({}, r"positions says nothing of layer 'conv' of shape \(8, 4, 3, 3\)"),
        ({"always_dense": [CONVOLUTION]}, "the name 'conv' more than once"),
    ],
)
def test_bad_networks_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network((CONVOLUTION,), **options)


@checks("P3")
def test_costs_ask_for_the_network_that_the_plan_is_for() -> None:
    plan = make_plan(Static(0.5), [CONVOLUTION])
    with pytest.raises(ValueError, match="positions says nothing of layer 'conv'"):
        cost_table(plan)
    with pytest.raises(ValueError, match=r"network has no layer 'conv' of shape \(8, 4, 3, 3\)"):
        cost_table(plan, specs.mlp(3, 4))


def test_a_network_is_a_sequence_of_what_may_be_sparsified() -> None:
    network = specs.mobilenet_v1()
    assert (len(network), network[0].name, network[-1].name) == (15, "conv1", "fc")
    assert network[1:3] == network.layers[1:3]
    assert list(network) == list(network.layers)
    assert [layer.name for layer in network.always_dense] == [f"block{i}.depthwise" for i in range(1, 14)]
    with pytest.raises(TypeError):
        network.positions["conv1"] = 3  # type: ignore[index]


def test_a_network_shows_its_weights() -> None:
    lines = str(specs.gru_language_model(characters=512)).splitlines()
    assert lines[0] == "GRU language model"
    assert lines[2].split() == ["gru.weight_ih", "1536x128", "512", "196,608"]
    assert lines[-2].split() == ["embedding", "256x128", "(dense)", "0", "32,768"]
    assert lines[-1].split() == ["total", "1,212,416"]


@pytest.mark.parametrize(
    ("network", "kernels", "weights", "always_dense", "multiply_adds"),
    [
        (specs.lenet_300_100(), 3, 266_200, 0, 266_200),
        (specs.resnet50(), 54, 25_502_912, 0, 4_089_184_256),
        (specs.mobilenet_v1(), 15, 4_209_088, 44_640, 568_740_352),
        (specs.mobilenet_v2(), 36, 3_469_760, 64_224, 300_774_272),
        (specs.wrn_22_2(), 23, 1_076_912, 0, 157_730_048),
        (specs.gru_language_model(), 5, 1_212_416, 32_768, 1_179_648),
    ],
    ids=lambda value: value.name if isinstance(value, Network) else "",
)
def test_published_networks(
    network: Network, kernels: int, weights: int, always_dense: int, multiply_adds: int
) -> None:
    assert len(network) == kernels
    assert sum(layer.size for layer in network.weights) == weights
    assert sum(layer.size for layer in network.always_dense) == always_dense
    for recipe in (RigL(0.75, schedule=SCHEDULE), Static(0.9, distribution=Uniform())):
        table = cost_table(make_plan(recipe, network), network)
        assert table.f_d == 2 * multiply_adds
        assert 0.1 < table.inference < 1


def test_mobilenet_v1_costs_what_its_authors_counted() -> None:
    """The figures of the RigL authors' notebook: million operations, and megabytes with a bias for each output.

    Their classifier is a 1 x 1 convolution. Their counter pads strided kernels once more than the network does, which
    adds a row and a column of outputs. It treats a depthwise kernel as a convolution with a single output.
    """
    network = specs.mobilenet_v1()
    sides = {"conv1": 113} | {f"block{block}.depthwise": side for block, side in ((2, 57), (4, 29), (6, 15), (12, 8))}
    network = replace(
        network,
        layers=(*network.layers[:-1], specs.conv("fc", 1024, 1000, 1)),
        positions={**network.positions, **{name: side**2 for name, side in sides.items()}},
        always_dense=tuple(
            Layer(layer.name, (1, layer.groups, 3, 3), in_axes=(1,), out_axes=(0,)) for layer in network.always_dense
        ),
    )
    printed = {
        (0.0, "erk"): (1141.544, 16.864),
        (0.75, "erk"): (599.144, 4.888),
        (0.9, "erk"): (334.134, 2.392),
        (0.75, "uniform"): (330.769, 4.894),
        (0.9, "uniform"): (168.614, 2.396),
    }
    for (sparsity, kind), expected in printed.items():
        recipe = Static(sparsity) if kind == "erk" else Static(sparsity, distribution=Uniform())
        table = cost_table(make_plan(recipe, network), network, convention=PAPER)
        stored = sum(table.weight_bytes()) + 4 * sum(map(outputs, table.layers))
        # The authors count fractions of weights. One weight of the first pointwise kernel is 0.025 million operations.
        assert (table.f_s / 1e6, stored / 1e6) == pytest.approx(expected, abs=0.013)
