"""Recipes as plain data: parts by name, with their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from rigl_core.criteria import CRITERIA, Criterion
from rigl_core.distributions import DISTRIBUTIONS
from rigl_core.drop_fractions import DROP_FRACTIONS
from rigl_core.grown import GROWN_WEIGHTS
from rigl_core.ramps import RAMPS
from rigl_core.schedules import UpdateSchedule
from rigl_core.structures import STRUCTURES

_CATALOGS: Mapping[str, Mapping[str, type]] = {
    "distribution": DISTRIBUTIONS,
    "drop_fraction": DROP_FRACTIONS,
    "ramp": RAMPS,
    "structure": STRUCTURES,
    "grown": GROWN_WEIGHTS,
}
_CRITERIA = ("drop", "grow", "initial")


def to_dict(recipe: Any) -> dict[str, Any]:
    """A recipe as str, int, float, bool, None, lists and dicts."""
    data = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    for parameter in _CATALOGS:
        data[parameter] = None if data[parameter] is None else _part_to_dict(data[parameter])
    for parameter in _CRITERIA:
        data[parameter] = _criterion_to_data(data[parameter])
    if recipe.schedule is not None:
        data["schedule"] = dataclasses.asdict(recipe.schedule)
    data["dense"] = list(recipe.dense)
    data["layer_sparsity"] = [list(pair) for pair in recipe.layer_sparsity]
    return data


def from_dict(cls: type, data: object, parts: Iterable[Any]) -> dict[str, Any]:
    """The values of a recipe's fields that are given in ``data``."""
    values = dict(_check_keys("recipe", data, cls))
    own = {getattr(part, "kind", None) or part.name: part for part in parts}
    for parameter, catalog in _CATALOGS.items():
        if values.get(parameter) is not None:
            values[parameter] = _part_from_dict(parameter, values[parameter], {**catalog, **own})
    for parameter in _CRITERIA:
        if values.get(parameter) is not None:
            values[parameter] = _criterion_from_data(parameter, values[parameter], {**CRITERIA, **own})
    if values.get("schedule") is not None:
        values["schedule"] = UpdateSchedule(**_check_keys("schedule", values["schedule"], UpdateSchedule))
    return values


def _criterion_to_data(criterion: Criterion | None) -> Any:
    if criterion is None or criterion.parameter is None:
        return None if criterion is None else criterion.name
    return {"name": criterion.name, "parameter": criterion.parameter}


def _criterion_from_data(parameter: str, data: Any, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        return _look_up(parameter, data, catalog)
    if set(data) != {"name", "parameter"}:
        raise ValueError(f"{parameter} is {data!r}: it must be a name, or a mapping of 'name' and 'parameter'.")
    return _look_up(parameter, data["name"], catalog)(data["parameter"])


def _check_keys(parameter: str, data: object, cls: type) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{parameter} is {data!r}: it must be a mapping.")
    known = [field.name for field in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            raise ValueError(f"{parameter} has the unknown key {key!r}: remove it; known are {', '.join(known)}.")
    return data


def _look_up(parameter: str, name: object, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in catalog:
        raise ValueError(
            f"{parameter} names the unknown {name!r}: known are {', '.join(catalog)}. Hand parts of your own over "
            "with parts=[...]."
        )
    return catalog[name]


def _part_to_dict(part: Any) -> dict[str, Any]:
    values = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else {}
    plain = {key: list(map(list, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return {"kind": part.kind, **plain}


def _part_from_dict(parameter: str, data: object, catalog: Mapping[str, type]) -> Any:
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ValueError(f"{parameter} is {data!r}: it must be a mapping with the key 'kind'.")
    cls = _look_up(parameter, data["kind"], catalog)
    return cls(**_check_keys(parameter, {key: value for key, value in data.items() if key != "kind"}, cls))
