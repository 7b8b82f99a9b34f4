"""Bugs of layers that lie in shards, and of replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance_tests import test_shards
from conformance_tests.mutants.registry import caught_by
from rigl_backends.torch import replicas, selection, torch_namespace
from rigl_core.step import pools, update


@caught_by(test_shards.test_shards_choose_what_the_whole_layer_does)
def shards_break_ties_by_their_own_index(patch: pytest.MonkeyPatch) -> None:
    original = selection.namespace_of

    def namespace_of(indices: Callable[[], Tensor], size: int, total: Any) -> Any:
        return original(lambda: torch.arange(indices().numel(), dtype=torch.int32), size, total)

    patch.setattr(selection, "namespace_of", namespace_of)


@caught_by(test_shards.test_updates_of_shards_are_those_of_the_whole_layer)
def each_shard_sees_its_own_information(patch: pytest.MonkeyPatch) -> None:
    def has_information(rule: Any, connections: Any, mask: Any, xp: Any) -> Any:
        return pools.has_information(rule, connections, mask, torch_namespace)

    patch.setattr(update, "has_information", has_information)


@caught_by(test_shards.test_shards_choose_what_the_whole_layer_does)
def negative_scores_rank_by_their_bits(patch: pytest.MonkeyPatch) -> None:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    patch.setattr(selection, "_ordered", lambda scores: scores.view(integers[scores.element_size()]))


@caught_by(test_shards.test_masks_that_differ_have_other_digests)
def digests_count_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas, "digest", lambda places: torch.tensor(places.numel()))
