"""Bugs of layers that hold their active weights alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.adapter import Gradient, Move, Products, Rule
from rigl_core.sparse import best, layer, update
from rigl_core.sparse.gradients import Block
from rigl_core.sparse.places import Flat
from rigl_core.testing.properties import test_active, test_gradients, test_training


@caught_by(test_active.test_ties_in_wide_layers, "RigL", mode="active")
def ties_by_storage_order(patch: pytest.MonkeyPatch) -> None:
    original = best.best_of
    patch.setattr(update, "best_of", lambda scores, k, flat: original(scores, k, np.arange(flat.size)))


@caught_by(test_active.test_masks_are_those_of_the_masked_form, mode="active")
def a_block_forgets_what_is_kept_in_it(patch: pytest.MonkeyPatch) -> None:
    original = update._Growth.__init__

    def half(self: Any, rule: Rule, count: int, kept: Flat, *floor: Any) -> None:
        original(self, rule, count, kept[: kept.size // 2], *floor)

    patch.setattr(update._Growth, "__init__", half)


@caught_by(test_active.test_masks_are_those_of_the_masked_form, mode="active")
def a_guess_that_is_too_high_is_believed(patch: pytest.MonkeyPatch) -> None:
    """The largest gradient of a sample is the guess, and the second look has it, too."""

    def highest(rule: Rule, gradient: Gradient, *others: Any) -> float | None:
        _, values = gradient.sample()
        return float(np.abs(values).max()) if rule.reads_gradient and values.any() else None

    original, guesses = update._Growth.__init__, list[float]()

    def init(self: Any, rule: Rule, count: int, kept: Flat, floor: float | None = None) -> None:
        guesses.extend([] if floor is None else [floor])
        original(self, rule, count, kept, guesses[-1] if guesses and rule.reads_gradient else None)

    patch.setattr(update, "_floor", highest)
    patch.setattr(update._Growth, "__init__", init)


@caught_by(test_active.test_the_gradient_of_samples_has_a_fixed_order, mode="active")
def products_of_the_last_use_come_first(patch: pytest.MonkeyPatch) -> None:
    original = Products.__add__
    patch.setattr(Products, "__add__", lambda self, other: original(other, self))


@caught_by(test_active.test_the_gradient_of_samples_has_a_fixed_order, mode="active")
def products_are_summed_in_double_precision(patch: pytest.MonkeyPatch) -> None:
    def blocks(self: Products) -> Iterator[Block]:
        total: Any = sum(left.astype(np.float64) @ right.T for left, right in self._pairs)
        yield 0, total.astype(np.float32).reshape(-1)

    patch.setattr(Products, "blocks", blocks)


@caught_by(test_active.test_an_update_waits_for_sums_that_are_finite, mode="active")
def only_active_gradients_are_looked_at(patch: pytest.MonkeyPatch) -> None:
    original = Products.blocks
    patch.setattr(Products, "blocks", lambda self: ((start, np.nan_to_num(block)) for start, block in original(self)))


@caught_by(test_training.test_optimizer_state_after_an_update, mode="active")
def state_stays_where_it_was(patch: pytest.MonkeyPatch) -> None:
    original = Move.of
    patch.setattr(Move, "of", lambda self, array, new: array if np.ndim(new) == 0 else original(self, array, new))


@caught_by(test_training.test_weights_after_an_update, mode="active")
def regrown_weights_start_from_zero(patch: pytest.MonkeyPatch) -> None:
    original = update._found

    def found(rule: Any, active: Any, kept: Any, grown: Any, gradients: Any) -> Any:
        result = original(rule, active, kept, grown, gradients)
        return update.Found(True, kept, grown, np.zeros(grown.size, np.float32)) if len(result.new) else result

    patch.setattr(update, "_found", found)


@caught_by(test_gradients.test_ordinary_steps_are_those_of_a_sparse_network, mode="active")
def each_weight_gets_the_gradient_of_its_neighbour(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layer.ActiveLayer, "for_optimizer", lambda self, gradient, step: np.roll(gradient, 1))
