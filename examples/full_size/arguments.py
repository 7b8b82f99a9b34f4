"""The command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments import EXPERIMENTS, Experiment
from sparse_methods import DENSE, DISTRIBUTIONS, METHODS


@dataclass(frozen=True)
class Options:
    """The checked options, in the words of the command line."""

    network: str
    data: Path
    method: str
    sparsity: float
    distribution: str
    dense: list[str]
    epochs: int
    multiply: float
    batch: int
    every: int
    pixels: int
    seed: int
    workers: int
    steps: int | None
    checkpoint_every: int | None
    amp: bool
    compile: str | None
    device: str | None
    folder: Path
    quiet: bool

    @property
    def experiment(self) -> Experiment:
        """How the paper trains this network."""
        return EXPERIMENTS[self.network]

    @property
    def training(self) -> dict[str, Any]:
        """What makes the training what it is: a checkpoint goes on with the same only."""
        names = ("network", "method", "sparsity", "distribution", "dense", "epochs", "multiply", "batch", "every")
        return {name: getattr(self, name) for name in (*names, "pixels", "seed", "amp")}


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """The options; a wrong one ends the program with a message."""
    parser = _parser()
    given = parser.parse_args(arguments)
    _check_together(parser, given)
    return Options(**vars(_with_defaults(given)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="full_size",
        description="Train WideResNet-22-2 on CIFAR-10 or ResNet-50 on ImageNet as the RigL paper does, densely or "
        "sparsely, on one device or, started by torchrun, on many.",
    )
    add = parser.add_argument
    add("network", choices=list(EXPERIMENTS))
    add("--data", type=Path, required=True, metavar="DIR", help="the folder of the images, see README.md")
    add("--method", default="rigl", choices=METHODS, help="(%(default)s)")
    add("--sparsity", type=share, metavar="S", help="share of zero weights (0.9)")
    add("--distribution", choices=list(DISTRIBUTIONS), help="of the zeros (pruning: uniform; else erk)")
    add("--dense", nargs="+", default=[], metavar="LAYER", help="layers that stay dense, such as conv1.weight")
    add("--epochs", type=positive, metavar="N", help="length of the training (wrn22-2: 250, resnet50: 100)")
    add("--multiply", type=factor, default=1.0, metavar="N", help="train N times as long; ΔT stays (1)")
    add("--batch", type=positive, metavar="N", help="images of a step in all processes together; the learning rate "
        "scales with it (wrn22-2: 128, resnet50: 4096)")  # fmt: skip
    add("--every", type=positive, default=100, metavar="N", help="ΔT, steps between two updates (%(default)s)")
    add("--pixels", type=positive, metavar="N", help="width of an image, resnet50 only (224)")
    add("--seed", type=count, default=0, metavar="N", help="of weights, topology and order (%(default)s)")
    add("--workers", type=count, default=min(8, os.cpu_count() or 1), metavar="N", help="processes that read images "
        "for each training process; 0 for none (%(default)s)")  # fmt: skip
    add("--steps", type=positive, metavar="N", help="stop after N steps of the training, for trials")
    add("--checkpoint-every", type=positive, metavar="N", help="write a checkpoint every N steps, besides each epoch")
    add("--amp", action="store_true", help="compute in bfloat16 where autocast does")
    add("--compile", nargs="?", const="inductor", metavar="BACKEND", help="use torch.compile (inductor)")
    add("--device", choices=["cpu", "cuda"], help="(a GPU if there is one)")
    add("--folder", type=Path, metavar="DIR", help="of checkpoint.pt and results.json (NETWORK-METHOD)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def _check_together(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if given.pixels is not None and given.network != "resnet50":
        parser.error("argument --pixels: CIFAR-10's images have 32; it goes with resnet50")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: PyTorch sees no GPU; give cpu, or install a build for CUDA")
    for name in ("sparsity", "distribution", "dense"):
        if given.method == DENSE and getattr(given, name) not in (None, []):
            parser.error(f"argument --{name}: it goes with a sparse method, not with --method dense")


def _with_defaults(given: argparse.Namespace) -> argparse.Namespace:
    experiment = EXPERIMENTS[given.network]
    usual: dict[str, object] = {
        "sparsity": 0.0 if given.method == DENSE else 0.9,
        "distribution": "uniform" if given.method == "pruning" else "erk",  # that of Zhu & Gupta 2017
        "epochs": experiment.epochs,
        "batch": experiment.batch,
        "pixels": experiment.pixels,
        "folder": Path(f"{given.network}-{given.method}"),
    }
    for name, value in usual.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def share(text: str) -> float:
    """A share of zeros, above 0 and below 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and below 1, such as 0.9")
    return value


def factor(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, such as 5")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
