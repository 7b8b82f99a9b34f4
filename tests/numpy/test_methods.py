"""Methods on the NumPy adapter: saved states that do not fit, and given scores of half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rigl_core as rigl
from rigl_backends.numpy import SGD, Adam, SparseTraining, sparsify
from rigl_core import CubicRamp, InitialValues, Layer, Recipe, UpdateSchedule
from rigl_core.testing.checks import checks
from rigl_core.testing.method_trainings import MOVING, STATIC

Array = npt.NDArray[Any]
SCHEDULE = UpdateSchedule(end=6, every=2)
LAYERS = [Layer("a", (8, 4), (1,), (0,)), Layer("b", (4, 8), (1,), (0,))]

REMEMBERING = replace(
    rigl.DeepR(0.5, schedule=SCHEDULE, grow=rigl.MOMENTUM, grown=InitialValues(), noise=0.1), method="all memories"
)


def start(recipe: Recipe, *, steps: int = 3) -> tuple[SparseTraining, SGD, dict[str, Array]]:
    rng = np.random.default_rng(0)
    params = {layer.name: rng.normal(size=layer.shape).astype(np.float32) for layer in LAYERS}
    optimizer = SGD(params, 0.1, 0.9)
    scores = {name: rng.normal(size=param.shape) for name, param in params.items()}
    sparse = sparsify(params, optimizer, recipe, layers=LAYERS, scores=scores if recipe.initial.reads_scores else None)
    for _ in range(steps):
        optimizer.step({name: rng.normal(size=param.shape).astype(np.float32) for name, param in params.items()})
    return sparse, optimizer, params


def bits(sparse: SparseTraining, optimizer: SGD, params: dict[str, Array]) -> dict[str, bytes]:
    """The bytes of all parameters, masks, memory and optimizer state, and the step, by name."""
    state = sparse.state_dict()
    memory = {f"{kind} {name}": x for kind, arrays in state["memory"].items() for name, x in arrays.items()}
    held = {f"{key} {name}": x for name, own in optimizer.state.items() for key, x in own.items()}
    arrays = {**params, **{f"mask {name}": x for name, x in state["masks"].items()}, **memory, **held}
    return {name: np.asarray(x).tobytes() for name, x in arrays.items()} | {"step": bytes([sparse.step])}


@checks("P3", "P2")
@pytest.mark.parametrize("spoil", ["missing", "foreign", "layer missing", "foreign layer", "shape", "no array", "none"])
def test_memory_that_does_not_fit_is_refused_and_changes_nothing(spoil: str) -> None:
    training = start(REMEMBERING)
    sparse, before = training[0], bits(*training)
    state = start(REMEMBERING, steps=5)[0].state_dict()
    memory = {kind: dict(arrays) for kind, arrays in state["memory"].items()}
    assert set(memory) == {"momentum", "sign", "initial"} == set(REMEMBERING.rule.memories)
    message = {
        "missing": r"state has memory for other layers than this training; they differ in \['sign'\]",
        "foreign": r"state has memory .* differ in \['shadow'\]",
        "layer missing": r"state has momentum arrays for other layers than this training; they differ in \['b'\]",
        "foreign layer": r"state has initial arrays .* differ in \['c'\]",
        "shape": r"state has a sign array of shape \(16, 2\) for layer 'a': it must be flat, of 32 numbers",
        "no array": r"state has a momentum array of shape \(\) for layer 'b': it must be flat, of 32 numbers",
        "none": "state has memory for other layers",
    }[spoil]
    if spoil == "missing":
        del memory["sign"]
    elif spoil == "foreign":
        memory["shadow"] = memory["sign"]
    elif spoil == "layer missing":
        del memory["momentum"]["b"]
    elif spoil == "foreign layer":
        memory["initial"]["c"] = memory["initial"]["a"]
    elif spoil == "shape":
        memory["sign"]["a"] = memory["sign"]["a"].reshape(16, 2)
    elif spoil == "no array":
        memory["momentum"]["b"] = 3.0
    with pytest.raises(ValueError, match=message):
        sparse.load_state_dict({**state, "memory": None if spoil == "none" else memory})
    assert bits(*training) == before
    sparse.load_state_dict(state)
    after, masks = bits(*training), state["masks"]
    shaped = {kind: {name: x.reshape(masks[name].shape) for name, x in own.items()} for kind, own in memory_of(state)}
    sparse.load_state_dict({**state, "memory": shaped})  # as sharded layers keep it
    assert bits(*training) == after


def memory_of(state: dict[str, Any]) -> Any:
    return state["memory"].items()


@checks("P3", "B9")
@pytest.mark.parametrize(
    "recipe",
    [
        rigl.GradualPruning(0.75, schedule=SCHEDULE, distribution=rigl.Uniform(first_dense=False)),
        rigl.GradualPruning(0.75, schedule=SCHEDULE, scope="global", distribution=rigl.ErdosRenyi()),
        rigl.DSR(0.75, schedule=SCHEDULE, ramp=CubicRamp(0.25)),
    ],
    ids=["by layer", "global", "on a ramp"],
)
def test_counts_that_were_never_planned_are_refused(recipe: Recipe) -> None:
    """The counts of any time of the ramp are accepted. Others are refused, and the message has the range."""
    training = start(recipe, steps=4)
    sparse = training[0]
    state = sparse.state_dict()
    sparse.load_state_dict(start(recipe, steps=0)[0].state_dict())
    sparse.load_state_dict(state)
    before = bits(*training)
    mask = state["masks"]["a"].copy()
    inactive = np.flatnonzero(~mask)[:1]
    mask.reshape(-1)[inactive] = True
    names = "'a'" if len(sparse.plan.pools) > 1 else "'a', 'b'"
    with pytest.raises(
        ValueError, match=rf"state has \d+ active weights in layer {names}; the plan has from \d+ to \d+"
    ):
        sparse.load_state_dict({**state, "masks": {**state["masks"], "a": mask}})
    assert bits(*training) == before


@checks("P2")
@pytest.mark.parametrize("method", [*MOVING, *STATIC])
def test_states_are_plain_and_fit_only_their_own_recipe(method: str) -> None:
    recipe = {**MOVING, **STATIC}[method](0.5, SCHEDULE)
    sparse = start(recipe)[0]
    state = sparse.state_dict()
    assert Recipe.from_dict(state["recipe"]) == recipe
    assert set(state["memory"]) == set(recipe.rule.memories)
    other = start(replace(recipe, seed=recipe.seed + 1))[0]
    with pytest.raises(ValueError, match="saved under another recipe: seed was 0 and is 1"):
        other.load_state_dict(state)


@checks("M7", "M2")
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_given_scores_of_half_precision_layers_are_not_rounded_to_it(scope: Any) -> None:
    """SynFlow's scores are huge, and GraSP's differ little: in float16 they would be equal."""
    layer = Layer("a", (1, 64))
    for scores in (1e9 + 1e6 * np.arange(64.0), 1 + 1e-5 * np.arange(64.0)):
        params = {"a": np.ones(layer.shape, np.float16)}
        recipe = rigl.SynFlow(0.5, scope=scope)
        sparse = sparsify(params, Adam(params), recipe, layers=[layer], scores={"a": scores.reshape(layer.shape)})
        assert sparse.masks["a"].reshape(-1).tolist() == [False] * 32 + [True] * 32
