"""The paper's experiments at full size, on a few made-up images: ``python examples/full_size``."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

import tests.torchvision_operators  # noqa: F401
from data_order import Batches
from experiments import CIFAR_STEPS, EXPERIMENTS
from full_training import Training
from rigl_backends.torch import describe
from rigl_core import UpdateSchedule, specs
from sparse_methods import DISTRIBUTIONS, METHODS, make_recipe
from tests.examples.full_size_trainings import PARTS, SHORT, TOGETHER, WORLD, train, work
from tests.examples.image_files import CLASSES
from tests.torch.helpers import same_bits
from wide_resnet import WideResNet


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def test_the_wide_network_is_the_papers() -> None:
    ours, papers = describe(WideResNet(), torch.zeros(1, 3, 32, 32)), specs.wrn_22_2()
    assert [(layer.shape, ours.positions[layer.name]) for layer in ours] == [
        (layer.shape, papers.positions[layer.name]) for layer in papers
    ]


@pytest.mark.parametrize(
    ("network", "steps", "batch", "rates"),
    [
        ("wrn22-2", CIFAR_STEPS, 128, {0: 0.1, 29_999: 0.1, 30_000: 0.02, 60_000: 0.004, 97_655: 0.0008}),
        ("wrn22-2", 2 * CIFAR_STEPS, 256, {59_999: 0.2, 60_000: 0.04}),
        ("resnet50", 31_200, 4096, {779: 0.8, 1_560: 1.6, 9_359: 1.6, 9_360: 0.16, 21_840: 0.016, 28_080: 0.0016}),
        ("resnet50", 500_000, 256, {100_000: 0.1}),
    ],
)
def test_the_learning_rate_is_the_papers(network: str, steps: int, batch: int, rates: dict[int, float]) -> None:
    experiment = EXPERIMENTS[network]
    found = {step: experiment.learning_rate_at(step, steps, batch) for step in rates}
    assert found == pytest.approx(rates, rel=2e-3)


@pytest.mark.parametrize("times", [1, 5])
def test_a_longer_training_stretches_the_updates_and_keeps_their_distance(times: int) -> None:
    options: Any = {"every": 100, "distribution": DISTRIBUTIONS["erk"], "dense": (), "seed": 0}
    wide = make_recipe("rigl", 0.9, EXPERIMENTS["wrn22-2"], times * CIFAR_STEPS, **options)
    assert wide.schedule == UpdateSchedule(end=times * 75_000, every=100)
    resnet = make_recipe("set", 0.9, EXPERIMENTS["resnet50"], times * 32_000, **options)
    assert resnet.schedule == UpdateSchedule(end=times * 25_000, every=100)
    pruned = make_recipe("pruning", 0.9, EXPERIMENTS["wrn22-2"], times * CIFAR_STEPS, **options)
    assert pruned.schedule == UpdateSchedule(begin=times * 20_000, end=times * 75_000, every=1000)


def test_each_image_comes_once_in_an_epoch_and_processes_share_the_batch() -> None:
    whole = list(Batches(n_images=11, batch=4, seed=3, first=0, last=5))
    parts = [list(Batches(11, 4, seed=3, first=0, last=5, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(first + second) for first, second in zip(*parts, strict=True)] == [sorted(each) for each in whole]
    assert [{epoch for epoch, _ in batch} for batch in whole] == [{0}, {0}, {1}, {1}, {2}]
    for epoch in range(2):
        seen = [image for batch in whole[2 * epoch : 2 * epoch + 2] for _, image in batch]
        assert len(set(seen)) == 8
    assert list(Batches(11, 4, seed=3, first=3, last=5)) == whole[3:]
    assert list(Batches(11, 4, seed=4, first=0, last=5)) != whole


@pytest.mark.parametrize("method", METHODS)
def test_every_method(cifar: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    sparsity = [] if method == "dense" else ["--sparsity", "0.8"]
    training = train("wrn22-2", cifar, tmp_path, *SHORT, "--method", method, *sparsity)
    found, wanted = results(tmp_path), 0.0 if method == "dense" else 0.8
    assert found["step"] == found["steps"] == 2
    assert found["accuracy"] == found["history"][-1]["accuracy"]
    assert f"wrn22-2, {method}: test accuracy {found['accuracy']:.2%} after 2 of 2 steps" in capsys.readouterr().out
    assert found["total"]["weights"] == 1_076_912
    assert sum(layer["active"] for layer in found["layers"].values()) == found["total"]["active"]
    assert found["total"]["sparsity"] == pytest.approx(wanted, abs=1e-3)
    assert (found["costs"]["inference"] < 0.5) == (method != "dense")
    assert found["costs"]["training"] >= found["costs"]["inference"]
    if method != "dense":
        weights = dict(training.model.named_parameters())
        assert training.sparse.step == 2
        assert all(not weights[name][~mask].any() for name, mask in training.sparse.masks.items())


def test_resnet50(imagenet: Path, tmp_path: Path) -> None:
    options = ("--pixels", "64", "--distribution", "uniform", "--epochs", "1", "--batch", "6")
    train("resnet50", imagenet, tmp_path, *options, "--dense", "layer1.0.conv1.weight")
    found = results(tmp_path)
    sparsities = {name: layer["sparsity"] for name, layer in found["layers"].items()}
    assert found["steps"] == 2
    assert sparsities["conv1.weight"] == sparsities["layer1.0.conv1.weight"] == 0
    assert sparsities["layer4.0.conv2.weight"] == pytest.approx(0.9, abs=1e-4)
    assert checkpoint(tmp_path)["model"]["fc.weight"].shape[0] == len(CLASSES)


@pytest.mark.parametrize("method", ["dense", "rigl", "pruning"])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(cifar: Path, tmp_path: Path, method: str) -> None:
    options = ("--epochs", "3", "--batch", "10", "--method", method)
    train("wrn22-2", cifar, tmp_path / "whole", *options)
    for steps in ("3", "4"):  # within an epoch, and at its end
        train("wrn22-2", cifar, tmp_path / "parts", *options, "--steps", steps)
        assert results(tmp_path / "parts")["step"] == int(steps)
    train("wrn22-2", cifar, tmp_path / "parts", *options)
    assert same_bits(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    again = train("wrn22-2", cifar, tmp_path / "parts", *options)
    assert again.step == 6


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--epochs", "2", "--batch", "5", "--checkpoint-every", "2")
    learn = Training._learn

    def killed(self: Training, *batch: Any) -> None:
        learn(self, *batch)
        if self.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_learn", killed)
        with pytest.raises(KeyboardInterrupt):
            train("wrn22-2", cifar, tmp_path / "killed", *options)
    assert checkpoint(tmp_path / "killed")["step"] == 2
    train("wrn22-2", cifar, tmp_path / "killed", *options)
    train("wrn22-2", cifar, tmp_path / "whole", *options)
    assert same_bits(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))


def test_precision_compilation_and_length(cifar: Path, tmp_path: Path) -> None:
    options = ("--amp", "--compile", "eager", "--multiply", "2.5", "--epochs", "2", "--method", "static")
    train("wrn22-2", cifar, tmp_path, *options, "--batch", "20")
    found = results(tmp_path)
    assert found["steps"] == 5
    assert found["costs"]["training"] == pytest.approx(2.5 * found["costs"]["inference"])
    torch.compiler.reset()


def test_two_processes_and_workers(cifar: Path, tmp_path: Path) -> None:
    """Two processes stay alike and can be stopped; workers change nothing."""
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in PARTS]
        for each in free:
            each.bind(("localhost", 0))
        ports = [each.getsockname()[1] for each in free]
    mp.spawn(work, (ports, str(cifar), str(tmp_path)), nprocs=WORLD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    assert same_bits(first, second)
    assert same_bits(first["stopped"], first["whole"])
    assert results(tmp_path / "whole")["processes"] == WORLD
    assert results(tmp_path / "whole")["step"] == 4
    train("wrn22-2", cifar, tmp_path / "alone", *TOGETHER)
    assert same_bits(checkpoint(tmp_path / "alone"), checkpoint(tmp_path / "with workers"))
