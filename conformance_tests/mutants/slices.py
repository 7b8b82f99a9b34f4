"""Bugs of layers with slices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests import test_budget
from conformance_tests.mutants.registry import caught_by
from rigl_core.parts import distributions, slices
from rigl_core.parts.structures import Arrangement
from rigl_core.step import on_host, pools
from rigl_core.testing.properties import test_slices


@caught_by(test_slices.test_slices_are_layers_of_their_own, "RigL")
def one_choice_for_the_whole_stack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(slices, "arrangement_of", lambda structure, layer: structure.arrangement(layer))


@caught_by(test_slices.test_slices_are_layers_of_their_own, "SET")
def slices_along_the_first_axis(patch: pytest.MonkeyPatch) -> None:
    """The flat array is cut into equal runs, wherever the axis of the stack is."""

    def in_each_slice(layer: Any, own: Any) -> Arrangement:
        groups = layer.slices * own.groups
        return Arrangement((groups, own.units, own.unit), (0, 1, 2), groups, own.units, own.unit)

    patch.setattr(slices, "in_each_slice", in_each_slice)


@caught_by(test_slices.test_slices_are_layers_of_their_own, "SRigL")
def groups_in_the_order_of_the_whole_array(patch: pytest.MonkeyPatch) -> None:
    """The structure is asked about the whole array, so an output of a stack is one of all its layers."""

    def arrangement_of(structure: Any, layer: Any) -> Any:
        return structure.arrangement(replace(layer, stacked=(), fused=()))

    patch.setattr(slices, "arrangement_of", arrangement_of)


@caught_by(test_slices.test_slices_are_layers_of_their_own, "SRigL")
def information_of_the_whole_stack(patch: pytest.MonkeyPatch) -> None:
    """A slice without a gradient moves if another slice of its layer has one."""

    def has_information(rule: Any, connections: Any, mask: Any, xp: Any) -> Any:
        return pools.has_information(rule, connections.replace(layer=None), mask, xp)

    patch.setattr("rigl_core.step.update.has_information", has_information)


@caught_by(test_slices.test_slices_are_layers_of_their_own, "RigL")
def numpy_looks_at_the_information_of_the_whole_stack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(on_host, "any_normal", lambda gradient, mask, *, outside: True)


@caught_by(test_slices.test_slices_are_layers_of_their_own, "RigL")
def ties_to_the_higher_index_in_a_stack(patch: pytest.MonkeyPatch) -> None:
    original = on_host.parts_of_slices
    patch.setattr(
        on_host, "parts_of_slices", lambda layer: [np.arange(layer.size)[part][::-1] for part in original(layer)]
    )


@caught_by(test_budget.test_slices_share_the_budget_as_layers_of_their_own)
def density_by_the_shape_of_the_stack(patch: pytest.MonkeyPatch) -> None:
    original = distributions.ScaledByShape.densities

    def densities(self: Any, layers: Any, active: int) -> Any:
        return original(self, [replace(layer, stacked=(), fused=()) for layer in layers], active)

    patch.setattr(distributions.ScaledByShape, "densities", densities)


@caught_by(test_budget.test_slices_share_the_budget_as_layers_of_their_own)
def slices_of_unequal_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_core.plan.budget.arrangement_of", lambda structure, layer: structure.arrangement(layer))


@caught_by(test_slices.test_slices_are_layers_of_their_own, "RigL, blocks of 2")
def fused_parts_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A stack is chosen from layer by layer, whatever is fused in it."""
    original = slices.arrangement_of

    def arrangement_of(structure: Any, layer: Any) -> Any:
        return original(structure, replace(layer, fused=()))

    patch.setattr(slices, "arrangement_of", arrangement_of)
