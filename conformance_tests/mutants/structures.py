"""Bugs of groups and blocks."""

from __future__ import annotations

import importlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance_tests import test_ramps
from conformance_tests.mutants.registry import caught_by
from rigl_core.parts import distributions, structures
from rigl_core.testing.properties import test_axes, test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SRigL")
def fan_out_instead_of_fan_in(patch: pytest.MonkeyPatch) -> None:
    original = structures.ConstantFanIn.arrangement

    def arrangement(self: Any, layer: Any) -> Any:
        return original(self, replace(layer, in_axes=layer.out_axes, out_axes=layer.in_axes))

    patch.setattr(structures.ConstantFanIn, "arrangement", arrangement)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "RigL 2:4")
def groups_of_outputs_instead_of_inputs(patch: pytest.MonkeyPatch) -> None:
    def arrangement(self: Any, layer: Any) -> Any:
        order = (*layer.kernel_axes, *layer.in_axes, *layer.out_axes)
        return structures.Arrangement(layer.shape, order, layer.size // self.m, self.m)

    patch.setattr(structures.NM, "arrangement", arrangement)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "RigL, blocks of 2")
def blocks_of_partial_activity(patch: pytest.MonkeyPatch) -> None:
    """The mask puts the weights of a unit side by side and ignores the order of the axes."""

    def mask_by_weight(self: Any, mask: Any, *, xp: Any) -> Any:
        return np.repeat(np.reshape(mask, -1), self.unit)

    patch.setattr(structures.Arrangement, "mask_by_weight", mask_by_weight)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, blocks of 2")
def blocks_scored_by_their_first_weight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(structures.Arrangement, "scores_by_unit", structures.Arrangement.mask_by_unit)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET, blocks of 2")
def sums_of_random_integers_wrap_around(patch: pytest.MonkeyPatch) -> None:
    def scores_by_unit(self: Any, scores: Any, *, xp: Any) -> Any:
        columns = self._columns(xp.widen(scores), xp)
        return xp.reshape(columns.sum(axis=1, dtype=columns.dtype), (self.groups, self.units))

    patch.setattr(structures.Arrangement, "scores_by_unit", scores_by_unit)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SRigL")
def groups_share_what_the_layer_keeps(patch: pytest.MonkeyPatch) -> None:
    """The whole layer makes one choice, so outputs have different numbers of connections."""
    patch.setattr("rigl_core.step.update.arrangement_of", lambda rule, connections: None)


@caught_by(test_ramps.test_counts_of_a_structure)
def counts_of_groups_rounded_down(patch: pytest.MonkeyPatch) -> None:
    def rounded(self: Any, active: int) -> int:
        step = self.groups * self.unit
        return active // step * step if step else 0

    patch.setattr(structures.Arrangement, "rounded", rounded)


@caught_by(test_axes.test_layers_are_read_by_their_axes, "SRigL")
def axes_by_their_position(patch: pytest.MonkeyPatch) -> None:
    """The adapter takes every layer for (out, in, kernel)."""
    module = importlib.import_module("rigl_backends.numpy.sparsify")
    original = module.layers_of

    def layers_of(*arguments: Any) -> Any:
        return [replace(layer, in_axes=(1,), out_axes=(0,), grouped_axes="in") for layer in original(*arguments)]

    patch.setattr(module, "layers_of", layers_of)


@caught_by(test_axes.test_layers_are_read_by_their_axes, "RigL")
def er_of_the_inputs_of_all_groups(patch: pytest.MonkeyPatch) -> None:
    def scale(self: Any, layer: Any) -> Fraction:
        inputs = layer.n_in * (layer.groups if layer.grouped_axes == "in" else 1)
        return Fraction(inputs + layer.n_out, inputs * layer.n_out)

    patch.setattr(distributions.ErdosRenyi, "scale", scale)
