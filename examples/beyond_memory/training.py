"""One training in a process of its own, whose memory is limited; it prints what it did as lines of JSON.

The network is an MLP with two hidden layers of equal width: pixels - width - width - classes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))  # its data

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from data import Dataset, load
from rigl_backends.torch import sparsify
from rigl_core import RigL, SparsityWarning, UpdateSchedule

MEGABYTE = 2**20
BATCH = 128


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--density", type=float, default=1.0)
    parser.add_argument("--storage", choices=["dense", "masks", "active"], default="dense")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--megabytes", type=int, help="the address space that the process may take")
    options = parser.parse_args()
    if options.megabytes:
        resource.setrlimit(resource.RLIMIT_AS, (options.megabytes * MEGABYTE,) * 2)
    try:
        train(options)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        tell(failed=str(error).splitlines()[0])


def tell(**what: object) -> None:
    """Print a line for the process that waits."""
    print(json.dumps(what), flush=True)


def resident() -> float:
    """The most memory that the process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(options: argparse.Namespace) -> None:
    """Train and test a network; tell of each step, and at the end of accuracy, seconds of a step, and megabytes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load(options.data, options.data_path)
    before = resident()
    model, optimizer = prepare(data, options)
    rng, seconds = np.random.default_rng(0), []
    for _ in range(options.steps):
        rows = rng.integers(len(data.train_images), size=BATCH)
        images, labels = torch.from_numpy(data.train_images[rows]), torch.from_numpy(data.train_labels[rows])
        start = time.process_time()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
        tell(loss=loss.item())
    megabytes = resident() - before
    accuracy = test(model, data)
    tell(accuracy=accuracy, seconds=float(np.median(seconds)), total=sum(seconds), megabytes=megabytes)


def prepare(data: Dataset, options: argparse.Namespace) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and its optimizer, with the weights held as the options say."""
    width = options.width
    first, last = nn.Linear(data.train_images.shape[1], width), nn.Linear(width, data.n_classes)
    with torch.device("meta" if options.storage == "active" else "cpu"):  # so its dense weights are never there
        hidden = nn.Linear(width, width)
    model = nn.Sequential(first, nn.ReLU(), hidden, nn.ReLU(), last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    if options.storage != "dense":
        schedule = UpdateSchedule.for_training(options.steps, every=max(options.steps // 10, 1))
        recipe = RigL(1 - options.density, schedule=schedule)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)  # the first layer can be too dense to pay, and keeps masks
            sparsify(model, optimizer, recipe, exclude=["4.*"], storage=options.storage)
    return model, optimizer


@torch.no_grad()
def test(model: nn.Module, data: Dataset) -> float:
    """The share of the test images that the network classifies correctly."""
    guesses = [model(torch.from_numpy(images)).argmax(1) for images in np.array_split(data.test_images, 40)]
    return float((torch.cat(guesses).numpy() == data.test_labels).mean())


if __name__ == "__main__":
    main()
