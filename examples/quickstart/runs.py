"""The trainings: each method, at each sparsity, from several seeds, with everything else equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data import Batch, Dataset
from rigl_core import SET, Layer, Plan, Recipe, RigL, Static, UpdateSchedule, make_plan, specs

Arrays = Mapping[str, npt.NDArray[np.float32]]
Storage = Literal["masks"] | Mapping[str, Literal["active"]]

DENSE = "dense"
TRULY_SPARSE = "RigL, truly sparse"
HIDDEN_WIDTHS = (300, 100)
BATCH_SIZE = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9
STEPS_BETWEEN_UPDATES = 50
SHARE_WITH_UPDATES = 0.75


@dataclass(frozen=True)
class Run:
    """One training. Every backend and every method starts from the same arrays and sees the same batches.

    Attributes:
        method: ``"dense"`` or a sparse method's name.
        sparsity: share of zero weights; 0 for dense.
        recipe: how to train sparsely; None for dense.
        seed: of the initial weights, the batches and the topology.
        layers: the weights that are sparsified, stored as (out, in).
        weights: initial weights, (out, in), and biases, (out,), by name.
        batch_rows: int64, (steps, batch size): the rows of the training images of each step.
        dataset: images and labels.
        scores: arrays by layer name, for recipes that start from scores.
        storage: how sparse layers are held: with masks, or as active weights alone. The first layer is the only one
            that may be large enough to gain by the latter.
    """

    method: str
    sparsity: float
    recipe: Recipe | None
    seed: int
    layers: Sequence[Layer]
    weights: Arrays
    batch_rows: npt.NDArray[np.int64]
    dataset: Dataset
    learning_rate: float = LEARNING_RATE
    momentum: float = MOMENTUM
    scores: Arrays | None = None
    storage: Storage = "masks"

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the training."""
        return len(self.batch_rows)

    @property
    def plan(self) -> Plan | None:
        """The exact counts; None for dense."""
        return None if self.recipe is None else make_plan(self.recipe, self.layers)

    def batches(self) -> Iterator[Batch]:
        """The images, float32 (batch, pixels), and labels, int64 (batch,), of each step."""
        for rows in self.batch_rows:
            yield self.dataset.train_images[rows], self.dataset.train_labels[rows]


Offers = Callable[[Run], bool]


def recipes(sparsity: float, steps: int, seed: int) -> dict[str, Recipe]:
    """The sparse methods to compare, by name."""
    schedule = UpdateSchedule.for_training(steps, every=STEPS_BETWEEN_UPDATES, until=SHARE_WITH_UPDATES)
    return {
        "Static": Static(sparsity, seed=seed),
        "SET": SET(sparsity, schedule=schedule, seed=seed),
        "RigL": RigL(sparsity, schedule=schedule, seed=seed),
    }


def make_runs(
    dataset: Dataset, sparsities: Sequence[float], seeds: int, steps: int, offers: Offers | None = None
) -> list[Run]:
    """The dense training and every sparse method, for each seed; RigL a second time where it can be truly sparse.

    Args:
        dataset: images and labels.
        sparsities: shares of zero weights.
        seeds: how often each training is made.
        steps: optimizer steps of each.
        offers: whether the framework can train a run as it is stored; None if it never trains truly sparsely.
    """
    layers = specs.mlp(dataset.train_images.shape[1], *HIDDEN_WIDTHS, dataset.n_classes)
    runs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        shared: dict[str, Any] = {
            "seed": seed,
            "layers": layers,
            "weights": initial_weights(layers, rng),
            "batch_rows": shuffled_batches(len(dataset.train_images), steps, rng),
            "dataset": dataset,
        }
        runs.append(Run(DENSE, 0.0, recipe=None, **shared))
        for sparsity in sparsities:
            for method, recipe in recipes(sparsity, steps, seed).items():
                runs.append(Run(method, sparsity, recipe, **shared))
            truly_sparse = replace(runs[-1], method=TRULY_SPARSE, storage={"fc1.*": "active"})
            runs += [truly_sparse] if offers is not None and offers(truly_sparse) else []
    return runs


def initial_weights(layers: Sequence[Layer], rng: np.random.Generator) -> Arrays:
    """Weights and biases uniform in +-1/sqrt(inputs), as PyTorch's linear layers start.

    They are the same for all methods: the scale does not depend on the sparsity.
    """
    weights = {}
    for layer in layers:
        limit = 1 / math.sqrt(layer.n_in)
        weights[layer.name] = rng.uniform(-limit, limit, layer.shape).astype(np.float32)
        bias_name = layer.name.replace("weight", "bias")
        weights[bias_name] = rng.uniform(-limit, limit, layer.n_out).astype(np.float32)
    return weights


def shuffled_batches(n_images: int, steps: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of training images for each step, (steps, batch size), shuffled anew in every epoch."""
    batch_size = min(BATCH_SIZE, n_images)
    per_epoch = n_images // batch_size
    epochs = -(-steps // per_epoch)
    orders = [rng.permutation(n_images)[: per_epoch * batch_size] for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, batch_size)[:steps]
