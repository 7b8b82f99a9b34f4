"""Bugs of layers that have no information at an update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays.namespace import count
from rigl_core.recipe.rule import Rule
from rigl_core.step import on_host, pools, update
from rigl_core.testing.properties import test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL")
def zeros_are_information(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(on_host, "any_normal", lambda values, mask, *, outside: True)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET")
def what_reads_no_gradient_moves_always(patch: pytest.MonkeyPatch) -> None:
    original = on_host.any_normal
    patch.setattr(on_host, "any_normal", lambda *arrays, outside: not outside or original(*arrays, outside=outside))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL")
def subnormal_gradients_are_information(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(on_host, "any_normal", lambda values, mask, *, outside: bool((values != 0).any()))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, blocks of 2")
def structured_layers_move_always(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(update, "has_information", lambda rule, connections, mask, xp: count(mask, xp=xp) >= 0)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, all layers")
def pools_move_always(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pools, "has_information", lambda rule, connections, mask, xp: count(mask, xp=xp) >= 0)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def quiet_layers_share_the_growth(patch: pytest.MonkeyPatch) -> None:
    def redistributed(rule: Rule, pool: Any, masks: Any, counts: Any, xp: Any) -> Any:
        connections = [one.replace(gradient=np.ones_like(one.weight)) for one in pool]
        return pools.redistributed(rule, connections, masks, counts, xp)

    patch.setattr(update, "redistributed", redistributed)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "MEST")
def every_method_sees_inactive_gradients(patch: pytest.MonkeyPatch) -> None:
    """A layer with gradients at inactive weights alone moves, also by methods that see active ones."""
    original = on_host.any_normal
    patch.setattr(on_host, "any_normal", lambda values, mask, *, outside: original(values, mask, outside=True))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "gradual pruning, all layers")
def other_layers_keep_the_whole_count(patch: pytest.MonkeyPatch) -> None:
    def counts_beside(moving: Any, stay: Any, counts: Any, xp: Any) -> Any:
        return tuple(count(stay, xp=xp) * 0 + number for number in (counts.keep, counts.grow))

    patch.setattr(pools, "_counts_beside", counts_beside)
