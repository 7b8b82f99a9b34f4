"""The header of a file: layers, recipe and step as JSON, of which nothing is taken on trust."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from rigl_core.model.layers import Layer
from rigl_core.storage.topology import Topology

LARGEST = 1 << 24
"""The bytes of the largest header, which has some hundred thousand layers."""
_LAYER = {field.name for field in fields(Layer)}
_AXES, _NAME = 32, 1000


@dataclass(frozen=True)
class Header:
    """What stands before the masks; the attributes are those of `Topology`."""

    layers: tuple[Layer, ...]
    recipe: dict[str, Any] | None
    step: int | None


def write(topology: Topology) -> bytes:
    """The header of a topology.

    Raises:
        ValueError: if it would be too large, or the recipe is no plain data.
    """
    told = {
        "layers": [vars(layer) for layer in topology.layers],
        "recipe": None if topology.recipe is None else dict(topology.recipe),
        "step": topology.step,
    }
    text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(text) > LARGEST:
        raise ValueError(f"topology has a header of {len(text):,} bytes: at most {LARGEST:,} can be read again.")
    read(text)
    return text


def read(text: bytes) -> Header:
    """The header that `write` wrote.

    Raises:
        ValueError, RecursionError: if it is anything else.
    """
    hooks: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite, "object_pairs_hook": _without_doubles}
    told = json.loads(text.decode("utf-8"), **hooks)
    _check_keys("header", told, {"layers", "recipe", "step"})
    if not isinstance(told["layers"], list) or not told["layers"]:
        raise _wrong("layers", told["layers"])
    layers = tuple(map(_layer, told["layers"]))
    if len({layer.name for layer in layers}) < len(layers):
        raise ValueError("two of its layers have the same name")
    if told["recipe"] is not None and not isinstance(told["recipe"], dict):
        raise _wrong("recipe", told["recipe"])
    step = told["step"]
    return Header(layers, told["recipe"], step if step is None else _whole("step", step, 1 << 63))


def _layer(told: Any) -> Layer:
    _check_keys("layer", told, _LAYER)
    if not isinstance(told["name"], str) or len(told["name"]) > _NAME or not told["name"].isprintable():
        raise _wrong("name", told["name"])
    if told["grouped_axes"] not in ("in", "out"):
        raise _wrong("grouped_axes", told["grouped_axes"])
    if not isinstance(told["depthwise"], bool):
        raise _wrong("depthwise", told["depthwise"])
    axes = {key: _axes(key, told[key]) for key in ("shape", "in_axes", "out_axes", "stacked", "fused")}
    return Layer(**{**told, **axes, "groups": _whole("groups", told["groups"], 1 << 31)})


def _axes(key: str, value: Any) -> Sequence[int]:
    if not isinstance(value, list) or len(value) > _AXES:
        raise _wrong(key, value)
    return tuple(_whole(key, number, 1 << 31) for number in value)


def _whole(key: str, value: Any, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise _wrong(key, value)
    return value


def _check_keys(what: str, told: Any, keys: set[str]) -> None:
    if not isinstance(told, dict) or set(told) != keys:
        raise _wrong(what, told)


def _wrong(key: str, value: Any) -> ValueError:
    return ValueError(f"{key} is {reprlib.repr(value)}")


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {reprlib.repr(text)}, which is no finite number")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) < len(pairs):
        raise ValueError("it has a key twice")
    return told
