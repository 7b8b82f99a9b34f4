"""The program: read the options, train, show progress, print the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from arguments import Options, read_options
from checkpoints import CheckpointError
from full_training import Training
from image_folders import FolderError, Images, load
from measured_results import in_words
from processes import Process, joined


def main(arguments: Sequence[str] | None = None) -> Training:
    """Train, or go on with a training.

    Args:
        arguments: of the command line; None for those that the program was started with.

    Returns:
        The training, at its end.
    """
    options = read_options(arguments)
    try:
        images = load(options.network, options.data, options.pixels)
        make_folder(options.folder)
        with joined(options.device) as process:
            return train(options, images, process)
    except (CheckpointError, FolderError) as error:
        raise SystemExit(f"full_size: {error}") from None


def make_folder(folder: Path) -> None:
    """Make the folder of checkpoints and results, before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"full_size: --folder {folder} cannot be made ({error}): give another one.") from None


def train(options: Options, images: Images, process: Process) -> Training:
    """Train in this process, and show it in the first one."""
    console = Console(quiet=not process.first)
    training = make(options, images, process)
    if training.step:
        console.print(f"Going on after step {training.step:,}.")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = options.quiet or not process.first
    with Progress(TextColumn("{task.description}"), *columns, console=console, disable=hidden) as progress:
        bar = progress.add_task(options.method, total=training.end, completed=training.step)
        for step in training:
            progress.update(bar, completed=step, description=told(training))
    if training.history:
        console.print(in_words(training.results()), soft_wrap=True)
    return training


def make(options: Options, images: Images, process: Process) -> Training:
    """The training; what is wrong with the options ends the program with a message."""
    try:
        return Training(options, images, process)
    except ValueError as error:
        raise SystemExit(f"full_size: {error}") from None


def told(training: Training) -> str:
    """The method, and the last accuracy."""
    last = f", accuracy {training.history[-1]['accuracy']:.2%}" if training.history else ""
    return f"{training.options.method}, epoch {training.step // training.per_epoch}{last}"
