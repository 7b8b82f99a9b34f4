"""Wrong input for the paper's experiments at full size: the message names the option, and says what to do."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.torchvision_operators  # noqa: F401
from arguments import read_options
from full_training import Training
from image_folders import load
from processes import Process
from tests.examples.conftest import QUICKSTART
from tests.examples.full_size_trainings import SHORT, train
from tests.examples.image_files import CLASSES, any_checksum
from whole_program import main

EXAMPLE = QUICKSTART.parent / "full_size"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: network"),
        (["wrn22-2"], "the following arguments are required: --data"),
        (["resnet", "--data", "."], "argument network: invalid choice: 'resnet'"),
        (["wrn22-2", "--data", ".", "--method", "momentum"], "argument --method: invalid choice: 'momentum'"),
        (["wrn22-2", "--data", ".", "--sparsity", "90"], "argument --sparsity: '90' is no number above 0 and below 1"),
        (["wrn22-2", "--data", ".", "--multiply", "-1"], "argument --multiply: '-1' is no number above 0"),
        (["wrn22-2", "--data", ".", "--batch", "0"], "argument --batch: '0' is no whole number of at least 1"),
        (["wrn22-2", "--data", ".", "--seed", "x"], "argument --seed: 'x' is no whole number of at least 0"),
        (["wrn22-2", "--data", ".", "--pixels", "64"], "argument --pixels: CIFAR-10's images have 32"),
        (
            ["wrn22-2", "--data", ".", "--method", "dense", "--sparsity", "0.5"],
            "argument --sparsity: it goes with a sparse method",
        ),
    ],
)
def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        read_options(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        read_options(["wrn22-2", "--data", ".", "--device", "cuda"])
    assert "argument --device: PyTorch sees no GPU" in capsys.readouterr().err


def said(network: str, data: Path, folder: Path, *options: str) -> str:
    """The message with which the program ends."""
    with pytest.raises(SystemExit) as caught:
        train(network, data, folder, *options)
    return str(caught.value)


def test_a_folder_without_cifar10(cifar: Path, tmp_path: Path) -> None:
    message = said("wrn22-2", tmp_path, tmp_path / "out")
    assert message.startswith(f"full_size: --data {tmp_path} has no folder cifar-10-batches-py: unpack cifar-10-python")
    shutil.copytree(cifar, tmp_path / "data")
    (tmp_path / "data" / "cifar-10-batches-py" / "test_batch").unlink()
    assert "is missing or broken" in said("wrn22-2", tmp_path / "data", tmp_path / "out")
    with pytest.raises(SystemExit, match="is missing or broken"):  # the made-up files have other checksums
        main(["wrn22-2", "--data", str(cifar), "--folder", str(tmp_path / "out"), "--quiet"])
    assert not (tmp_path / "out").exists()


def test_a_folder_without_imagenet(imagenet: Path, tmp_path: Path) -> None:
    assert "has no folder train: it must look like train/n01440764/" in said("resnet50", tmp_path, tmp_path / "out")
    shutil.copytree(imagenet, tmp_path / "data")
    images = sorted((tmp_path / "data" / "val" / CLASSES[0]).iterdir())
    shutil.rmtree(tmp_path / "data" / "val" / CLASSES[1])
    differs = said("resnet50", tmp_path / "data", tmp_path / "out")
    assert f"the class {CLASSES[1]} is in only one of train and val" in differs
    for image in images:  # as the validation images come, without folders
        image.rename(tmp_path / "data" / "val" / image.name)
    shutil.rmtree(tmp_path / "data" / "val" / CLASSES[0])
    shutil.rmtree(tmp_path / "data" / "val" / CLASSES[2])
    assert "it must look like val/n01440764/image.JPEG" in said("resnet50", tmp_path / "data", tmp_path / "out")


def test_wrong_trainings(cifar: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert "--batch is 21, and --data has 20 training images" in said("wrn22-2", cifar, folder, "--batch", "21")
    assert "'conv9*'" in said("wrn22-2", cifar, folder, *SHORT, "--dense", "conv9*")
    (tmp_path / "file").touch()
    assert "--folder" in said("wrn22-2", cifar, tmp_path / "file")
    train("wrn22-2", cifar, folder, *SHORT, "--steps", "1", "--method", "static")
    assert "--method is rigl, and" in said("wrn22-2", cifar, folder, *SHORT)
    other = said("wrn22-2", cifar, folder, *SHORT, "--method", "static", "--sparsity", "0.5")
    assert "--sparsity is 0.5, and" in other
    assert "is of a training with 0.9: give the same to go on with it, or another --folder" in other
    (folder / "checkpoint.pt").write_bytes(b"broken")
    assert "checkpoint.pt is no checkpoint of ours" in said("wrn22-2", cifar, folder, *SHORT, "--method", "static")


def test_a_batch_that_processes_cannot_share(cifar: Path, tmp_path: Path) -> None:
    options = read_options(["wrn22-2", "--data", str(cifar), "--batch", "10", "--folder", str(tmp_path)])
    with any_checksum():
        images = load("wrn22-2", cifar, 32)
    with pytest.raises(ValueError, match="--batch is 10: it must be a multiple of the 3 processes"):
        Training(options, images, Process(torch.device("cpu"), rank=0, world=3))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError("no", name="rich.console"), "full_size needs rich: pip install 'rigl-core[examples"),
        (RuntimeError("operator torchvision::nms does not exist"), "PyTorch and torchvision must be of one build"),
    ],
)
def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str) -> None:
    class Missing:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name == "whole_program":
                raise error

    monkeypatch.delitem(sys.modules, "whole_program")
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(SystemExit, match=advice.replace("[", r"\[")):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
