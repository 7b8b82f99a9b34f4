"""Which images a step sees, and how each is cropped: functions of the seed alone.

So a training that goes on sees what it would have seen, with any number of processes and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

At = tuple[int, int]
"""An epoch, and the number of an image."""


def seed_of(*numbers: int) -> int:
    """A seed for these numbers, such as the training's seed and a step."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@dataclass(frozen=True)
class Repeatable(Dataset[tuple[Tensor, int]]):
    """Images whose random crops and flips depend on the epoch and the image, and on nothing that happened before.

    Attributes:
        images: what holds them.
        seed: of the training.
    """

    images: Dataset[tuple[Tensor, int]]
    seed: int

    def __getitem__(self, at: At) -> tuple[Tensor, int]:
        torch.default_generator.manual_seed(seed_of(self.seed, *at))  # torchvision draws from it
        return self.images[at[1]]


@dataclass(frozen=True)
class Batches:
    """The images of each step that one process sees: a ``batch_sampler`` for a whole training, or the rest of one.

    In each epoch all images come once, in another order; those that do not fill a batch are left out.

    Attributes:
        n_images: the number of all images.
        batch: images of a step, those of all processes together.
        seed: of the training.
        first: the first step, counted from 0.
        last: the step before which it ends.
        rank: number of the process.
        world: number of processes.
    """

    n_images: int
    batch: int
    seed: int
    first: int
    last: int
    rank: int = 0
    world: int = 1

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.n_images // self.batch

    def __len__(self) -> int:
        return max(self.last - self.first, 0)

    def __iter__(self) -> Iterator[list[At]]:
        step = self.first
        while step < self.last:
            epoch, done = divmod(step, self.per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.n_images)
            until = min(self.per_epoch, done + self.last - step)
            for begin in range(done * self.batch, until * self.batch, self.batch):
                yield [(epoch, int(image)) for image in order[begin : begin + self.batch][self.rank :: self.world]]
            step += until - done
