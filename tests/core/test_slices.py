"""Layers with slices: what one slice is, what is refused, and that a stack trains as its layers would alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rigl_core as rigl
from rigl_backends.numpy import SGD, choose_layers, describe, plan, sparsify
from rigl_core import NM, SCORES, Constant, ConstantFanIn, Layer, RigL, Static, Uniform, UpdateSchedule, make_plan
from rigl_core.costs.convention import PAPER
from rigl_core.inspect.neurons import connections
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=9, every=2)
STACK = Layer("stack", (3, 8, 16), in_axes=(1,), out_axes=(2,), stacked=(0,))

SLICES = {
    "a stack": (STACK, 3, Layer("stack", (8, 16), (0,), (1,))),
    "an inner axis": (Layer("m", (8, 3, 16), (0,), (2,), stacked=(1,)), 3, Layer("m", (8, 16), (0,), (1,))),
    "two axes": (Layer("e", (2, 3, 8, 4), (3,), (2,), stacked=(0, 1)), 6, Layer("e", (8, 4), (1,), (0,))),
    "fused": (Layer("qkv", (12, 8), (1,), (0,), fused=(0, 3)), 3, Layer("qkv", (4, 8), (1,), (0,))),
    "both": (Layer("b", (5, 8, 12), (1,), (2,), stacked=(0,), fused=(2, 3)), 15, Layer("b", (8, 4), (0,), (1,))),
    "a grouped convolution": (
        Layer("conv", (8, 3, 2, 2), (1,), (0,), groups=4, fused=(0, 2)),
        2,
        Layer("conv", (4, 3, 2, 2), (1,), (0,), groups=2),
    ),
    "a stack of one": (Layer("one", (1, 8, 16), (1,), (2,), stacked=(0,)), 1, Layer("one", (8, 16), (0,), (1,))),
    "no slices": (Layer("fc", (4, 8), (1,), (0,)), 1, Layer("fc", (4, 8), (1,), (0,))),
}


@checks("B12")
@pytest.mark.parametrize("kind", SLICES)
def test_a_slice_is_a_layer_of_its_own_shape(kind: str) -> None:
    layer, slices, one = SLICES[kind]
    assert layer.slices == slices
    assert layer.one_slice == one
    assert layer.fan_in == (one.n_in * 4 if kind == "a grouped convolution" else one.n_in)


@checks("B12")
def test_the_table_shows_a_stack_on_one_line() -> None:
    planned = make_plan(Static(0.75, distribution=Uniform()), [STACK, Layer("qkv", (12, 8), fused=(0, 3))])
    assert [row[:4] for row in planned.table.rows[1:3]] == [
        ("stack", "3 of 8x16", "1.0000", "384"),  # the first layer is dense, with all of its slices
        ("qkv", "3 of 4x8", "0.2500", "24"),
    ]


def trained(recipe: Any, layers: list[Layer], arrays: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Masks and weights after each step of a training with these layers, whose arrays may be slices of others."""
    params = {name: array.copy() for name, array in arrays.items()}
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    sparse = sparsify(params, optimizer, recipe, layers=layers, scores=scores)
    seen = []
    for step in range(8):
        gradients = np.random.default_rng(step).normal(size=(3, 8, 16))
        of_slices = {name: gradients[int(name)] for name in params if name != "stack"}
        optimizer.step(of_slices or {"stack": gradients})
        seen.append({name: (sparse.masks[name].copy(), array.copy()) for name, array in params.items()})
    return seen


@checks("T7", "B12")
@pytest.mark.parametrize("structure", [rigl.Unstructured(), NM(2, 4), ConstantFanIn()], ids=lambda one: one.kind)
def test_a_stack_trains_as_its_layers_alone(structure: Any) -> None:
    """From the same initial topologies, masks and weights have the same bits after every step."""
    sparsity = None if structure.kind == "n_of_m" else 0.75
    options: dict[str, Any] = {"distribution": Uniform(first_dense=False), "drop_fraction": Constant(0.5)}
    recipe = RigL(sparsity, schedule=SCHEDULE, initial=SCORES, structure=structure, **options)
    rng = np.random.default_rng(1)
    weights, scores = rng.normal(size=(3, 8, 16)), rng.normal(size=(3, 8, 16))
    together = trained(recipe, [STACK], {"stack": weights}, {"stack": scores})
    alone = trained(
        recipe,
        [Layer(str(i), (8, 16), (0,), (1,)) for i in range(3)],
        {str(i): weights[i] for i in range(3)},
        {str(i): scores[i] for i in range(3)},
    )
    assert not np.array_equal(together[0]["stack"][0], together[-1]["stack"][0])
    for whole, parts in zip(together, alone, strict=True):
        for i in range(3):
            np.testing.assert_array_equal(whole["stack"][0][i], parts[str(i)][0])
            np.testing.assert_array_equal(whole["stack"][1][i], parts[str(i)][1])


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no mapping": ({"stacked": 0}, "stacked is 0: give a mapping"),
    "no axis": ({"stacked": {"w": "0"}}, "stacked of 'w' is '0': give an axis, or several axes"),
    "no such layer": ({"fused": {"nope": 3}}, "fused holds the pattern 'nope', which matches no layer"),
    "no such axis": ({"stacked": {"w": 3}}, r"stacked of layer 'w' is \(3,\): .* from 0 to 2"),
    "negative": ({"stacked": {"w": -1}}, "stacked of 'w' is -1: it must be at least 0"),
    "all axes": ({"stacked": {"w": (0, 1, 2)}}, "stacked of layer 'w' names all of its 3 axes"),
    "an in axis": ({"stacked": {"w": 0}, "axes": {"w": ((0,), (1,))}}, "names axis 0, which is one of its in or out"),
    "unknown out axis": ({"fused": {"w": 2}}, "fused cuts layer 'w' along its out axis, which is unknown"),
    "unequal parts": ({"fused": {"w": (2, 3)}}, "cuts axis 2 of size 16 into 3 equal parts"),
    "a stacked axis": ({"fused": {"w": (0, 3)}, "stacked": {"w": 0}}, r"fused of layer 'w' is \(0, 3\)"),
    "three numbers": ({"fused": {"w": (2, 2, 2)}}, r"fused of 'w' is \(2, 2, 2\): give a number of parts"),
    "layers too": ({"fused": {"w": (2, 2)}, "layers": [Layer("w", (3, 8, 16))]}, "layers already says what"),
}


@checks("P3")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_slices_that_do_not_fit_are_refused_by_name(mistake: str) -> None:
    options, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=message):
        plan({"w": np.ones((3, 8, 16))}, Static(0.5), **options)


REFUSED = {
    "scope is 'global', and layer 'stack' has 3 slices": rigl.SNIP(0.5),
    "redistribution is 'mean_score', and layer 'stack'": rigl.SNFS(0.5, schedule=SCHEDULE),
    "drop is 'sign', and layer 'stack'": rigl.DeepR(0.5, schedule=SCHEDULE),
    "drop is 'magnitude_by_sign', and layer 'stack'": rigl.SETAsPublished(0.5, schedule=SCHEDULE),
}


@checks("T7", "P3")
@pytest.mark.parametrize("message", REFUSED)
def test_recipes_that_cannot_choose_in_slices_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(REFUSED[message], [STACK])
    assert make_plan(REFUSED[message], [Layer("stack", STACK.shape)]).layers


@checks("A3", "P3")
def test_active_weights_and_dead_neurons_know_no_stacks() -> None:
    params = {"qkv": np.ones((300, 300), np.float32)}
    with pytest.raises(ValueError, match=r"'qkv' has slices \(stacked, fused\)"):
        sparsify(params, SGD(params, lr=0.1), Static(0.95), storage="active", fused={"qkv": (0, 3)})
    with pytest.raises(ValueError, match="'stack' is a stack of 3 layers: give one layer of it"):
        connections(STACK, np.ones(STACK.shape, bool))


@checks("P2", "B12")
@pytest.mark.parametrize("changed", [(), ("sparsity",)])
def test_a_state_without_these_slices_is_refused(changed: tuple[str, ...]) -> None:
    def start(sparsity: float, **slices: Any) -> Any:
        params = {"w": np.random.default_rng(0).normal(size=(3, 8, 16))}
        return sparsify(params, SGD(params, lr=0.1), RigL(sparsity, schedule=SCHEDULE), **slices)

    state = start(0.75).state_dict()
    resumed = start(0.5 if changed else 0.75, stacked={"w": 0})
    before = resumed.masks["w"].copy()
    with pytest.raises(ValueError, match="active weights in the slices of layer 'w': they must have equal numbers"):
        resumed.load_state_dict(state, changed=changed)
    np.testing.assert_array_equal(resumed.masks["w"], before)


def test_describe_and_costs_know_stacks() -> None:
    params = {"w": np.ones((3, 8, 16))}
    options: dict[str, Any] = {"axes": {"w": ((1,), (2,))}, "stacked": {"w": 0}}

    def apply(params: Any, x: Any) -> Any:
        return np.concatenate([x @ params["w"][i] for i in range(3)])

    network = describe(apply, params, np.ones((5, 8)), examples=5, **options)
    assert network.layers == tuple(choose_layers(params, **options))
    assert network.positions == {"w": 1}
    assert "3 of 8x16" in str(network)
    assert PAPER.flops(network.layers[0], 3 * 8 * 16, 1) == 3 * 16 * (2 * 8 + 1)
