"""Bugs of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.methods import patch_score
from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import topology
from rigl_core.parts import criteria
from rigl_core.step import layer
from rigl_core.testing.properties import test_given_masks, test_methods, test_topology


@caught_by(test_methods.test_initial_topologies_are_the_oracles, "scores")
def given_scores_ranked_ascending(patch: pytest.MonkeyPatch) -> None:
    original = criteria.SCORES.score
    patch_score(patch, criteria.SCORES, lambda connections, xp: -original(connections, xp))


@caught_by(test_methods.test_initial_topologies_are_the_oracles, "scores")
def given_scores_without_their_signs(patch: pytest.MonkeyPatch) -> None:
    original = criteria.SCORES.score
    patch_score(patch, criteria.SCORES, lambda connections, xp: abs(original(connections, xp)))


@caught_by(test_topology.test_scores_of_products_are_rounded_one_by_one)
def product_not_flushed(patch: pytest.MonkeyPatch) -> None:
    def saliency(connections: Any, xp: Any) -> Any:
        weight, gradient = (topology.normal(xp.widen(x), xp=xp) for x in (connections.weight, connections.gradient))
        return np.nan_to_num(np.abs(weight * gradient), posinf=np.inf)

    patch_score(patch, criteria.SALIENCY, saliency)


@caught_by(test_topology.test_scores_of_products_are_rounded_one_by_one)
def product_in_half_precision(patch: pytest.MonkeyPatch) -> None:
    def saliency(connections: Any, xp: Any) -> Any:
        weight, gradient = (topology.normal(x, xp=xp) for x in (connections.weight, connections.gradient))
        return xp.widen(topology.magnitude(weight * gradient, xp=xp))

    patch_score(patch, criteria.SALIENCY, saliency)


@caught_by(test_topology.test_scores_of_products_are_rounded_one_by_one)
def product_fused_with_the_sum(patch: pytest.MonkeyPatch) -> None:
    def score(self: Any, connections: Any, xp: Any) -> Any:
        weight, gradient = (topology.magnitude(x, xp=xp) for x in (connections.weight, connections.gradient))
        exact = weight.astype(np.float64) + gradient.astype(np.float64) * self.share
        return exact.astype(xp.widen(weight).dtype)

    patch.setattr(criteria._MagnitudeAndGradient, "__call__", score)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNIP")
def saliency_of_the_gradient_alone(patch: pytest.MonkeyPatch) -> None:
    patch_score(patch, criteria.SALIENCY, criteria.GRADIENT.score)


@caught_by(test_given_masks.test_a_given_mask_is_the_initial_topology)
def no_layer_starts_empty(patch: pytest.MonkeyPatch) -> None:
    """Where layers choose together, an empty one takes a connection of the layer with the most."""
    original = layer.initial_masks

    def initial_masks(rule: Any, *arguments: Any, **options: Any) -> Any:
        masks = original(rule, *arguments, **options)
        for mask in masks:
            if rule.scope == "global" and not mask.any():
                fullest = max(masks, key=lambda one: int(one.sum()))
                fullest[np.flatnonzero(fullest)[-1]], mask[0] = False, True
        return masks

    patch.setattr(layer, "initial_masks", initial_masks)
