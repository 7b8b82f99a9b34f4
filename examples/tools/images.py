"""What the examples of this folder share: options, scikit-learn's digits or Fashion-MNIST, and the accuracy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))  # its data

import numpy as np

from data import Batch, DataError, Dataset, Labels, load

BATCH = 128
"""The images of a training step."""


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options of all examples that train on images; an example may add its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument(
        "--data", default="digits", metavar="NAME", help="digits, fashion-mnist or a folder of IDX files (%(default)s)"
    )
    return parser


def read(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Dataset]:
    """The options and the data set that they name. A data set that is missing ends the program with a message."""
    options = parser.parse_args(arguments)
    try:
        return options, load(options.data)
    except DataError as error:
        parser.error(str(error))


def batches(dataset: Dataset, steps: int, first: int = 0) -> Iterator[Batch]:
    """The batches of the steps from ``first`` to ``steps``: each depends on its step alone."""
    for step in range(first, steps):
        chosen = np.random.default_rng(step).choice(len(dataset.train_images), BATCH, replace=False)
        yield dataset.train_images[chosen], dataset.train_labels[chosen]


def accuracy(logits: object, labels: Labels) -> float:
    """The share of images whose largest logit, of (images, classes), is that of their label."""
    return float(np.mean(np.argmax(np.asarray(logits), axis=1) == labels))
