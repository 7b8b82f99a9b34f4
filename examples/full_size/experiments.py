"""How the RigL paper trains its two networks of images.

Sources: "Rigging the Lottery" (Evci et al. 2020), section 4, ImageNet-2012 and CIFAR-10; where the paper is silent, the
authors' code (google-research/rigl: imagenet_resnet/imagenet_train_eval.py and cifar_resnet/resnet_train_eval.py).

All times are shares of the training, so a longer training stretches all of them, as the paper's extended trainings do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from torch import nn
from torchvision.models import resnet50

from wide_resnet import WideResNet


@dataclass(frozen=True)
class Experiment:
    """A network and its training.

    Attributes:
        network: makes the network, for a number of classes.
        pixels: width and height of an image.
        epochs: length of the training.
        batch: images of a step, those of all processes together.
        learning_rate: the largest one, at this batch.
        warm_up: share of the training in which the learning rate rises from 0 in a straight line.
        milestones: shares of the training at which the learning rate is divided.
        divisor: what it is divided by.
        l2: factor of the weights in their gradient (weight decay).
        label_smoothing: share of the labels that is spread over all classes.
        updates_end: T_end, the share of the training after which the topology stays.
        pruning: shares of the training at which gradual pruning begins and ends.
    """

    network: Callable[[int], nn.Module]
    pixels: int
    epochs: int
    batch: int
    learning_rate: float
    warm_up: Fraction
    milestones: tuple[Fraction, ...]
    divisor: float
    l2: float
    label_smoothing: float
    updates_end: Fraction
    pruning: tuple[Fraction, Fraction]

    def learning_rate_at(self, step: int, steps: int, batch: int) -> float:
        """The learning rate of a step, counted from 0, in a training of ``steps`` steps. It scales with the batch."""
        highest = self.learning_rate * batch / self.batch
        if step < self.warm_up * steps:
            return highest * float((step + 1) / (self.warm_up * steps + 1))
        return highest / self.divisor ** sum(step >= share * steps for share in self.milestones)


def _resnet50(classes: int) -> nn.Module:
    """As in the authors' code, the last norm of each block starts at 0."""
    network: nn.Module = resnet50(num_classes=classes, zero_init_residual=True)
    return network


CIFAR_STEPS = 97_656
"""250 epochs at batch 128. The paper and its code give all other times of this training in steps."""

PRUNING = (Fraction(20_000, CIFAR_STEPS), Fraction(75_000, CIFAR_STEPS))
"""When the authors' code prunes on CIFAR-10. Its ResNet-50 has no such training, so that part of it is ours."""

EXPERIMENTS: Mapping[str, Experiment] = {
    "wrn22-2": Experiment(
        network=WideResNet,
        pixels=32,
        epochs=250,
        batch=128,
        learning_rate=0.1,
        warm_up=Fraction(0),
        milestones=(Fraction(30_000, CIFAR_STEPS), Fraction(60_000, CIFAR_STEPS), Fraction(90_000, CIFAR_STEPS)),
        divisor=5,
        l2=5e-4,
        label_smoothing=0.0,
        updates_end=Fraction(75_000, CIFAR_STEPS),
        pruning=PRUNING,
    ),
    "resnet50": Experiment(
        network=_resnet50,
        pixels=224,
        epochs=100,
        batch=4096,
        learning_rate=1.6,
        warm_up=Fraction(5, 100),
        milestones=(Fraction(30, 100), Fraction(70, 100), Fraction(90, 100)),
        divisor=10,
        l2=1e-4,
        label_smoothing=0.1,
        updates_end=Fraction(25_000, 32_000),
        pruning=PRUNING,
    ),
}
