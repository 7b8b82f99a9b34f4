"""Recipes as plain data: each part is saved by its name and its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rigl_core.parts.criteria import CRITERIA, Criterion
from rigl_core.parts.distributions import DISTRIBUTIONS
from rigl_core.parts.drop_fractions import DROP_FRACTIONS
from rigl_core.parts.grown import GROWN_WEIGHTS
from rigl_core.parts.ramps import RAMPS
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import STRUCTURES

_CATALOGS: Mapping[str, Mapping[str, type]] = {
    "distribution": DISTRIBUTIONS,
    "drop_fraction": DROP_FRACTIONS,
    "ramp": RAMPS,
    "structure": STRUCTURES,
    "grown": GROWN_WEIGHTS,
}
_CRITERIA = ("drop", "grow", "initial")


def to_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe's fields as str, int, float, bool, None, lists and dicts."""
    data = dict(values)
    for parameter in _CATALOGS:
        data[parameter] = None if data[parameter] is None else _part_to_dict(data[parameter])
    for parameter in _CRITERIA:
        data[parameter] = _criterion_to_data(data[parameter])
    if data["schedule"] is not None:
        data["schedule"] = dataclasses.asdict(data["schedule"])
    data["dense"] = list(data["dense"])
    data["layer_sparsity"] = [list(pair) for pair in data["layer_sparsity"]]
    return data


def from_data(data: object, fields: Sequence[str], parts: Iterable[Any]) -> dict[str, Any]:
    """The values of a recipe's ``fields`` that are given in ``data``."""
    values = dict(_check_keys("recipe", data, fields))
    own = {_name_of(part): part for part in parts}
    for parameter, catalog in _CATALOGS.items():
        if values.get(parameter) is not None:
            values[parameter] = _part_from_dict(parameter, values[parameter], {**catalog, **own})
    for parameter in _CRITERIA:
        if values.get(parameter) is not None:
            values[parameter] = _criterion_from_data(parameter, values[parameter], {**CRITERIA, **own})
    if values.get("schedule") is not None:
        given = _check_keys("schedule", values["schedule"], _fields_of(UpdateSchedule))
        values["schedule"] = UpdateSchedule(**given)
    return values


def _name_of(part: Any) -> str:
    """The name by which a user's own part is found: its kind or name, or the name of the function that makes it."""
    for attribute in ("kind", "name", "__name__"):
        if isinstance(name := getattr(part, attribute, None), str):
            return name
    raise TypeError(f"parts holds {part!r}: it has neither a kind nor a name.")


def _criterion_to_data(criterion: Criterion | None) -> Any:
    if criterion is None or criterion.parameter is None:
        return None if criterion is None else criterion.name
    return {"name": criterion.name, "parameter": criterion.parameter}


def _criterion_from_data(parameter: str, data: Any, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        data = {"name": data, "parameter": None}
    if set(data) != {"name", "parameter"}:
        raise ValueError(f"{parameter} is {data!r}: it must be a name, or a mapping of 'name' and 'parameter'.")
    name, number = data["name"], data["parameter"]
    found = _look_up(parameter, name, catalog)
    if isinstance(found, Criterion):
        if found.parameter != number:
            raise ValueError(
                f"{parameter} names {name!r} with the parameter {number!r}, and there is one with {found.parameter!r}: "
                "give the criterion that you mean, or a function that makes it, in parts=[...]."
            )
        return found
    if number is None:
        raise ValueError(f"{parameter} names {name!r}, which has a parameter: use {{'name': ..., 'parameter': ...}}.")
    return found(number)


def _fields_of(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _check_keys(parameter: str, data: object, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{parameter} is {data!r}: it must be a mapping.")
    for key in data:
        if key not in known:
            raise ValueError(f"{parameter} has the unknown key {key!r}: remove it; known are {', '.join(known)}.")
    return data


def _look_up(parameter: str, name: object, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in catalog:
        raise ValueError(
            f"{parameter} names the unknown {name!r}: known are {', '.join(catalog)}. Give your own parts in "
            "parts=[...]."
        )
    return catalog[name]


def _part_to_dict(part: Any) -> dict[str, Any]:
    values = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else {}
    return {"kind": part.kind, **{key: _as(list, value) for key, value in values.items()}}


def _part_from_dict(parameter: str, data: object, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ValueError(f"{parameter} is {data!r}: it must be a mapping with the key 'kind'.")
    found = _look_up(parameter, data["kind"], catalog)
    cls = found if isinstance(found, type) else type(found)
    values = _check_keys(parameter, {key: value for key, value in data.items() if key != "kind"}, _fields_of(cls))
    return cls(**{key: _as(tuple, value) for key, value in values.items()})


def _as(sequence: type[list[Any]] | type[tuple[Any, ...]], value: Any) -> Any:
    """Lists as tuples, so that parts can be hashed; or tuples as lists, which JSON has."""
    return sequence(_as(sequence, one) for one in value) if isinstance(value, list | tuple) else value
