"""The file of a network: NumPy's ``.npz`` with a list of steps as JSON, and with their arrays. Nothing is executed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.serving.chain import Chain
from rigl_core.serving.products import Conv, Dense, Linear
from rigl_core.serving.step import Step
from rigl_core.serving.steps import Activation, Affine, AveragePool, Flatten, GlobalAverage, MaxPool
from rigl_core.sparse.convolution import Convolution
from rigl_core.sparse.index import Index
from rigl_core.whole_file import whole_file

FORMAT, VERSION = "rigl_core.serving", 1
Arrays = Mapping[str, npt.NDArray[Any]]


def save(network: Chain, path: str | PathLike[str]) -> None:
    """Write a network; see `Chain.save`."""
    told = {
        "format": FORMAT,
        "version": VERSION,
        "steps": [{"kind": step.kind, **step.settings} for step in network.steps],
    }
    arrays = {"chain": np.frombuffer(json.dumps(told).encode(), np.uint8)}
    for number, step in enumerate(network.steps):
        arrays |= {f"{number}.{name}": array for name, array in step.arrays.items()}
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its next argument is a bool


def load(path: str | PathLike[str], *, threads: int = 1) -> Chain:
    """Read a network that `Chain.save` wrote.

    Args:
        path: the file.
        threads: the threads to compute with.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or damaged; nothing in it is executed.
    """
    content = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        told = json.loads(arrays.pop("chain").tobytes())
        if told["format"] != FORMAT or told["version"] != VERSION:
            raise ValueError(f"it is {told['format']!r} of version {told['version']}, not {FORMAT!r} of {VERSION}")
        steps = [_step(dict(own), _arrays_of(number, arrays)) for number, own in enumerate(told["steps"])]
        return Chain(steps, threads=threads)
    except Exception as error:  # a damaged file can make its readers raise anything
        raise ValueError(
            f"{os.fspath(path)} is no chain of steps that rigl_core.serving can read: {error!r}."
        ) from error


def _arrays_of(number: int, arrays: Arrays) -> Arrays:
    """The arrays of one step."""
    start = f"{number}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _step(settings: dict[str, Any], arrays: Arrays) -> Step:
    """A step of a file."""
    kind = settings.pop("kind")
    if kind == Linear.kind:
        return Linear(_index(settings, arrays), arrays["values"], arrays["bias"])
    if kind == Conv.kind:
        convolution = _convolution(settings)
        index = _index(settings, arrays, convolution.kernel[0] * convolution.kernel[1])
        return Conv(index, arrays["values"], arrays["bias"], convolution=convolution)
    others: dict[str, Any] = {
        own.kind: own for own in (Activation, Affine, AveragePool, Dense, Flatten, GlobalAverage, MaxPool)
    }
    if kind not in others:
        raise ValueError(f"it has a step {kind!r}, which this version does not know")
    step: Step = others[kind](**settings, **arrays)
    return step


def _index(settings: Mapping[str, Any], arrays: Arrays, kernel: int = 1) -> Index:
    rows, cols, width = (_whole(settings, name) for name in ("rows", "cols", "width"))
    return Index(rows, cols, False, width, arrays["pointers"], arrays["columns"], kernel)


def _convolution(settings: Mapping[str, Any]) -> Convolution:
    pairs = {name: tuple(settings[name]) for name in ("kernel", "stride", "dilation")}
    padding = tuple(tuple(pair) for pair in settings["padding"])
    return Convolution(**pairs, padding=padding, groups=_whole(settings, "groups"))  # type: ignore[arg-type]


def _whole(settings: Mapping[str, Any], name: str) -> int:
    number = settings[name]
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{name} is {number!r}")
    return number
