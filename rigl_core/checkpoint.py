"""The saved state of a sparse training: what every adapter's ``state_dict`` holds, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rigl_core.clock import Clock
from rigl_core.layers import Layer
from rigl_core.namespace import Array
from rigl_core.plan import Plan

FORMAT = 1
_KEYS = ("format", "recipe", "step", "deferred", "masks")


def make_state(plan: Plan, clock: Clock, masks: Mapping[str, Array]) -> dict[str, Any]:
    """Plain data and one bool array for each layer, by name; the caller gives copies."""
    return {
        "format": FORMAT,
        "recipe": plan.recipe.to_dict(),
        "step": clock.step,
        "deferred": clock.deferred,
        "masks": dict(masks),
    }


def check_state(plan: Plan, state: Any) -> None:
    """Refuse a state that is not of this plan, before anything is changed.

    Raises:
        TypeError, ValueError: naming what differs.
    """
    if not isinstance(state, Mapping) or set(state) != set(_KEYS):
        raise ValueError(f"state must be what state_dict() gave, with the keys {', '.join(_KEYS)}.")
    if state["format"] != FORMAT:
        raise ValueError(f"state has the format {state['format']!r}; this version reads format {FORMAT}.")
    _check_recipe(plan.recipe.to_dict(), state["recipe"])
    if isinstance(state["step"], bool) or not isinstance(state["step"], int) or state["step"] < 0:
        raise ValueError(f"state holds the step {state['step']!r}: it must be a whole number of at least 0.")
    if not isinstance(state["deferred"], bool):
        raise ValueError(f"state holds deferred={state['deferred']!r}: it must be True or False.")
    _check_masks(plan, state["masks"])


def _check_recipe(own: Mapping[str, Any], saved: Any) -> None:
    if not isinstance(saved, Mapping):
        raise ValueError(f"state holds the recipe {saved!r}: it must be a mapping.")
    for key in sorted(set(own) | set(saved)):
        if own.get(key) != saved.get(key):
            raise ValueError(
                f"state was saved under another recipe: {key} was {saved.get(key)!r} and is {own.get(key)!r}. "
                "Resume with Recipe.from_dict(state['recipe'])."
            )


def _check_masks(plan: Plan, masks: Any) -> None:
    names = [layer.name for layer in plan.layers]
    if not isinstance(masks, Mapping) or set(masks) != set(names):
        differing = sorted(set(masks) ^ set(names)) if isinstance(masks, Mapping) else names
        raise ValueError(f"state has masks for other layers than this training; they differ in {differing}.")
    for layer, active in zip(plan.layers, plan.active, strict=True):
        check_mask(layer, active, masks[layer.name])


def check_mask(layer: Layer, active: int, saved: Array) -> None:
    """Refuse a layer's saved mask that is not of this plan.

    Raises:
        ValueError: naming what differs.
    """
    mask = np.asarray(saved)
    if mask.dtype != np.bool_ or mask.shape != layer.shape:
        raise ValueError(
            f"state has a {mask.dtype} mask of shape {mask.shape} for layer {layer.name!r}: "
            f"it must be bool, of shape {layer.shape}."
        )
    if np.count_nonzero(mask) != active:
        raise ValueError(
            f"state has {np.count_nonzero(mask)} active weights in layer {layer.name!r}; the plan has {active}."
        )
