"""Layers in shards (DTensors): the masks are those of one process, and only counts are exchanged."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from rigl_core.testing.checks import checks
from tests.torch.shards import WORLD
from tests.torch.shards_work import work

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """What each of four processes has found; one server imports PyTorch for all of them."""
    folder = tmp_path_factory.mktemp("shards")
    multiprocessing.set_forkserver_preload(["tests.torch.shards_work"])
    mp.start_processes(work, (str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def of_pair(records: Records, check: str) -> list[Any]:
    return [records[rank]["pair"][check] for rank in (0, 1)]


@checks("D1", "N1", "T1", "T2", "T3", "T5", "T6", "M4", "M6", "M8", "M9", "B9")
@pytest.mark.parametrize(("cases", "processes", "number"), [("every method", 2, 14), ("every layout", 4, 6)])
def test_shards_choose_as_one_process(records: Records, cases: str, processes: int, number: int) -> None:
    for rank in range(processes):
        found = records[rank][cases]
        assert len(found) >= number
        assert {case: differ for case, differ in found.items() if differ} == {}


@checks("D1", "G2")
@pytest.mark.parametrize("model", ["FSDP", "FSDP, columns", "TP"])
def test_models_that_pytorch_shards_move_as_one_process(records: Records, model: str) -> None:
    assert of_pair(records, model) == [[], []]


@checks("D1")
@pytest.mark.parametrize("model", ["FSDP of TP", "replicas of shards"])
def test_models_that_are_sharded_in_two_ways_move_as_one_process(records: Records, model: str) -> None:
    assert [records[rank]["grid"][model] for rank in range(WORLD)] == [[]] * WORLD


@checks("G1", "Z1", "V3", "B1")
def test_own_gradients_are_sparse_and_zeros_stay(records: Records) -> None:
    assert of_pair(records, "FSDP, own gradients") == of_pair(records, "TP, own gradients") == [[], []]
    assert [records[rank]["grid"]["FSDP of TP, own gradients"] for rank in range(WORLD)] == [[]] * WORLD


@checks("P2", "D1")
@pytest.mark.parametrize("kind", ["checkpoints", "checkpoints with memory"])
def test_distributed_checkpoints_go_on_in_any_number_of_processes(records: Records, kind: str) -> None:
    assert set(records[0][kind]) == {"saved", "in two", "in four", "in one"}
    for rank in range(WORLD):
        assert {where: differ for where, differ in records[rank][kind].items() if differ} == {}


@checks("P2", "D1")
def test_masks_of_another_sparsity_are_brought_to_the_counts_of_a_plan(records: Records) -> None:
    assert of_pair(records, "another sparsity") == [[], []]


@checks("P5", "P3")
def test_a_model_that_is_sharded_after_sparsify_is_refused_until_it_is_sparsified_again(records: Records) -> None:
    for found in of_pair(records, "sharded afterwards"):
        for message in found["messages"]:  # of the new optimizer, and of the one that was sparsified
            assert message.startswith("the layers '0.weight', '2.weight' were sharded after sparsify")
            assert "then make the optimizer, then call sparsify" in message
        assert found["stayed"]
        assert found["same topology"]
        assert found["steps"] == 2
        assert found["moved"]


@checks("D2")
def test_only_counts_are_sent(records: Records) -> None:
    for sent in of_pair(records, "sent"):
        assert sent["step"] == {}
        assert sent["update"] == {"allreduce_": 1024}  # bytes
        assert sent["looks"] == {}
        assert sent["table"] == {"allreduce_": 4}


@checks("P3", "D2")
def test_what_shards_cannot_have_is_refused(records: Records) -> None:
    for found in of_pair(records, "refusals"):
        remedies = {"structure": "Unstructured()", "scope": "'layer'", "floor": "0", "redistribution": "None"}
        for part, remedy in remedies.items():
            assert found[part][0].startswith("layer '0.weight' is sharded (a DTensor), and the recipe has " + part)
            assert f"use {part}={remedy}, or exclude the layer" in found[part][0]
        assert found["grow"][0].startswith("layer '0.weight' is sharded (a DTensor), and the recipe grows by")
        assert "use grow=GRADIENT, or exclude the layer" in found["grow"][0]
        assert "'0.weight' belongs to a FSDPLinear" in found["storage"][0]
        assert "placements (Partial(sum),), whose parts must be added up first" in found["partial"][0]
        assert all(hooks == 0 for _, hooks in found.values())


@checks("P4", "Z1")
def test_what_one_process_writes_outside_is_told_there_and_nobody_waits(records: Records) -> None:
    first, second = of_pair(records, "written by one")
    assert len(first["told"]) == 1
    assert "weights lie outside their masks" in first["told"][0]
    assert second["told"] == []
    assert first["zeroed"]
    assert second["zeroed"]


@checks("D3")
def test_replicas_whose_masks_differ_are_refused(records: Records) -> None:
    for found in of_pair(records, "replicas"):
        assert "different masks at step 0, in the layers '0.weight', '2.weight'" in found["unlike"]
        assert found["unlike, again"] == found["unlike"]
        assert found["unlike, step"] == "0"
        for name in ("alike", "made alike"):
            assert found[name] == "no error"
            assert found[f"{name}, step"] == "2"
    for rank in range(WORLD):  # also in those whose own shard is the same in all replicas
        message = records[rank]["grid"]["replicas that come apart"]
        assert "different masks at step 4, in the layers '0.weight':" in message


@checks("D1", "P2", "P4", "P3")
def test_state_that_is_spread_over_processes(records: Records) -> None:
    """ZeroRedundancyOptimizer: the topology is the same in all processes, and travels in the handle's own state."""
    assert of_pair(records, "ZeRO") == [[], []]
