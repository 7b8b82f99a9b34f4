"""The update over active values: its choice, block by block, and its memory."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigl_core import RigL, UpdateSchedule
from rigl_core.adapter import Layer, Move, numpy_namespace, top_k_mask
from rigl_core.plan import Counts
from rigl_core.sparse import gradients, numba_convolutions, numba_kernels, numpy_kernels
from rigl_core.sparse.best import Best, best_of
from rigl_core.sparse.convolution import Convolution
from rigl_core.sparse.convolution_gradients import ConvolutionProducts
from rigl_core.sparse.gradients import Block, Floats
from rigl_core.sparse.index import Index
from rigl_core.sparse.layer import ActiveLayer
from rigl_core.sparse.places import Flat


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 9), st.integers(0, 999))
def test_the_best_of_blocks_are_the_best_of_all(size: int, k: int, block: int, seed: int) -> None:
    """With many ties, of which the lowest index wins; also where the scores come in another order."""
    rng = np.random.default_rng(seed)
    scores, eligible = rng.integers(0, 4, size).astype(np.float32), rng.random(size) < 0.7
    k = min(k, int(eligible.sum()))
    best = Best(k, with_values=True)
    for start in range(0, size, block):
        part = slice(start, start + block)
        best.add(start, scores[part], -scores[part], barred=np.flatnonzero(~eligible[part]))
    expected = np.flatnonzero(top_k_mask(np.where(eligible, scores, -1), k, xp=numpy_namespace))
    flat, values = best.chosen()
    np.testing.assert_array_equal(flat, expected)
    np.testing.assert_array_equal(values, -scores[expected])
    order = rng.permutation(size)
    chosen = best_of(np.where(eligible, scores, -1)[order], k, order)
    np.testing.assert_array_equal(np.sort(order[chosen]), expected)


class Held(ActiveLayer):
    """A layer whose weights and one state of Adam's kind are its own."""

    def __init__(self, side: int, active: int, *, kernel: tuple[int, ...] = ()) -> None:
        """A matrix of this side, or a convolution of as many channels."""
        cols = side * math.prod(kernel)
        flat = np.sort(np.random.default_rng(0).choice(side * cols, active, replace=False)).astype(np.int32)
        layer = Layer("fc", (side, side, *kernel), in_axes=(1,), out_axes=(0,))
        index = Index.of(flat, side, cols, kernel=math.prod(kernel))
        super().__init__(layer, RigL(0.9, schedule=UpdateSchedule(end=9)), index)
        self.held = np.random.default_rng(1).normal(size=(3, active)).astype(np.float32)

    @property
    def weight(self) -> Floats:
        return self.held[0]

    def take_move(self, move: Move, weight: Floats) -> None:
        self.held[0] = weight
        for state in self.held[1:]:
            state[...] = move.of(state, 0)


class Streamed:
    """A gradient that is made block by block, as products make it, and the most blocks that were held at a time."""

    def __init__(self, size: int, active: int) -> None:
        self.active, self._size = np.ones(active, np.float32), size

    def blocks(self) -> Iterator[Block]:
        rng = np.random.default_rng(2)
        for start in range(0, self._size, gradients.BLOCK):
            yield start, rng.standard_normal(min(gradients.BLOCK, self._size - start), dtype=np.float32)

    def sample(self) -> tuple[Flat, Floats]:
        flat = np.arange(gradients.SAMPLE, dtype=np.int32) * 7
        return flat, np.random.default_rng(3).standard_normal(flat.size, dtype=np.float32)


@pytest.mark.parametrize("density", [0.01, 0.1])
def test_the_memory_of_an_update(density: float) -> None:
    """A layer takes 18 bytes an active weight with Adam's state; an update takes as many more, and four MiB."""
    side = 2048
    active = int(density * side * side)
    check_memory(Held(side, active), Streamed(side * side, active))


@pytest.mark.parametrize("density", [0.01, 0.1])
def test_the_memory_of_a_convolutions_update(density: float) -> None:
    """As much: the inputs, once for each position of the kernel, would take 60 MiB."""
    side, images = 256, 8
    active = int(density * side * side * 9)
    layer, convolution = Held(side, active, kernel=(3, 3)), Convolution((3, 3), padding=((1, 1), (1, 1)))
    rng = np.random.default_rng(2)
    x, dy = (rng.standard_normal((images, side, 30, 30), dtype=np.float32) for _ in range(2))
    windows, planes = convolution.windows(x.shape, side), convolution.planes(x)
    kernels = {"kernels": numba_kernels, "convolutions": numba_convolutions}
    samples = [(planes, windows, dy)]
    gradient = ConvolutionProducts(np.ones(active, np.float32), samples, index=layer.index, **kernels)
    check_memory(layer, gradient)


def check_memory(layer: Held, gradient: gradients.Gradient) -> None:
    active = layer.weight.size
    before = layer.index.flat()
    tracemalloc.start()
    layer.move(0, gradient, Counts(int(0.7 * active), active - int(0.7 * active)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isin(layer.index.flat(), before).mean() < 0.9
    assert peak < 18 * active + (4 << 20), f"{peak / active:.1f} bytes a weight, {peak >> 20} MiB"


class Given(gradients.Whole):
    """A dense gradient with a sample of its own. It counts how often its blocks are asked for."""

    def __init__(self, index: Index, dense: Floats, sample: tuple[Flat, Floats]) -> None:
        super().__init__(index.values(dense), dense)
        self._sample, self.looks = sample, 0

    def blocks(self) -> Iterator[Block]:
        self.looks += 1
        return super().blocks()

    def sample(self) -> tuple[Flat, Floats]:
        return self._sample


@pytest.mark.parametrize(
    ("sample", "looks"),
    [("true", 1), ("ten times too large", 2), ("ten times too small", 1), ("empty", 1), ("nan", 1), ("zeros", 1)],
)
def test_a_sample_changes_no_choice(sample: str, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only saves work. Where it misleads, so that too few gradients are above the guess, the update looks again."""
    monkeypatch.setattr(gradients, "BLOCK", 1 << 12)
    side, active, grow = 256, 6000, 1800
    dense = np.random.default_rng(4).standard_normal(side * side).astype(np.float32)
    dense[::7] = 0
    factors = {"true": 1, "ten times too large": 10, "ten times too small": 0.1, "nan": np.nan, "zeros": 0}
    places = np.arange(0, 0 if sample == "empty" else dense.size, 3, dtype=np.int32)
    drawn = places, dense[places] * np.float32(factors.get(sample, 1))
    layer = Held(side, active)
    before, weight = layer.index.flat(), layer.weight.copy()
    gradient = Given(layer.index, dense, drawn)
    layer.move(0, gradient, Counts(active - grow, grow))
    kept = before[best_of(np.abs(weight), active - grow, before)]
    scores = np.abs(dense)
    scores[kept] = -1
    grown = np.flatnonzero(top_k_mask(scores, grow, xp=numpy_namespace))
    np.testing.assert_array_equal(np.sort(layer.index.flat()), np.union1d(kept, grown))
    assert gradient.looks == looks


def test_large_gradients_of_active_connections_mislead_no_guess() -> None:
    """A squared loss gives each active weight a gradient of its own size, so the largest are those that cannot grow."""
    side, active = 256, 6000
    layer = Held(side, active)
    dense = np.random.default_rng(6).standard_normal(side * side).astype(np.float32)
    dense[layer.index.flat()] += 1000
    sample = np.arange(0, dense.size, 3, dtype=np.int32)
    gradient = Given(layer.index, dense, (sample, dense[sample]))
    layer.move(0, gradient, Counts(active - 500, 500))
    assert gradient.looks == 1


@pytest.mark.parametrize("shape", [(300, 70), (5, 3000), (1, 1), (257, 257)])
def test_a_sample_is_of_the_gradient(shape: tuple[int, int]) -> None:
    """Of all parts of the layer, and not larger than it says."""
    rng = np.random.default_rng(5)
    dy, x = (rng.standard_normal((size, 4)).astype(np.float32) for size in shape)
    products = gradients.Products(np.empty(0, np.float32), [(x, dy)], inputs_first=False, kernels=numpy_kernels) * 2
    dense = np.concatenate([block for _, block in products.blocks()])
    for places, sample in (products.sample(), gradients.Whole(dense[:0], dense).sample()):
        assert 0 < sample.size <= gradients.SAMPLE
        np.testing.assert_array_equal(sample, dense[places])
        rows, cols = np.unravel_index(places, shape)
        for lines, size in ((rows, shape[0]), (cols, shape[1])):
            assert np.histogram(lines, bins=min(size, 4), range=(0, size))[0].all()
