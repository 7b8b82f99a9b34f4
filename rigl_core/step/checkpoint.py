"""The saved state of a sparse training: the content of every adapter's ``state_dict``, and its checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.namespace import Array
from rigl_core.inspect.host import count_true, is_spread, to_numpy
from rigl_core.model.layers import Layer
from rigl_core.parts.slices import slices_as_groups
from rigl_core.plan import Plan
from rigl_core.step.clock import Clock

FORMAT = 1
CHANGEABLE = (
    "compensate",
    "dense",
    "distribution",
    "drop_fraction",
    "l1",
    "layer_sparsity",
    "method",
    "noise",
    "ramp",
    "schedule",
    "seed",
    "sparsity",
)
"""The fields of a recipe that can change while a training goes on: its masks and memory keep their meaning."""
_KEYS = ("format", "recipe", "step", "deferred", "masks", "memory")


def make_state(
    plan: Plan, clock: Clock, masks: Mapping[str, Array], memory: Mapping[str, Mapping[str, Array]] | None = None
) -> dict[str, Any]:
    """The state of a training: plain data and arrays. The caller gives copies of the arrays.

    Args:
        plan: the training's plan.
        clock: the training's clock.
        masks: a bool array for each layer, by name.
        memory: the training's memory (`rigl_core.arrays.memory`): flat arrays by kind and layer name.
    """
    return {
        "format": FORMAT,
        "recipe": plan.recipe.to_dict(),
        "step": clock.step,
        "deferred": clock.deferred,
        "masks": dict(masks),
        "memory": {kind: dict(arrays) for kind, arrays in (memory or {}).items()},
    }


def check_state(plan: Plan, state: Any, changed: Collection[str] = ()) -> None:
    """Refuse a state that does not fit this plan. An adapter calls it before it changes anything.

    Args:
        plan: the plan of the training that is to continue.
        state: the result of `make_state`.
        changed: fields of the recipe, of `CHANGEABLE`, that were changed on purpose since the state was saved.

    Raises:
        TypeError, ValueError: the message names the difference.
    """
    if not isinstance(state, Mapping) or set(state) != set(_KEYS):
        raise ValueError(f"state must be what state_dict() gave, with the keys {', '.join(_KEYS)}.")
    if state["format"] != FORMAT:
        raise ValueError(f"state has the format {state['format']!r}; this version reads format {FORMAT}.")
    check_saved_recipe(plan, state["recipe"], changed)
    if isinstance(state["step"], bool) or not isinstance(state["step"], int) or state["step"] < 0:
        raise ValueError(f"state holds the step {state['step']!r}: it must be a whole number of at least 0.")
    if not isinstance(state["deferred"], bool):
        raise ValueError(f"state holds deferred={state['deferred']!r}: it must be True or False.")
    _check_masks(plan, state["masks"], counted=not changed)
    _check_memory(plan, state["memory"])


def check_saved_recipe(plan: Plan, saved: Any, changed: Collection[str] = ()) -> None:
    """Refuse a state that was saved under another recipe.

    Args:
        plan: the plan of the training that is to continue.
        saved: the recipe that the state was saved under, as `Recipe.to_dict` gives it.
        changed: the fields that may differ; see `check_state`.

    Raises:
        ValueError: the message lists all other differences.
    """
    check_changed(changed)
    if not isinstance(saved, Mapping):
        raise ValueError(f"state holds the recipe {saved!r}: it must be a mapping.")
    compare_recipes(plan.recipe.to_dict(), saved, changed)


def compare_recipes(own: Mapping[str, Any], saved: Mapping[str, Any], changed: Collection[str] = ()) -> None:
    """As `check_saved_recipe`, for recipes as `Recipe.to_dict` gives them."""
    different = [key for key in sorted({*own, *saved}) if own.get(key) != saved.get(key) and key not in changed]
    if different:
        listed = "; ".join(f"{key} was {saved.get(key)!r} and is {own.get(key)!r}" for key in different)
        allowed = [key for key in different if key in CHANGEABLE]
        raise ValueError(
            f"state was saved under another recipe: {listed}. Resume with the recipe that it was saved under"
            + (f", or say that you changed it: changed={allowed}." if allowed == different else ".")
        )


def check_changed(changed: Any) -> None:
    """Refuse names that are no field of `CHANGEABLE`."""
    if isinstance(changed, str) or not isinstance(changed, Collection):
        raise TypeError(f"changed is {changed!r}: it must be a list of a recipe's fields, such as ['schedule'].")
    for key in changed:
        if key not in CHANGEABLE:
            raise ValueError(
                f"changed names {key!r}: only {', '.join(CHANGEABLE)} can change while a training goes on."
            )


def _check_masks(plan: Plan, masks: Any, *, counted: bool) -> None:
    _check_names("masks", masks, [layer.name for layer in plan.layers])
    for layer in plan.layers:
        _check_mask(layer, masks[layer.name])
    dense = set(range(len(plan.layers))).difference(*plan.pools)
    for pool in (*plan.pools, *((i,) for i in sorted(dense))):
        check_pool(plan, pool, [masks[plan.layers[i].name] for i in pool], counted=counted)


def _check_memory(plan: Plan, memory: Any) -> None:
    _check_names("memory", memory, plan.recipe.rule.memories)
    for kind, arrays in memory.items():
        _check_names(f"{kind} arrays", arrays, [plan.layers[i].name for i in plan.sparse_layers])
        for i in plan.sparse_layers:
            _check_flat(plan.layers[i], kind, arrays[plan.layers[i].name])


def _check_names(what: str, arrays: Any, names: Sequence[str]) -> None:
    if not isinstance(arrays, Mapping) or set(arrays) != set(names):
        differing = sorted(set(arrays) ^ set(names)) if isinstance(arrays, Mapping) else list(names)
        raise ValueError(f"state has {what} for other layers than this training; they differ in {differing}.")


def _check_mask(layer: Layer, saved: Array) -> None:
    mask = saved if is_spread(saved) else to_numpy(saved)
    dtype, shape = str(mask.dtype).rpartition(".")[2], tuple(mask.shape)
    if dtype != "bool" or shape != layer.shape:
        raise ValueError(
            f"state has a {dtype} mask of shape {shape} for layer {layer.name!r}: "
            f"it must be bool, of shape {layer.shape}."
        )


def _check_flat(layer: Layer, kind: str, saved: Array) -> None:
    shape = tuple(np.shape(saved))
    if shape not in ((layer.size,), layer.shape):  # sharded arrays keep the layer's axes
        raise ValueError(
            f"state has a {kind} array of shape {shape} for layer {layer.name!r}: "
            f"it must be flat, of {layer.size} numbers."
        )


def check_pool(plan: Plan, pool: Sequence[int], saved: Sequence[Array], *, counted: bool = True) -> None:
    """Refuse saved masks with a number of active weights that this plan never has, or with unequal slices.

    Args:
        plan: the plan.
        pool: the positions of layers that choose together.
        saved: the masks of these layers.
        counted: whether their number is one of this plan; otherwise only their slices are looked at.

    Raises:
        ValueError: the message names the layers and both numbers.
    """
    for i, mask in zip(pool, saved, strict=True):
        if plan.layers[i].slices > 1:
            _check_slices(plan.layers[i], to_numpy(mask))
    if not counted:
        return
    active = sum(map(count_true, saved))
    possible = plan.possible_counts(pool)
    if active not in possible:
        names = ", ".join(repr(plan.layers[i].name) for i in pool)
        least, most = min(possible), max(possible)
        planned = str(least) if least == most else f"from {least} to {most}"
        raise ValueError(f"state has {active} active weights in layer {names}; the plan has {planned}.")


def _check_slices(layer: Layer, mask: npt.NDArray[np.bool_]) -> None:
    active = slices_as_groups(layer).mask_by_unit(mask.reshape(-1), xp=numpy_namespace).sum(axis=1)
    if active.min() < active.max():
        raise ValueError(
            f"state has from {active.min()} to {active.max()} active weights in the slices of layer {layer.name!r}: "
            "they must have equal numbers. Go on with stacked and fused as they were when it was saved."
        )
