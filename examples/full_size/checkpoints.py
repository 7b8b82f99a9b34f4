"""A checkpoint is written at once or not at all, and belongs to one training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class CheckpointError(Exception):
    """A checkpoint of another training; the message names the option that differs."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a process that is killed meanwhile leaves the earlier file."""
    fresh = path.with_suffix(".new")
    torch.save(dict(state), fresh)
    fresh.replace(path)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data, in the same way."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def read(path: Path, training: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state in a file; None if there is no file.

    Args:
        path: the file.
        training: the options that make a training what it is, by name; the state holds them as ``training``.

    Raises:
        CheckpointError: if one of them differs, or the file is none of ours.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["training"]
    except Exception as error:
        raise CheckpointError(f"--folder: {path} is no checkpoint of ours ({error}): give another folder.") from error
    for name, value in training.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"--{name} is {_shown(value)}, and {path} is of a training with {_shown(saved.get(name))}: give the "
                "same to go on with it, or another --folder."
            )
    return state


def _shown(value: object) -> str:
    return "not given" if value in (None, []) else str(value)
