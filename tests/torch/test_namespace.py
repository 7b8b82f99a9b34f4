"""The array operations of the core in PyTorch: all their implementations give the same numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rigl_backends.torch import torch_namespace as xp
from rigl_core import MEST, SNIP, Recipe, UpdateSchedule
from rigl_core.adapter import Connections, Counts, count, move_pool, numpy_namespace
from rigl_core.testing.checks import checks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32]
SHAPES = [(1,), (7,), (1000,), (4, 9), (3, 1), (0,), (3, 0)]


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Numbers with ties, zeros of both signs, infinities and -1, which marks connections that cannot be chosen."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(4).round().to(dtype)
    special = torch.tensor([-1, 0, 5]) if dtype == torch.int32 else torch.tensor([-1, -0.0, float("inf"), 1e-3, -2.5])
    places = torch.arange(values.numel()).reshape(shape) % 7
    for place, value in enumerate(special.to(dtype)):
        values = torch.where(places == place, value, values)
    return values


def kth_by_sorting(scores: Tensor, k: int) -> Tensor:
    if scores.shape[-1] == 0:
        return torch.zeros((*scores.shape[:-1], 1), dtype=scores.dtype)
    return scores.double().sort(descending=True).values.to(scores.dtype)[..., max(k, 1) - 1 : max(k, 1)]


def forms(k: int) -> list[Any]:
    return [k, torch.tensor(k, dtype=torch.int32), torch.tensor([k], dtype=torch.int32)]


@checks("P1")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kth_largest_however_k_is_given(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    scores = numbers(shape, dtype)
    for k in {0, min(1, shape[-1]), shape[-1] // 2, shape[-1]}:
        for given in forms(k):
            found, expected = xp.kth_largest(scores, given), kth_by_sorting(scores, k)
            assert found.dtype == dtype
            assert found.shape == expected.shape
            assert torch.equal(found, expected)


@torch._dynamo.config.patch(recompile_limit=256)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kth_largest_is_traced_whole(dtype: torch.dtype) -> None:
    """The graph has no break: it never reads a number from the device."""
    compiled = torch.compile(xp.kth_largest, backend="aot_eager", dynamic=True, fullgraph=True)
    for shape, k in (((7,), 3), ((5,), 0), ((4, 9), 9)):
        scores = numbers(shape, dtype)
        for given in forms(k):
            assert torch.equal(compiled(scores, given), kth_by_sorting(scores, k))


def cumulative_count(x: Tensor) -> Tensor:
    return xp.cumulative_sum(x, axis=-1, dtype=xp.int32)


def test_counts_along_the_last_axis() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert count(mask, xp=xp).tolist() == [[2], [1]]
    assert cumulative_count(mask).tolist() == [[1, 1, 2], [0, 0, 1]]
    sizes = torch.tensor([2**30, 5, 7], dtype=torch.int32)
    assert count(sizes, xp=xp).tolist() == [2**30 + 12]
    assert cumulative_count(sizes).tolist() == [2**30, 2**30 + 5, 2**30 + 12]
    for found in (count(mask, xp=xp), cumulative_count(mask), count(sizes, xp=xp), cumulative_count(sizes)):
        assert found.dtype == torch.int32


def test_conversions() -> None:
    half = torch.tensor([1.5, -2.75], dtype=torch.bfloat16)
    assert xp.widen(half).dtype == torch.float32
    assert xp.widen(half.double()).dtype == torch.float64
    assert xp.astype(torch.tensor([2**24 + 1], dtype=torch.int32), torch.float64).tolist() == [2**24 + 1]
    assert xp.astype(torch.tensor([2.0**31 - 128, 1.9]), xp.int32).tolist() == [2**31 - 128, 1]
    assert xp.astype(torch.tensor([True, False]), xp.int32).tolist() == [1, 0]
    assert xp.concat([half, half]).tolist() == [1.5, -2.75] * 2


SCHEDULE = UpdateSchedule(end=5)
RECIPES = {
    "RigL": Recipe(),
    "MEST": MEST(0.5, schedule=SCHEDULE, share=0.3),
    "SNIP": SNIP(0.5, schedule=SCHEDULE, scope="layer"),
}


@checks("M2", "P1")
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_updates_in_host_memory_are_the_definitions(name: str, dtype: torch.dtype) -> None:
    """The layers are so large that NumPy's selection guesses its bounds. Bfloat16 is compared as float32."""
    recipe, size = RECIPES[name], 1 << 19
    generator = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
    gradient[::3] = 0
    weight[5], weight[6], gradient[7] = float("inf"), float("nan"), float("nan")
    mask = torch.rand(size, generator=generator) < 0.4
    active = int(mask.sum())
    grow = 0 if recipe.grow is None else active // 4
    arrays = {"weight": weight, "gradient": gradient, "indices": torch.arange(size, dtype=torch.int32)}
    counts = Counts(active - active // 4, grow)

    def moved(convert: Any, space: Any) -> Any:
        connections = Connections(**{key: convert(array) for key, array in arrays.items()}, random_key=(3, 4))
        return move_pool(recipe.rule, [connections], [convert(mask)], counts, xp=space)[0].mask

    plain = SimpleNamespace(**{**vars(xp), "on_host": None})
    fast = moved(lambda array: array, xp)
    assert torch.equal(fast, moved(lambda array: array, plain))
    exact = moved(lambda array: (array.float() if array.dtype == torch.bfloat16 else array).numpy(), numpy_namespace)
    np.testing.assert_array_equal(fast.numpy(), exact)
    assert int(fast.sum()) == counts.keep + counts.grow
