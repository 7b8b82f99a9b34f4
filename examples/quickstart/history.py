"""The record of a training, for the table and the picture."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data import Batch, Images, Labels
from rigl_core.inspect.masks import density, ever_active
from runs import Arrays, Run

Mask = npt.NDArray[np.bool_]

STEPS_BETWEEN_TESTS = 50


@dataclass
class History:
    """One training, step by step.

    Attributes:
        run: the run that was trained.
        active: number of active weights in all layers, without biases.
        pixels_at_start: number of active connections of each input pixel before the first step.
        pixels_at_end: number of active connections of each input pixel after the last step.
        test_steps: steps after which the network was tested.
        accuracies: share of the test images that the network classified correctly, at each of ``test_steps``.
        update_steps: steps at which the topology was updated.
        changed: share of the active connections that each update replaced by others.
        masks: the topology at the end, by layer name.
        ever_active: share of all connections that were ever active (R_s).
        weights: the parameters after the last step, in the names and shapes of ``run.weights``.
        seconds: wall time of a step, by the median.
        held: bytes of parameters, gradients, optimizer state and topology; None if the framework does not tell.
    """

    run: Run
    active: int
    pixels_at_start: npt.NDArray[np.int64]
    pixels_at_end: npt.NDArray[np.int64]
    test_steps: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    update_steps: list[int] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    masks: Mapping[str, Mask] = field(default_factory=dict)
    ever_active: float = 1.0
    weights: Arrays = field(default_factory=dict)
    seconds: float = 0.0
    held: int | None = None


class Backend(Protocol):
    """A framework to train with: a module ``mlp_<name>.py`` beside this one."""

    def train(self, run: Run, batches: Iterable[Batch]) -> History:
        """Train a multi-layer perceptron from ``run.weights``: ReLU between layers, softmax cross-entropy, SGD.

        Args:
            run: where to start and how to train.
            batches: the batches of ``run.batches()``, one for each step.
        """


class Watch:
    """Records a training without changing it.

    Args:
        run: the run that is trained.
        predict: gives labels, int64 (images,), for images, float32 (images, pixels).
        masks: gives the current topology as NumPy arrays, in the names and shapes of ``run.layers``;
            layers that it leaves out are dense.
        weights: gives the current parameters, in the names and shapes of ``run.weights``.
        held: gives the bytes of parameters, gradients, optimizer state and topology; None if nobody counts them.
    """

    def __init__(
        self,
        run: Run,
        predict: Callable[[Images], Labels],
        masks: Callable[[], Mapping[str, Mask]],
        weights: Callable[[], Arrays],
        held: Callable[[], int] | None = None,
    ) -> None:
        self._run = run
        self._read_weights, self._count_held = weights, held
        self._predict = predict
        self._read_masks = masks
        self._steps = 0
        self._masks = self._topology()
        self._ever_active = dict(self._masks)
        pixels = self._pixels()
        self.history = History(run, self._active(), pixels_at_start=pixels, pixels_at_end=pixels)
        self._test()
        self._seconds: list[float] = []
        self._since = time.perf_counter()

    def step_done(self) -> None:
        """Call this after every optimizer step."""
        self._seconds.append(time.perf_counter() - self._since)
        self._record()
        self._since = time.perf_counter()

    def _record(self) -> None:
        schedule = self._run.recipe.schedule if self._run.recipe is not None else None
        if schedule is not None and schedule.fires(self._steps):
            self._compare_topology()
        self._steps += 1
        if self._steps % STEPS_BETWEEN_TESTS == 0 or self._steps == self._run.steps:
            self._test()
        if self._steps == self._run.steps:
            self._end()

    def _end(self) -> None:
        self.history.masks = self._topology()
        self.history.ever_active = density(self._ever_active)
        self.history.weights = self._read_weights()
        self.history.seconds = statistics.median(self._seconds)
        self.history.held = None if self._count_held is None else self._count_held()

    def _test(self) -> None:
        dataset = self._run.dataset
        right = self._predict(dataset.test_images) == dataset.test_labels
        self.history.test_steps.append(self._steps)
        self.history.accuracies.append(float(np.mean(right)))

    def _compare_topology(self) -> None:
        before, self._masks = self._masks, self._topology()
        new = sum(int(np.count_nonzero(mask & ~before[name])) for name, mask in self._masks.items())
        self._ever_active = ever_active(self._ever_active, self._masks)
        self.history.active = self._active()
        self.history.pixels_at_end = self._pixels()
        self.history.update_steps.append(self._steps)
        self.history.changed.append(new / self.history.active)

    def _topology(self) -> Mapping[str, Mask]:
        masks = self._read_masks()
        return {layer.name: masks.get(layer.name, np.ones(layer.shape, np.bool_)) for layer in self._run.layers}

    def _active(self) -> int:
        return sum(int(np.count_nonzero(mask)) for mask in self._masks.values())

    def _pixels(self) -> npt.NDArray[np.int64]:
        first = self._run.layers[0]
        connections: npt.NDArray[np.int64] = np.count_nonzero(self._masks[first.name], axis=first.out_axes)
        return connections


def by_method(histories: Iterable[History]) -> dict[tuple[str, float], list[History]]:
    """The histories of all seeds, by method and sparsity."""
    groups: dict[tuple[str, float], list[History]] = {}
    for history in histories:
        groups.setdefault((history.run.method, history.run.sparsity), []).append(history)
    return groups
