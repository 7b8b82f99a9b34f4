"""The groups of a structure, after the contract, and the scores of their units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.testing.score_oracle import place_in_slice

Groups = list[list[tuple[int, ...]]]
"""For each group its units, and for each unit its flat positions."""


def slices_of(layer: Layer) -> list[set[int]]:
    """The flat positions of each slice (rule B12); a layer without slices is one."""
    slices: dict[Any, set[int]] = {}
    for i, place in enumerate(product(*map(range, layer.shape))):
        slices.setdefault(place_in_slice(layer, place)[0], set()).add(i)
    return list(slices.values())


def groups_of(recipe: Recipe, layer: Layer) -> Groups:
    """The groups of a structure in each slice, and their units; ties go to the earlier unit."""
    structure: Any = recipe.structure
    positions = list(product(*map(range, layer.shape)))
    flat = {place: i for i, place in enumerate(positions)}
    if structure.kind == "unstructured":
        return [[(i,) for i in sorted(own)] for own in slices_of(layer)]
    keyed: dict[Any, list[int]] = {}
    for whole in positions:
        own, place = place_in_slice(layer, whole)
        out = tuple(place[axis] for axis in layer.out_axes)
        inputs = tuple(place[axis] for axis in layer.in_axes)
        kernel = tuple(place[axis] for axis in layer.kernel_axes)
        if structure.kind == "constant_fan_in":
            key: Any = (own, out)
        elif structure.kind == "n_of_m":
            key = (own, out, kernel, inputs[0] // structure.m)
        else:
            key = (own, out[0] // structure.size, inputs[0] // structure.size, kernel)
        keyed.setdefault(key, []).append(flat[whole])
    if structure.kind == "blocks":
        blocks = sorted((tuple(sorted(block)) for block in keyed.values()), key=lambda block: block[0])
        return [[block for block in blocks if block[0] in own] for own in slices_of(layer)]
    return [[(i,) for i in sorted(group)] for group in keyed.values()]


def unit_score(criterion: str, scores: Sequence[float], unit: Sequence[int], real: Any = np.float32) -> float:
    """The sum of the scores of a unit's weights, added in order; random integers first lose their last bits.

    A sum that is NaN or subnormal counts as 0.
    """
    if criterion == "random":
        fewer = next(bits for bits in range(32) if len(unit) <= 2**bits)
        return float(sum(int(scores[position]) >> fewer for position in unit))
    total = real(scores[unit[0]])
    for position in unit[1:]:
        total = total + real(scores[position])
    return float(total) if abs(total) >= np.finfo(real).smallest_normal else 0.0
