"""The convnet on images: three strided convolutions with batch norm, 16, 32 and 64 channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cases import Setting
from data import load
from tasks import Batch

CHANNELS = (16, 32, 64)
BATCH = 64
L2 = 5e-4
VALIDATION = 1 / 6
"""The share of the training images that are held out: 10,000 of Fashion-MNIST's 60,000."""


class ConvNet(nn.Sequential):
    """Three convolutions, each halves the image; then the mean over positions, and a linear layer."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        layers: list[nn.Module] = []
        before = 1
        for channels in CHANNELS:
            after = max(round(channels * width), 1)
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


class Images:
    """Images of a data set in memory, and how to train on them.

    Args:
        name: of the data set, as in the quickstart.
        folder: the folder of ``fashion-mnist``, if not Debian's.

    Raises:
        DataError: if the data set is missing or broken.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        data = load(name, folder)
        self.name, self.classes = data.name, data.n_classes
        mean, deviation = float(data.train_images.mean()), float(data.train_images.std())

        def tensor(images: object) -> Tensor:
            pictures = (torch.as_tensor(images) - mean) / deviation
            return pictures.reshape(-1, 1, *data.picture_shape)

        images, labels = tensor(data.train_images), torch.as_tensor(data.train_labels)
        shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held_out, rest = shuffled.split(
            [round(len(images) * VALIDATION), len(images) - round(len(images) * VALIDATION)]
        )
        self._train = (images[rest], labels[rest])
        self._parts = {
            "validation": (images[held_out], labels[held_out]),
            "test": (tensor(data.test_images), torch.as_tensor(data.test_labels)),
        }

    def model(self, width: float = 1.0) -> nn.Module:
        """A new network."""
        return ConvNet(self.classes, width)

    def optimizer(self, model: nn.Module, setting: Setting) -> torch.optim.Optimizer:
        """SGD with momentum."""
        rate = setting.learning_rate
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=L2)

    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """Random batches, with replacement."""
        chosen = torch.Generator().manual_seed(seed)
        images, labels = self._train
        for _ in range(steps):
            batch = torch.randint(len(images), (BATCH,), generator=chosen)
            yield images[batch], labels[batch]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy."""
        return functional.cross_entropy(model(batch[0]), batch[1])

    @torch.no_grad()
    def score(self, model: nn.Module, part: str) -> float:
        """The share of images that are classified correctly, in percent."""
        model.eval()
        images, labels = self._parts[part]
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        )
        return 100 * right / len(labels)

    @property
    def example(self) -> Tensor:
        """One input."""
        return self._train[0][:1]
