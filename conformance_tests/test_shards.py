"""A choice over the shards of a layer is that of the whole layer, and exchanges counts alone. Threads hold shards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from rigl_backends.torch import replicas, selection, torch_namespace
from rigl_core import MEST, SET, RigL, SETAsPublished, UpdateSchedule
from rigl_core.adapter import Connections, Counts, move_pool, top_k_mask
from rigl_core.recipe import Recipe
from rigl_core.testing.checks import checks

_T = TypeVar("_T")
_DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
_SCHEDULE = UpdateSchedule(end=10, every=5)
_RECIPES = (RigL, SET, SETAsPublished, MEST)


class Meeting:
    """Adds up what threads bring, as `torch.distributed.all_reduce` does, and remembers how much it was."""

    def __init__(self, threads: int) -> None:
        self.barrier, self._brought = threading.Barrier(threads, timeout=60), dict[int, Tensor]()
        self.sizes: list[int] = []

    def total(self, counts: Tensor) -> Tensor:
        self._brought[threading.get_ident()] = counts
        if self.barrier.wait() == 0:
            self.sizes.append(counts.numel() * counts.element_size())
        total = torch.stack(list(self._brought.values())).sum(0, dtype=counts.dtype)
        self.barrier.wait()
        return total


def in_threads(parts: Sequence[Tensor], work: Callable[[Tensor, Any], _T], size: int) -> tuple[list[_T], Meeting]:
    """The results of all shards, each of which works with its own namespace."""
    meeting = Meeting(len(parts))

    def run(part: Tensor) -> _T:
        try:
            return work(part, selection.namespace_of(lambda: part.to(torch.int32), size, meeting.total))
        except Exception:
            meeting.barrier.abort()  # the others need not wait
            raise

    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(run, parts)), meeting


def joined(masks: Sequence[Tensor], parts: Sequence[Tensor], size: int) -> Tensor:
    whole = torch.zeros(size, dtype=torch.bool)
    for mask, part in zip(masks, parts, strict=True):
        whole[part] = mask
    return whole


def cut(size: int, generator: torch.Generator) -> list[Tensor]:
    """The indices of two to four shards, in the layer's order: blocks, or any places. Some may be empty."""
    number = int(torch.randint(2, 5, (), generator=generator))
    owner = torch.randint(0, number, (size,), generator=generator)
    if int(torch.randint(0, 2, (), generator=generator)):
        owner = owner.sort().values
    return [(owner == i).nonzero().reshape(-1) for i in range(number)]


def numbers(size: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Numbers of any kind, of which many are equal."""
    x = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
    if int(torch.randint(0, 2, (), generator=generator)):
        x = (x * 2).round()
    tiny, which = torch.finfo(dtype).smallest_normal, torch.randint(0, 20, (size,), generator=generator)
    for i, value in enumerate((float("nan"), float("inf"), -float("inf"), 0.0, -0.0, tiny / 2, -tiny)):
        x[which == i] = value
    return x


@checks("D1", "D2", "T3", "T4")
def test_shards_choose_what_the_whole_layer_does() -> None:
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        size, dtype = int(torch.randint(1, 400, (), generator=generator)), _DTYPES[seed % len(_DTYPES)]
        parts = cut(size, generator)
        scores = numbers(size, dtype, generator).nan_to_num(nan=0.0, posinf=float("inf"), neginf=-float("inf")) + 0.0
        k = int(torch.randint(0, size + 1, (), generator=generator))
        chosen, meeting = in_threads(parts, lambda part, xp: xp.best_of(scores[part], k), size)  # noqa: B023
        assert torch.equal(joined(chosen, parts, size), top_k_mask(scores, k, xp=torch_namespace)), seed
        assert max(meeting.sizes, default=0) <= 1024  # bytes
        assert len(meeting.sizes) <= scores.element_size() + 2


@checks("D1", "T1", "T2", "T6", "M4")
def test_updates_of_shards_are_those_of_the_whole_layer() -> None:
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        recipe: Recipe = _RECIPES[seed % len(_RECIPES)](0.5, schedule=_SCHEDULE)
        size, dtype = int(torch.randint(2, 400, (), generator=generator)), _DTYPES[seed // 4 % len(_DTYPES)]
        parts, mask = cut(size, generator), torch.rand(size, generator=generator) < 0.4
        weight = torch.where(mask, numbers(size, dtype, generator), 0)
        gradient = numbers(size, dtype, generator)
        if seed % 8 == 0:  # information in one shard alone, or in none
            gradient[parts[0]] = 0
            gradient[torch.cat(parts[1:])[seed % 3 :]] = 0
        active = int(mask.sum())
        grow = int(torch.randint(0, active + 1, (), generator=generator)) if size > active else 0
        counts = Counts(active - grow, grow)

        def moved(part: Tensor, xp: Any) -> Tensor:
            indices = part.to(torch.int32)
            pool = Connections(weight[part], gradient[part], indices, (seed, -seed))  # noqa: B023
            return move_pool(recipe.rule, [pool], [mask[part]], counts, xp=xp)[0].mask  # noqa: B023

        found, _ = in_threads(parts, moved, size)
        assert torch.equal(joined(found, parts, size), moved(torch.arange(size), torch_namespace)), seed


@checks("D3")
def test_masks_that_differ_have_other_digests() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = dict[int, Tensor]()
    for _ in range(200):
        places = torch.randperm(30, generator=generator)[: int(torch.randint(0, 4, (), generator=generator))]
        number = int(replicas.digest(places))
        assert number == int(replicas.digest(places.flip(0)))  # the order means nothing
        assert torch.equal(seen.setdefault(number, places.sort().values), places.sort().values)
    assert len(seen) > 100
